"""Measure ``hvshare erosion`` beside ``hvshare analyze`` of the same guests, and as guests grow."""

from __future__ import annotations

import math
import os
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Final

import click

from hvshare.units import PAGE_SIZE, format_size
from tests.benchmarks.benchmark import HVSHARE, Benchmark, common_options
from tests.benchmarks.measuring import Contestant, Race
from tests.benchmarks.slid_guests import write_pair, write_repeated
from tests.benchmarks.tables import Limit, mebibytes

_GUEST: Final = 512 << 20
_DISK: Final = 1 << 30
_GROWTH: Final = (1, 2, 4, 8)
_SECONDS: Final = {"large-pages": 2.0, "aslr": 20.0, "prefetch": 5.0}
_MOST_MEMORY: Final = 2 << 30


class ErosionBenchmark(Benchmark):
    """Two guests, their sections, and the same guests several times over."""

    def sections(self, a: Path, b: Path, disk: Path) -> Race:
        """Race ``hvshare analyze`` against the sections of ``hvshare erosion``."""
        size = a.stat().st_size + b.stat().st_size
        return self.race(
            "the sections",
            Contestant("hvshare analyze", (HVSHARE, "analyze", str(a), str(b)), size, size),
            *(
                Contestant(
                    f"hvshare erosion {section}",
                    (HVSHARE, "erosion", section, *(("--disk", str(disk)) if section == "prefetch" else ()),
                     str(a), str(b)),
                    size,
                    size,
                )
                for section in _SECONDS
            ),
        )  # fmt: skip

    def growth(self, a: Path, b: Path, folder: Path) -> dict[int, Race]:
        """Measure ASLR on the guests, several times over each; gives a race by how often."""
        races = {}
        size = a.stat().st_size + b.stat().st_size
        for times in _GROWTH:
            name = f"ASLR, two guests of {format_size(size * times // 2)}"
            if times == 1:
                pair = (a, b)
            elif self.has_room(name, size * times, size * times):
                pair = (
                    write_repeated(a, folder / "longer-a.raw", times),
                    write_repeated(b, folder / "longer-b.raw", times),
                )
            else:
                continue
            command = (HVSHARE, "erosion", "aslr", *map(str, pair))
            contestant = Contestant(f"erosion aslr, {times} x, once", command, size * times, size * times)
            races[times] = self.race(name, contestant, rounds=1)  # it takes minutes
        return races


def limits(sections: Race, growth: Mapping[int, Race], guest: int) -> list[Limit]:
    """Hold measurements against what the project has set itself, seconds for two cores among it.

    Parameters
    ----------
    sections : Race
        Of the sections.
    growth : mapping of int to Race
        Of ASLR, by how often the guests are repeated.
    guest : int
        Bytes of one of them.
    """
    found = []
    for section, most in _SECONDS.items():
        competitor = sections.competitor(f"hvshare erosion {section}")
        seconds = competitor.seconds if competitor else None
        found.append(Limit(f"two guests: {section}, seconds", seconds, most, exclusive=True))
    base = growth.get(1)
    for times, grown in growth.items():
        if base is not None and times > 1:
            measured = grown.leader.seconds / base.leader.seconds
            found.append(
                Limit(f"ASLR: {times} times the pages, of n log n", measured / _work(guest, times), 1.0)
            )
    most_times = growth.get(max(_GROWTH))
    found.append(
        Limit(
            f"ASLR: peak memory at {format_size(guest * max(_GROWTH))} a guest",
            None if most_times is None else most_times.leader.peak_bytes,
            _MOST_MEMORY,
            exclusive=True,
            show=mebibytes,
        )
    )
    return found


def _work(guest: int, times: int) -> float:
    """Tell by how much n log n grows."""
    pages = 2 * guest // PAGE_SIZE
    return times * math.log(times * pages) / math.log(pages)


@click.command()
@click.option(
    "--lab",
    envvar="LAB",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="A folder with aslr-a.raw, aslr-b.raw and disk.raw, instead of guests made to order.  [env: LAB]",
)
@click.option("--no-growth", is_flag=True, help="Two guests of 512 MiB only.")
@common_options
@click.pass_context
def main(
    ctx: click.Context, /, lab: Path | None, no_growth: bool, rounds: int, directory: Path, strict: bool
) -> None:
    """Measure hvshare erosion, and hold it against the limits of the project."""
    benchmark = ErosionBenchmark(rounds, directory)
    with tempfile.TemporaryDirectory(dir=directory) as made:
        folder = Path(made)
        if lab is None:
            a, b, disk = write_pair(folder, _GUEST, _DISK)
        else:
            a, b, disk = (lab / name for name in ("aslr-a.raw", "aslr-b.raw", "disk.raw"))
        sections = benchmark.sections(a, b, disk)
        growth = {} if no_growth else benchmark.growth(a, b, folder)
        found = limits(sections, growth, a.stat().st_size)
    title = f"hvshare erosion, {os.cpu_count()} processors; seconds are limited for two"
    benchmark.end(ctx, title, found, strict=strict)


if __name__ == "__main__":
    main()

"""Measure the whole command ``hvshare analyze`` beside other ways to read and hash the same file."""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Final

import click

from hvshare.cli.options import SizeType
from hvshare.units import PAGE_SIZE, format_size
from tests.benchmarks import plain_loop
from tests.benchmarks.benchmark import HVSHARE, Benchmark, analyze, common_options
from tests.benchmarks.guest_files import BATCH_BYTES, GrowingGuestFile, write_sparse_guest
from tests.benchmarks.measuring import Contestant, Race
from tests.benchmarks.tables import Limit, mebibytes

_XXHSUM: Final = "xxhsum -H3"
_PLAIN_LOOP: Final = "plain Python loop"
_IMPORT_CLICK: Final = 'python -c "import click"'

_SMALL: Final = 256 << 20
_LARGE: Final = 4 << 30
_SPARSE: Final = 1 << 40
_SPARSE_DATA: Final = 1 << 30
_DEFAULT_SIZES: Final = "256M,1G,4G,8G"
_QUICK_SIZES: Final = (_SMALL, 1 << 30)


class AnalyzeBenchmark(Benchmark):
    """Raw images, sparse ones, and the start of the command."""

    def raw_images(self, sizes: Sequence[int]) -> dict[int, Race]:
        """Race on raw images of several sizes, given in ascending order."""
        races = {}
        with tempfile.TemporaryDirectory(dir=self.directory) as folder:
            image = GrowingGuestFile(Path(folder, "guest.raw"))
            for size in sizes:
                name = f"a raw image of {format_size(size)}"
                if self.has_room(name, size, size - image.size):
                    image.grow_to(size)
                    races[size] = self.race(
                        name,
                        analyze("hvshare analyze", image.path, size, size),
                        *_hashers(image.path, size),
                    )
        return races

    def sparse_image(self) -> None:
        """Race on a sparse image against its data in a dense one."""
        name = f"a sparse image of {format_size(_SPARSE)}"
        if not self.has_room(name, 2 * _SPARSE_DATA, 2 * _SPARSE_DATA):
            return
        with tempfile.TemporaryDirectory(dir=self.directory) as folder:
            sparse, dense = Path(folder, "sparse.raw"), GrowingGuestFile(Path(folder, "dense.raw"))
            dense.grow_to(_SPARSE_DATA)
            try:
                write_sparse_guest(sparse, _SPARSE, _SPARSE_DATA)
            except OSError as error:
                self.skipped.append(f"{name}: {error.strerror}")
                return
            self.race(
                name,
                analyze("hvshare analyze, sparse", sparse, _SPARSE, _SPARSE_DATA),
                analyze("hvshare analyze, dense", dense.path, _SPARSE_DATA, _SPARSE_DATA),
            )

    def start(self) -> Race:
        """Race to a help text against the import of what it is made with."""
        return self.race(
            "the start",
            Contestant("hvshare --help", (HVSHARE, "--help")),
            Contestant(_IMPORT_CLICK, (sys.executable, "-c", "import click")),
        )


def _hashers(image: Path, size: int) -> tuple[Contestant, Contestant]:
    return (
        Contestant(
            _XXHSUM, ("xxhsum", "-H3", str(image)), size, size, advice="the Debian package xxhash has it"
        ),
        Contestant(_PLAIN_LOOP, (sys.executable, plain_loop.__file__, str(image)), size, size),
    )


def limits(raw_images: Mapping[int, Race], start: Race) -> list[Limit]:
    """Hold measurements against what the project has set itself.

    Parameters
    ----------
    raw_images : mapping of int to Race
        By size.
    start : Race
        Of the help text.

    Returns
    -------
    list of Limit
    """
    to_xxhsum = to_plain_loop = peak_bytes = None
    if large := raw_images.get(_LARGE):
        to_xxhsum, to_plain_loop = large.ratio(_XXHSUM), large.ratio(_PLAIN_LOOP)
        peak_bytes = large.leader.peak_bytes
    bytes_per_page = _memory_growth(raw_images)
    return [
        Limit("4 GiB: hvshare / xxhsum", to_xxhsum, 1.0),
        Limit("4 GiB: hvshare / plain loop", to_plain_loop, 1 / 3),
        Limit("seconds per GiB, worst step to the next size", _cost_growth(raw_images), 1.1),
        Limit("4 GiB: peak memory", peak_bytes, 400 << 20, exclusive=True, show=mebibytes),
        Limit("growth of peak memory, bytes per page", bytes_per_page, 24.0, show="{:.1f}".format),
        Limit("hvshare --help / import click", start.ratio(_IMPORT_CLICK), 3.0, exclusive=True),
    ]


def _cost_growth(raw_images: Mapping[int, Race]) -> float | None:
    """Find the step from one size to the next at which the cost of a byte grows most, or falls least."""
    costs = [race.leader.seconds / size for size, race in sorted(raw_images.items())]
    return max((later / earlier for earlier, later in pairwise(costs)), default=None)


def _memory_growth(raw_images: Mapping[int, Race]) -> float | None:
    if len(raw_images) < 2:
        return None
    smallest, largest = min(raw_images), max(raw_images)
    growth = raw_images[largest].leader.peak_bytes - raw_images[smallest].leader.peak_bytes
    return growth / ((largest - smallest) // PAGE_SIZE)


def _read_sizes(ctx: click.Context, param: click.Parameter, value: str) -> list[int]:
    sizes = sorted({SizeType().convert(part, param, ctx) for part in value.split(",")})
    for size in sizes:
        if not size or size % BATCH_BYTES:
            raise click.BadParameter(f"{size:,} bytes is no multiple of {format_size(BATCH_BYTES)}")
    return sizes


@click.command()
@click.option(
    "--sizes",
    default=_DEFAULT_SIZES,
    show_default=True,
    callback=_read_sizes,
    metavar="SIZE,...",
    help="Sizes of the raw images.",
)
@click.option("--quick", is_flag=True, help="Raw images of 256M and 1G only.")
@common_options
@click.pass_context
def main(
    ctx: click.Context, /, sizes: list[int], quick: bool, rounds: int, directory: Path, strict: bool
) -> None:
    """Measure hvshare analyze beside its competitors, and hold it against the limits of the project."""
    benchmark = AnalyzeBenchmark(rounds, directory)
    raw_images = benchmark.raw_images(_QUICK_SIZES if quick else sizes)
    benchmark.sparse_image()
    start = benchmark.start()
    benchmark.end(ctx, "hvshare analyze and its competitors", limits(raw_images, start), strict=strict)


if __name__ == "__main__":
    main()

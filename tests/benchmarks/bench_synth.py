"""Measure ``hvshare synth`` beside a copy of what it makes, and ``hvshare simulate`` with its series."""

from __future__ import annotations

import filecmp
import os
import resource
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from fractions import Fraction
from pathlib import Path
from statistics import median
from typing import Final

import click
from click.core import ParameterSource

from hvshare.cli.options import SizeType
from hvshare.synth.preset_file import load_preset, preset_names
from hvshare.units import LARGE_FRAME_SIZE, format_size
from tests.benchmarks.benchmark import HVSHARE, Benchmark, common_options
from tests.benchmarks.measuring import (
    CommandError,
    Contestant,
    Cost,
    Race,
    elapsed_seconds,
    peak_proportional,
)
from tests.benchmarks.tables import Limit, mebibytes

_SHARED_MEMORY: Final = Path("/dev/shm")  # noqa: S108  # files there cost no disk
_RATE: Final = 400_000_000
"""Bytes that a core makes in a second at least."""

_SERIES: Final = (HVSHARE, "simulate", "--experiment", "series", "--json", "-q")
_SERIES_SECONDS: Final = 120.0
_SERIES_MEMORY: Final = 4 << 30


class SynthBenchmark(Benchmark):
    """Guests of all presets, written to files; and the series."""

    def presets(self, size: int) -> dict[str, Race]:
        """Race the making of a guest of each preset against a copy and a checksum of its image."""
        races = {}
        for preset in preset_names():
            name = f"{preset}, {format_size(size)}"
            # A file that takes the place of an older one is there beside it until then.
            if self.has_room(name, 4 * size, 4 * size):
                with tempfile.TemporaryDirectory(dir=self.directory) as folder:
                    races[preset] = self._preset(name, preset, size, Path(folder))
        return races

    def _preset(self, name: str, preset: str, size: int, folder: Path) -> Race:
        one, two, copy = folder / "one.raw", folder / "two.raw", folder / "copy.raw"
        found = self.race(
            name,
            Contestant(f"synth {preset} -j 1", _synth(preset, size, 1, one), size, size),
            Contestant(f"synth {preset} -j 2", _synth(preset, size, 2, two), size, size),
            Contestant("cp of its image", ("cp", "--reflink=never", str(one), str(copy)), size, size),
            Contestant("sha256sum of its image", ("sha256sum", str(one)), size, size),
        )
        if not filecmp.cmp(one, two, shallow=False):
            raise click.ClickException(f"{name}: two processes make another guest than one")
        return found

    def processor_seconds(self, presets: Iterable[str], size: int) -> dict[str, tuple[float, float]]:
        """Measure what one process spends on a guest of each preset, and on one of a quarter of the size.

        Unlike seconds of a clock, they depend little on what else the machine does.
        """
        found = {}
        for preset in presets:
            click.echo(f"measuring processor seconds of {preset}", err=True)
            seconds: tuple[list[float], list[float]] = ([], [])
            with tempfile.TemporaryDirectory(dir=self.directory) as folder:
                for _ in range(self._rounds):
                    for each, times in zip((size // 4, size), seconds, strict=True):
                        times.append(_processor_seconds(_synth(preset, each, 1, Path(folder, "one.raw"))))
            found[preset] = (median(seconds[0]), median(seconds[1]))
        return found

    def series(self, rounds: int) -> Cost:
        """Measure the series at its default size; memory in a run of its own, since sampling costs time.

        Raises
        ------
        ClickException
            If it fails.
        """
        click.echo("measuring the series, which takes minutes", err=True)
        try:
            peak = peak_proportional(_SERIES)
            return Cost(median(elapsed_seconds(_SERIES) for _ in range(rounds)), peak)
        except CommandError as error:
            raise click.ClickException(str(error)) from error


def _synth(preset: str, size: int, jobs: int, output: Path) -> tuple[str, ...]:
    """Give the command that makes a guest; a scale makes the preset fit into its memory."""
    scale = Fraction(size, load_preset(preset).memory)
    options = ("--scale", str(scale), "--memory", str(size), "-j", str(jobs), "-o", str(output))
    return (HVSHARE, "synth", preset, *options)


def _processor_seconds(command: Sequence[str]) -> float:
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    elapsed_seconds(command)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def limits(presets: Mapping[str, tuple[float, float]], size: int, series: Cost | None) -> list[Limit]:
    """Hold measurements against what the project has set itself.

    Parameters
    ----------
    presets : mapping of str to (float, float)
        Processor seconds for a quarter of a guest and for a whole one, by the name of the preset.
    size : int
        Bytes of a whole one.
    series : Cost or None
        None if it was not measured.

    Returns
    -------
    list of Limit
        A rate is held as the processor seconds that it makes of its bytes.
    """
    megabytes = f"processor seconds for {_RATE // 10**6} MB"
    return [
        *(
            Limit(f"{preset}: {megabytes} more", (whole - quarter) / (size * 3 // 4) * _RATE, 1.0)
            for preset, (quarter, whole) in presets.items()
        ),
        *(
            Limit(f"{preset}: {megabytes}, start among them", whole / size * _RATE, 1.0)
            for preset, (_, whole) in presets.items()
        ),
        Limit("the series: seconds", None if series is None else series.seconds, _SERIES_SECONDS),
        Limit(
            "the series: peak memory (PSS of all processes)",
            None if series is None else series.peak_bytes,
            _SERIES_MEMORY,
            exclusive=True,
            show=mebibytes,
        ),
    ]


def _read_memory(ctx: click.Context, param: click.Parameter, value: str) -> int:
    size = SizeType().convert(value, param, ctx)
    if not size or size % (4 * LARGE_FRAME_SIZE):
        raise click.BadParameter(f"{size:,} bytes is no multiple of {format_size(4 * LARGE_FRAME_SIZE)}")
    return size


@click.command()
@click.option(
    "--memory", default="2G", show_default=True, callback=_read_memory, metavar="SIZE", help="Of a guest."
)
@click.option("--no-presets", is_flag=True, help="The series only.")
@click.option("--no-series", is_flag=True, help="The presets only.")
@click.option(
    "--series-rounds",
    type=click.IntRange(min=1),
    default=1,
    show_default=True,
    help="How often the series is timed.",
)
@common_options
@click.pass_context
def main(
    ctx: click.Context,
    /,
    memory: int,
    no_presets: bool,
    no_series: bool,
    series_rounds: int,
    rounds: int,
    directory: Path,
    strict: bool,
) -> None:
    """Measure hvshare synth and hvshare simulate, and hold them against the limits of the project.

    Files are made in memory where there is a file system for it, unless --dir names another place: synth
    waits until its file is on the disk, and it is not the disk that is to be measured.
    """
    chosen = ctx.get_parameter_source("directory") is not ParameterSource.DEFAULT
    if not chosen and os.access(_SHARED_MEMORY, os.W_OK):
        directory = _SHARED_MEMORY
    benchmark = SynthBenchmark(rounds, directory)
    races = {} if no_presets else benchmark.presets(memory)
    presets = benchmark.processor_seconds(races, memory)
    series = None if no_series else benchmark.series(series_rounds)
    title = f"hvshare synth, files in {directory}, {os.cpu_count()} processors; the series is limited for two"
    benchmark.end(ctx, title, limits(presets, memory, series), strict=strict)


if __name__ == "__main__":
    main()

"""Measure ``hvshare analyze`` on a guest in several formats, beside its raw image and libkdumpfile."""

from __future__ import annotations

import contextlib
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final, NamedTuple

import click

from hvshare.units import format_size
from tests.benchmarks.benchmark import Benchmark, analyze, common_options
from tests.benchmarks.format_files import WRITERS, write_in_format
from tests.benchmarks.guest_files import GrowingGuestFile, compressible_pages
from tests.benchmarks.measuring import Contestant, Measurement, Race
from tests.benchmarks.memory_holder import HolderError, holding
from tests.benchmarks.tables import Limit, mebibytes

_SIZE: Final = 2 << 30
_QUICK_SIZE: Final = 512 << 20

_RAW: Final = "raw"
_ELF: Final = "ELF core"
_LIME: Final = "LiME"
_PROCESS: Final = "running process"
_KDUMP: Final = "kdump-zlib"
_OTHERS: Final = ("kdump-lzo", "kdump-snappy", "kdump-zstd", "AVML", "QEMU migration stream")

_LOOP_IN_C: Final = "libkdumpfile, loop in C"
_LOOP_IN_PYTHON: Final = "libkdumpfile, loop in Python"
_LOOP_SOURCE: Final = Path(__file__).with_name("page_by_page.c")
_SYSTEM_PYTHON: Final = "/usr/bin/python3"

_MORE_MEMORY: Final = 64 << 20


class Races(NamedTuple):
    """What was measured, None for want of room."""

    plain: Race | None = None
    kdump: Race | None = None


class FormatBenchmark(Benchmark):
    """One guest in one group of formats after another."""

    def run(self, size: int) -> Races:
        """Race on a guest of some size."""
        # On the disk at a time, at the most: the raw image and two more files of its size. In memory: these
        # and a process.
        if not self.has_room(f"a guest of {format_size(size)}", 4 * size, 3 * size):
            return Races()
        with tempfile.TemporaryDirectory(dir=self.directory) as folder:
            click.echo("making a guest", err=True)
            image = GrowingGuestFile(Path(folder, "guest.raw"), compressible_pages)
            image.grow_to(size)
            raw = analyze(_RAW, image.path, size, size)
            races = Races(self._plain(raw, image), self._kdump(image))
            with self._files(image, _OTHERS) as files:
                self._race_formats("further formats", raw, *files)
            return races

    def _plain(self, raw: Contestant, image: GrowingGuestFile) -> Race:
        """Race on pages that are stored as they are."""
        with contextlib.ExitStack() as stack:
            contestants = [raw, *stack.enter_context(self._files(image, [_ELF, _LIME]))]
            try:
                pid = stack.enter_context(holding(image.path))
                contestants.append(analyze(_PROCESS, f"pid:{pid}", image.size, image.size))
            except HolderError as error:
                self.skipped.append(f"{_PROCESS}: {error}")
            return self._race_formats("formats that store pages as they are", *contestants)

    def _kdump(self, image: GrowingGuestFile) -> Race:
        """Race against page-by-page reading, by the fastest program possible and by the most usual one."""
        with self._files(image, [_KDUMP]) as files, tempfile.TemporaryDirectory() as folder:
            dump = files[0].command[-1], str(image.pages)
            contestants = [*files]
            try:
                program = _compile_loop(Path(folder, "page_by_page"))
                contestants.append(Contestant(_LOOP_IN_C, (program, *dump), files[0].size, image.size))
            except CompilerError as error:
                self.skipped.append(f"{_LOOP_IN_C}: {error}")
            contestants.append(
                Contestant(
                    _LOOP_IN_PYTHON,
                    (_SYSTEM_PYTHON, str(_LOOP_SOURCE.with_suffix(".py")), *dump),
                    files[0].size,
                    image.size,
                    advice="the Debian package python3-libkdumpfile has what it takes",
                )
            )
            return self._race_formats("kdump-zlib and libkdumpfile", *contestants)

    @contextlib.contextmanager
    def _files(self, image: GrowingGuestFile, formats: Sequence[str]) -> Iterator[list[Contestant]]:
        """Write the guest in some formats, and take the files away later."""
        with tempfile.TemporaryDirectory(dir=self.directory) as folder:
            contestants = []
            for name in formats:
                click.echo(f"writing {name}", err=True)
                path = Path(folder, name)
                size = write_in_format(WRITERS[name], image.path, path)
                contestants.append(analyze(name, path, size, image.size))
            yield contestants

    def _race_formats(self, name: str, *contestants: Contestant) -> Race:
        result = self.race(name, *contestants)
        for contestant, reason in result.failures.items():
            # Rights to read a process may be missing, and libkdumpfile; a file that is not read is a defect.
            if contestant.name in WRITERS:
                raise click.ClickException(f"{contestant.name}: {reason}")
        return result


class CompilerError(Exception):
    """There is no compiler, or not what the program needs."""


def _compile_loop(program: Path) -> str:
    """Compile the loop over all pages of a dump."""
    try:
        done = subprocess.run(
            ["cc", "-O2", "-o", str(program), str(_LOOP_SOURCE), "-lkdumpfile"],
            capture_output=True,
            text=True,
            check=False,
        )
    except FileNotFoundError:
        raise CompilerError("there is no C compiler; the Debian package gcc has one") from None
    if done.returncode:
        reason = next((line for line in done.stderr.splitlines() if "error" in line), "it does not compile")
        raise CompilerError(f"{reason}; the Debian package libkdumpfile-dev has what it takes")
    return str(program)


def limits(size: int, races: Races) -> list[Limit]:
    """Hold measurements against what the project has set itself.

    Parameters
    ----------
    size : int
        Of the guest.
    races : Races
        What was measured.

    Returns
    -------
    list of Limit
    """
    label = format_size(size)
    formats = _limited_formats(races)
    raw = races.plain.leader if races.plain else None

    def seconds(name: str) -> float | None:
        return formats[name].seconds / raw.seconds if raw and name in formats else None

    def to_loop(name: str) -> float | None:
        return races.kdump.ratio(name) if races.kdump else None

    def more_memory(name: str) -> float | None:
        return formats[name].peak_bytes - raw.peak_bytes if raw and name in formats else None

    return [
        Limit(f"{label}: {_ELF} / {_RAW}", seconds(_ELF), 1.2),
        Limit(f"{label}: {_LIME} / {_RAW}", seconds(_LIME), 1.2),
        Limit(f"{label}: {_PROCESS} / {_RAW}", seconds(_PROCESS), 2.0),
        Limit(f"{label}: {_KDUMP} / {_LOOP_IN_C}", to_loop(_LOOP_IN_C), 0.5),
        Limit(f"{label}: {_KDUMP} / {_LOOP_IN_PYTHON}", to_loop(_LOOP_IN_PYTHON), 0.5),
        *(
            Limit(
                f"{label}: peak memory of {name} - that of {_RAW}",
                more_memory(name),
                _MORE_MEMORY,
                show=mebibytes,
            )
            for name in (_ELF, _LIME, _PROCESS, _KDUMP)
        ),
    ]


def _limited_formats(races: Races) -> dict[str, Measurement]:
    measured = [
        *(races.plain.competitors if races.plain else ()),
        *([races.kdump.leader] if races.kdump else ()),
    ]
    return {each.contestant.name: each for each in measured}


@click.command()
@click.option("--quick", is_flag=True, help="A guest of 512M instead of 2G.")
@common_options
@click.pass_context
def main(ctx: click.Context, /, quick: bool, rounds: int, directory: Path, strict: bool) -> None:
    """Measure hvshare analyze on a guest in several formats, and hold it against the project's limits."""
    size = _QUICK_SIZE if quick else _SIZE
    benchmark = FormatBenchmark(rounds, directory)
    races = benchmark.run(size)
    benchmark.end(ctx, "hvshare analyze on one guest in several formats", limits(size, races), strict=strict)


if __name__ == "__main__":
    main()

"""Measure the whole command ``hvshare analyze`` beside other ways to read and hash the same file."""

from __future__ import annotations

import shutil
import sys
import sysconfig
import tempfile
from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Final

import click
from rich.console import Console

from hvshare.cli.options import SizeType
from hvshare.units import PAGE_SIZE, format_size
from tests.benchmarks import plain_loop
from tests.benchmarks.guest_files import BATCH_BYTES, GrowingGuestFile, write_sparse_guest
from tests.benchmarks.measuring import CommandError, Contestant, Race, race
from tests.benchmarks.tables import Limit, limits_list, races_table

_HVSHARE: Final = str(Path(sysconfig.get_path("scripts"), "hvshare"))
_XXHSUM: Final = "xxhsum -H3"
_PLAIN_LOOP: Final = "plain Python loop"
_IMPORT_CLICK: Final = 'python -c "import click"'

_SMALL: Final = 256 << 20
_LARGE: Final = 4 << 30
_SPARSE: Final = 1 << 40
_SPARSE_DATA: Final = 1 << 30
_DEFAULT_SIZES: Final = "256M,1G,4G,8G"
_QUICK_SIZES: Final = (_SMALL, 1 << 30)


class Benchmark:
    """The races that can be run on this machine.

    Parameters
    ----------
    rounds : int
        How often each command is timed.
    directory : Path
        Where files are made while they are needed.

    Attributes
    ----------
    skipped : list of str
        What there is no room for.
    """

    def __init__(self, rounds: int, directory: Path) -> None:
        self.skipped: list[str] = []
        self._rounds = rounds
        self._directory = directory

    def raw_images(self, sizes: Sequence[int]) -> dict[int, Race]:
        """Race on raw images of several sizes, given in ascending order."""
        races = {}
        with tempfile.TemporaryDirectory(dir=self._directory) as folder:
            image = GrowingGuestFile(Path(folder, "guest.raw"))
            for size in sizes:
                name = f"a raw image of {format_size(size)}"
                if self._has_room(name, size, size - image.size):
                    image.grow_to(size)
                    races[size] = self._race(
                        name,
                        _analyze("hvshare analyze", image.path, size, size),
                        *_hashers(image.path, size),
                    )
        return races

    def sparse_image(self) -> Race | None:
        """Race on a sparse image against its data in a dense one."""
        name = f"a sparse image of {format_size(_SPARSE)}"
        if not self._has_room(name, 2 * _SPARSE_DATA, 2 * _SPARSE_DATA):
            return None
        with tempfile.TemporaryDirectory(dir=self._directory) as folder:
            sparse, dense = Path(folder, "sparse.raw"), GrowingGuestFile(Path(folder, "dense.raw"))
            dense.grow_to(_SPARSE_DATA)
            try:
                write_sparse_guest(sparse, _SPARSE, _SPARSE_DATA)
            except OSError as error:
                self.skipped.append(f"{name}: {error.strerror}")
                return None
            return self._race(
                name,
                _analyze("hvshare analyze, sparse", sparse, _SPARSE, _SPARSE_DATA),
                _analyze("hvshare analyze, dense", dense.path, _SPARSE_DATA, _SPARSE_DATA),
            )

    def start(self) -> Race:
        """Race to a help text against the import of what it is made with."""
        return self._race(
            "the start",
            Contestant("hvshare --help", (_HVSHARE, "--help")),
            Contestant(_IMPORT_CLICK, (sys.executable, "-c", "import click")),
        )

    def _race(self, name: str, *contestants: Contestant) -> Race:
        click.echo(f"measuring {name}", err=True)
        return race(contestants, self._rounds)

    def _has_room(self, name: str, cached_bytes: int, new_bytes: int) -> bool:
        free = shutil.disk_usage(self._directory).free
        available = _available_memory()
        if new_bytes > free:
            self.skipped.append(f"{name}: only {format_size(free)} are free in {self._directory}")
        elif cached_bytes > available:
            # It would be the disk that is measured.
            self.skipped.append(f"{name}: only {format_size(available)} of memory are left to cache it")
        else:
            return True
        return False


def _analyze(name: str, image: Path, size: int, data_bytes: int) -> Contestant:
    return Contestant(name, (_HVSHARE, "analyze", str(image)), size, data_bytes)


def _hashers(image: Path, size: int) -> tuple[Contestant, Contestant]:
    return (
        Contestant(
            _XXHSUM, ("xxhsum", "-H3", str(image)), size, size, advice="the Debian package xxhash has it"
        ),
        Contestant(_PLAIN_LOOP, (sys.executable, plain_loop.__file__, str(image)), size, size),
    )


def _available_memory() -> int:
    for line in Path("/proc/meminfo").read_text().splitlines():
        if line.startswith("MemAvailable:"):
            return int(line.split()[1]) << 10
    raise OSError("/proc/meminfo does not tell the available memory")


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
        Limit("4 GiB: peak memory", peak_bytes, 400 << 20, exclusive=True, show=_mebibytes),
        Limit("growth of peak memory, bytes per page", bytes_per_page, 24.0, show="{:.1f}".format),
        Limit("hvshare --help / import click", start.ratio(_IMPORT_CLICK), 3.0, exclusive=True),
    ]


def _mebibytes(size: float) -> str:
    return f"{size / (1 << 20):.1f} MiB"


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
@click.option(
    "--rounds",
    type=click.IntRange(min=1),
    default=5,
    show_default=True,
    help="How often each command is timed.",
)
@click.option(
    "--dir",
    "directory",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    default=tempfile.gettempdir,
    help="Where files are made and removed again.  [default: that of temporary files]",
)
@click.option("--strict", is_flag=True, help="Exit with 1 if a limit is missed.")
@click.pass_context
def main(
    ctx: click.Context, /, sizes: list[int], quick: bool, rounds: int, directory: Path, strict: bool
) -> None:
    """Measure hvshare analyze beside its competitors, and hold it against the limits of the project."""
    benchmark = Benchmark(rounds, directory)
    try:
        raw_images = benchmark.raw_images(_QUICK_SIZES if quick else sizes)
        sparse = benchmark.sparse_image()
        start = benchmark.start()
    except CommandError as error:
        raise click.ClickException(str(error)) from error
    races = [*raw_images.values(), *([sparse] if sparse else []), start]
    checked = limits(raw_images, start)
    console = Console()
    console.print(races_table("hvshare analyze and its competitors", races, rounds))
    for reason in benchmark.skipped:
        console.print(f"skipped {reason}")
    console.print()
    console.print(limits_list(checked))
    ctx.exit(int(strict and any(limit.missed for limit in checked)))


if __name__ == "__main__":
    main()

"""What the benchmarks have in common: room for their files, races, options, and how they end."""

from __future__ import annotations

import shutil
import sysconfig
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final

import click
from rich.console import Console
from rich.table import Table

from hvshare.cli.options import add_options
from hvshare.units import format_size
from tests.benchmarks.measuring import CommandError, Contestant, Race, race
from tests.benchmarks.tables import Limit, limits_list, races_table

HVSHARE: Final = str(Path(sysconfig.get_path("scripts"), "hvshare"))
"""The command that is measured."""


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
        What cannot be run here, and why.
    """

    def __init__(self, rounds: int, directory: Path) -> None:
        self.skipped: list[str] = []
        self.directory = directory
        self._rounds = rounds
        self._races: list[Race] = []

    def race(self, name: str, *contestants: Contestant, rounds: int | None = None) -> Race:
        """Race, the leader first; in other rounds than asked for, if these would take too long.

        Raises
        ------
        ClickException
            If the leader fails.
        """
        click.echo(f"measuring {name}", err=True)
        try:
            result = race(contestants, rounds or self._rounds)
        except CommandError as error:
            raise click.ClickException(str(error)) from error
        self._races.append(result)
        return result

    def has_room(self, name: str, cached_bytes: int, new_bytes: int) -> bool:
        """Tell whether there is room in memory and on the disk, and note what is skipped for want of it."""
        free = shutil.disk_usage(self.directory).free
        available = _available_memory()
        if new_bytes > free:
            self.skipped.append(f"{name}: only {format_size(free)} are free in {self.directory}")
        elif cached_bytes > available:
            # It would be the disk that is measured.
            self.skipped.append(f"{name}: only {format_size(available)} of memory are left to cache it")
        else:
            return True
        return False

    def end(self, ctx: click.Context, title: str, limits: Sequence[Limit], *, strict: bool) -> None:
        """Show what was measured, and exit with 1 if it is strict and a limit is missed."""
        # A table without rows would wrap its title and explain columns that have nothing in them.
        result = races_table(title, self._races, self._rounds) if self._races else title
        end(ctx, result, self.skipped, limits, strict=strict)


def end(
    ctx: click.Context,
    result: Table | str,
    skipped: Sequence[str],
    limits: Sequence[Limit],
    *,
    strict: bool,
) -> None:
    """Show a result, what was skipped and the limits, and exit with 1 if it is strict and one is missed."""
    console = Console()
    console.print(result)
    for reason in skipped:
        console.print(f"skipped {reason}")
    console.print()
    console.print(limits_list(limits))
    ctx.exit(int(strict and any(limit.missed for limit in limits)))


def analyze(name: str, image: Path | str, size: int, data_bytes: int) -> Contestant:
    """Make a contestant of ``hvshare analyze``, with bytes of the image and of guest memory in it."""
    return Contestant(name, (HVSHARE, "analyze", str(image)), size, data_bytes)


def common_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Give a command the options of every benchmark: rounds, directory and strict."""
    return add_options(
        command,
        click.option(
            "--rounds",
            type=click.IntRange(min=1),
            default=5,
            show_default=True,
            help="How often each command is timed.",
        ),
        click.option(
            "--dir",
            "directory",
            type=click.Path(exists=True, file_okay=False, path_type=Path),
            default=tempfile.gettempdir,
            help="Where files are made and removed again.  [default: that of temporary files]",
        ),
        click.option("--strict", is_flag=True, help="Exit with 1 if a limit is missed."),
    )


def _available_memory() -> int:
    for line in Path("/proc/meminfo").read_text().splitlines():
        if line.startswith("MemAvailable:"):
            return int(line.split()[1]) << 10
    raise OSError("/proc/meminfo does not tell the available memory")

"""What commands that make guests to order have in common: options, their values, and real libraries."""

from __future__ import annotations

from fractions import Fraction
from typing import TYPE_CHECKING, Any

import click

from hvshare.cli.interrupts import deferred_interrupts
from hvshare.units import parse_fraction

if TYPE_CHECKING:
    from collections.abc import Callable

    from hvshare.cli.options import Command
    from hvshare.synth.mapped.image import MappedImage
    from hvshare.synth.preset import Preset


class FractionType(click.ParamType[Fraction]):
    """A number such as 0.25 or 1/4, within bounds.

    Parameters
    ----------
    most : int
        The largest one.
    zero : bool
        Whether 0 is one.
    """

    name = "fraction"

    def __init__(self, most: int = 1, *, zero: bool = True) -> None:
        self._most = most
        self._zero = zero

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Fraction:
        """Read a fraction exactly, or fail as wrong usage."""
        try:
            number = value if isinstance(value, Fraction) else parse_fraction(value)
        except ValueError:
            number = Fraction(-1)
        if not 0 <= number <= self._most or not (number or self._zero):
            least = "from 0" if self._zero else "above 0 and up"
            self.fail(f"{value!r} is no number {least} to {self._most}, such as 0.25 or 1/4.", param, ctx)
        return number


def fragmentation_option(command: Command) -> Command:
    """Add the option that tells how much of a guest's memory is in pieces."""
    return click.option(
        "--fragmentation",
        type=FractionType(),
        metavar="FRACTION",
        help="Share of the blocks of 2 MB that are broken up.  [default: the preset's]",
    )(command)


def libraries_option(command: Command) -> Command:
    """Add the option that names real libraries; see `real_libraries`."""
    return click.option(
        "--images",
        metavar="DIR",
        type=click.Path(),
        help="Take libraries from the PE files and ELF shared objects in a folder that are of the preset's "
        "architecture.",
    )(command)


def real_libraries(
    preset: Preset, template: int, folder: str | None, warn: Callable[[str], None]
) -> tuple[MappedImage, ...]:
    """Choose what takes the place of made libraries, and warn of files that cannot.

    Raises
    ------
    PresetError
        If the folder has none.
    ResourceError
        If it has PE files and pefile is not installed.
    """
    if folder is None:
        return ()
    with deferred_interrupts():
        from hvshare.synth.template import images_for
    found = images_for(preset, template, folder)
    for reason, count in sorted(found.skipped.items()):
        warn(f"{folder}: {count:,} files left out: {reason}")
    return found.images

"""What commands that make guests to order have in common: options, their values, and real libraries."""

from __future__ import annotations

import contextlib
from fractions import Fraction
from typing import TYPE_CHECKING, Any

import click

from hvshare.cli.interrupts import deferred_interrupts
from hvshare.errors import OutputError, ResourceError
from hvshare.report.output import is_standard_output
from hvshare.units import PAGE_SIZE, format_size, parse_fraction

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

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


def check_outside(folder: str | None, outputs: Mapping[str, str | None]) -> None:
    """Refuse to write among the files that libraries are taken from.

    Parameters
    ----------
    folder : str or None
        That of --images.
    outputs : mapping of str to str or None
        What is to be written, by the options that name it.

    Raises
    ------
    OutputError
        If it would be one of these files, or be taken for one the next time.
    """
    if folder is None:
        return
    with deferred_interrupts():
        from hvshare.synth.mapped.reading import holds
    for option, path in outputs.items():
        if path is not None and not is_standard_output(path) and holds(folder, path):
            raise OutputError(
                f"it belongs to {folder}, where --images takes libraries from",
                path=path,
                advice=f"name another place for {option}",
            )


@contextlib.contextmanager
def enough_memory() -> Iterator[None]:
    """Say what to do where a guest is too large to be planned here.

    Raises
    ------
    ResourceError
        If memory runs out within the block.
    """
    try:
        yield
    except MemoryError as error:
        raise ResourceError(
            "out of memory: this machine has too little of it to plan so large a guest",
            advice="give the guest less --memory, or a smaller --scale",
        ) from error


def real_libraries(
    preset: Preset,
    template: int,
    folder: str | None,
    warn: Callable[[str], None],
    tell: Callable[[str], None] = lambda _: None,
) -> tuple[MappedImage, ...]:
    """Choose what takes the place of made libraries, and say how much of it there is.

    Parameters
    ----------
    preset : Preset
        Scaled already.
    template : int
        The seed of the template.
    folder : str or None
        Where real libraries are.
    warn : callable
        Is told of files that are none, and how much is taken if that is less than half of the preset's.
    tell : callable
        Is told how much is taken otherwise.

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
    size, wanted = sum(len(image.pages) for image in found.images) * PAGE_SIZE, preset.disk.libraries
    told = (
        f"{folder}: libraries taken: {len(found.images):,}, {format_size(size)} of the {format_size(wanted)} "
        f"that the preset has; too large for what was left: {found.passed_over:,}"
    )
    if 2 * size < wanted:
        warn(
            f"{told}; guests hold less of libraries than the preset says, so ASLR and sharing differ, too: "
            "name a folder that has more of them, or smaller ones"
        )
    else:
        tell(told)
    return found.images

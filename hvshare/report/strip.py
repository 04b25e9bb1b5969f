"""Memory maps as strips of signs: kinds of pages by shape and by colour."""

from __future__ import annotations

from itertools import groupby
from typing import TYPE_CHECKING, Final, NamedTuple

from rich.text import Text

from hvshare.report.console import data
from hvshare.sharing.memory_map import PageKind
from hvshare.units import format_size

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rich.console import Console, ConsoleOptions, RenderResult

    from hvshare.sharing.memory_map import MemoryMap

_SIZE_COLUMNS: Final = 10
_MOST_NAME_COLUMNS: Final = 24


class _Look(NamedTuple):
    sign: str
    plain_sign: str
    style: str


_LOOKS: Final = {
    PageKind.ZERO: _Look("·", ".", "bright_black"),
    PageKind.SELF: _Look("▒", "=", "cyan"),
    PageKind.INTER: _Look("▓", "+", "green"),
    PageKind.UNIQUE: _Look("█", "#", "yellow"),
    PageKind.ABSENT: _Look("×", "?", "red"),
    PageKind.NONE: _Look(" ", " ", ""),
}


def strip_cells(width: int, names: Sequence[str]) -> int:
    """Tell how many cells a strip has beside its name, so that maps can be made to measure."""
    return width - _name_columns(names) - _SIZE_COLUMNS - 4


def _name_columns(names: Sequence[str]) -> int:
    return min(_MOST_NAME_COLUMNS, max((data(name).cell_len for name in names), default=0))


class MapStrips:
    """One strip an image, over its addresses from 0 on or over its memory alone, and a legend.

    Parameters
    ----------
    maps : sequence of MemoryMap
        With as many cells as `strip_cells` says.
    """

    def __init__(self, maps: Sequence[MemoryMap]) -> None:
        self._maps = maps

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """Lay the strips out for a console."""
        ascii_only = options.ascii_only
        indent = _name_columns([each.image for each in self._maps])
        for each in self._maps:
            line = data(each.image)
            if line.cell_len > indent:
                yield line
                line = Text()
            line.no_wrap, line.overflow = True, "ignore"
            line.pad_right(indent - line.cell_len + 2)
            for kind, cells in groupby(each.cells):
                look = _LOOKS[kind]
                line.append((look.plain_sign if ascii_only else look.sign) * len(list(cells)), look.style)
            yield line.append(f"  {format_size(each.span)}")
        yield self._legend(ascii_only=ascii_only)

    def _legend(self, *, ascii_only: bool) -> Text:
        shown = {kind for each in self._maps for kind, pages in each.pages.items() if pages}
        shown |= {kind for each in self._maps for kind in each.cells}
        legend = Text()
        for kind, look in _LOOKS.items():
            if kind in shown and kind is not PageKind.NONE:
                legend.append(look.plain_sign if ascii_only else look.sign, look.style)
                legend.append(f" {kind.value}   ")
        legend.rstrip()
        return legend

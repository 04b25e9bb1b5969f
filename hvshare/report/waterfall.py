"""From the sharing that would be possible to what is left of it: a bar a factor."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

from rich.text import Text

from hvshare.erosion.report import Kind
from hvshare.report.console import add_figure_column, data_table
from hvshare.report.intervals import format_change, format_interval, format_share_interval

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rich.console import Console
    from rich.table import Table

    from hvshare.erosion.report import WaterfallStep

_NAMES: Final = {
    "possible": "possible",
    "prefetch": "prefetching",
    "aslr": "ASLR",
    "large-pages": "large pages",
    "left": "left at 2 MB",
}
_LEVELS: Final = ("possible", "left")
_LEAST_BAR: Final = 8


class _Part(NamedTuple):
    """A part of a bar, in bytes, that is or may be saved."""

    start: int
    end: int
    certain: bool


class _Row(NamedTuple):
    """A line of a waterfall.

    Attributes
    ----------
    name, kind, memory, share : str
        What stands before the bar.
    parts : tuple of _Part
        Of the bar, from left to right.
    is_level : bool
        Whether it tells what is saved, and not what is lost.
    """

    name: str
    kind: str
    memory: str
    share: str
    parts: tuple[_Part, ...]
    is_level: bool


def waterfall_table(
    steps: Sequence[WaterfallStep], *, saved_now: int, memory: int, console: Console
) -> Table:
    """Draw a waterfall.

    Parameters
    ----------
    steps : sequence of WaterfallStep
        From ``possible`` to ``left``.
    saved_now : int
        Bytes that sharing saves at 4 KB as the images are; a line of its own.
    memory : int
        Bytes of all images, of which the shares are.
    console : Console
        Which it has to fit.
    """
    rows: list[_Row] = []
    level = 0
    for step in reversed(steps):  # from the least up, as each bar stands on the next
        rows.append(_row(step, level, memory))
        if step.factor == "large-pages":
            rows.append(_level("now at 4 KB", Kind.MEASURED, saved_now, saved_now, memory))
        if step.factor not in _LEVELS:
            level += step.upper_bytes
        elif step.factor == "left":
            level = step.upper_bytes
    rows.reverse()
    titles = ("", "Kind", "Memory", "of memory")
    widths = [max(map(len, column)) for column in zip(titles, *(row[:4] for row in rows), strict=True)]
    room = max(_LEAST_BAR, console.width - sum(widths) - 2 * len(widths))
    ascii_only = console.options.ascii_only
    table = data_table()
    for title in titles[:2]:
        table.add_column(Text(title), no_wrap=True)
    for title in titles[2:]:
        add_figure_column(table, title)
    add_figure_column(table, "", "left")
    scale = max(1, *(part.end for row in rows for part in row.parts))
    for row in rows:
        bar = _bar(row, scale, room, ascii_only=ascii_only)
        table.add_row(*row[:4], bar, style="bold" if row.is_level else "")
    return table


def waterfall_legend(*, ascii_only: bool) -> Text:
    """Tell what the signs of a waterfall mean."""
    certain, uncertain = _signs(ascii_only=ascii_only)
    return Text(
        f"{certain} certain   {uncertain} at the most; - takes away from sharing, + adds to it", "dim"
    )


def _row(step: WaterfallStep, level: int, memory: int) -> _Row:
    low, high = step.lower_bytes, step.upper_bytes
    if step.factor in _LEVELS:
        return _level(_NAMES[step.factor], step.kind, low, high, memory)
    least, most = level + low, level + high
    parts: tuple[_Part, ...]
    if low >= 0:
        parts = (_Part(level, least, certain=True), _Part(least, most, certain=False))
    elif high <= 0:
        parts = (_Part(least, most, certain=False), _Part(most, level, certain=True))
    else:
        parts = (_Part(least, most, certain=False),)
    change, share = format_change(low, high), format_share_interval(low, high, memory)
    return _Row(_NAMES[step.factor], step.kind, change, share, parts, is_level=False)


def _level(name: str, kind: Kind, low: int, high: int, memory: int) -> _Row:
    share = format_share_interval(low, high, memory)
    parts = (_Part(0, low, certain=True), _Part(low, high, certain=False))
    return _Row(name, kind, format_interval(low, high), share, parts, is_level=True)


def _bar(row: _Row, scale: int, room: int, *, ascii_only: bool) -> Text:
    """Draw the parts of a bar; one that is not empty takes a cell at least."""
    parts = [part for part in row.parts if part.end > part.start]
    cells = [
        round(end * room / scale)
        for end in (*(part.start for part in parts), *(part.end for part in parts[-1:]))
    ]
    for index in reversed(range(len(parts))):
        cells[index] = max(0, min(cells[index], cells[index + 1] - 1))
    signs = _signs(ascii_only=ascii_only)
    bar = Text(" " * cells[0] if cells else "", no_wrap=True, overflow="ignore")
    for index, part in enumerate(parts):
        sign = signs[0] if part.certain else signs[1]
        bar.append(sign * max(1, cells[index + 1] - cells[index]), "cyan" if row.is_level else "yellow")
    return bar


def _signs(*, ascii_only: bool) -> tuple[str, str]:
    return ("#", "=") if ascii_only else ("█", "▒")

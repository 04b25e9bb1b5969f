"""Shares of memory over what varies, drawn in the terminal: areas on each other, and marks before them."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Final, NamedTuple

from rich.cells import cell_len
from rich.text import Text

from hvshare.report.console import data
from hvshare.report.text import printable

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rich.console import Console, ConsoleOptions, RenderResult

_ROWS: Final = 12
_LABEL_COLUMNS: Final = 7
_MOST_COLUMNS: Final = 100
_TOPS: Final = (1, 2, 5, 10, 20, 30, 40, 50, 60, 80, 100)


class _Look(NamedTuple):
    sign: str
    plain_sign: str
    style: str


_AREAS: Final = (_Look("░", ".", "bright_black"), _Look("▓", "#", "cyan"))
_MARKS: Final = (_Look("●", "O", "bold yellow"), _Look("○", "*", "bold green"))


class _Lines(NamedTuple):
    vertical: str
    horizontal: str
    corner: str
    tick: str


_LINES: Final = _Lines("│", "─", "└", "┴")
_PLAIN_LINES: Final = _Lines("|", "-", "+", "+")


@dataclass(frozen=True)
class Curve:
    """Shares to draw, one a point.

    Attributes
    ----------
    name : str
        For the legend.
    shares : tuple of float
        From 0 to 1.
    """

    name: str
    shares: tuple[float, ...]


class Plot:
    """Areas that stand on each other, and marks, over points of one axis.

    Points that are numbers in ascending order are drawn to scale where each has a column of its own; all
    others are equally far apart. Between numbers, areas lead straight from one to the next; words have steps.

    Parameters
    ----------
    values : sequence of int, float or str
        Where the points are; at least two.
    labels : sequence of str
        How people write them.
    title : str
        Of the axis.
    areas : sequence of Curve
        From the axis up, at most two.
    marks : sequence of Curve
        At most two.
    """

    def __init__(
        self,
        values: Sequence[float | str],
        labels: Sequence[str],
        title: str,
        *,
        areas: Sequence[Curve],
        marks: Sequence[Curve],
    ) -> None:
        self._values = values
        self._labels = labels
        self._title = title
        self._areas = areas
        self._marks = marks

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """Lay the plot out for a console."""
        plain = options.ascii_only
        lines = _PLAIN_LINES if plain else _LINES
        columns = min(options.max_width, _MOST_COLUMNS) - _LABEL_COLUMNS - 2
        places, to_scale = _places(self._values, columns)
        straight = not any(isinstance(value, str) for value in self._values)
        levels = [_along(level, places, columns, straight=straight) for level in self._levels()]
        top = self._top()
        marked = _marked(self._marks, places, top)
        for row in range(_ROWS - 1, -1, -1):
            label = f"{top * (row + 1) / _ROWS:g} %" if (row + 1) % (_ROWS // 2) == 0 else ""
            line = _line(f"{label:>{_LABEL_COLUMNS}} {lines.vertical}")
            middle = top * (2 * row + 1) / (2 * _ROWS)
            for column in range(columns):
                look = marked.get((row, column)) or _area(levels, column, middle)
                if look is None:
                    line.append(" ")
                else:
                    line.append(look.plain_sign if plain else look.sign, look.style)
            yield line
        axis = "".join(lines.tick if column in places else lines.horizontal for column in range(columns))
        yield _line(f"{'0 %':>{_LABEL_COLUMNS}} {lines.corner}{axis}")
        indent = " " * (_LABEL_COLUMNS + 2)
        yield _line(indent + _labelled(self._labels, places, columns))
        title = self._title if to_scale else f"{self._title} (not to scale)"
        yield _line(indent).append_text(data(title.center(columns).rstrip()))
        yield self._legend(plain=plain)

    def _levels(self) -> list[list[float]]:
        """Put each area on those before it; in percent, one a point."""
        levels: list[list[float]] = []
        below = [0.0] * len(self._values)
        for area in self._areas:
            below = [low + 100 * share for low, share in zip(below, area.shares, strict=True)]
            levels.append(below)
        return levels

    def _top(self) -> int:
        highest = max(
            (*(level for area in self._levels() for level in area),
             *(100 * share for mark in self._marks for share in mark.shares)),
        )  # fmt: skip
        return next((top for top in _TOPS if top >= highest), _TOPS[-1])

    def _legend(self, *, plain: bool) -> Text:
        looks = [*zip(_AREAS, self._areas, strict=False), *zip(_MARKS, self._marks, strict=False)]
        legend = Text()
        for look, curve in looks:
            legend.append("   " if legend else "")
            legend.append(look.plain_sign if plain else look.sign, look.style).append(f" {curve.name}")
        return legend


def _places(values: Sequence[float | str], columns: int) -> tuple[list[int], bool]:
    """Tell the column of each point, and whether they are to scale."""
    numbers = [value for value in values if not isinstance(value, str)]
    if len(numbers) == len(values) and all(one < other for one, other in pairwise(numbers)):
        first, last = numbers[0], numbers[-1]
        places = [int((number - first) * (columns - 1) / (last - first)) for number in numbers]
        if all(one < other for one, other in pairwise(places)):
            return places, True
    return [index * (columns - 1) // (len(values) - 1) for index in range(len(values))], False


def _along(level: Sequence[float], places: Sequence[int], columns: int, *, straight: bool) -> list[float]:
    """Give a level at each column: straight between two points, or that of the nearest one."""
    found = list(level[:1]) * columns
    for index, (start, end) in enumerate(pairwise(places)):
        low, high = level[index], level[index + 1]
        for column in range(start, end + 1):
            part = (column - start) / (end - start) if end > start else 1.0
            found[column] = low + (high - low) * part if straight else (low if part < 0.5 else high)
    return found


def _area(levels: Sequence[Sequence[float]], column: int, middle: float) -> _Look | None:
    """Tell which area holds the middle of a cell."""
    return next((look for look, level in zip(_AREAS, levels, strict=False) if middle < level[column]), None)


def _marked(marks: Sequence[Curve], places: Sequence[int], top: int) -> dict[tuple[int, int], _Look]:
    """Give the cells of marks; where two curves meet, the first is seen."""
    found: dict[tuple[int, int], _Look] = {}
    for look, curve in zip(_MARKS, marks, strict=False):
        for place, share in zip(places, curve.shares, strict=True):
            cell = (min(_ROWS - 1, int(100 * share * _ROWS / top)), place)
            found.setdefault(cell, look)
    return found


def _labelled(labels: Sequence[str], places: Sequence[int], columns: int) -> str:
    """Put labels below their points: the first, the last, and of the others those that find room."""
    put: dict[int, str] = {}
    for index in (0, len(labels) - 1, *range(1, len(labels) - 1)):
        label = printable(labels[index])
        width = cell_len(label)
        start = max(0, min(columns - width, places[index] - width // 2))
        free = all(start + width < other or other + cell_len(text) < start for other, text in put.items())
        if width <= columns and free:
            put[start] = label
    line, end = "", 0
    for start, label in sorted(put.items()):
        line += " " * (start - end) + label
        end = start + cell_len(label)
    return line


def _line(text: str) -> Text:
    return Text(text, no_wrap=True, overflow="ignore")

"""The break curve drawn in the terminal: what is saved, over how many large frames are broken."""

from __future__ import annotations

from bisect import bisect_right
from typing import TYPE_CHECKING, Final, NamedTuple

from rich.text import Text

from hvshare.units import format_size

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rich.console import Console, ConsoleOptions, RenderResult

    from hvshare.erosion.large_pages_result import BreakPoint, Policy

_ROWS: Final = 10
_LABEL_COLUMNS: Final = 11
_MOST_COLUMNS: Final = 100
_BLOCKS: Final = " ▁▂▃▄▅▆▇█"
_LETTERS: Final = {
    "break nothing": "N",
    "break to the knee": "K",
    "break what repeats": "R",
    "break all": "A",
}


class _Signs(NamedTuple):
    vertical: str
    horizontal: str
    corner: str
    tick: str


_LINES: Final = _Signs("│", "─", "└", "┴")
_PLAIN_LINES: Final = _Signs("|", "-", "+", "+")


class BreakChart:
    """A break curve as a filled area, with the policies marked below its axis.

    Parameters
    ----------
    points : sequence of BreakPoint
        By broken frames, from 0 on; the last saves more than the first.
    policies : sequence of Policy
        What to mark.
    """

    def __init__(self, points: Sequence[BreakPoint], policies: Sequence[Policy]) -> None:
        self._points = points
        self._policies = policies

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """Lay the chart out for a console."""
        plain = options.ascii_only
        lines = _PLAIN_LINES if plain else _LINES
        columns = min(options.max_width, _MOST_COLUMNS) - _LABEL_COLUMNS - 2
        last = self._points[-1].broken_frames
        low, high = self._points[0].saved_bytes, self._points[-1].saved_bytes
        sampled = [self._at(last * column // (columns - 1)).saved_bytes for column in range(columns)]
        eighths = [8 * _ROWS * (saved - low) // (high - low) for saved in sampled]
        yield _line("saved")
        for row in range(_ROWS - 1, -1, -1):
            label = format_size(low + (high - low) * (row + 1) // _ROWS) if row % 3 == 0 else ""
            line = _line(f"{label:>{_LABEL_COLUMNS}} {lines.vertical}")
            yield line.append("".join(_cell(level - 8 * row, plain=plain) for level in eighths), "cyan")
        marks = [policy.broken_frames * (columns - 1) // last for policy in self._policies]
        axis = [lines.tick if column in marks else lines.horizontal for column in range(columns)]
        yield _line(f"{format_size(low):>{_LABEL_COLUMNS}} {lines.corner}{''.join(axis)}")
        indent = " " * (_LABEL_COLUMNS + 2)
        letters_of = [_LETTERS[policy.name] for policy in self._policies]
        for letters in _marked(letters_of, marks, columns):
            yield _line(indent).append(letters, "bold")
        yield _line(f"{indent}0{'large frames broken':^{columns - 1 - len(f'{last:,}')}}{last:,}")
        named = zip(letters_of, self._policies, strict=True)
        yield _line("   ".join(f"{letter} {policy.name}" for letter, policy in named))

    def _at(self, broken: int) -> BreakPoint:
        after = bisect_right(self._points, broken, key=lambda point: point.broken_frames)
        return self._points[after - 1]


def _line(text: str) -> Text:
    return Text(text, no_wrap=True, overflow="ignore")


def _cell(eighths: int, *, plain: bool) -> str:
    if plain:
        return "#" if eighths >= 4 else " "
    return _BLOCKS[min(max(eighths, 0), 8)]


def _marked(letters: Sequence[str], marks: Sequence[int], columns: int) -> list[str]:
    """Put a letter below each mark, and those that share a column on rows of their own."""
    rows: list[list[str]] = []
    for letter, mark in zip(letters, marks, strict=True):
        row = next((row for row in rows if row[mark] == " "), None)
        if row is None:
            row = [" "] * columns
            rows.append(row)
        row[mark] = letter
    return ["".join(row) for row in rows]

"""Shares of memory and changes of them, with their spread over seeds, as text."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from rich.text import Text

if TYPE_CHECKING:
    from hvshare.simulation.results import Spread


class Signs(NamedTuple):
    """Signs that not every encoding has."""

    plus_minus: str
    times: str
    dash: str


def signs(*, ascii_only: bool) -> Signs:
    """Give the signs that a console can show."""
    return Signs("+-", "x", "-") if ascii_only else Signs("±", "×", "–")


def format_fraction(value: float) -> str:
    """Show a share in percent; one that is neither none nor all is never rounded to 0 or to 100 %.

    Parameters
    ----------
    value : float
        Part of a whole; negative where it is a change.

    Examples
    --------
    >>> format_fraction(1 / 3), format_fraction(0.0001), format_fraction(0.9999), format_fraction(-0.0001)
    ('33.3 %', '<0.1 %', '>99.9 %', '>-0.1 %')
    """
    percent = 100 * value
    if 0 < abs(percent) < 0.05:
        return "<0.1 %" if percent > 0 else ">-0.1 %"
    if 99.95 <= percent < 100:
        return ">99.9 %"
    return f"{percent:.1f} %"


def format_points(change: float) -> str:
    """Show a change of a share in percentage points, with its sign.

    Examples
    --------
    >>> format_points(-0.412), format_points(0.003), format_points(-0.0001)
    ('-41.2', '+0.3', '0.0')
    """
    shown = f"{100 * change:+.1f}"
    return "0.0" if float(shown) == 0 else shown


def format_share_spread(spread: Spread, *, ascii_only: bool) -> str:
    """Show a share in percent without its sign, and the standard deviation where there is one.

    Examples
    --------
    >>> from hvshare.simulation.results import Spread
    >>> format_share_spread(Spread(0.5, 0.01, 0.49, 0.51), ascii_only=False)
    '50.0 ±1.0'
    >>> format_share_spread(Spread(0.5, None, 0.5, 0.5), ascii_only=False)
    '50.0'
    """
    return _with_deviation(format_fraction(spread.mean).removesuffix(" %"), spread, ascii_only=ascii_only)


def format_change_spread(spread: Spread, *, ascii_only: bool) -> Text:
    """Show a change in percentage points with its deviation, and below it the lowest and the highest.

    Returns
    -------
    Text
        Two lines, or one where there is one seed.
    """
    shown = Text(_with_deviation(format_points(spread.mean), spread, ascii_only=ascii_only))
    if spread.deviation is not None:
        shown.append(f"\n{format_points(spread.lowest)}..{format_points(spread.highest)}", "dim")
    return shown


def _with_deviation(mean: str, spread: Spread, *, ascii_only: bool) -> str:
    if spread.deviation is None:
        return mean
    return f"{mean} {signs(ascii_only=ascii_only).plus_minus}{100 * spread.deviation:.1f}"

"""Figures that are known within bounds, as text."""

from __future__ import annotations

from hvshare.units import format_share, format_size


def format_interval(low: int, high: int) -> str:
    """Show bytes that are known within bounds.

    Parameters
    ----------
    low, high : int
        The bounds, in the order in which they are shown; equal where the figure is exact.

    Examples
    --------
    >>> format_interval(4096, 4096), format_interval(81 << 20, 102 << 20), format_interval(0, 5 << 30)
    ('4.0 KiB', '81.0 to 102.0 MiB', '0 to 5.0 GiB')
    >>> format_interval(4096, 1 << 30)
    '4.0 KiB to 1.0 GiB'
    """
    return format_size(low) if low == high else _joined(format_size(low), format_size(high))


def format_change(low: int, high: int) -> str:
    """Show bytes that sharing loses, with a minus sign, or gains, with a plus sign.

    Parameters
    ----------
    low, high : int
        The least and the most that is lost; negative where it is gained.

    Examples
    --------
    >>> format_change(81 << 20, 102 << 20), format_change(0, 1 << 20), format_change(-(5 << 20), 5 << 20)
    ('-81.0 to -102.0 MiB', '0 to -1.0 MiB', '+5.0 to -5.0 MiB')
    >>> format_change(0, 0), format_change(4096, 4096)
    ('0 B', '-4.0 KiB')
    """
    first, second = (
        f"{'-' if size > 0 else '+' if size else ''}{format_size(abs(size))}" for size in (low, high)
    )
    return first if low == high else _joined(first, second)


def format_share_interval(low: int, high: int, whole: int) -> str:
    """Show parts of a whole that are known within bounds, in percent and without signs.

    Examples
    --------
    >>> format_share_interval(79, 102, 1024), format_share_interval(-5, 5, 100)
    ('7.7 to 10.0 %', '5.0 %')
    >>> format_share_interval(0, 1, 4)
    '0 to 25.0 %'

    """
    first, second = (format_share(abs(size), whole) if size else "0 %" for size in (low, high))
    return first if first == second else _joined(first, second)


def _joined(first: str, second: str) -> str:
    number, unit = first.split(" ")
    if float(number.lstrip("+-<>").replace(",", "")) == 0 or unit == second.split(" ")[1]:
        first = number
    return f"{first} to {second}"

"""Page and frame sizes, and how sizes are read from and shown to people."""

from __future__ import annotations

import re
from fractions import Fraction
from typing import Final

from hvshare.errors import SizeError

PAGE_SIZE: Final = 4096
"""Bytes of a page: 4 KB of guest-physical memory."""

LARGE_FRAME_SIZE: Final = 2 << 20
"""Bytes of the large frame of x86-64 and of AArch64 with 4 KB granules."""

MAX_FRAME_SIZE: Final = 1 << 30
"""Bytes of the largest frame that can be asked for."""

_FACTORS: Final = {"": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30, "T": 1 << 40}
_UNITS: Final = ("KiB", "MiB", "GiB", "TiB", "PiB")
_NUMBER: Final = re.compile(
    r"[+-]?(\d{1,30}/0*[1-9]\d{0,29}|(?=\.?\d)\d{0,30}(\.\d{0,30})?(e[+-]?\d{1,2})?)",
    re.IGNORECASE | re.ASCII,
)
_SIZE: Final = re.compile(r"(\d{1,30})\s*([KMGT]?)(?:i?B)?", re.IGNORECASE | re.ASCII)


def parse_size(text: str) -> int:
    """Read a size such as ``4K``, ``2MiB`` or ``1073741824``, with 1 K = 1,024 bytes.

    Parameters
    ----------
    text : str
        A whole number and at most one unit out of K, M, G and T, with or without ``B`` or ``iB``.

    Returns
    -------
    int
        Bytes.

    Raises
    ------
    SizeError
        If the text is no size.

    Examples
    --------
    >>> parse_size("64K"), parse_size("2 MiB")
    (65536, 2097152)
    """
    match = _SIZE.fullmatch(text.strip())
    if not match:
        raise SizeError(f"{text!r} is no size", advice="write it like 4K, 2M or 1GiB")
    return int(match[1]) * _FACTORS[match[2].upper()]


def parse_fraction(text: str) -> Fraction:
    """Read a number such as ``0.25`` or ``1/4`` exactly.

    Parameters
    ----------
    text : str
        Digits with a point or a slash, or an exponent of two digits at the most: `Fraction` alone would work
        for hours on a power of ten with as many zeros as somebody likes.

    Returns
    -------
    Fraction

    Raises
    ------
    ValueError
        If the text is no such number.

    Examples
    --------
    >>> parse_fraction("0.25"), parse_fraction("2/8")
    (Fraction(1, 4), Fraction(1, 4))
    """
    if not _NUMBER.fullmatch(text.strip()):
        raise ValueError(text)
    return Fraction(text)


def check_frame_size(size: int) -> int:
    """Return a frame size unchanged if frames can have it.

    Parameters
    ----------
    size : int
        Bytes.

    Raises
    ------
    SizeError
        Unless the size is a power of two from 4 KB to 1 GB.

    Examples
    --------
    >>> check_frame_size(65536)
    65536
    """
    if not PAGE_SIZE <= size <= MAX_FRAME_SIZE or size & (size - 1):
        raise SizeError(f"{size:,} bytes is no frame size", advice="use a power of two from 4K to 1G")
    return size


def format_size(size: int) -> str:
    """Show bytes in the largest unit that leaves at least 1 of it, with one digit after the point.

    Examples
    --------
    >>> format_size(4096), format_size(1536 << 20), format_size(12)
    ('4.0 KiB', '1.5 GiB', '12 B')
    """
    if size < 1024:
        return f"{size} B"
    value = float(size)
    unit = 0
    # From 1023.95 on, one digit after the point would show "1024.0".
    while unit == 0 or (value >= 1023.95 and unit < len(_UNITS)):
        value /= 1024
        unit += 1
    return f"{value:,.1f} {_UNITS[unit - 1]}"


def format_frame_size(size: int) -> str:
    """Show a frame size the way the field names it.

    Examples
    --------
    >>> format_frame_size(4096), format_frame_size(2097152), format_frame_size(1 << 30)
    ('4 KB', '2 MB', '1 GB')
    """
    for unit, factor in (("GB", 1 << 30), ("MB", 1 << 20)):
        if size >= factor:
            return f"{size // factor} {unit}"
    return f"{size // 1024} KB"


def format_share(part: int, whole: int) -> str:
    """Show a part of a whole in percent, and say so where there is no whole.

    A share that is neither none nor all is never rounded to 0 or to 100 %.

    Examples
    --------
    >>> format_share(1, 3), format_share(1, 10**6), format_share(999_999, 10**6), format_share(0, 0)
    ('33.3 %', '<0.1 %', '>99.9 %', '–')
    """
    if not whole:
        return "–"
    share = 100 * part / whole
    if part and share < 0.05:
        return "<0.1 %"
    if part != whole and share >= 99.95:
        return ">99.9 %"
    return f"{share:.1f} %"

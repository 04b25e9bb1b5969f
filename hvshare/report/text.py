"""Data as text: file names may hold anything, and must neither steer a terminal nor break a line."""

from __future__ import annotations

import unicodedata

_UNSAFE = {"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"}


def printable(text: str) -> str:
    """Show control characters, text direction marks and undecodable bytes as escapes.

    Examples
    --------
    >>> printable("web[bold]01.raw"), printable("a\\x1b[2J\\udcff.raw")
    ('web[bold]01.raw', 'a\\\\x1b[2J\\\\xff.raw')
    """
    if text.isprintable():
        return text
    return "".join(_escaped(sign) if unicodedata.category(sign) in _UNSAFE else sign for sign in text)


def _escaped(sign: str) -> str:
    code = ord(sign)
    if 0xDC80 <= code <= 0xDCFF:  # a byte that is no UTF-8, as os.fsdecode keeps it
        code -= 0xDC00
    if code < 0x100:
        return f"\\x{code:02x}"
    return f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


def encodable(text: str) -> str:
    """Show undecodable bytes as escapes and leave everything else as it is, as JSON wants it.

    Examples
    --------
    >>> encodable("a\\x1b\\udcff")
    'a\\x1b\\\\xff'
    """
    return text.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")

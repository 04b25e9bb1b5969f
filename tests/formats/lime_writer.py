"""Writes LiME dumps: LiME, ``src/lime.h``."""

from __future__ import annotations

import struct
from collections.abc import Iterable


def lime(ranges: Iterable[tuple[int, bytes]], version: int = 1) -> bytes:
    """Write ranges of memory, given by address."""
    return b"".join(
        struct.pack("<IIQQQ", 0x4C694D45, version, address, address + len(data) - 1, 0) + data
        for address, data in ranges
    )

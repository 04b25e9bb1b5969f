"""Windows crash dumps that tell by a bitmap which pages they have (types 5 to 7).

Sources, which agree: kdmp-parser (``kdmp-parser-structs.h``), volatility3 (``crash_common.json``), Ghidra
(``FullDumpHeader.java``) and LeechCore (``device_file.c``). Behind the header of the dump come ``SDMP`` or
``FDMP``, and ``DUMP``; at 0x20 from there three little-endian numbers of 8 bytes: where the first page is,
how many pages there are, and how many bits the bitmap has, which follows. Pages lie in the order of its bits.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Final

import numpy as np

from hvshare.errors import DamagedImageError
from hvshare.images.bitmaps import NO_MEMORY, as_bits, read_bits, runs_from_flags
from hvshare.images.extents import Extents
from hvshare.images.runs import RunKind
from hvshare.images.source import read_part
from hvshare.images.windows.pages import (
    MOST_PAGES,
    SECOND_HEADER,
    TAKE_AGAIN,
    StoredPages,
    check_room,
    no_header,
)
from hvshare.units import PAGE_SIZE

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from hvshare.images.bitmaps import Flags, Window
    from hvshare.images.source import Positioned
    from hvshare.images.windows.pages import Memory

_HEADER: Final = struct.Struct("<4s4s24xQQQ")


def read_bitmap(data: Positioned, memory: Memory | None) -> StoredPages:
    """Read the bitmap of a dump, and check it against the file.

    Parameters
    ----------
    data : Positioned
        The dump.
    memory : sequence of tuple of int, or None
        Address and bytes of the guest's runs of memory, in ascending order, if they are known.

    Raises
    ------
    DamagedImageError
        If its parts contradict each other or go beyond 52-bit addresses.
    TruncatedImageError
        If the file ends within it or the pages.
    EmptyImageError
        If it has no page.
    """
    part = read_part(data, SECOND_HEADER, _HEADER.size, "the header of the bitmap")
    signature, valid, first_page, pages, bits = _HEADER.unpack(part)
    if signature not in {b"SDMP", b"FDMP"} or valid != b"DUMP":
        raise no_header(data.path, "a bitmap")
    at = SECOND_HEADER + _HEADER.size
    if bits > MOST_PAGES or at + -(-bits // 8) > first_page:
        raise DamagedImageError(
            f"its bitmap of {bits:,} bits from byte {at:,} on runs into the pages, which start at byte "
            f"{first_page:,}, or beyond the last address",
            path=data.path,
            offset=SECOND_HEADER + 0x30,
            advice=TAKE_AGAIN,
        )
    check_room(data, first_page, pages)
    windows = read_bits(data, at, bits, "the bitmap")
    counts = np.zeros(2, np.int64)
    runs = runs_from_flags(_flags(windows, memory, counts))
    stored, outside = counts.tolist()
    if stored != pages:
        raise DamagedImageError(
            f"its bitmap has {stored:,} pages, and its header says {pages:,}",
            path=data.path,
            offset=SECOND_HEADER + 0x28,
            advice=TAKE_AGAIN,
        )
    for address, size in memory or ():
        first, end = max(address // PAGE_SIZE, bits), (address + size) // PAGE_SIZE
        if first < end:
            runs.append(first, end - first, RunKind.ABSENT)
    extents = Extents()
    extents.append(first_page, pages)
    return StoredPages(runs, extents, "pages in the order of a bitmap", memory is not None, outside)


def _flags(windows: Iterator[Window], memory: Memory | None, counts: NDArray[np.int64]) -> Iterator[Flags]:
    """Give what is known of each page, counting the stored ones, and those outside of the guest's memory."""
    base = 0
    for window in windows:
        pages = window if isinstance(window, int) else len(window)
        within = [
            (max(address // PAGE_SIZE - base, 0), min((address + size) // PAGE_SIZE - base, pages))
            for address, size in memory or ()
        ]
        within = [(first, end) for first, end in within if first < end]
        if isinstance(window, int) and within in ([], [(0, pages)]):
            yield RunKind.ABSENT if within else NO_MEMORY, pages
            base += pages
            continue
        stored = as_bits(window)
        flags = np.full(pages, NO_MEMORY, np.int8)
        for first, end in within:
            flags[first:end] = RunKind.ABSENT
        counts[0] += np.count_nonzero(stored)
        if memory is not None:
            counts[1] += np.count_nonzero(flags[stored] == NO_MEMORY)
        flags[stored] = RunKind.PRESENT
        yield flags
        base += pages

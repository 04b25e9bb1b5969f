"""Windows crash dumps that tell by a list of ranges which pages they have (types 8 to 10).

Source: kdmp-parser (``kdmp-parser-structs.h``, ``kdmp-parser.h``, and ``structs.rs`` and ``parse.rs`` of its
port); the debugger writes them since 2022. Behind the header of the dump come, little-endian: 0x40, ``RDMP``,
``DUMP``, and 4 bytes; in 8 bytes each, the size of what follows up to the first page, and where that page is;
16 bytes, of which the last 8 are the number of pages in a dump of type 10; and ranges of pages, each by its
first page and how many it has. Zeros end them. Pages lie in the order of the ranges.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Final

import numpy as np

from hvshare.errors import DamagedImageError
from hvshare.images.extents import Extents
from hvshare.images.runs import RunKind, Runs
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
    from numpy.typing import NDArray

    from hvshare.images.source import Positioned
    from hvshare.images.windows.pages import Memory

_HEADER: Final = struct.Struct("<I4s4s4xQQ8xQ")
_AT_ONCE: Final = 1 << 16


def read_ranges(data: Positioned, memory: Memory | None, *, all_of_them: bool) -> StoredPages:
    """Read the list of ranges of a dump, and check it against the file.

    Parameters
    ----------
    data, memory
        As of `read_bitmap`.
    all_of_them : bool
        Whether the dump is complete, and says how many pages it has.

    Raises
    ------
    DamagedImageError, TruncatedImageError, EmptyImageError
        As `read_bitmap`.
    """
    part = read_part(data, SECOND_HEADER, _HEADER.size, "the header of the list of ranges")
    marker, signature, valid, size, first_page, total = _HEADER.unpack(part)
    if marker != 0x40 or signature != b"RDMP" or valid != b"DUMP":
        raise no_header(data.path, "a list of ranges")
    at = SECOND_HEADER + _HEADER.size
    if first_page != SECOND_HEADER + 0x20 + size or first_page < at:
        raise DamagedImageError(
            f"its list of ranges has {size:,} bytes, and the first page should be at byte {first_page:,}, "
            "which is not behind it",
            path=data.path,
            offset=SECOND_HEADER + 0x10,
            advice=TAKE_AGAIN,
        )
    listed = _list_ranges(data, at, first_page, total if all_of_them else None)
    first, pages = listed[:, 0], listed[:, 1]
    order = np.argsort(first, kind="stable")
    in_order = bool((order[1:] > order[:-1]).all())
    extents = Extents()
    if in_order:
        extents.append(first_page, int(pages.sum()))
    else:
        offsets = first_page + (np.cumsum(pages) - pages) * PAGE_SIZE
        for offset, count in zip(offsets[order].tolist(), pages[order].tolist(), strict=True):
            extents.append(offset, count)
        first, pages = first[order], pages[order]
    end = first + pages
    if (first[1:] < end[:-1]).any():
        raise DamagedImageError("its ranges of pages overlap", path=data.path, offset=at, advice=TAKE_AGAIN)
    runs, outside = _with_absent(first, end, memory)
    unlisted = 0 if all_of_them else data.end - first_page - extents.pages * PAGE_SIZE
    layout = "pages in the order of ranges"
    return StoredPages(runs, extents, layout, memory is not None, outside, unlisted)


def _list_ranges(data: Positioned, at: int, first_page: int, total: int | None) -> NDArray[np.int64]:
    """Give the ranges, as rows of a first page and a number of pages, of which the file has all."""
    parts: list[NDArray[np.int64]] = []
    pages = 0
    while at + 16 <= first_page and (total is None or pages < total):
        count = min((first_page - at) // 16, _AT_ONCE)
        part = np.frombuffer(read_part(data, at, 16 * count, "the list of ranges"), "<u8").reshape(-1, 2)
        end_mark = np.flatnonzero(~part.any(axis=1))
        if end_mark.size:
            part = part[: end_mark[0]]
        if total is not None:  # what lies behind the last page of a complete dump is no range
            reached = np.flatnonzero(np.cumsum(part[:, 1]) >= total - pages)
            part = part[: reached[0] + 1] if reached.size else part
        if len(part) and not (
            part.max() < MOST_PAGES and part[:, 1].min() and (part.sum(axis=1) <= MOST_PAGES).all()
        ):
            raise DamagedImageError(
                "a range of its list is empty or goes beyond the last address",
                path=data.path,
                offset=at,
                advice=TAKE_AGAIN,
            )
        pages += int(part[:, 1].sum())
        check_room(data, first_page, pages)
        parts.append(part.astype(np.int64))
        at += 16 * count
        if end_mark.size:
            break
    if total is not None and pages != total:
        raise DamagedImageError(
            f"its list of ranges has {pages:,} pages, and its header says {total:,}",
            path=data.path,
            offset=SECOND_HEADER + 0x28,
            advice=TAKE_AGAIN,
        )
    check_room(data, first_page, pages)
    return np.concatenate(parts)


def _with_absent(first: NDArray[np.int64], end: NDArray[np.int64], memory: Memory | None) -> tuple[Runs, int]:
    """Fill the guest's memory up with ABSENT runs, and count the pages outside of it."""
    firsts, ends, kinds = [first], [end], [np.full(len(first), RunKind.PRESENT, np.int8)]
    inside = 0
    for address, size in memory or ():
        low, high = address // PAGE_SIZE, (address + size) // PAGE_SIZE
        at = slice(np.searchsorted(end, low, "right"), np.searchsorted(first, high, "left"))
        gap_first = np.concatenate(([low], end[at])).clip(low, high)
        gap_end = np.concatenate((first[at], [high])).clip(low, high)
        gaps = gap_first < gap_end
        firsts.append(gap_first[gaps])
        ends.append(gap_end[gaps])
        kinds.append(np.full(np.count_nonzero(gaps), RunKind.ABSENT, np.int8))
        inside += high - low - int((gap_end - gap_first)[gaps].sum())
    first, end, kind = np.concatenate(firsts), np.concatenate(ends), np.concatenate(kinds)
    order = np.argsort(first, kind="stable")
    stored = int((ends[0] - firsts[0]).sum())
    runs = Runs.from_arrays(first[order], (end - first)[order], kind[order])
    return runs, 0 if memory is None else stored - inside

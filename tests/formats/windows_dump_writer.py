"""Writes crash dumps of 64-bit Windows.

From ``minidumpdef.h`` of the Windows SDK for the header, and from the structures of kdmp-parser for what
follows it: fields that are not given keep the pattern ``PAGE``, as Windows leaves them.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Mapping, Sequence

from tests.oracle import PAGE

COMPLETE, BITMAP, KERNEL_BITMAP, AUTOMATIC, KERNEL_RANGES, USER_RANGES, ALL_RANGES = 1, 5, 6, 7, 8, 9, 10
HEADER = 0x2000


def header(
    dump_type: int,
    runs: Iterable[tuple[int, int]] | None,
    *,
    pages: int | None = None,
    number: int | None = None,
    machine: int = 0x8664,
    attributes: int = 0x45474150,
    system_time: int = 132_539_328_000_000_000,  # 2021-01-01
    comment: bytes = b"",
) -> bytes:
    """Write a header; runs are a first page and a number of pages each, None for an unfilled descriptor."""
    data = bytearray(b"PAGE" * (HEADER // 4))
    struct.pack_into("<8sII", data, 0, b"PAGEDU64", 15, 19041)
    struct.pack_into("<III", data, 0x30, machine, 2, 0x161)
    if runs is not None:
        runs = list(runs)
        struct.pack_into("<I", data, 0x88, len(runs) if number is None else number)
        struct.pack_into("<Q", data, 0x90, sum(count for _, count in runs) if pages is None else pages)
        for index, (first, count) in enumerate(runs):
            struct.pack_into("<QQ", data, 0x98 + 16 * index, first, count)
    data[0x348 : 0x348 + 3000] = bytes(3000)
    struct.pack_into("<I", data, 0xF98, dump_type)
    struct.pack_into("<QQ", data, 0xFA0, 0, system_time)
    if comment:
        struct.pack_into("<128s", data, 0xFB0, comment)
    struct.pack_into("<I", data, 0x1050, attributes)
    return bytes(data)


def as_runs(gfns: Iterable[int]) -> list[tuple[int, int]]:
    """Join page numbers that follow each other."""
    runs: list[tuple[int, int]] = []
    for gfn in sorted(gfns):
        if runs and sum(runs[-1]) == gfn:
            runs[-1] = (runs[-1][0], runs[-1][1] + 1)
        else:
            runs.append((gfn, 1))
    return runs


def complete(memory: Mapping[int, bytes], runs: Sequence[tuple[int, int]] | None = None) -> bytes:
    """Write a complete dump, with runs in an order of one's own on request."""
    runs = as_runs(memory) if runs is None else runs
    pages = (memory[gfn] for first, count in runs for gfn in range(first, first + count))
    return header(COMPLETE, runs) + b"".join(pages)


def with_bitmap(
    memory: Mapping[int, bytes | None],
    *,
    dump_type: int = BITMAP,
    known: bool = True,
    signature: bytes = b"SDMP",
    bits: int | None = None,
    stored: int | None = None,
    first_page: int | None = None,
) -> bytes:
    """Write a dump with a bitmap, without the pages that are None."""
    present = sorted(gfn for gfn, page in memory.items() if page is not None)
    bits = max(present) + 1 if bits is None else bits
    bitmap = bytearray(-(-bits // 8))
    for gfn in present:
        bitmap[gfn // 8] |= 1 << gfn % 8
    end = HEADER + 0x38 + len(bitmap)
    first_page = -(-end // PAGE) * PAGE if first_page is None else first_page
    stored = len(present) if stored is None else stored
    second = struct.pack("<4s4s24xQQQ", signature, b"DUMP", first_page, stored, bits)
    data = header(dump_type, as_runs(memory) if known else None) + second + bitmap
    return data.ljust(first_page, b"\0") + b"".join(memory[gfn] or b"" for gfn in present)


def with_ranges(
    memory: Mapping[int, bytes | None],
    *,
    dump_type: int = USER_RANGES,
    known: bool = True,
    ranges: Sequence[tuple[int, int]] | None = None,
    total: int | None = None,
    behind: bytes = bytes(16),
) -> bytes:
    """Write a dump with a list of ranges, in an order of one's own on request."""
    if ranges is None:
        ranges = as_runs(gfn for gfn, page in memory.items() if page is not None)
    listed = b"".join(struct.pack("<QQ", first, count) for first, count in ranges) + behind
    total = sum(count for _, count in ranges) if total is None else total
    size = 16 + len(listed)
    second = struct.pack("<I4s4sIQQ", 0x40, b"RDMP", b"DUMP", 0, size, HEADER + 0x20 + size)
    second += struct.pack("<IHHQ", len(ranges), 0, 0, total) + listed
    pages = (memory[gfn] or b"" for first, count in ranges for gfn in range(first, first + count))
    return header(dump_type, as_runs(memory) if known else None) + second + b"".join(pages)

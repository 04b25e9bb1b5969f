"""Writes kdump-compressed dumps, from makedumpfile's IMPLEMENTATION and QEMU's ``include/sysemu/dump.h``."""

from __future__ import annotations

import struct
import sys
import zlib
from collections.abc import Callable, Mapping

import cramjam
from lzallright import LZOCompressor

from tests.guests import ZERO
from tests.oracle import PAGE

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

COMPRESSIONS: Mapping[str, tuple[int, Callable[[bytes], bytes]]] = {
    "zlib": (1, lambda page: zlib.compress(page, 1)),
    "lzo": (2, lambda page: bytes(LZOCompressor().compress(page))),
    "snappy": (4, lambda page: bytes(cramjam.snappy.compress_raw(page))),
    "zstd": (32, lambda page: zstd.compress(page, 1)),
}
INCOMPLETE = 8


def kdump(
    memory: Mapping[int, bytes | None],
    compression: str | None = "zlib",
    *,
    bits: int = 64,
    order: str = "<",
    version: int = 6,
    machine: bytes = b"x86_64",
    sysname: bytes = b"",
    dump_level: int = 0,
    split: int = 0,
    status: int = 0,
    block_size: int = PAGE,
    vmcoreinfo: bytes = b"",
    max_mapnr: int | None = None,
    shares_zeros: bool = True,
) -> bytes:
    """Write pages by guest frame number, None for those that were filtered out.

    Parameters
    ----------
    shares_zeros : bool
        Store one zero page for all, as QEMU does, and makedumpfile from level 1 on.
    """
    end = max(memory) + 1 if max_mapnr is None else max_mapnr
    bitmap_blocks = -(-(max(end, max(memory) + 1)) // (8 * PAGE))
    flag, compress = COMPRESSIONS[compression] if compression else (0, bytes)

    def bitmap(gfns: list[int]) -> bytes:
        bits_of = bytearray(bitmap_blocks * PAGE)
        for gfn in gfns:
            bits_of[gfn // 8] |= 1 << gfn % 8
        return bytes(bits_of)

    stored = sorted(gfn for gfn, page in memory.items() if page is not None)
    head = b"KDUMP   " + struct.pack(f"{order}i", version)
    head += b"".join(field.ljust(65, b"\0") for field in (sysname, b"guest", b"6.1.0", b"#1", machine, b""))
    head += bytes(22 if bits == 64 else 10)
    head += struct.pack(
        f"{order}IiiIIIIIIi", status | flag, block_size, 1, 2 * bitmap_blocks,
        end if version < 6 else min(end, 0xFFFFFFFF), 0, 1, 0, 0, 1,
    )  # fmt: skip
    info_at = PAGE + 512 if vmcoreinfo else 0
    info = (info_at, len(vmcoreinfo))
    if bits == 64:
        sub = struct.pack(f"{order}QiiQQqQqQqQQQQ", 0, dump_level, split, 0, 0, *info, 0, 0, 0, 0, 0, 0, end)
    else:
        sub = struct.pack(f"{order}IiiIIqIqIqIQQQ", 0, dump_level, split, 0, 0, *info, 0, 0, 0, 0, 0, 0, end)
    blocks = head.ljust(PAGE, b"\0") + (sub.ljust(512, b"\0") + vmcoreinfo).ljust(PAGE, b"\0")
    blocks += bitmap(list(memory)) + bitmap(stored)
    data_at = len(blocks) + 24 * len(stored)
    descriptors, data = [], b""
    shared: tuple[int, int, int] | None = None
    for gfn in stored:
        page = memory[gfn]
        assert page is not None
        if page == ZERO and shared:
            descriptors.append(shared)
            continue
        packed = compress(page)
        entry = (
            (data_at + len(data), len(packed), flag) if len(packed) < PAGE else (data_at + len(data), PAGE, 0)
        )
        data += packed if len(packed) < PAGE else page
        descriptors.append(entry)
        if page == ZERO and shares_zeros:
            shared = entry
    return blocks + b"".join(struct.pack(f"{order}qIIQ", *each, 0) for each in descriptors) + data


def flattened(data: bytes, pieces: list[tuple[int, int]], *, ends: bool = True) -> bytes:
    """Write a dump as records, each given by where it starts and how long it is, in this order."""
    records = b"makedumpfile".ljust(16, b"\0") + struct.pack(">qq", 1, 1)
    records = records.ljust(4096, b"\0")
    for start, size in pieces:
        records += struct.pack(">qq", start, size) + data[start : start + size]
    return records + (struct.pack(">qq", -1, -1) if ends else b"")

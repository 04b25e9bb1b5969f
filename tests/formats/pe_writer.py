"""Writes PE files, from Microsoft's "PE Format"."""

from __future__ import annotations

import struct
from collections.abc import Iterable, Sequence
from typing import NamedTuple

I386, X86_64, ARM64 = 0x14C, 0x8664, 0xAA64
HIGHLOW, DIR64, ABSOLUTE = 3, 10, 0
CODE, READ_ONLY, DATA, BSS = 0x60000020, 0x40000040, 0xC0000040, 0xC0000080
SELF_WRITING, DEBUG = 0xE0000020, 0x42000040
DLL, STRIPPED = 0x2000, 0x0001
PAGE, SECTOR, HEADERS = 4096, 512, 0x400


class PeSection(NamedTuple):
    """A section: contents, and how much memory it takes if that is not as much."""

    name: bytes
    data: bytes
    flags: int
    size: int | None = None


def relocation_blocks(fields: Iterable[tuple[int, int]]) -> bytes:
    """Write a base relocation table: fields as bytes of the image and types, a block a page."""
    pages: dict[int, list[int]] = {}
    for offset, kind in fields:
        pages.setdefault(offset // PAGE * PAGE, []).append(kind << 12 | offset % PAGE)
    blocks = b""
    for page, entries in sorted(pages.items()):
        padded = [*entries, ABSOLUTE] if len(entries) % 2 else entries
        blocks += struct.pack(f"<II{len(padded)}H", page, 8 + 2 * len(padded), *padded)
    return blocks


def pe_file(
    sections: Sequence[PeSection],
    fields: Iterable[tuple[int, int]] = (),
    *,
    machine: int = I386,
    base: int = 0x10000000,
    flags: int = DLL,
    subsystem: int = 2,
    blocks: bytes | None = None,
    behind: Sequence[PeSection] = (),
    size_of_image: int | None = None,
) -> bytes:
    """Write a PE file; its first section lies at byte 0x1000 of the image, and each behind the one before.

    Parameters
    ----------
    fields : iterable of (int, int)
        Byte of the image and type of each relocation.
    blocks : bytes, optional
        The relocation table itself, instead.
    behind : sequence of PeSection
        Sections behind the relocation table.
    size_of_image : int, optional
        What the header says, instead of what is right.
    """
    table = relocation_blocks(fields) if blocks is None else blocks
    listed = [*sections, PeSection(b".reloc", table, DEBUG)] if table else list(sections)
    listed += behind
    headers, body, address = b"", b"", PAGE
    directory = (0, 0)
    for each in listed:
        size = len(each.data) if each.size is None else each.size
        stored = each.data + bytes(-len(each.data) % SECTOR)
        at = HEADERS + len(body) if stored else 0
        headers += struct.pack("<8s6IHHI", each.name, size, address, len(stored), at, 0, 0, 0, 0, each.flags)
        if each.name == b".reloc":
            directory = (address, len(table))
        body += stored
        address += -(-max(size, 1) // PAGE) * PAGE
    size_of_image = address if size_of_image is None else size_of_image
    wide = machine != I386
    optional = struct.pack("<HBB5I", 0x20B if wide else 0x10B, 14, 0, 0, 0, 0, 0, 0)
    optional += struct.pack("<Q", base) if wide else struct.pack("<II", 0, base)
    optional += struct.pack("<II6HI", PAGE, SECTOR, 6, 0, 0, 0, 6, 0, 0)
    optional += struct.pack("<IIIHH", size_of_image, HEADERS, 0, subsystem, 0x140)
    optional += struct.pack("<4Q" if wide else "<4I", 1 << 20, 1 << 12, 1 << 20, 1 << 12)
    optional += struct.pack("<II", 0, 16)
    optional += b"".join(struct.pack("<II", *(directory if at == 5 else (0, 0))) for at in range(16))
    dos = b"MZ".ljust(60, b"\0") + struct.pack("<I", 64)
    file = struct.pack("<HHIIIHH", machine, len(listed), 0, 0, 0, len(optional), 2 | flags)
    return (dos + b"PE\0\0" + file + optional + headers).ljust(HEADERS, b"\0") + body

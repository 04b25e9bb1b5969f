"""Writes Xen cores: Xen's ``docs/misc/dump-core-format.txt``, in the order of ``xc_core.c``."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import NamedTuple

INVALID = (1 << 64) - 1
MAGIC_PV, MAGIC_HVM = 0xF00FEBED, 0xF00FEBEE
PAGE = 4096
SHT_PROGBITS, SHT_STRTAB, SHT_NOTE = 1, 3, 7


class Section(NamedTuple):
    """A section: contents, and what its header says of them."""

    name: str
    kind: int
    data: bytes
    alignment: int = 0
    entry_size: int = 0


def xen_core(
    pages: Sequence[tuple[int, bytes]],
    *,
    table: str = ".xen_pfn",
    bits: int = 64,
    order: str = "<",
    headers_last: bool = False,
    magic: int | None = None,
    page_size: int = PAGE,
    nr_pages: int | None = None,
    format_version: int = 1,
    without: Sequence[str] = (),
    more: Sequence[Section] = (),
) -> bytes:
    """Write a core.

    Parameters
    ----------
    pages : sequence of tuple
        Guest frame numbers and pages, as they lie in the file.
    table : {".xen_pfn", ".xen_p2m"}
        Which section tells frame numbers.
    headers_last : bool
        Put the section headers behind everything else.
    """
    if magic is None:
        magic = MAGIC_PV if table == ".xen_p2m" else MAGIC_HVM
    count = len(pages) if nr_pages is None else nr_pages
    notes = (
        note(0x2000000, b"", order)
        + note(0x2000001, struct.pack(f"{order}4Q", magic, 2, count, page_size), order)
        + note(0x2000002, xen_version(order), order)
        + note(0x2000003, struct.pack(f"{order}Q", format_version), order)
    )
    if table == ".xen_p2m":
        frames = b"".join(
            struct.pack(f"{order}2Q", pfn, INVALID if pfn == INVALID else 0x100000 + at)
            for at, (pfn, _) in enumerate(pages)
        )
    else:
        frames = struct.pack(f"{order}{len(pages)}Q", *(pfn for pfn, _ in pages))
    contents = b"".join(page for _, page in pages)
    sections = [
        Section(".note.Xen", SHT_NOTE, notes),
        Section(".xen_prstatus", SHT_PROGBITS, bytes(2 * 100), 8, 100),
        Section(".xen_shared_info", SHT_PROGBITS, bytes(PAGE), 8, PAGE),
        Section(".xen_pages", SHT_PROGBITS, contents, PAGE, PAGE),
        Section(table, SHT_PROGBITS, frames, 8, 16 if table == ".xen_p2m" else 8),
        *more,
    ]
    return elf(
        [each for each in sections if each.name not in without], bits, order, headers_last=headers_last
    )


def xen_version(order: str) -> bytes:
    """Make the note on the hypervisor of x86-64: 1,280 bytes."""
    return struct.pack(
        f"{order}QQ16s64s16s32s32s1024s64sQQ",
        4,
        17,
        b".3-pre",
        b"gcc",
        b"builder",
        b"example.org",
        b"Mon Jan  1 00:00:00 UTC 2024",
        b"xen-3.0-x86_64 hvm-3.0-x86_64 ",
        b"unavailable",
        0xFFFF800000000000,
        PAGE,
    )


def note(kind: int, description: bytes, order: str) -> bytes:
    """Write a note of Xen's; all descriptions are multiples of 4 bytes."""
    return struct.pack(f"{order}3I", 4, len(description), kind) + b"Xen\0" + description


def elf(sections: Sequence[Section], bits: int, order: str, *, headers_last: bool) -> bytes:
    """Write an ELF core that has sections and no program headers."""
    header_size, section_size = (64, 64) if bits == 64 else (52, 40)
    names = b"\0"
    name_at = []
    for name in [".shstrtab", *(each.name for each in sections)]:
        name_at.append(len(names))
        names += name.encode() + b"\0"
    sections = [*sections, Section(".shstrtab", SHT_STRTAB, names)]
    name_at = [*name_at[1:], name_at[0]]
    table_size = section_size * (len(sections) + 1)
    body = bytes(0 if headers_last else table_size)
    placed = []
    for each in sections:
        if each.alignment == PAGE:
            body += bytes(-(header_size + len(body)) % PAGE)
        elif headers_last:
            body += bytes(-(header_size + len(body)) % max(each.alignment, 1))
        placed.append(header_size + len(body))
        body += each.data
    word = "Q" if bits == 64 else "I"
    table = bytes(section_size) + b"".join(
        struct.pack(
            f"{order}II4{word}II2{word}",
            name,
            each.kind,
            0,
            0,
            at,
            len(each.data),
            0,
            0,
            each.alignment,
            each.entry_size,
        )
        for name, at, each in zip(name_at, placed, sections, strict=True)
    )
    table_at = header_size
    if headers_last:
        table_at += len(body)
        body += table
    else:
        body = table + body[table_size:]
    identification = (
        b"\x7fELF" + bytes([2 if bits == 64 else 1, 1 if order == "<" else 2, 1, 0, 1]) + bytes(7)
    )
    sizes = (header_size, 56, 0, section_size, len(sections) + 1, len(sections))
    header = identification + struct.pack(f"{order}HHI3{word}I6H", 4, 62, 1, 0, 0, table_at, 0, *sizes)
    return header + body

"""Writes ELF cores, from the System V ABI and core(5)."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import NamedTuple

ET_CORE, PT_LOAD, PT_NOTE, PN_XNUM = 4, 1, 4, 0xFFFF
EM_386, EM_X86_64, EM_AARCH64 = 3, 62, 183


class Load(NamedTuple):
    """A PT_LOAD entry: contents, and how much memory it describes if that is more."""

    paddr: int
    data: bytes
    memsz: int | None = None
    vaddr: int = 0
    offset: int | None = None


def note(owner: str, number: int, description: bytes, order: str = "<") -> bytes:
    """Write a note; name and description are padded to 4 bytes."""
    name = owner.encode() + b"\0"
    header = struct.pack(f"{order}III", len(name), len(description), number)
    return (
        header
        + name.ljust(-(-len(name) // 4) * 4, b"\0")
        + description.ljust(-(-len(description) // 4) * 4, b"\0")
    )


def elf_core(
    loads: Sequence[Load],
    notes: bytes = b"",
    *,
    bits: int = 64,
    order: str = "<",
    machine: int = EM_X86_64,
    kind: int = ET_CORE,
    headers_last: bool = False,
    extended_count: bool = False,
    shift: int = 0x170,
) -> bytes:
    """Write an ELF file.

    Parameters
    ----------
    headers_last : bool
        Put the program headers behind everything else, as the ABI allows.
    extended_count : bool
        Tell the number of program headers by the first section header, as with 65,535 of them and more.
    shift : int
        Bytes between the headers and the first contents, so that these are not aligned to pages.
    """
    word = "Q" if bits == 64 else "I"
    header_size, entry_size, section_size = (64, 56, 64) if bits == 64 else (52, 32, 40)
    count = len(loads) + bool(notes)
    section_at = header_size
    table_at = section_at + section_size * extended_count
    body = notes + bytes(shift)
    body_at = table_at + entry_size * count
    if headers_last:
        body_at = table_at
    entries = []
    if notes:
        entries.append((PT_NOTE, body_at, 0, 0, len(notes), len(notes)))
    for load in loads:
        at = body_at + len(body) if load.offset is None else load.offset
        memsz = len(load.data) if load.memsz is None else load.memsz
        entries.append((PT_LOAD, at, load.vaddr, load.paddr, len(load.data), memsz))
        if load.offset is None:
            body += load.data
    if headers_last:
        table_at = body_at + len(body)
    table = b"".join(_entry(bits, order, each) for each in entries)
    header = b"\x7fELF" + bytes([bits // 32, 1 if order == "<" else 2, 1]) + bytes(9)
    header += struct.pack(
        f"{order}HHI{word}{word}{word}IHHHHHH",
        kind, machine, 1, 0, table_at, section_at if extended_count else 0, 0, header_size, entry_size,
        PN_XNUM if extended_count else count, section_size, int(extended_count), 0,
    )  # fmt: skip
    section = b""
    if extended_count:
        # Fields before sh_info: name, type, flags, addr, offset, size, link.
        section = struct.pack(
            f"{order}II{word}{word}{word}{word}II{word}{word}", 0, 0, 0, 0, 0, 0, 0, count, 0, 0
        )
    return header + section + (body + table if headers_last else table + body)


def _entry(bits: int, order: str, fields: tuple[int, int, int, int, int, int]) -> bytes:
    kind, offset, vaddr, paddr, filesz, memsz = fields
    if bits == 64:
        return struct.pack(f"{order}IIQQQQQQ", kind, 7, offset, vaddr, paddr, filesz, memsz, 0)
    return struct.pack(f"{order}IIIIIIII", kind, offset, vaddr, paddr, filesz, memsz, 7, 0)

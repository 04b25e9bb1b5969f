"""Writes ELF shared objects, from the System V ABI and its supplements for i386 and x86-64."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import NamedTuple

ET_REL, ET_EXEC, ET_DYN = 1, 2, 3
EM_386, EM_X86_64, EM_AARCH64 = 3, 62, 183
DIRECT, COPY, DATA_SLOT, JUMP_SLOT, RELATIVE, INDIRECT = 1, 5, 6, 7, 8, 37
"""Relocation types; but for the last, their numbers are the same on i386 and x86-64."""
PIE = 0x08000000
PAGE = 4096


class ElfRelocation(NamedTuple):
    """A relocation of a byte behind the start of the data; the addend is in the field on i386."""

    at: int
    kind: int = RELATIVE
    addend: int = 0
    symbol: int = 0


class ElfSymbol(NamedTuple):
    """A symbol; section 0 is that of what is not defined here."""

    value: int
    section: int = 1
    info: int = 0x11


class ElfShared(NamedTuple):
    """A file, and at which bytes of the image code and data are."""

    file: bytes
    code_at: int
    data_at: int


def elf_shared(
    code: bytes,
    data: bytes,
    relocations: Sequence[ElfRelocation] = (),
    *,
    bits: int = 64,
    base: int = 0,
    bss: int = 0,
    symbols: Sequence[ElfSymbol] = (),
    slots: Sequence[ElfRelocation] = (),
    relr: Sequence[int] = (),
    kind: int = ET_DYN,
    machine: int | None = None,
    tags: Sequence[tuple[int, int]] = (),
    interpreter: bool = False,
    code_flags: int = 5,
    behind_headers: bytes = b"",
) -> ElfShared:
    """Write a shared object: a segment with the tables, one of code, one of data with the dynamic section.

    Between segments and behind the last one stand bytes that belong to none.

    Parameters
    ----------
    bss : int
        Bytes of memory behind the data.
    slots : sequence of ElfRelocation
        Those of DT_JMPREL.
    relr : sequence of int
        Words of DT_RELR. Even ones are bytes behind the start of the data, and become addresses.
    tags : sequence of (int, int)
        Further entries of the dynamic section.
    """
    word, wide = ("Q", True) if bits == 64 else ("I", False)
    header_size, entry_size = (64, 56) if wide else (52, 32)
    count = 4 + interpreter
    symbols = [ElfSymbol(0, 0, 0), *symbols]
    symbol_bytes, relocation_bytes = (24, 24) if wide else (16, 8)
    symbols_at = -(-(header_size + count * entry_size + len(behind_headers)) // 8) * 8
    relocations_at = symbols_at + symbol_bytes * len(symbols)
    slots_at = relocations_at + relocation_bytes * len(relocations)
    relr_at = slots_at + relocation_bytes * len(slots)
    tables_end = relr_at + struct.calcsize(word) * len(relr)
    code_at = -(-tables_end // PAGE) * PAGE
    data_at = code_at + -(-len(code) // PAGE) * PAGE

    def relocation(each: ElfRelocation) -> bytes:
        place = base + data_at + each.at
        if wide:
            return struct.pack("<QQq", place, each.symbol << 32 | each.kind, each.addend)
        return struct.pack("<II", place, each.symbol << 8 | each.kind)

    def symbol(each: ElfSymbol) -> bytes:
        if wide:
            return struct.pack("<IBBHQQ", 0, each.info, 0, each.section, each.value, 8)
        return struct.pack("<IIIBBH", 0, each.value, 8, each.info, 0, each.section)

    main, main_size = (7, 8) if wide else (17, 18)
    dynamic = [(6, base + symbols_at)]
    if relocations:
        dynamic += [(main, base + relocations_at), (main_size, relocation_bytes * len(relocations))]
    if slots:
        dynamic += [(20, main), (23, base + slots_at), (2, relocation_bytes * len(slots))]
    if relr:
        dynamic += [(36, base + relr_at), (35, struct.calcsize(word) * len(relr))]
    dynamic += [*tags, (0, 0)]
    dynamic_at = data_at + -(-len(data) // 8) * 8
    table = b"".join(struct.pack(f"<{word}{word}", *each) for each in dynamic)
    filled = data.ljust(dynamic_at - data_at, b"\0") + table

    def entry(kind: int, flags: int, at: int, size: int, memory: int) -> bytes:
        if wide:
            return struct.pack("<IIQQQQQQ", kind, flags, at, base + at, base + at, size, memory, PAGE)
        return struct.pack("<8I", kind, at, base + at, base + at, size, memory, flags, PAGE)

    entries = [
        entry(1, 4, 0, tables_end, tables_end),
        entry(1, code_flags, code_at, len(code), len(code)),
        entry(1, 6, data_at, len(filled), len(filled) + bss),
        entry(2, 6, dynamic_at, len(table), len(table)),
    ]
    if interpreter:
        entries.insert(0, entry(3, 4, 0, 8, 8))
    named = machine if machine is not None else (EM_X86_64 if wide else EM_386)
    head = b"\x7fELF" + bytes([2 if wide else 1, 1, 1]) + bytes(9)
    head += struct.pack(f"<HHI{word}{word}{word}", kind, named, 1, 0, header_size, 0)
    head += struct.pack("<I6H", 0, header_size, entry_size, count, 64 if wide else 40, 0, 0)
    file = (head + b"".join(entries) + behind_headers).ljust(symbols_at, b"\0")
    file += b"".join(map(symbol, symbols)) + b"".join(map(relocation, [*relocations, *slots]))
    file += b"".join(struct.pack(f"<{word}", each if each % 2 else base + data_at + each) for each in relr)
    file = file.ljust(code_at, b"\xbb") + code
    return ElfShared(file.ljust(data_at, b"\xcc") + filled + b"\xdd" * 64, code_at, data_at)

"""The relocation tables of ELF shared objects.

Sources: System V ABI, chapter 5, with the supplements for i386 and x86-64 (relocation types) and the generic
ABI's ``SHT_RELR``. A jump slot holds what lazy binding leaves there: the address of its stub.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

import numpy as np

from hvshare.synth.mapped.image import UnusableError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from hvshare.synth.mapped.image import Architecture, Canvas

_PLTRELSZ, _SYMTAB, _RELA, _RELASZ, _REL, _RELSZ, _PLTREL, _JMPREL = 2, 6, 7, 8, 17, 18, 20, 23
_RELRSZ, _RELR = 35, 36
_UNDEFINED, _ABSOLUTE = 0, 0xFFF1
_TLS, _INDIRECT = 6, 10


class Machine(NamedTuple):
    """What the supplements of the ABI say of an architecture; `symbolic` add an addend, `slots` do not."""

    architecture: Architecture
    word: int
    relative: int
    symbolic: int
    data_slot: int
    jump_slot: int
    tables: tuple[int, int]
    relocation: np.dtype[np.void]
    symbol: np.dtype[np.void]


MACHINES: Final = {
    ("EM_386", 32): Machine(
        "i386",
        4,
        relative=8,
        symbolic=1,
        data_slot=6,
        jump_slot=7,
        tables=(_REL, _RELSZ),
        relocation=np.dtype([("offset", "<u4"), ("info", "<u4")]),
        symbol=np.dtype(
            [
                ("name", "<u4"),
                ("value", "<u4"),
                ("size", "<u4"),
                ("info", "u1"),
                ("other", "u1"),
                ("in", "<u2"),
            ]
        ),
    ),
    ("EM_X86_64", 64): Machine(
        "x86-64",
        8,
        relative=8,
        symbolic=1,
        data_slot=6,
        jump_slot=7,
        tables=(_RELA, _RELASZ),
        relocation=np.dtype([("offset", "<u8"), ("info", "<u8"), ("addend", "<u8")]),
        symbol=np.dtype(
            [
                ("name", "<u4"),
                ("info", "u1"),
                ("other", "u1"),
                ("in", "<u2"),
                ("value", "<u8"),
                ("size", "<u8"),
            ]
        ),
    ),
}


class Fields(NamedTuple):
    """Offsets and values of fields, and how many relocations give none."""

    offsets: NDArray[np.uint64]
    values: NDArray[np.uint64]
    unresolved: int


def relocations(canvas: Canvas, tags: Mapping[int, int], machine: Machine, base: int) -> Fields:
    """Follow all relocation tables; offsets are addresses still."""
    table, size = (tags.get(tag, 0) for tag in machine.tables)
    ranges = [(table, size)] if size else []
    if tags.get(_PLTRELSZ) and tags.get(_PLTREL, machine.tables[0]) == machine.tables[0]:
        slots = tags.get(_JMPREL, 0)
        # Some linkers let the first table go on through the second.
        if not table <= slots < table + size:
            ranges.append((slots, tags[_PLTRELSZ]))
    parts = [_table(canvas, start - base, count, tags, machine, base) for start, count in ranges]
    if tags.get(_RELRSZ):
        parts.append(_packed_relative(canvas, tags.get(_RELR, 0) - base, tags[_RELRSZ], machine, base))
    nothing = np.zeros(0, np.uint64)
    return Fields(
        np.concatenate([nothing, *(part.offsets for part in parts)]),
        np.concatenate([nothing, *(part.values for part in parts)]),
        sum(part.unresolved for part in parts),
    )


def _in_place(canvas: Canvas, places: NDArray[np.uint64], machine: Machine, base: int) -> NDArray[np.uint64]:
    """Read what the file has at addresses."""
    offsets = places - np.uint64(base)
    if (offsets > np.uint64(canvas.size - machine.word)).any():
        raise UnusableError("damaged")
    return canvas.words(offsets.astype(np.int64), machine.word)


def _table(
    canvas: Canvas, start: int, size: int, tags: Mapping[int, int], machine: Machine, base: int
) -> Fields:
    """Follow a table of relocations with or without addends."""
    entries = canvas.table(start, size, machine.relocation)
    places, info = (entries[field].astype(np.uint64) for field in ("offset", "info"))
    shift = np.uint64(32 if machine.word == 8 else 8)
    kinds, numbers = info & ((np.uint64(1) << shift) - np.uint64(1)), (info >> shift).astype(np.int64)
    known = np.isin(kinds, (machine.relative, machine.symbolic, machine.data_slot, machine.jump_slot))
    unresolved = int(np.count_nonzero(~known & (kinds != 0)))
    places, kinds, numbers = places[known], kinds[known], numbers[known]
    held = _in_place(canvas, places, machine, base)
    addends = entries["addend"][known] if "addend" in (machine.relocation.names or ()) else held
    by_symbol = (kinds == machine.symbolic) | (kinds == machine.data_slot)
    symbols = np.zeros(len(kinds), np.uint64)
    defined = np.ones(len(kinds), np.bool_)
    symbols[by_symbol], defined[by_symbol] = _symbols(canvas, tags, numbers[by_symbol], machine, base)
    values = np.select(
        [kinds == machine.jump_slot, kinds == machine.data_slot], [held, symbols], symbols + addends
    )
    if machine.word == 4:
        values &= np.uint64(0xFFFFFFFF)
    return Fields(places[defined], values[defined], unresolved + int(np.count_nonzero(~defined)))


def _symbols(
    canvas: Canvas, tags: Mapping[int, int], numbers: NDArray[np.int64], machine: Machine, base: int
) -> tuple[NDArray[np.uint64], NDArray[np.bool_]]:
    """Give the addresses of symbols, and whether they are places in this image."""
    if not len(numbers):
        return np.zeros(0, np.uint64), np.zeros(0, np.bool_)
    count = int(numbers.max()) + 1
    table = canvas.table(tags.get(_SYMTAB, 0) - base, count * machine.symbol.itemsize, machine.symbol)[
        numbers
    ]
    kinds = table["info"] & 0xF
    elsewhere = np.isin(table["in"], (_UNDEFINED, _ABSOLUTE)) | np.isin(kinds, (_TLS, _INDIRECT))
    return table["value"].astype(np.uint64), ~elsewhere


def _packed_relative(canvas: Canvas, start: int, size: int, machine: Machine, base: int) -> Fields:
    """Unpack a ``DT_RELR`` table: addresses, each followed by bitmaps of the words behind it."""
    words = canvas.table(start, size, np.dtype(f"<u{machine.word}")).astype(np.uint64)
    is_address = (words & np.uint64(1)) == 0
    if not len(words) or not is_address[0]:
        raise UnusableError("damaged")
    at = np.flatnonzero(is_address)
    group = np.cumsum(is_address) - 1
    behind = (np.arange(len(words)) - at[group]).astype(np.uint64)
    width, bits = np.uint64(machine.word), 8 * machine.word - 1
    starts = words[at][group] + width + (behind - np.uint64(1)) * np.uint64(bits) * width
    places = [words[is_address]]
    for bit in range(bits):
        chosen = ~is_address & ((words >> np.uint64(bit + 1)) & np.uint64(1) != 0)
        places.append(starts[chosen] + np.uint64(bit) * width)
    addresses = np.concatenate(places)
    return Fields(addresses, _in_place(canvas, addresses, machine, base), 0)

"""Programs and libraries of Linux: ELF shared objects, mapped and relocated as the kernel and ld.so do.

Source: System V ABI, chapter 5, and what Linux does in ``fs/binfmt_elf.c``: it maps whole pages of the file.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Final

import numpy as np

from hvshare.images.elf.headers import PT_LOAD, ElfHeaders
from hvshare.synth.mapped.elf_relocations import MACHINES, Machine, relocations
from hvshare.synth.mapped.image import PAGE, Canvas, UnusableError, looks_packed

if TYPE_CHECKING:
    from collections.abc import Sequence

    from hvshare.images.elf.headers import ProgramHeader
    from hvshare.images.source import Source
    from hvshare.synth.mapped.image import Architecture, MappedImage

MAGIC: Final = b"\x7fELF"

_PT_DYNAMIC, _PT_INTERP = 2, 3
_EXECUTE, _WRITE, _READ = 1, 2, 4
_SHARED_OBJECT: Final = "ET_DYN"
_PROGRAMS: Final = ("ET_EXEC", _SHARED_OBJECT)
_SONAME, _FLAGS_1 = 14, 0x6FFFFFFB
_PIE: Final = 0x08000000
_MOST_DYNAMIC: Final = 1 << 16
_PACKER: Final = b"UPX!"
_PACKER_WITHIN: Final = 64


def read_elf(source: Source, name: str, architecture: Architecture, most_pages: int) -> MappedImage:
    """Map an ELF shared object.

    Parameters
    ----------
    source : Source
        The file.
    name : str
        What the image is called.
    architecture : str
        The only one that is wanted.
    most_pages : int
        How many pages are wanted.

    Raises
    ------
    UnusableError
        If it is no image that a guest can have.
    OverBudgetError
        If it has more pages than are wanted.
    ImageError
        If its headers are damaged.
    """
    headers = ElfHeaders(source)
    kind = headers.file["e_type"]
    if kind not in _PROGRAMS:
        raise UnusableError("no program or library")
    machine = MACHINES.get((headers.machine, headers.file.elfclass))
    if machine is None or machine.architecture != architecture or headers.order != "<":
        raise UnusableError("other architecture")
    loads = [each for each in headers.program_headers if each.type == PT_LOAD and each.memsz]
    if not loads:
        raise UnusableError("no program or library")
    if _is_packed(source, headers):
        raise UnusableError("packed")
    base = loads[0].vaddr // PAGE * PAGE
    flags = _flags(source, loads, machine)
    canvas = Canvas(_checked_size(loads, base), most_pages)
    for each in loads:
        _map(source, canvas, each, base, flags[each.told_at])
    if kind != _SHARED_OBJECT:
        raise UnusableError("without relocations")
    tags = _dynamic_tags(canvas, headers.program_headers, machine, base)
    relocated = relocations(canvas, tags, machine, base)
    places = relocated.offsets - np.uint64(base)
    if (places >= np.uint64(canvas.size)).any():
        raise UnusableError("damaged")
    order = np.argsort(places, kind="stable")
    offsets, values = places[order].astype(np.int64), relocated.values[order]
    widths = np.full(len(offsets), machine.word, np.uint8)
    canvas.check_fields(offsets, widths)
    canvas.put(offsets, values, machine.word)
    has_interpreter = any(each.type == _PT_INTERP for each in headers.program_headers)
    return canvas.finish(
        name,
        architecture,
        (offsets, values, widths),
        is_program=bool(tags.get(_FLAGS_1, 0) & _PIE) or (has_interpreter and _SONAME not in tags),
        preferred_base=base,
        unresolved=relocated.unresolved,
    )


def _is_packed(source: Source, headers: ElfHeaders) -> bool:
    """Look for the mark of UPX, which stands behind the program headers."""
    end = headers.file["e_phoff"] + headers.file["e_phnum"] * headers.file["e_phentsize"]
    return _PACKER in source.head[end : end + _PACKER_WITHIN]


def _flags(source: Source, loads: Sequence[ProgramHeader], machine: Machine) -> dict[int, int]:
    """Tell what may be done with segments, by where their entries stand in the file."""
    within = 4 if machine.word == 8 else 24
    found = {}
    for each in loads:
        word = bytearray(4)
        source.pread(memoryview(word), each.told_at + within)
        found[each.told_at] = struct.unpack("<I", word)[0]
    return found


def _checked_size(loads: Sequence[ProgramHeader], base: int) -> int:
    """Bytes from the first page to the last segment's end, after segments were held against each other."""
    end = base
    for each in loads:
        start = each.vaddr // PAGE * PAGE
        if start < end or (each.vaddr - each.offset) % PAGE or each.filesz > each.memsz:
            raise UnusableError("damaged")
        end = -(-(each.vaddr + each.memsz) // PAGE) * PAGE
    return end - base


def _map(source: Source, canvas: Canvas, load: ProgramHeader, base: int, flags: int) -> None:
    executable, writable = bool(flags & _EXECUTE), bool(flags & _WRITE)
    start, within = load.vaddr - base, load.vaddr % PAGE
    stored_end = start + load.filesz
    if load.filesz:
        if load.offset + load.filesz > source.end:
            raise UnusableError("damaged")
        # The kernel maps whole pages of the file, with what stands there before and behind a segment.
        first = start - within
        count = min(-(-stored_end // PAGE) * PAGE - first, source.end - (load.offset - within))
        canvas.read(source, load.offset - within, first, count)
    end = start + load.memsz
    if load.memsz > load.filesz:
        canvas.bytes[stored_end : -(-end // PAGE) * PAGE] = 0
    letters = "".join(
        letter if flags & bit else "-" for letter, bit in (("r", _READ), ("w", _WRITE), ("x", _EXECUTE))
    )
    canvas.add_section(letters, start, end, executable=executable, writable=writable)
    if executable and writable and looks_packed(canvas.bytes[start:stored_end], load.memsz):
        raise UnusableError("packed")


def _dynamic_tags(
    canvas: Canvas, headers: Sequence[ProgramHeader], machine: Machine, base: int
) -> dict[int, int]:
    """Read the dynamic section; of a tag that is there twice, the last counts, as with ld.so."""
    dynamic = next((each for each in headers if each.type == _PT_DYNAMIC), None)
    if dynamic is None:
        raise UnusableError("without relocations")
    if dynamic.memsz > _MOST_DYNAMIC:
        raise UnusableError("damaged")
    word = f"<u{machine.word}"
    entries = canvas.table(dynamic.vaddr - base, dynamic.memsz, np.dtype([("tag", word), ("value", word)]))
    ends = np.flatnonzero(entries["tag"] == 0)
    entries = entries[: ends[0]] if len(ends) else entries
    return dict(zip(entries["tag"].tolist(), entries["value"].tolist(), strict=True))

"""What the headers of an ELF file say, checked against the file.

Source: System V ABI, chapters 4 and 5, and elf(5); PN_XNUM and notes as in core(5) and the kernel's
``fs/binfmt_elf.c``. The headers themselves are read by pyelftools.
"""

from __future__ import annotations

import io
import struct
from itertools import islice
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import numpy as np
from elftools.elf.elffile import ELFFile

from hvshare.errors import DamagedImageError, HvshareError
from hvshare.images.segments import MOST_SEGMENTS
from hvshare.images.source import Positioned, read_part

if TYPE_CHECKING:
    from collections.abc import Iterator

PT_LOAD: Final = 1
PT_NOTE: Final = 4
_MOST_SECTIONS: Final = 1 << 16
_MOST_NOTES: Final = 8192
_MOST_NOTE_BYTES: Final = 64 << 20
_ENTRY_FIELDS: Final = {
    64: (("type", 4), ("flags", 4), ("offset", 8), ("vaddr", 8), ("paddr", 8), ("filesz", 8), ("memsz", 8)),
    32: (("type", 4), ("offset", 4), ("vaddr", 4), ("paddr", 4), ("filesz", 4), ("memsz", 4)),
}
_ENTRY_SIZE: Final = {64: 56, 32: 32}
_SECTION_SIZE: Final = {64: 64, 32: 40}


class ProgramHeader(NamedTuple):
    """An entry of the program header table; all fields in bytes.

    Attributes
    ----------
    told_at : int
        Byte of the file at which the entry starts.
    """

    type: int
    offset: int
    vaddr: int
    paddr: int
    filesz: int
    memsz: int
    told_at: int


class Note(NamedTuple):
    """A note: who defined it, its number, and its contents."""

    owner: str
    type: int
    description: bytes


class ElfHeaders:
    """The headers of an ELF file.

    Parameters
    ----------
    data : Positioned
        The file.

    Attributes
    ----------
    file : ELFFile
        What pyelftools makes of it.
    machine : str
        Such as ``EM_X86_64``.
    is_core : bool
        Whether it is a core at all.
    program_headers : list of ProgramHeader
        All entries of the table.

    Raises
    ------
    DamagedImageError
        If the headers contradict themselves or the file.
    TruncatedImageError
        If a table goes beyond the end of the file.
    """

    def __init__(self, data: Positioned) -> None:
        self._data = data
        try:
            self.file = ELFFile(io.BufferedReader(_PositionedFile(data)))
            self.machine = str(self.file["e_machine"])
            self.is_core = self.file["e_type"] == "ET_CORE"
            count = self._checked_count()
        except HvshareError:
            raise
        except Exception as error:
            raise self._damaged("its ELF header", error, 0) from error
        self.program_headers = self._read_program_headers(count)

    def _checked_count(self) -> int:
        """Count program headers; the number behind PN_XNUM stands in the first section header."""
        file = self.file
        sections_end = file["e_shoff"] + file["e_shnum"] * file["e_shentsize"]
        if file["e_shoff"] and sections_end > self._data.end:
            size = file["e_shnum"] * file["e_shentsize"]
            read_part(self._data, file["e_shoff"], size, "the section headers")
        sections = file.num_sections()
        if sections > _MOST_SECTIONS:
            raise DamagedImageError(
                f"it says that it has {sections:,} section headers",
                path=self._data.path,
                offset=file["e_shoff"],
            )
        count: int = file.num_segments()
        if count > MOST_SEGMENTS:
            raise DamagedImageError(
                f"it says that it has {count:,} program headers", path=self._data.path, offset=56
            )
        return count

    def _read_program_headers(self, count: int) -> list[ProgramHeader]:
        bits = self.file.elfclass
        size, start = _ENTRY_SIZE[bits], self.file["e_phoff"]
        if count and self.file["e_phentsize"] != size:
            raise DamagedImageError(
                f"its program headers are of {self.file['e_phentsize']:,} bytes instead of {size}",
                path=self._data.path,
                offset=54,
                advice="take the dump again",
            )
        order = "<" if self.file.little_endian else ">"
        fields = [(name, f"{order}u{width}") for name, width in _ENTRY_FIELDS[bits]]
        table = read_part(self._data, start, count * size, "the table of program headers")
        width = sum(width for _, width in _ENTRY_FIELDS[bits])
        entry = np.dtype([*fields, ("rest", f"V{size - width}")])
        columns = np.frombuffer(table, entry)
        told_at = [start + at * size for at in range(count)]
        names = ProgramHeader._fields[:-1]
        return list(map(ProgramHeader, *(columns[name].tolist() for name in names), told_at))

    def section(self, name: str) -> Any | None:  # noqa: ANN401  # pyelftools' own type
        """Give the section of a name as pyelftools sees it, or None.

        Raises
        ------
        DamagedImageError
            If the section headers cannot be read.
        """
        try:
            return next(
                (self.file.get_section(index) for index in self._sections_named(name.encode() + b"\0")), None
            )
        except HvshareError:
            raise
        except Exception as error:
            raise self._damaged("its section headers", error, self.file["e_shoff"]) from error

    def _sections_named(self, name: bytes) -> Iterator[int]:
        """List sections of a name; of names, which tell no length, no more is read than decides."""
        count, start = self.file.num_sections(), self.file["e_shoff"]
        if not count or self.file["e_shentsize"] != _SECTION_SIZE[self.file.elfclass]:
            return
        wide, order = self.file.elfclass == 64, "<" if self.file.little_endian else ">"
        fields = [("name", 4), ("type", 4), ("flags", 8 if wide else 4), ("addr", 8 if wide else 4)]
        fields += [("offset", 8 if wide else 4), ("size", 8 if wide else 4)]
        width = sum(size for _, size in fields)
        entry = np.dtype(
            [
                *((field, f"{order}u{size}") for field, size in fields),
                ("rest", f"V{_SECTION_SIZE[self.file.elfclass] - width}"),
            ]
        )
        table = np.frombuffer(
            read_part(self._data, start, count * entry.itemsize, "the section headers"), entry
        )
        names_in = self.file.get_shstrndx()
        if names_in >= count:
            return
        names_at = int(table["offset"][names_in])
        for index, at in enumerate((table["name"].astype(np.uint64)).tolist()):
            if names_at + at + len(name) > self._data.end:
                continue
            if read_part(self._data, names_at + at, len(name), "the name of a section") == name:
                yield index

    def notes(self) -> Iterator[Note]:
        """List the notes of all PT_NOTE entries.

        Raises
        ------
        DamagedImageError
            If they cannot be read.
        """
        for each in self.program_headers:
            if each.type != PT_NOTE or not each.filesz:
                continue
            if each.filesz > _MOST_NOTE_BYTES or each.offset + each.filesz > self._data.end:
                raise DamagedImageError(
                    f"notes of {each.filesz:,} bytes should be at byte {each.offset:,}",
                    path=self._data.path,
                    offset=each.told_at,
                    advice="copy or take the dump again",
                )
            part = read_part(self._data, each.offset, each.filesz, "the notes")
            yield from islice(self._notes_in(part, each.offset), _MOST_NOTES)

    def _notes_in(self, part: bytes, offset: int) -> Iterator[Note]:
        header = struct.Struct("<III" if self.file.little_endian else ">III")
        at = 0
        while at + header.size <= len(part):
            name_size, size, kind = header.unpack_from(part, at)
            name_at = at + header.size
            start = name_at + -(-name_size // 4) * 4
            if start + size > len(part):
                raise DamagedImageError(
                    f"a note of {size:,} bytes goes beyond the notes, which end at byte "
                    f"{offset + len(part):,}",
                    path=self._data.path,
                    offset=offset + at,
                    advice="copy or take the dump again",
                )
            owner = part[name_at : name_at + name_size].split(b"\0")[0].decode("ascii", "backslashreplace")
            yield Note(owner, kind, part[start : start + size])
            at = start + -(-size // 4) * 4

    def _damaged(self, what: str, error: Exception, offset: int) -> DamagedImageError:
        reason = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
        return DamagedImageError(
            f"{what} cannot be read ({reason})",
            path=self._data.path,
            offset=offset,
            advice="copy or take the dump again",
        )


class _PositionedFile(io.RawIOBase):
    """Positioned bytes as a file of its own, so that no other reader's offset moves."""

    def __init__(self, data: Positioned) -> None:
        self._data = data
        self._at = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._data.end}[whence]
        self._at = max(base + offset, 0)
        return self._at

    def tell(self) -> int:
        return self._at

    def readinto(self, buffer: Any) -> int:  # noqa: ANN401  # whatever has the buffer protocol
        view = memoryview(buffer).cast("B")
        count = max(min(len(view), self._data.end - self._at), 0)
        self._data.pread(view[:count], self._at)
        self._at += count
        return count

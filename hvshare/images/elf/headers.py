"""What the headers of an ELF file say, checked against the file.

Source: System V ABI, chapters 4 and 5, and elf(5); PN_XNUM and notes as in core(5) and the kernel's
``fs/binfmt_elf.c``. pyelftools reads the ELF header and the first section header. Tables and notes are
read here, since pyelftools follows sections to those that they refer to, and reads notes and names as far as
the file goes: hours, where a file is hostile.
"""

from __future__ import annotations

import io
import struct
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
_MOST_NAMES: Final = 1 << 20
_MOST_NOTES: Final = 1 << 16
_MOST_NAME: Final = 64
_MOST_DESCRIPTION: Final = 1 << 20
_ENTRY_FIELDS: Final = {
    64: (("type", 4), ("flags", 4), ("offset", 8), ("vaddr", 8), ("paddr", 8), ("filesz", 8), ("memsz", 8)),
    32: (("type", 4), ("offset", 4), ("vaddr", 4), ("paddr", 4), ("filesz", 4), ("memsz", 4)),
}
_ENTRY_SIZE: Final = {64: 56, 32: 32}
_SECTION_LAYOUT: Final = {64: "IIQQQQIIQQ", 32: "10I"}
_NOTE_HEADER_BYTES: Final = 12


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


class SectionHeader(NamedTuple):
    """An entry of the section header table; offset, size and alignment in bytes."""

    name: str
    type: int
    offset: int
    size: int
    alignment: int


class Note(NamedTuple):
    """A note: who defined it, its number, and where what it tells is.

    Attributes
    ----------
    owner : str
        At most 64 characters.
    offset, size : int
        Of its contents, within the file; see `ElfHeaders.description`.
    """

    owner: str
    type: int
    offset: int
    size: int


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
    order : str
        Byte order as `struct` spells it.
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
            self.order = "<" if self.file.little_endian else ">"
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
        fields = [(name, f"{self.order}u{width}") for name, width in _ENTRY_FIELDS[bits]]
        table = read_part(self._data, start, count * size, "the table of program headers")
        width = sum(width for _, width in _ENTRY_FIELDS[bits])
        entry = np.dtype([*fields, ("rest", f"V{size - width}")])
        columns = np.frombuffer(table, entry)
        told_at = [start + at * size for at in range(count)]
        names = ProgramHeader._fields[:-1]
        return list(map(ProgramHeader, *(columns[name].tolist() for name in names), told_at))

    def sections(self, most: int = _MOST_SECTIONS) -> list[SectionHeader]:
        """List the sections.

        Raises
        ------
        DamagedImageError
            If there are more of them than `most`, or their names take more than a megabyte.
        TruncatedImageError
            If their headers or names go beyond the end of the file.
        """
        file = self.file
        layout = struct.Struct(f"{self.order}{_SECTION_LAYOUT[file.elfclass]}")
        start = file["e_shoff"]
        try:
            count, names_at = file.num_sections(), file.get_shstrndx()
        except HvshareError:
            raise
        except Exception as error:
            raise self._damaged("its section headers", error, start) from error
        if not count:
            return []
        if count > most or file["e_shentsize"] != layout.size:
            raise DamagedImageError(
                f"it says that it has {count:,} section headers of {file['e_shentsize']:,} bytes",
                path=self._data.path,
                offset=start,
                advice="copy or take the dump again",
            )
        table = list(
            layout.iter_unpack(read_part(self._data, start, count * layout.size, "the section headers"))
        )
        names = self._section_names(table[names_at][4:6]) if 0 < names_at < count else b""
        return [
            SectionHeader(_text(names[each[0] : each[0] + _MOST_NAME]), each[1], each[4], each[5], each[8])
            for each in table
        ]

    def _section_names(self, place: tuple[int, ...]) -> bytes:
        offset, size = place
        if size > _MOST_NAMES:
            raise DamagedImageError(
                f"the names of its sections take {size:,} bytes",
                path=self._data.path,
                offset=self.file["e_shoff"],
                advice="copy or take the dump again",
            )
        return read_part(self._data, offset, size, "the names of sections")

    def notes(self) -> Iterator[Note]:
        """List the notes of all PT_NOTE entries, up to more than any core has.

        Raises
        ------
        DamagedImageError
            If an entry goes beyond the end of the file, or a note beyond its entry.
        """
        left = _MOST_NOTES
        for each in self.program_headers:
            if each.type != PT_NOTE or not each.filesz:
                continue
            end = each.offset + each.filesz
            if end > self._data.end:
                raise DamagedImageError(
                    f"notes of {each.filesz:,} bytes should be at byte {each.offset:,}",
                    path=self._data.path,
                    offset=each.told_at,
                    advice="copy or take the dump again",
                )
            at = each.offset
            while left and at + _NOTE_HEADER_BYTES <= end:
                left -= 1
                told_at = at
                head = read_part(self._data, at, min(_NOTE_HEADER_BYTES + _MOST_NAME, end - at), "a note")
                name_size, size, number = struct.unpack_from(f"{self.order}3I", head)
                if not name_size and not size:  # kernels take that for the end of the notes, too
                    break
                at += _NOTE_HEADER_BYTES + -(-name_size // 4) * 4
                if at + size > end:
                    raise DamagedImageError(
                        f"a note of {size:,} bytes goes beyond the notes, which end at byte {end:,}",
                        path=self._data.path,
                        offset=told_at,
                        advice="copy or take the dump again",
                    )
                owner = _text(head[_NOTE_HEADER_BYTES : _NOTE_HEADER_BYTES + name_size])
                yield Note(owner, number, at, size)
                at += -(-size // 4) * 4

    def description(self, note: Note) -> bytes:
        """Give the contents of a note, the first megabyte of them at the most."""
        return read_part(self._data, note.offset, min(note.size, _MOST_DESCRIPTION), "a note")

    def _damaged(self, what: str, error: Exception, offset: int) -> DamagedImageError:
        reason = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
        return DamagedImageError(
            f"{what} cannot be read ({reason})",
            path=self._data.path,
            offset=offset,
            advice="copy or take the dump again",
        )


def _text(field: bytes) -> str:
    return field.split(b"\0")[0].decode("latin-1")


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

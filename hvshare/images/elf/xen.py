"""Xen cores, ``xl dump-core``: ELF files whose sections hold pages and the frame number of each.

Source: Xen, ``docs/misc/dump-core-format.txt`` and ``tools/libs/ctrl/xc_core.c``. ``.xen_pages`` holds pages
in any order; ``.xen_pfn`` (guests whose frame numbers Xen translates) or ``.xen_p2m`` (pairs, with the host's
frame number) holds the guest frame number of each; ``.note.Xen`` says how many they are. Where pages went
away while Xen wrote, entries have a frame number of all ones. Frame numbers that do not occur were ballooned
out, or never memory.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Final

import numpy as np

from hvshare.errors import DamagedImageError, EmptyImageError, UnsupportedImageError
from hvshare.images.extents import Extents
from hvshare.images.runs import RunKind, Runs
from hvshare.images.segments import ADDRESS_LIMIT
from hvshare.images.source import read_part
from hvshare.images.stored import StoredImage
from hvshare.units import PAGE_SIZE

if TYPE_CHECKING:
    from typing import TypeAlias

    import numpy.typing as npt

    from hvshare.images.elf.headers import ElfHeaders, SectionHeader
    from hvshare.images.image import GuestImage
    from hvshare.images.opening import Opening
    from hvshare.images.source import Positioned, Source

    _Numbers: TypeAlias = npt.NDArray[np.int64]
    _Stretches: TypeAlias = tuple[_Numbers, _Numbers, _Numbers]

_HEADER_NOTE: Final = 0x2000001
_VERSION_NOTE: Final = 0x2000002
_FORMAT_NOTE: Final = 0x2000003
_MAGICS: Final = {0xF00FEBED: "paravirtualized", 0xF00FEBEE: "fully virtualized"}
_NO_FRAME: Final = (1 << 64) - 1
_SHT_NULL, _SHT_NOBITS = 0, 8
_MOST_SECTIONS: Final = 1024  # Xen writes nine at the most
_MOST_NOTE_BYTES: Final = 1 << 20
_WINDOW: Final = 1 << 17  # entries of the table that are looked at at once
_TAKE_AGAIN: Final = "copy or take the dump again"


def read_xen(
    opening: Opening, source: Source, headers: ElfHeaders, data: Positioned | None = None
) -> GuestImage:
    """Make an image of an ELF file that has a section ``.xen_pages``.

    Parameters
    ----------
    opening : Opening
        What it is read from.
    source : Source
        The file.
    headers : ElfHeaders
        Its headers.
    data : Positioned, optional
        What the headers refer to, if that is not the file itself.

    Raises
    ------
    DamagedImageError
        If sections, notes and the file contradict each other, or a frame number occurs twice.
    UnsupportedImageError
        If it is of another version or its pages are not of 4 KB.
    EmptyImageError
        If it holds no page.
    """
    core = _Core(headers, source if data is None else data)
    runs, extents = _lay_out(core)
    image = StoredImage(opening.name, source, runs, extents, data)
    image.format, image.layout = "xen-core", f"pages by frame number from {core.table.name}"
    image.tool = core.tool
    image.details = core.details
    if unused := core.pages - extents.pages:
        image.details["entries without a page"] = f"{unused:,}"
    return image


class _Core:
    """What sections and notes say, checked against each other and the file."""

    def __init__(self, headers: ElfHeaders, data: Positioned) -> None:
        self.data = data
        self.order = headers.order
        self.tool = "Xen"
        self.details: dict[str, str] = {}
        self.pages = -1
        sections = [
            each for each in headers.sections(_MOST_SECTIONS) if each.type not in (_SHT_NULL, _SHT_NOBITS)
        ]
        self.stored = self._one_of(sections, ".xen_pages")
        self.table = self._one_of(sections, ".xen_pfn", ".xen_p2m")
        self._read_notes(self._one_of(sections, ".note.Xen"))
        self.entry_size = 8 if self.table.name == ".xen_pfn" else 16
        self._check_size(self.stored, PAGE_SIZE)
        self._check_size(self.table, self.entry_size)
        self._check_apart(sections)

    def _one_of(self, sections: list[SectionHeader], *names: str) -> SectionHeader:
        found = [each for each in sections if each.name in names]
        if len(found) != 1:
            raise self._damaged(f"it should have one section {' or '.join(names)}, and has {len(found):,}", 0)
        (section,) = found
        if section.offset + section.size > self.data.end:
            read_part(self.data, section.offset, section.size, f"the section {section.name}")
        return section

    def _read_notes(self, section: SectionHeader) -> None:
        if section.size > _MOST_NOTE_BYTES:
            raise self._damaged(f"its notes take {section.size:,} bytes", section.offset)
        notes = read_part(self.data, section.offset, section.size, "its notes")
        at = 0
        while at + 12 <= len(notes):
            name_size, size, kind = struct.unpack_from(f"{self.order}3I", notes, at)
            start = at + 12 + -(-name_size // 4) * 4
            end = start + size
            if end > len(notes):
                raise self._damaged("a note goes beyond its section", section.offset + at)
            if notes[at + 12 : at + 12 + name_size] == b"Xen\0":
                self._read_note(kind, notes[start:end], section.offset + start)
            at = start + -(-size // 4) * 4
        if self.pages < 0:
            raise self._damaged("its notes do not say how many pages it has", section.offset)

    def _read_note(self, kind: int, note: bytes, offset: int) -> None:
        if kind == _HEADER_NOTE and len(note) >= 32:
            magic, processors, self.pages, page_size = struct.unpack_from(f"{self.order}4Q", note)
            if magic not in _MAGICS:
                raise self._damaged(f"its magic {magic:#x} is not one of Xen's", offset)
            if page_size != PAGE_SIZE:
                raise UnsupportedImageError(
                    f"its pages are of {page_size:,} bytes, and hvshare knows pages of {PAGE_SIZE:,}",
                    path=self.data.path,
                    offset=offset,
                )
            self.details |= {"guest": _MAGICS[magic], "virtual CPUs": f"{processors:,}"}
        elif kind == _VERSION_NOTE and len(note) >= 32:
            major, minor, extra = struct.unpack_from(f"{self.order}QQ16s", note)
            name = extra.split(b"\0")[0].decode("utf-8", "backslashreplace")
            self.tool = f"Xen {major}.{minor}{name}"
        elif kind == _FORMAT_NOTE and len(note) >= 8:
            (version,) = struct.unpack_from(f"{self.order}Q", note)
            if version >> 32:
                raise UnsupportedImageError(
                    f"it is a Xen core of version {version >> 32}, and this reader knows version 0",
                    path=self.data.path,
                    offset=offset,
                    advice="convert the dump to raw",
                )

    def _check_size(self, section: SectionHeader, size: int) -> None:
        if section.size != self.pages * size:
            raise self._damaged(
                f"the section {section.name} has {section.size:,} bytes, and the notes tell of "
                f"{self.pages:,} pages",
                section.offset,
            )

    def _check_apart(self, sections: list[SectionHeader]) -> None:
        """Make sure that nothing else lies where pages or their frame numbers should."""
        for each in (self.stored, self.table):
            if each.alignment > 1 and each.offset % each.alignment:
                raise self._damaged(
                    f"the section {each.name} starts at no multiple of {each.alignment:,}", each.offset
                )
            for other in sections:
                if other is not each and max(each.offset, other.offset) < min(
                    each.offset + each.size, other.offset + other.size
                ):
                    raise self._damaged(f"the sections {each.name} and {other.name} overlap", each.offset)

    def frames(self, first: int, count: int) -> npt.NDArray[np.uint64]:
        """Guest frame numbers of some pages, by their place in the file."""
        at = self.table.offset + first * self.entry_size
        part = read_part(self.data, at, count * self.entry_size, "frame numbers")
        # In an entry of .xen_p2m, the guest's frame number is the first of the two.
        entries = np.frombuffer(part, f"{self.order}u8").astype(np.uint64, copy=False)
        return entries[:: self.entry_size // 8]

    def _damaged(self, problem: str, offset: int) -> DamagedImageError:
        return DamagedImageError(problem, path=self.data.path, offset=offset, advice=_TAKE_AGAIN)


def _lay_out(core: _Core) -> tuple[Runs, Extents]:
    """Put pages into the order of their frame numbers."""
    starts, places, lengths = _stretches(core)
    if not len(starts):
        raise EmptyImageError("it holds no page", path=core.data.path, advice="check how the dump was made")
    starts, places, lengths = _in_order(core, starts, places, lengths)
    runs, extents = Runs(), Extents()
    # A window at a time: lists of numbers take several times what the arrays do.
    for at in range(0, len(starts), _WINDOW):
        part = slice(at, at + _WINDOW)
        offsets = core.stored.offset + places[part] * PAGE_SIZE
        for start, offset, length in zip(
            starts[part].tolist(), offsets.tolist(), lengths[part].tolist(), strict=True
        ):
            runs.append(start, length, RunKind.PRESENT)
            extents.append(offset, length)
    return runs, extents


def _in_order(core: _Core, starts: _Numbers, places: _Numbers, lengths: _Numbers) -> _Stretches:
    """Sort stretches by frame numbers, none of which may be there twice."""
    order = np.argsort(starts, kind="stable")
    starts, places, lengths = starts[order], places[order], lengths[order]
    twice = np.flatnonzero(starts[1:] < starts[:-1] + lengths[:-1])
    if len(twice):
        frame, place = int(starts[twice[0] + 1]), int(places[twice[0] + 1])
        raise DamagedImageError(
            f"guest frame number {frame:#x} is there twice",
            path=core.data.path,
            offset=core.table.offset + place * core.entry_size,
            advice=_TAKE_AGAIN,
        )
    return starts, places, lengths


def _stretches(core: _Core) -> _Stretches:
    """List pages that follow each other in the guest and in the file: frame number, place, and how many."""
    columns: tuple[list[_Numbers], ...] = ([], [], [])
    for first in range(0, core.pages, _WINDOW):
        frames = core.frames(first, min(_WINDOW, core.pages - first))
        used = np.flatnonzero(frames != _NO_FRAME)
        beyond = used[frames[used] >= ADDRESS_LIMIT // PAGE_SIZE]
        if len(beyond):
            raise DamagedImageError(
                f"guest frame number {int(frames[beyond[0]]):#x} goes beyond where addresses end",
                path=core.data.path,
                offset=core.table.offset + (first + int(beyond[0])) * core.entry_size,
                advice=_TAKE_AGAIN,
            )
        if not len(used):
            continue
        numbers = frames[used].astype(np.int64)
        breaks = np.flatnonzero((np.diff(numbers) != 1) | (np.diff(used) != 1)) + 1
        at = np.concatenate(([0], breaks))
        # At once, so that a table that is a hole of the file, all zeros, does not have to be read to its end.
        found = _in_order(core, numbers[at], used[at] + first, np.diff(np.append(at, len(used))))
        for column, part in zip(columns, found, strict=True):
            column.append(part)
    empty = np.empty(0, np.int64)
    starts, places, lengths = (np.concatenate(column) if column else empty for column in columns)
    return starts, places, lengths

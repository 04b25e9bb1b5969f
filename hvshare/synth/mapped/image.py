"""What a program or library is once it is mapped, and what its readers have in common."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Literal

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from hvshare.images.source import Source

Architecture = Literal["i386", "x86-64"]
"""Those that a guest can have."""

Reason = Literal[
    "damaged",
    "packed",
    "without relocations",
    "other architecture",
    "no program or library",
    "too large",
    "unreadable",
]
"""Why a file is no image that a guest can have."""

PAGE: Final = 4096
MOST_FILE_BYTES: Final = 256 << 20
MOST_IMAGE_BYTES: Final = 512 << 20

_WORDS: Final = PAGE // 8
_FEW_BYTES: Final = 1 << 12
_SPARSE: Final = 8
_SPARSE_BYTES: Final = 1 << 16


class UnusableError(Exception):
    """A file that gives no image; for `reading.read_images`, which counts the reasons."""

    def __init__(self, reason: Reason) -> None:
        super().__init__(reason)
        self.reason: Reason = reason


class OverBudgetError(Exception):
    """An image of more pages than are wanted."""


@dataclass(frozen=True)
class MappedImage:
    """A program or library in memory, and where it holds addresses of itself.

    Attributes
    ----------
    name : str
        Its path within the directory, with slashes.
    architecture : str
        ``i386`` or ``x86-64``.
    is_program : bool
        Whether it is started by itself; otherwise programs load it.
    preferred_base : int
        The address that `pages` are right for: ImageBase of a PE file, the lowest page of an ELF file, which
        is 0 for nearly all.
    pages : ndarray of uint64, shape (pages, 512)
        From the base on, without gaps.
    mapped : ndarray of bool, shape (pages,)
        Whether a page is there at all: between two segments there may be addresses without memory.
    executable, writable : ndarray of bool, shape (pages,)
        What may be done with a page.
    section : ndarray of uint16, shape (pages,)
        A number within `section_names`; 0 where nothing is mapped.
    section_names : tuple of str
        Of PE files as their headers name them, ``headers`` for these; of ELF files, whose loader knows no
        sections, what may be done with a segment, such as ``r-x``. The first one is empty.
    offsets : ndarray of int64, shape (fields,)
        Byte of the image at which a relocated field starts, ascending. Fields do not overlap.
    values : ndarray of uint64, shape (fields,)
        What a field holds at the preferred base. At another base it holds as much more as the base is higher.
    widths : ndarray of uint8, shape (fields,)
        Bytes of a field, 4 or 8.
    unresolved : int
        Relocations that need another image, or are of a kind that a base does not decide. Their fields are as
        in the file.
    """

    name: str
    architecture: Architecture
    is_program: bool
    preferred_base: int
    pages: NDArray[np.uint64]
    mapped: NDArray[np.bool_]
    executable: NDArray[np.bool_]
    writable: NDArray[np.bool_]
    section: NDArray[np.uint16]
    section_names: tuple[str, ...]
    offsets: NDArray[np.int64]
    values: NDArray[np.uint64]
    widths: NDArray[np.uint8]
    unresolved: int

    @property
    def relocated_pages(self) -> NDArray[np.bool_]:
        """Whether at least one byte of a relocated field lies on a page, of shape (pages,)."""
        touched = np.zeros(len(self.pages), np.bool_)
        touched[self.offsets // PAGE] = True
        touched[(self.offsets + self.widths - 1) // PAGE] = True
        return touched


class Canvas:
    """The pages of an image while it is mapped: zero, and not there, until something is.

    Parameters
    ----------
    size : int
        Bytes.
    most_pages : int
        How many pages are wanted.

    Attributes
    ----------
    size : int
        Bytes, a multiple of 4 KB.
    pages, mapped, executable, writable, section
        As `MappedImage` has them.
    bytes : ndarray of uint8, shape (size,)
        The same memory as `pages`.
    section_names : list of str
        As `MappedImage` has them.

    Raises
    ------
    UnusableError
        If no image is so large, or it has no page. Nothing is allocated then.
    OverBudgetError
        If it has more pages than are wanted. Nothing is allocated then.
    """

    def __init__(self, size: int, most_pages: int) -> None:
        count = -(-size // PAGE)
        if size > MOST_IMAGE_BYTES:
            raise UnusableError("too large")
        if not count:
            raise UnusableError("damaged")
        if count > most_pages:
            raise OverBudgetError
        self.size = count * PAGE
        self.pages: NDArray[np.uint64] = np.zeros((count, _WORDS), np.uint64)
        self.bytes: NDArray[np.uint8] = self.pages.reshape(-1).view(np.uint8)
        self.mapped = np.zeros(count, np.bool_)
        self.executable = np.zeros(count, np.bool_)
        self.writable = np.zeros(count, np.bool_)
        self.section = np.zeros(count, np.uint16)
        self.section_names = [""]

    def add_section(self, name: str, start: int, end: int, *, executable: bool, writable: bool) -> None:
        """Say what is mapped from one byte up to another; a page of two sections is named by the first."""
        if name not in self.section_names:
            self.section_names.append(name)
        pages = slice(start // PAGE, -(-end // PAGE))
        unnamed = np.flatnonzero(self.section[pages] == 0) + pages.start
        self.section[unnamed] = self.section_names.index(name)
        self.mapped[pages] = True
        self.executable[pages] |= executable
        self.writable[pages] |= writable

    def read(self, source: Source, offset: int, start: int, count: int) -> None:
        """Copy bytes of the file from an offset to a place in the image.

        Raises
        ------
        UnusableError
            If the file ends before.
        """
        if offset + count > source.end:
            raise UnusableError("damaged")
        if count:
            source.pread(self.bytes.data[start : start + count], offset)

    def table(self, start: int, size: int, entry: np.dtype[Any]) -> NDArray[Any]:
        """Give what an image says is a table, without its last bytes if they are no whole entry.

        Raises
        ------
        UnusableError
            If it does not lie within the image.
        """
        if not 0 <= start <= start + size <= self.size:
            raise UnusableError("damaged")
        return self.bytes[start : start + size // entry.itemsize * entry.itemsize].view(entry)

    def words(self, offsets: NDArray[np.int64], width: int) -> NDArray[np.uint64]:
        """Read numbers of 4 or 8 bytes, at any bytes of the image."""
        columns: NDArray[np.uint8] = self.bytes[offsets[:, None] + np.arange(width)]
        return columns.view(f"<u{width}").reshape(-1).astype(np.uint64)

    def put(self, offsets: NDArray[np.int64], values: NDArray[np.uint64], width: int) -> None:
        """Write numbers of 4 or 8 bytes, at any bytes of the image."""
        columns = values.astype(f"<u{width}").view(np.uint8).reshape(-1, width)
        self.bytes[offsets[:, None] + np.arange(width)] = columns

    def check_fields(self, offsets: NDArray[np.int64], widths: NDArray[np.uint8]) -> None:
        """Check that fields in ascending order lie in mapped pages and apart from each other.

        Raises
        ------
        UnusableError
            If they do not.
        """
        ends = offsets + widths
        if not len(offsets):
            return
        if offsets[0] < 0 or ends.max() > self.size or (offsets[1:] < ends[:-1]).any():
            raise UnusableError("damaged")
        if not (self.mapped[offsets // PAGE].all() and self.mapped[(ends - 1) // PAGE].all()):
            raise UnusableError("damaged")

    def finish(
        self,
        name: str,
        architecture: Architecture,
        fields: tuple[NDArray[np.int64], NDArray[np.uint64], NDArray[np.uint8]],
        *,
        is_program: bool,
        preferred_base: int,
        unresolved: int,
    ) -> MappedImage:
        """Make the image of what was mapped; the fields are offsets, values and widths.

        Raises
        ------
        UnusableError
            If there are no fields.
        """
        if not len(fields[0]):
            raise UnusableError("without relocations")
        return MappedImage(
            name,
            architecture,
            is_program,
            preferred_base,
            self.pages,
            self.mapped,
            self.executable,
            self.writable,
            self.section,
            tuple(self.section_names),
            *fields,
            unresolved,
        )


def looks_packed(stored: NDArray[np.uint8], size: int) -> bool:
    """Tell whether what can be written and executed is there for a program to unpack itself into.

    Such a section has next to no bytes in the file, or bytes that occur equally often, as compressed ones do:
    the chance that two of them are equal is below 1/128, 1/256 being the least (code has about 1/30).

    Parameters
    ----------
    stored : ndarray of uint8
        What the file has of the section.
    size : int
        Bytes of the section in memory.
    """
    count = len(stored)
    if size >= _SPARSE_BYTES and count * _SPARSE <= size:
        return True
    if count < _FEW_BYTES:
        return False
    often = np.bincount(stored, minlength=256)
    return int((often * often).sum()) * 128 < count * count

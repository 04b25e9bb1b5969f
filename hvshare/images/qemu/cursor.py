"""Reads a QEMU migration stream from front to back, and its runs of page records many at a time."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Final

import numpy as np

from hvshare.errors import DamagedImageError, TruncatedImageError
from hvshare.units import PAGE_SIZE

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from hvshare.images.qemu.blocks import RamBlock
    from hvshare.images.qemu.records import PageRecords
    from hvshare.images.source import Positioned

    _Headers = NDArray[np.uint64]
    _Fills = NDArray[np.uint8]

_WINDOW: Final = 1 << 20
_FLAGS: Final = PAGE_SIZE - 1
_PAGE: Final = 0x08
_HEADER: Final = struct.Struct(">Q")
_PAGE_RECORD: Final = _HEADER.size + PAGE_SIZE
_FILL_RECORD: Final = _HEADER.size + 1
_RAMP: Final = np.arange(_WINDOW // _FILL_RECORD + 1, dtype=np.uint64) * np.uint64(PAGE_SIZE)
_FIRST_LOOK: Final = 16
"""Records looked at first: most runs are short, and looking at all of a window each time would cost more."""


class Cursor:
    """A position in a stream, with a window of its bytes.

    Parameters
    ----------
    data : Positioned
        What is read.
    at : int
        Where to start.
    """

    def __init__(self, data: Positioned, at: int) -> None:
        self._data = data
        self._room = bytearray(_WINDOW)
        self._view = memoryview(self._room)
        self._start = at
        self._held = 0
        self._next = 0

    @property
    def at(self) -> int:
        """The position of the next byte."""
        return self._start + self._next

    @property
    def more(self) -> bool:
        """Whether there is a next byte."""
        return self.at < self._data.end

    def move(self, at: int) -> None:
        """Go on at another position."""
        self._start, self._held, self._next = at, 0, 0

    def _need(self, size: int, what: str) -> None:
        if self._held - self._next >= size:
            return
        self.move(self.at)
        left = self._data.end - self._start
        if left < size:
            raise TruncatedImageError(
                f"{what} should be here, and the stream ends at byte {self._data.end:,}",
                path=self._data.path,
                offset=self._start,
                advice="copy or take the save again",
            )
        self._held = min(left, _WINDOW)
        self._data.pread(self._view[: self._held], self._start)

    def take(self, size: int, what: str) -> bytes:
        """Read up to 64 KiB."""
        self._need(size, what)
        self._next += size
        return bytes(self._view[self._next - size : self._next])

    def skip(self, size: int, what: str) -> None:
        """Pass over up to 64 KiB, which have to be there."""
        self._need(size, what)
        self._next += size

    def peek(self) -> int:
        """Look at the next byte."""
        self._need(1, "a section")
        return self._room[self._next]

    def byte(self) -> int:
        """Read a byte."""
        return self.take(1, "a byte")[0]

    def be16(self) -> int:
        """Read a number of 2 bytes."""
        return int.from_bytes(self.take(2, "a number"), "big")

    def be32(self) -> int:
        """Read a number of 4 bytes."""
        return int.from_bytes(self.take(4, "a number"), "big")

    def be64(self) -> int:
        """Read a number of 8 bytes."""
        self._need(8, "a record")
        number: int = _HEADER.unpack_from(self._room, self._next)[0]
        self._next += 8
        return number

    def text(self, size: int, what: str) -> str:
        """Read a name.

        Raises
        ------
        DamagedImageError
            If it is no printable text of at most 255 bytes.
        """
        at = self.at
        name = self.take(size, what).decode("latin-1") if size <= 255 else ""
        if not name or not name.isprintable():
            raise DamagedImageError(f"{what} should be here, and is no text", path=self._data.path, offset=at)
        return name

    def read_pages(self, header: int, block: RamBlock, records: PageRecords) -> None:
        """Read a record, whose header was just read, and those of its kind behind it in the window.

        Parameters
        ----------
        header : int
            Offset in the block, and flags: a page of the same block as before, stored or of one byte.
        block : RamBlock
            The block.
        records : PageRecords
            Receives them.

        Raises
        ------
        DamagedImageError
            If a page lies behind the end of the block.
        TruncatedImageError
            If the first record is not whole.
        """
        flags = header & _FLAGS
        is_page = bool(flags & _PAGE)
        size = _PAGE_RECORD if is_page else _FILL_RECORD
        self._need(size - _HEADER.size, "a page")
        if self._next < _HEADER.size:  # the window was moved: the header is before it
            self._append(header, block, records, is_page=is_page)
            self._next += size - _HEADER.size
            return
        first = self._next - _HEADER.size
        most = (self._held - first) // size
        if most < 2 or _HEADER.unpack_from(self._room, first + size)[0] & _FLAGS != flags:
            self._append(header, block, records, is_page=is_page)
            self._next += size - _HEADER.size
            return
        fills = None if is_page else np.ndarray((most,), np.uint8, self._room, first + 8, (size,))
        headers = np.ndarray((most,), ">u8", self._room, first, (size,))
        count = self._consecutive(header, headers, fills)
        if count == most or headers[count] & _FLAGS != flags:
            last = (header & ~_FLAGS) + (count - 1) * PAGE_SIZE
            if last >= block.size:
                raise self._beyond(block, self._start + first)
            where = self.at if is_page else -1 - self._room[self._next]
            records.append(block.first + (header & ~_FLAGS) // PAGE_SIZE, count, where)
        else:
            count = self._scattered(first, headers, fills, block, records)
        self._next = first + count * size

    def _consecutive(self, header: int, headers: _Headers, fills: _Fills | None) -> int:
        """Count the records whose pages follow each other and have the same kind and, for fills, byte."""
        look = min(_FIRST_LOOK, len(headers))
        while True:
            alike = headers[:look] == _RAMP[:look] + np.uint64(header)
            if fills is not None:
                alike &= fills[:look] == fills[0]
            first_other = int(alike.argmin())
            if not alike[first_other]:
                return first_other
            if look == len(headers):
                return look
            look = min(look * 16, len(headers))

    def _scattered(
        self, first: int, headers: _Headers, fills: _Fills | None, block: RamBlock, records: PageRecords
    ) -> int:
        """Read records of one kind whatever their pages, and return how many there are."""
        others = np.flatnonzero((headers & _FLAGS) != (headers[0] & _FLAGS))
        count = int(others[0]) if len(others) else len(headers)
        pages = (headers[:count] >> 12).astype(np.int64)
        behind = np.flatnonzero(pages >= block.size // PAGE_SIZE)
        if len(behind):
            raise self._beyond(block, self._start + first + int(behind[0]) * headers.strides[0])
        breaks = pages[1:] != pages[:-1] + 1
        if fills is None:
            wheres = np.arange(count, dtype=np.int64) * headers.strides[0] + (
                self._start + first + _HEADER.size
            )
        else:
            wheres = -1 - fills[:count].astype(np.int64)
            breaks |= wheres[1:] != wheres[:-1]
        starts = np.flatnonzero(np.append(True, breaks))
        records.extend(pages[starts] + block.first, np.diff(np.append(starts, count)), wheres[starts])
        return count

    def _append(self, header: int, block: RamBlock, records: PageRecords, *, is_page: bool) -> None:
        offset = header & ~_FLAGS
        if offset >= block.size:
            raise self._beyond(block, self.at - _HEADER.size)
        where = self.at if is_page else -1 - self._room[self._next]
        records.append(block.first + offset // PAGE_SIZE, 1, where)

    def _beyond(self, block: RamBlock, at: int) -> DamagedImageError:
        return DamagedImageError(
            f"a page lies behind the end of its block {block.name}",
            path=self._data.path,
            offset=at,
            advice="copy or take the save again",
        )

"""The flattened layout of makedumpfile: a dump written through a pipe, as records of what goes where.

Source: makedumpfile ``makedumpfile.h`` (``struct makedumpfile_header``, ``struct makedumpfile_data_header``)
and its ``IMPLEMENTATION``. All numbers are big-endian, whatever the machine. A record that comes later
overwrites what it overlaps, as a write to the real file would; what no record covers is zero, as in a sparse
file.
"""

from __future__ import annotations

import heapq
import struct
from array import array
from bisect import bisect_right
from itertools import pairwise
from typing import TYPE_CHECKING, Final

import numpy as np

from hvshare.errors import DamagedImageError, TruncatedImageError, UnsupportedImageError
from hvshare.images.source import read_part

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from hvshare.images.image import GuestImage
    from hvshare.images.opening import Opening
    from hvshare.images.source import Positioned

_MAGIC: Final = b"makedumpfile\0\0\0\0"
_KDUMP: Final = b"KDUMP   "
_ELF: Final = b"\x7fELF"
_HEADER: Final = struct.Struct(">16sqq")
_RECORD: Final = struct.Struct(">qq")
_FIRST_RECORD: Final = 4096
_WINDOW: Final = 64 << 10
_LARGEST: Final = 1 << 60


def read(opening: Opening) -> GuestImage:
    """Make an image of what a flattened file stands for; see `hvshare.images.formats.Format.read`."""
    source = opening.positioned()
    data = FlattenedData(source)
    head = read_part(data, 0, min(data.end, len(_KDUMP)), "the header")
    image: GuestImage
    if head == _KDUMP:
        from hvshare.images.kdump.dump import KdumpImage

        image = KdumpImage(opening, source, data)
    elif head.startswith(_ELF):
        from hvshare.images.elf.core import read_core

        image = read_core(opening, source, data)
        # What no record covers may be of any size, and is no memory that anybody has written.
        if (image.source_bytes or 0) > source.end:
            raise DamagedImageError(
                f"it stands for {image.source_bytes or 0:,} bytes of memory, and has {source.end:,} bytes",
                path=opening.path,
                advice="copy or take the dump again",
            )
    else:
        raise UnsupportedImageError(
            "what it stands for is neither a kdump-compressed dump nor an ELF core",
            path=opening.path,
            advice="reassemble it with: makedumpfile -R DUMP < FILE",
        )
    image.layout += ", flattened"
    return image


class FlattenedData:
    """The file that a flattened one stands for; see `hvshare.images.source.Positioned`.

    Parameters
    ----------
    data : Positioned
        The flattened file.

    Raises
    ------
    TruncatedImageError
        If it ends before its end mark.
    DamagedImageError
        If a record cannot be.
    UnsupportedImageError
        If it is of another version.
    """

    def __init__(self, data: Positioned) -> None:
        self.path = data.path
        self._data = data
        signature, kind, version = _HEADER.unpack(read_part(data, 0, _HEADER.size, "the header"))
        if (signature, kind, version) != (_MAGIC, 1, 1):
            raise UnsupportedImageError(
                f"it is a flattened file of type {kind} and version {version}, not 1 and 1",
                path=data.path,
                offset=16,
                advice="reassemble it with: makedumpfile -R DUMP < FILE",
            )
        self._starts, self._sizes, self._places = array("q"), array("q"), array("q")
        self._index()
        self._resolve_overlaps()
        self._end = self._starts[-1] + self._sizes[-1] if self._starts else 0

    def _index(self) -> None:
        data, at = self._data, _FIRST_RECORD
        window, window_at = b"", 0
        while True:
            # Records are a few KiB long, so a window holds the headers of several.
            if not window_at <= at <= window_at + len(window) - _RECORD.size:
                size = max(min(_WINDOW, data.end - at), _RECORD.size)
                window, window_at = read_part(data, at, size, "the header of a record"), at
            start, size = _RECORD.unpack_from(window, at - window_at)
            if start == size == -1:
                return
            if start < 0 or size <= 0 or start + size > _LARGEST:
                raise DamagedImageError(
                    f"a record of {size:,} bytes for byte {start:,} of the dump cannot be",
                    path=data.path,
                    offset=at,
                    advice="copy or take the dump again",
                )
            at += _RECORD.size
            if at + size > data.end:
                raise TruncatedImageError(
                    f"a record of {size:,} bytes should be here, and the file ends at byte {data.end:,}",
                    path=data.path,
                    offset=at,
                    advice="copy or take the dump again",
                )
            self._starts.append(start)
            self._sizes.append(size)
            self._places.append(at)
            at += size

    def _resolve_overlaps(self) -> None:
        columns = [np.frombuffer(each, np.int64) for each in (self._starts, self._sizes, self._places)]
        order = np.argsort(columns[0], kind="stable")
        starts, sizes, places = (column[order] for column in columns)
        if (starts[1:] < starts[:-1] + sizes[:-1]).any():
            self._starts, self._sizes, self._places = self._painted(order)
        else:
            # Small records may be many, and arrays take less than a list of numbers would.
            self._starts, self._sizes, self._places = (
                array("q", each.tobytes()) for each in (starts, sizes, places)
            )

    def _painted(self, order: NDArray[np.int64]) -> tuple[array[int], array[int], array[int]]:
        """Cut records where they overlap, and keep of each what no later one covers."""
        starts, sizes, places = self._starts, self._sizes, self._places
        each_start = np.frombuffer(starts, np.int64)
        bounds = np.unique(np.concatenate((each_start, each_start + np.frombuffer(sizes, np.int64))))
        by_start = array("q", order.tobytes())
        painted = array("q"), array("q"), array("q")
        active: list[int] = []  # negated, so that the latest record is on top
        upcoming = 0
        for low, high in pairwise(array("q", bounds.tobytes())):
            while upcoming < len(by_start) and starts[by_start[upcoming]] <= low:
                heapq.heappush(active, -by_start[upcoming])
                upcoming += 1
            while active and starts[-active[0]] + sizes[-active[0]] <= low:
                heapq.heappop(active)
            if active:
                latest = -active[0]
                for column, value in zip(
                    painted, (low, high - low, places[latest] + low - starts[latest]), strict=True
                ):
                    column.append(value)
        return painted

    @property
    def end(self) -> int:
        """Bytes of the file that this one stands for."""
        return self._end

    def pread(self, buffer: memoryview, offset: int) -> None:
        """Fill a buffer from a position; see `hvshare.images.source.Source.pread`."""
        at = max(bisect_right(self._starts, offset) - 1, 0)
        filled = 0
        while filled < len(buffer):
            wanted = offset + filled
            if at < len(self._starts) and wanted >= self._starts[at] + self._sizes[at]:
                at += 1
                continue
            if at == len(self._starts) or wanted < self._starts[at]:
                gap_end = self._starts[at] if at < len(self._starts) else wanted + len(buffer)
                count = min(gap_end - wanted, len(buffer) - filled)
                buffer[filled : filled + count] = bytes(count)
            else:
                into = wanted - self._starts[at]
                count = min(self._sizes[at] - into, len(buffer) - filled)
                self._data.pread(buffer[filled : filled + count], self._places[at] + into)
            filled += count

    def preadv(self, buffers: Sequence[memoryview], offset: int) -> None:
        """Fill buffers one after another from a position."""
        for buffer in buffers:
            self.pread(buffer, offset)
            offset += len(buffer)

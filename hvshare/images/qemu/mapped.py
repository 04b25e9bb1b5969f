"""Blocks of RAM with a fixed place for each page in the file: QEMU's mapped-ram, libvirt's sparse saves.

Source: QEMU, ``migration/ram.c`` (``MappedRamHeader``: version 1, size of a page, offsets of the bitmap and
of the pages in the file, big-endian; a bit is set for each page that was written, and zero pages are not) and
``docs/devel/migration/mapped-ram.rst``. The bitmap is in words of the host, which is little-endian here.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

import numpy as np

from hvshare.errors import DamagedImageError, UnsupportedImageError
from hvshare.images.source import Source, read_part
from hvshare.images.sparse import data_extents
from hvshare.units import PAGE_SIZE

if TYPE_CHECKING:
    from collections.abc import Iterator

    from hvshare.images.qemu.cursor import Cursor
    from hvshare.images.source import Positioned

_VERSION: Final = 1
_WORD: Final = 8
_CHUNK: Final = 64 << 10


class MappedBlock(NamedTuple):
    """Where the pages of a block are.

    Attributes
    ----------
    bitmap_offset, pages_offset : int
        Of the bitmap, and of the place of the first page, in the file.
    """

    bitmap_offset: int
    pages_offset: int

    def runs(self, data: Positioned, low: int, high: int) -> Iterator[tuple[int, int, bool]]:
        """List the pages from one number up to another.

        Parameters
        ----------
        data : Positioned
            The file.
        low, high : int
            Numbers of pages within the block.

        Yields
        ------
        tuple of (int, int, bool)
            First page, pages, and whether they are stored: others are zero.

        Raises
        ------
        TruncatedImageError
            If a page that is stored does not lie within the file.
        """
        at = low
        while at < high:
            start = at // 8
            size = min(_CHUNK, -(-high // 8) - start)
            if behind := self._behind_hole(data, start, -(-high // 8)):
                # A sparse file may claim any number of pages: those of a hole are not looked at one by one.
                end = min(behind * 8, high)
                yield at, end - at, False
                at = end
                continue
            octets = np.frombuffer(read_part(data, self.bitmap_offset + start, size, "the bitmap"), np.uint8)
            bits = np.unpackbits(octets, bitorder="little")[at - start * 8 : high - start * 8]
            edges = np.flatnonzero(np.append(True, bits[1:] != bits[:-1]))
            for first, end in zip(edges.tolist(), [*edges[1:].tolist(), len(bits)], strict=True):
                yield at + first, end - first, bool(bits[first])
            at += len(bits)

    def _behind_hole(self, data: Positioned, start: int, stop: int) -> int:
        """Tell where a hole of a chunk or more ends that begins at a byte of the bitmap; 0 if none does."""
        if not isinstance(data, Source) or self.bitmap_offset + stop > data.end:
            return 0
        at = self.bitmap_offset + start
        found = next(data_extents(data.fd, data.end, at), (data.end, data.end))[0]
        behind = min(max(found - self.bitmap_offset, 0), stop)
        return behind if behind - start >= _CHUNK else 0


def read_mapped_block(cursor: Cursor, size: int, data: Positioned) -> MappedBlock:
    """Read the header that follows the name and size of a block.

    Raises
    ------
    DamagedImageError
        If the bitmap or the pages cannot be where it says.
    UnsupportedImageError
        If it is of another version, or has pages of another size.
    """
    at = cursor.at
    version, page_size = cursor.be32(), cursor.be64()
    if version != _VERSION or page_size != PAGE_SIZE:
        raise UnsupportedImageError(
            f"its mapped-ram header is of version {version} with pages of {page_size:,} bytes, which is not "
            "known here",
            path=data.path,
            offset=at,
            advice="take the save again without mapped-ram",
        )
    block = MappedBlock(cursor.be64(), cursor.be64())
    words = -(-size // PAGE_SIZE // (8 * _WORD))
    bitmap_end = block.bitmap_offset + words * _WORD
    if not cursor.at <= block.bitmap_offset <= bitmap_end <= block.pages_offset <= data.end - size:
        raise DamagedImageError(
            f"the bitmap at byte {block.bitmap_offset:,} and {size:,} bytes of pages at byte "
            f"{block.pages_offset:,} do not fit into the file of {data.end:,} bytes",
            path=data.path,
            offset=at,
            advice="copy or take the save again",
        )
    return block

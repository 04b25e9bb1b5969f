"""Where the bytes of PRESENT pages lie, by the position of a page among them."""

from __future__ import annotations

from array import array
from bisect import bisect_right
from typing import TYPE_CHECKING, NamedTuple

from hvshare.units import PAGE_SIZE

if TYPE_CHECKING:
    from collections.abc import Iterator


class Extent(NamedTuple):
    """Pages at equal distances.

    Attributes
    ----------
    offset : int
        Of the first byte of the first page; of pages that repeat one byte, that byte.
    stride : int
        Bytes from the start of a page to that of the next: 4,096 where they lie side by side, 0 for pages
        that repeat one byte.
    pages : int
        How many there are.
    """

    offset: int
    stride: int
    pages: int


class Extents:
    """All extents of an image, in the order of its PRESENT pages.

    They know nothing of addresses, so pages that are stored side by side are one extent, however far apart
    the guest has them. An extent takes 24 bytes.

    Examples
    --------
    >>> extents = Extents()
    >>> extents.append(8192, 4)
    >>> extents.append(8192 + 4 * 4096, 1)
    >>> extents.append(100, 9)
    >>> list(extents.within(3, 7))
    [Extent(offset=20480, stride=4096, pages=2), Extent(offset=100, stride=4096, pages=2)]
    """

    def __init__(self) -> None:
        self._positions = array("q")
        self._offsets = array("q")
        self._strides = array("q")
        self.pages = 0

    def append(self, offset: int, pages: int, stride: int = PAGE_SIZE) -> None:
        """Add an extent behind all others, as part of the last one where it continues that."""
        if self._strides and stride == self._strides[-1]:
            pages_of_last = self.pages - self._positions[-1]
            if offset == self._offsets[-1] + pages_of_last * stride:
                self.pages += pages
                return
        self._positions.append(self.pages)
        self._offsets.append(offset)
        self._strides.append(stride)
        self.pages += pages

    def append_fill(self, value: int, pages: int) -> None:
        """Add pages that repeat one byte."""
        self.append(value, pages, 0)

    def within(self, low: int, high: int) -> Iterator[Extent]:
        """List the extents, or the parts of them, from one position up to another."""
        at = max(bisect_right(self._positions, low) - 1, 0)
        while low < min(high, self.pages):
            start = self._positions[at]
            end = self._positions[at + 1] if at + 1 < len(self) else self.pages
            stride = self._strides[at]
            pages = min(end, high) - low
            yield Extent(self._offsets[at] + (low - start) * stride, stride, pages)
            low += pages
            at += 1

    def __len__(self) -> int:
        return len(self._positions)

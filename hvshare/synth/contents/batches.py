"""Pages of one kind that are made together, and the room in which they are made."""

from __future__ import annotations

from enum import IntEnum
from typing import TYPE_CHECKING, Final, NamedTuple

import numpy as np

from hvshare.synth.draws import numbered

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from hvshare.synth.address_spaces import AddressSpaces

CHUNK_WORDS: Final = 8
PAGE_CHUNKS: Final = 64
PAGE_WORDS: Final = CHUNK_WORDS * PAGE_CHUNKS


class Column(IntEnum):
    """What a word that is drawn for a page as a whole decides."""

    PLACE_IN_STOCK = 0
    STYLE = 1
    ADDRESSES = 2
    PLACE_IN_REGION = 3
    BLANK = 4
    FIRST_LIBRARY = 5
    SECOND_LIBRARY = 6
    THIRD_LIBRARY = 7
    FOURTH_LIBRARY = 8
    FIFTH_LIBRARY = 9


_ODD: Final = np.uint64(0xD1342543DE82EF95)

PRIVATE_DRAWS: Final = 1 << 16
"""Numbers of draws from here on are about private words; those before are the columns of `PageDraws`."""


class Batch(NamedTuple):
    """What tells pages of one kind apart.

    Attributes
    ----------
    keys : ndarray of uint64, shape (n,)
        What everything but addresses follows from.
    spaces : AddressSpaces
        Where things lie.
    space, region : ndarray of int64, shape (n,)
        The address space whose addresses a page holds, and the region that it lies in.
    gfns : ndarray of int64, shape (n,)
        Where a page lies in guest-physical memory.
    """

    keys: NDArray[np.uint64]
    spaces: AddressSpaces
    space: NDArray[np.int64]
    region: NDArray[np.int64]
    gfns: NDArray[np.int64]


class PageDraws(NamedTuple):
    """What is drawn for pages.

    Attributes
    ----------
    page : ndarray of uint64, shape (n, len(Column))
        For each page as a whole.
    chunks : ndarray of uint64, shape (n, chunks)
        For each of its chunks.
    """

    page: NDArray[np.uint64]
    chunks: NDArray[np.uint64]

    @classmethod
    def of(cls, batch: Batch, chunks: int = PAGE_CHUNKS) -> PageDraws:
        """Draw for so many chunks of each page, in one go since small calls cost as much as large ones."""
        draws = numbered(batch.keys[:, None], np.arange(len(Column) + chunks, dtype=np.uint64))
        return cls(draws[:, : len(Column)], draws[:, len(Column) :].copy())

    def again(self) -> NDArray[np.uint64]:
        """Turn what is drawn for chunks into a further word each."""
        words = self.chunks * _ODD
        words ^= words >> np.uint64(32)
        return words

    def for_halves(self) -> NDArray[np.uint32]:
        """Turn what is drawn for chunks into 32 bits for either half of each, of shape (n, 2 * chunks)."""
        return (self.chunks * _ODD).view(np.dtype("<u4"))


def in_chunks(pages: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """See pages, or parts of them, of shape (n, 8 * chunks) as (n, chunks, 8)."""
    return pages.reshape(len(pages), -1, CHUNK_WORDS)


def fields_at_any_byte(pages: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """See contiguous pages as overlapping fields of 8 bytes, one from each byte on but for the last 7."""
    return np.ndarray((pages.nbytes - 7,), np.dtype("<u8"), buffer=pages.data, strides=(1,))

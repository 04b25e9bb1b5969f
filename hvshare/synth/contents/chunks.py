"""Pages put together from chunks of 64 bytes that programs and files repeat, each with something of its own.

Memory compresses since programs repeat themselves, and yet few pages have 32 bytes in common at one place. So
the chunks of a page come out of one part of a table, in which the first ones are far more frequent, and two
words of each, one in either half, hold bits that follow from the key: displacements, identifiers.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np

from hvshare.synth.contents.batches import Column, in_chunks
from hvshare.synth.draws import below

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from hvshare.synth.contents.batches import PageDraws

OWN_WORDS: Final = (2, 6)
"""The words of a chunk that hold bits of the page's own."""

_ODD: Final = np.uint64(0x9FB21C651E98DF25)
_HALF: Final = np.uint64(32)


@dataclass(frozen=True)
class Stock:
    """A table of chunks.

    Attributes
    ----------
    chunks : ndarray of uint64, shape (sections * rows, 8)
        Little-endian words.
    span : int
        How many rows that follow each other are the part from which a page takes.
    own_bits : tuple of int
        For either of `OWN_WORDS`, which of its lowest 32 bits follow from the page.
    sections : int, default 1
        A page takes from within one of so many equal sections.
    """

    chunks: NDArray[np.uint64]
    span: int
    own_bits: tuple[int, int]
    sections: int = 1


def lay(
    pages: NDArray[np.uint64], draws: PageDraws, stock: Stock, section: NDArray[np.uint64] | None = None
) -> None:
    """Fill pages, or parts of them, with chunks.

    Parameters
    ----------
    pages : ndarray of uint64, shape (n, 8 * chunks), contiguous
        Overwritten.
    draws : PageDraws
        What decides.
    stock : Stock
        Where chunks come from.
    section : ndarray of uint64, shape (n,), optional
        The section of each page.
    """
    chunks = in_chunks(pages)
    rows_of_section = len(stock.chunks) // stock.sections
    first = below(draws.page[:, Column.PLACE_IN_STOCK], rows_of_section - stock.span)
    if section is not None:
        first += section * np.uint64(rows_of_section)
    rows = skewed(draws.chunks, stock.span)
    rows += first[:, None]
    np.take(stock.chunks, rows.view(np.int64), axis=0, out=chunks, mode="clip")
    for word, mask, bits in zip(OWN_WORDS, stock.own_bits, own_bits(draws), strict=True):
        if mask:
            chunks[:, :, word] ^= bits & np.uint64(mask)


def own_bits(draws: PageDraws) -> tuple[NDArray[np.uint64], NDArray[np.uint64]]:
    """Tell for either half of each chunk a word of which the lowest 32 bits did not choose the chunk."""
    second = draws.chunks * _ODD
    second >>= _HALF
    return draws.chunks, second


def skewed(draws: NDArray[np.uint64], limit: int) -> NDArray[np.uint64]:
    """Turn the highest 32 bits of draws into numbers below a limit, small ones far more often.

    Examples
    --------
    >>> [int(number) for number in skewed(np.array([0, 2**63, 2**64 - 1], np.uint64), 100)]
    [0, 25, 99]
    """
    numbers = draws >> _HALF
    numbers *= numbers
    numbers >>= _HALF
    numbers *= np.uint64(limit)
    numbers >>= _HALF
    return numbers

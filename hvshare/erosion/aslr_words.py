"""What a word of a page means as an address, and keys made of several numbers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np

from hvshare.units import PAGE_SIZE

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Words = NDArray[np.uint64]

PAGE_BITS: Final = np.uint64(12)
REGION_BITS: Final = np.uint64(21)
"""A region is 2 MB of an address space, the reach of a page table."""

REGION_PAGES: Final = np.uint64(REGION_BITS - PAGE_BITS)
ADDRESS: Final = np.uint64((1 << 48) - 1)
"""An address has 48 bits; bits above it may hold a tag, and are alike in twins."""

IN_PAGE: Final = np.uint64((1 << 12) - 1)
LEAST_ADDRESS: Final = np.uint64(1 << 21)
"""Lower numbers are taken for no addresses where they did not move: small numbers are many."""

LEAST_MOVED: Final = np.uint64(1 << 16)
"""No address of a program lies below: Linux (mmap_min_addr) and Windows leave out the first 64 KB."""

CROWDED: Final = np.uint64(1 << 32)
"""Below, address spaces of programs overlap, and numbers are often taken for addresses."""

KERNEL_HALF: Final = np.uint64(1 << 47)
"""Addresses from here on are the kernel's: one address space a VM."""

KERNEL_CODE: Final = np.uint64(0xFFFF_8000_0000)
"""The highest 2 GB, the reach of a field of 32 bits: the kernel's image and modules (Linux,
Documentation/arch/x86/x86_64/mm.rst)."""

_ABOVE_4_GB: Final = 32 - int(REGION_BITS)
_WIDE: Final = ((0x7F0, 0x800), (0x7F00, 0x8000), (0x8000, 0xFF00))
"""What stands above the lower 32 of 48 bits in addresses: of programs, below the 8 TB that Windows up to 8
gives them and below the 128 TB of Linux and later Windows, and of kernels. No text reads like these."""

_FACTOR: Final = np.uint64(0x9E37_79B9_7F4A_7C15)  # 2**64 / golden ratio, odd: Knuth, TAOCP 3, 6.4
_SHIFT: Final = np.uint64(29)


def mix(*columns: Words) -> Words:
    """Make one key of each row of numbers.

    Parameters
    ----------
    *columns : ndarray of uint64, shape (n,)
        Numbers.

    Returns
    -------
    ndarray of uint64, shape (n,)
        Different rows have the same key about once in 2**64.

    Examples
    --------
    >>> one, two = np.array([1, 1], np.uint64), np.array([2, 3], np.uint64)
    >>> key = mix(one, two)
    >>> bool(key[0] == key[1]), bool(key[0] == mix(one[:1], two[:1])[0])
    (False, True)
    """
    key = np.zeros(np.shape(columns[0]), np.uint64)
    for column in columns:
        key = (key ^ column) * _FACTOR
        key ^= key >> _SHIFT
    return key


def is_in(keys: Words, ordered: Words) -> NDArray[np.bool_]:
    """Tell which keys are among some in ascending order."""
    if not len(ordered):
        return np.zeros(keys.shape, bool)
    at = np.minimum(np.searchsorted(ordered, keys), len(ordered) - 1)
    found: NDArray[np.bool_] = ordered[at] == keys
    return found


def is_wide(regions: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Tell which regions only addresses of 64 bits lie in.

    Parameters
    ----------
    regions : ndarray of int64
        Numbers of regions of 2 MB, modulo 2**48 bytes.

    Returns
    -------
    ndarray of bool
        True for the kernel's half but for its highest 1 TB, and where programs of 64 bits have libraries and
        stacks. Elsewhere a word of 64 bits may be one of 32 and a small number behind it, of either sign.
    """
    wide = np.zeros(regions.shape, bool)
    for first, end in _WIDE:
        wide |= (regions >= first << _ABOVE_4_GB) & (regions < end << _ABOVE_4_GB)
    return wide


def is_canonical(words: Words, least: np.uint64 = LEAST_ADDRESS) -> NDArray[np.bool_]:
    """Tell which words may be addresses as they are: bits 47 to 63 alike (AMD64 manual, volume 2, 1.1.3).

    Parameters
    ----------
    words : ndarray of uint64
        Words.
    least : uint64
        Below what numbers they are no addresses.
    """
    high = words >> np.uint64(47)
    canonical: NDArray[np.bool_] = (high == 0) | (high == np.uint64(0x1FFFF))
    canonical &= words >= least
    return canonical


def moved_words(words: Words, of_twin: Words) -> NDArray[np.bool_]:
    """Tell which words moved by a multiple of 4 KB and are alike above the address.

    Parameters
    ----------
    words, of_twin : ndarray of uint64
        Of pages and their twins, in one shape.

    Returns
    -------
    ndarray of bool
    """
    apart = words ^ of_twin
    moved: NDArray[np.bool_] = (apart != 0) & (((of_twin - words) & IN_PAGE) == 0)
    moved &= ((apart >> np.uint64(48)) == 0) & ((words & ADDRESS) >= LEAST_MOVED)
    return moved


def across(words: Words, row: NDArray[np.int64], column: NDArray[np.int64], shift: int) -> Words:
    """Read words that start some bytes behind the start of a word and end in the next one.

    Parameters
    ----------
    words : ndarray of uint64, shape (pages, columns)
        Words of pages, of as many bytes as make 4 KB in that many columns.
    row, column : ndarray of int64, shape (n,)
        Where the words stand in which they start, the last column not among them.
    shift : int
        Bytes, fewer than a word has.

    Returns
    -------
    ndarray of uint64, shape (n,)
    """
    bits = 8 * PAGE_SIZE // words.shape[1]
    low, high = np.uint64(8 * shift), np.uint64(bits - 8 * shift)
    # All ones in as many bits as a word has.
    return (words[row, column] >> low | words[row, column + 1] << high) & np.uint64((1 << bits) - 1)


def positions(mask: NDArray[np.bool_]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Give rows and columns where a table says so; twice as fast as `np.nonzero`, which has any dimensions.

    Examples
    --------
    >>> rows, columns = positions(np.array([[False, True], [True, True]]))
    >>> rows.tolist(), columns.tolist()
    ([0, 1, 1], [1, 0, 1])
    """
    flat = np.flatnonzero(mask)
    rows = flat // max(1, mask.shape[1])
    return rows, flat - rows * mask.shape[1]


def opens_group(ordered: Words) -> NDArray[np.bool_]:
    """Mark the first of each group of equal values among ordered ones."""
    opens = np.ones(len(ordered), bool)
    opens[1:] = ordered[1:] != ordered[:-1]
    return opens


def first_of_each(keys: NDArray[np.uint64]) -> NDArray[np.int64]:
    """Give the index of one row for each different key."""
    order = np.argsort(keys)
    chosen: NDArray[np.int64] = order[opens_group(keys[order])]
    return chosen

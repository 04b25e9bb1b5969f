"""What a word of a page means as an address, and keys made of several numbers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np

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
"""Lower numbers are taken for no addresses: programs start at 4 MB, and small numbers are many."""

KERNEL_HALF: Final = np.uint64(1 << 47)
"""Addresses from here on are the kernel's: one address space a VM."""

KERNEL_CODE: Final = np.uint64(0xFFFF_8000_0000)
"""The highest 2 GB, the reach of a field of 32 bits: the kernel's image and modules (Linux,
Documentation/arch/x86/x86_64/mm.rst)."""

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


def is_canonical(words: Words) -> NDArray[np.bool_]:
    """Tell which words may be addresses as they are: bits 47 to 63 alike (AMD64 manual, volume 2, 1.1.3)."""
    high = words >> np.uint64(47)
    canonical: NDArray[np.bool_] = (high == 0) | (high == np.uint64(0x1FFFF))
    canonical &= words >= LEAST_ADDRESS
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
    moved &= ((apart >> np.uint64(48)) == 0) & ((words & ADDRESS) >= LEAST_ADDRESS)
    return moved


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

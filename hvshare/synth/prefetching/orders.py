"""Disk pages in an order, each of them once."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

import numpy as np

from hvshare.errors import PresetError

if TYPE_CHECKING:
    from numpy.typing import NDArray

MOST_PAGES: Final = 1 << 31
"""Disk pages have numbers below this one, which a disk of 8 TiB has."""

_POSITION_BITS: Final = 32


class ByPage(NamedTuple):
    """Pages and where they occur, sorted by page, then by position.

    Attributes
    ----------
    positions : ndarray of int64, shape (pages,)
        Places in what was sorted.
    first : ndarray of bool, shape (pages,)
        Marks the first occurrence of each page.
    """

    positions: NDArray[np.int64]
    first: NDArray[np.bool_]


def by_page(pages: NDArray[np.int64]) -> ByPage:
    """Sort occurrences of pages.

    Parameters
    ----------
    pages : ndarray of int64, shape (any,)

    Returns
    -------
    ByPage

    Raises
    ------
    PresetError
        A page is below 0, or not below `MOST_PAGES`.

    Examples
    --------
    >>> positions, first = by_page(np.array([5, 3, 5]))
    >>> positions.tolist(), first.tolist()
    ([1, 0, 2], [True, True, False])
    """
    if len(pages) and not 0 <= int(pages.min()) <= int(pages.max()) < MOST_PAGES:
        raise PresetError(
            f"disk pages from {pages.min()} to {pages.max()}",
            advice=f"disk pages have numbers from 0 to {MOST_PAGES - 1}",
        )
    # Numbers that carry their position are sorted several times faster than positions by their numbers.
    carried = pages << _POSITION_BITS
    carried |= np.arange(len(pages))
    carried.sort()
    first = np.ones(len(pages), np.bool_)
    np.not_equal(carried[1:] >> _POSITION_BITS, carried[:-1] >> _POSITION_BITS, out=first[1:])
    carried &= (1 << _POSITION_BITS) - 1
    return ByPage(carried, first)


def first_of_each(pages: NDArray[np.int64]) -> NDArray[np.int64]:
    """Leave out every page that came before, and keep the order of the others.

    Parameters
    ----------
    pages : ndarray of int64, shape (any,)

    Returns
    -------
    ndarray of int64, shape (distinct,)

    Examples
    --------
    >>> first_of_each(np.array([5, 3, 5, 9, 3])).tolist()
    [5, 3, 9]
    """
    positions, first = by_page(pages)
    return pages[np.sort(positions[first])]


def new_pages(pages: NDArray[np.int64], *known: NDArray[np.int64]) -> NDArray[np.int64]:
    """Leave out pages that are known and those that came before, and keep the order of the others.

    Parameters
    ----------
    pages : ndarray of int64, shape (any,)
    known : ndarray of int64, each of shape (any,)
        No page is in them twice.

    Returns
    -------
    ndarray of int64, shape (new,)

    Examples
    --------
    >>> new_pages(np.array([7, 5, 7, 3]), np.array([3]), np.array([4])).tolist()
    [7, 5]
    """
    return first_of_each(np.concatenate((*known, pages)))[sum(map(len, known)) :]

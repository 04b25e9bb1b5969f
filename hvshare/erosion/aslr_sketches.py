"""Pages that may be twins: sketches that ASLR leaves alone, joined by sorting.

A slide is a multiple of 4 KB, so an address keeps its lowest 12 bits wherever it is moved. The words of a
page are reduced to these, pieces of a few words are hashed together with their place in the page, and pages
that have a piece in common which few others have are candidates. What is told by no address is told by its
lowest 12 bits, too, so no word has to be taken for an address or not.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Final, NamedTuple

import numpy as np

from hvshare.erosion.aslr_parts import collect
from hvshare.erosion.aslr_words import IN_PAGE, mix, opens_group, positions

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from numpy.typing import NDArray

    from hvshare.erosion.page_store import PageWords

_PIECE_WORDS: Final = 4
_SLICE_PAGES: Final = 4096
_MOST_PIECES: Final = 1 << 24
"""Beyond so many pieces a sample is taken, so that memory stays bounded; twins keep the same ones."""

_MOST_PAIRS: Final = 1 << 25
"""Beyond so many pairs by pieces, a further sample is taken, for the same reason."""

MOST_ALIKE: Final = 24
"""A piece that more pages have tells nothing."""

_CANDIDATES: Final = 4
"""Of each page; tried on real guests, more found nothing further."""

_NEIGHBOURS: Final = 3


class Sketches(NamedTuple):
    """Pieces of pages.

    Attributes
    ----------
    pieces : ndarray of uint64
        Hashes of pieces, with the page that each is of in the lowest bits.
    wholes : ndarray of uint64
        A hash of all reduced words for each page in `of`.
    of : ndarray of int64
        Pages.
    """

    pieces: NDArray[np.uint64]
    wholes: NDArray[np.uint64]
    of: NDArray[np.int64]


def candidates(
    store: PageWords, jobs: int, on_pages: Callable[[int], None] | None = None
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Find pairs of pages that may be twins at the same place in the page.

    Parameters
    ----------
    store : PageWords
        The pages.
    jobs : int
        Processes at the most.
    on_pages : callable, optional
        Receives how many more pages are sketched.

    Returns
    -------
    first, second : ndarray of int64, shape (pairs,)
        Numbers of pages, the lower one first; each pair once.
    """
    share = min(1.0, _MOST_PIECES / max(1, store.pages * store.columns // _PIECE_WORDS))
    threshold = np.uint64(min(int(share * 2.0**64), (1 << 64) - 1))
    page_bits = np.uint64(max(1, (store.pages - 1).bit_length()))
    tasks = [
        partial(_sketch, store, start, min(start + _SLICE_PAGES, store.pages), threshold, page_bits)
        for start in range(0, store.pages, _SLICE_PAGES)
    ]
    none = np.empty(0, np.int64)
    done = None if on_pages is None else lambda tasks: on_pages(tasks * _SLICE_PAGES)
    unsigned = none.view(np.uint64)
    keys, wholes, of = collect(tasks, Sketches(unsigned, unsigned, none), jobs, done)
    pairs = [_join(keys, page_bits)]
    order = np.argsort(wholes, kind="stable")
    wholes, of = wholes[order], of[order]
    for distance in range(1, _NEIGHBOURS + 1):
        alike = np.flatnonzero(wholes[distance:] == wholes[:-distance])
        one, other = of[alike], of[alike + distance]
        pairs.append(np.minimum(one, other) << np.int64(32) | np.maximum(one, other))
    joined = np.sort(np.concatenate(pairs))
    joined = joined[opens_group(joined.view(np.uint64))]
    return joined >> np.int64(32), joined & np.int64(0xFFFF_FFFF)


def _sketch(store: PageWords, start: int, end: int, threshold: np.uint64, page_bits: np.uint64) -> Sketches:
    reduced = store.slice(start, end) & IN_PAGE
    pieces = np.zeros((end - start, reduced.shape[1] // _PIECE_WORDS), np.uint64)
    blank = np.ones(pieces.shape, bool)
    for place in range(_PIECE_WORDS):
        column = reduced[:, place::_PIECE_WORDS]
        pieces = mix(pieces, column)
        blank &= column == 0
    pieces = mix(pieces, np.broadcast_to(np.arange(pieces.shape[1], dtype=np.uint64), pieces.shape))
    wholes = pieces.sum(axis=1)
    rows, columns = positions(~blank & (pieces <= threshold))
    # The page takes the place of bits that almost never decide, so that a plain sort brings both in order.
    mask = (np.uint64(1) << page_bits) - np.uint64(1)
    keys = (pieces[rows, columns] & ~mask) | (rows + start).astype(np.uint64)
    return Sketches(keys, wholes, np.arange(start, end))


def _join(keys: NDArray[np.uint64], page_bits: np.uint64) -> NDArray[np.int64]:
    """Pair pages that have most pieces in common; gives both in one number. The keys are overwritten."""
    keys.sort()
    page = (keys & ((np.uint64(1) << page_bits) - np.uint64(1))).astype(np.int32)
    keys >>= page_bits
    found = [np.empty(0, np.int64)]
    for one, other in pairs_in_groups(keys, MOST_ALIKE):
        pairs = page[one].astype(np.int64)
        pairs <<= np.int64(32)
        pairs |= page[other]
        found.append(pairs)
    joined, counts = count_equal(found)
    best = best_of_each(joined >> np.int64(32), joined & np.int64(0xFFFF_FFFF), counts, _CANDIDATES)
    return joined[best]


def count_equal(parts: list[NDArray[np.int64]]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Give each value of some arrays once, ascending, and how often it is there; the list is emptied."""
    values = np.concatenate(parts)
    parts.clear()
    values.sort()
    starts = np.flatnonzero(opens_group(values.view(np.uint64)))
    counts = np.diff(np.append(starts, len(values)))
    return values[starts], counts


def pairs_in_groups(
    ordered: NDArray[np.uint64], most: int, most_pairs: int = _MOST_PAIRS
) -> Iterator[tuple[NDArray[np.int64], NDArray[np.int64]]]:
    """Pair the members of each group of equal values, where there are no more than some.

    Parameters
    ----------
    ordered : ndarray of uint64, shape (n,)
        Values in ascending order.
    most : int
        Members of a group at the most.
    most_pairs : int
        Where there would be more pairs, only the groups of the lowest values are taken.

    Yields
    ------
    one, other : ndarray of int64
        Indexes of the lower and the upper member of pairs, by how far apart they are.

    Examples
    --------
    >>> values = np.array([3, 5, 5, 5], np.uint64)
    >>> [(one.tolist(), other.tolist()) for one, other in pairs_in_groups(values, 4)]
    [([1, 2], [2, 3]), ([1], [3]), ([], [])]
    """
    starts = np.flatnonzero(opens_group(ordered))
    counts = np.diff(np.append(starts, len(ordered)))
    chosen = (counts > 1) & (counts <= most)
    starts, counts = starts[chosen], counts[chosen]
    within = int(np.searchsorted(np.cumsum(counts * (counts - 1) // 2), most_pairs, "right"))
    starts, counts = starts[:within], counts[:within]
    for distance in range(1, most):
        wide = counts > distance
        times = counts[wide] - distance
        before = np.cumsum(times) - times
        one = np.repeat(starts[wide] - before, times) + np.arange(int(times.sum()))
        yield one, one + distance


def best_of_each(
    first: NDArray[np.int64], second: NDArray[np.int64], scores: NDArray[np.int64], most: int
) -> NDArray[np.bool_]:
    """Choose the pairs that are among the best of either of their pages.

    Parameters
    ----------
    first, second, scores : ndarray of int64, shape (pairs,)
        Pages and how good a pair is.
    most : int
        How many of a page.

    Returns
    -------
    ndarray of bool, shape (pairs,)
    """
    chosen = np.zeros(len(first), bool)
    bits = np.int64(20)
    worst = (np.int64(1) << bits) - 1 - np.minimum(scores, (np.int64(1) << bits) - 1)
    for page in (first, second):
        order = np.argsort(page << bits | worst, kind="stable")
        starts = opens_group(page[order].view(np.uint64))
        place = np.arange(len(order))
        rank = place - np.maximum.accumulate(np.where(starts, place, 0))
        chosen[order[rank < most]] = True
    return chosen

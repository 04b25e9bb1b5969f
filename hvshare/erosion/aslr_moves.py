"""What moved between the pages of each pair, as votes for slides.

A pair votes for the distance by which words moved, at each page of an address space that they point into,
and only where it speaks with one voice: no word that stayed may point close to where others moved from. In
one address space, pages with neighbours' addresses in them look like twins; there, what both point to has
not moved.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Final, NamedTuple

import numpy as np

from hvshare.erosion.aslr_keys import KeySet
from hvshare.erosion.aslr_parts import collect
from hvshare.erosion.aslr_sketches import best_of_each
from hvshare.erosion.aslr_words import (
    ADDRESS,
    IN_PAGE,
    PAGE_BITS,
    first_of_each,
    is_canonical,
    mix,
    moved_words,
    positions,
)
from hvshare.erosion.page_store import WORDS

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from hvshare.erosion.page_store import PageWords

_BATCH_PAIRS: Final = 1024
_CLOSE_WORDS: Final = 32
"""Pairs vote in which no more words differ otherwise, and all of these are kept."""

_CLOSE_NARROW_WORDS: Final = 160
_FAR_WORDS: Final = 400
_FAR_PAIRS: Final = 2
"""Of pairs in which more differ, the best of each page are kept: code holds fields of 32 bits."""

_NEAR_BITS: Final = np.uint64(16)


class Screened(NamedTuple):
    """How much differs in each pair.

    Attributes
    ----------
    pairs : ndarray of int64
        Numbers of pairs.
    others : ndarray of int64
        Words that differ by other distances than multiples of 4 KB.
    """

    pairs: NDArray[np.int64]
    others: NDArray[np.int64]


class Moves(NamedTuple):
    """What moved in pairs, each distance once at each page pointed into.

    Attributes
    ----------
    pairs : ndarray of int64, shape (moves,)
        Numbers of pairs.
    places : ndarray of uint64, shape (moves,)
        Which page of the first address space was pointed into, by its number.
    distances : ndarray of uint64, shape (moves,)
        In pages, modulo 2**36.
    torn : ndarray of int64
        Numbers of pairs in which words that stayed point close to where others moved from.
    """

    pairs: NDArray[np.int64]
    places: NDArray[np.uint64]
    distances: NDArray[np.uint64]
    torn: NDArray[np.int64]


def screen(
    store: PageWords,
    first: NDArray[np.int64],
    second: NDArray[np.int64],
    jobs: int,
    on_pairs: Callable[[int], None] | None = None,
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Choose the pairs that are worth a closer look.

    Parameters
    ----------
    store : PageWords
        The pages.
    first, second : ndarray of int64, shape (pairs,)
        Numbers of pages.
    jobs : int
        Processes at the most.
    on_pairs : callable, optional
        Receives how many more pairs were looked at.

    Returns
    -------
    chosen : ndarray of int64
        Numbers of pairs, ascending.
    others : ndarray of int64
        How many of their words differ by other distances than multiples of 4 KB.
    """
    tasks = [
        partial(_screen, store, first, second, start) for start in range(0, len(first), 2 * _BATCH_PAIRS)
    ]
    empty = Screened(np.empty(0, np.int64), np.empty(0, np.int64))
    screened = collect(tasks, empty, jobs, _scaled(on_pairs, 2 * _BATCH_PAIRS))
    order = np.argsort(screened.pairs)
    pairs, others = screened.pairs[order], screened.others[order]
    close = others <= close_words(store)
    far = np.flatnonzero(~close)
    best = best_of_each(first[pairs[far]], second[pairs[far]], store.columns - others[far], _FAR_PAIRS)
    keep = close.copy()
    keep[far[best]] = True
    return pairs[keep], others[keep]


def _screen(store: PageWords, first: NDArray[np.int64], second: NDArray[np.int64], start: int) -> Screened:
    end = min(start + 2 * _BATCH_PAIRS, len(first))
    apart = store.rows(second[start:end]) - store.rows(first[start:end])
    others = np.count_nonzero(apart & IN_PAGE, axis=1)
    differs = apart.any(axis=1)
    pairs = np.flatnonzero(differs & (others <= _FAR_WORDS * store.columns // WORDS))
    return Screened(pairs + start, others[pairs])


def find_moves(
    store: PageWords,
    first: NDArray[np.int64],
    second: NDArray[np.int64],
    others: NDArray[np.int64],
    jobs: int,
    on_pairs: Callable[[int], None] | None = None,
) -> Moves:
    """List what moved in pairs of which little differs otherwise.

    Parameters
    ----------
    store : PageWords
        The pages.
    first, second : ndarray of int64, shape (pairs,)
        Numbers of pages, in the order in which VMs are compared.
    others : ndarray of int64, shape (pairs,)
        Words that differ otherwise.
    jobs : int
        Processes at the most.
    on_pairs : callable, optional
        Receives how many more pairs were looked at.

    Returns
    -------
    Moves
        Of pairs that are not torn.
    """
    close = np.flatnonzero(others <= close_words(store))
    tasks = [
        partial(_moves, store, first, second, close[start : start + _BATCH_PAIRS])
        for start in range(0, len(close), _BATCH_PAIRS)
    ]
    none = np.empty(0, np.int64)
    empty = Moves(none, none.view(np.uint64), none.view(np.uint64), none)
    return collect(tasks, empty, jobs, _scaled(on_pairs, _BATCH_PAIRS))


def close_words(store: PageWords) -> int:
    """Tell how many words may differ otherwise in pairs that vote."""
    # Addresses of 32 bits stand anywhere in code, and most of those across words count as other differences.
    return _CLOSE_WORDS if store.columns == WORDS else _CLOSE_NARROW_WORDS


def _moves(
    store: PageWords, first: NDArray[np.int64], second: NDArray[np.int64], pairs: NDArray[np.int64]
) -> Moves:
    words, of_twin = store.rows(first[pairs]), store.rows(second[pairs])
    row, column = positions(moved_words(words, of_twin))
    moved = words[row, column]
    distance = ((of_twin[row, column] - moved) & ADDRESS) >> PAGE_BITS
    moved &= ADDRESS
    pair = row.astype(np.uint64)
    near = KeySet(np.sort(mix(pair, moved >> _NEAR_BITS)))
    stayed_row, stayed_column = positions((words == of_twin) & is_canonical(words))
    stayed = words[stayed_row, stayed_column] & ADDRESS
    torn_rows = stayed_row[near.has(mix(stayed_row.astype(np.uint64), stayed >> _NEAR_BITS))]
    torn = np.zeros(len(pairs), bool)
    torn[torn_rows] = True
    once = first_of_each(mix(pair, moved >> PAGE_BITS, distance))
    once = once[~torn[row[once]]]
    return Moves(pairs[row[once]], moved[once] >> PAGE_BITS, distance[once], pairs[torn])


def _scaled(on_pairs: Callable[[int], None] | None, size: int) -> Callable[[int], None] | None:
    return None if on_pairs is None else lambda done: on_pairs(done * size)

"""Twins whose contents stand some bytes further on in the page.

Where ASLR changes the order in which a program allocates, because it hashes addresses or places areas
elsewhere, objects of a kind move up by a few. Then no page has a twin at the same place, though most of its
words stand in a page of the other address space, all of them displaced by one distance, and its addresses
moved by the slide of the area and by how far their targets are displaced, too.

Such pages are found by words that few pages have, and by the distances between addresses that follow each
other, wherever in the page they stand. That slides are known to a few KB only is enough to tell them from
chance: two areas are as many GB apart as ASLR has bits.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Final, NamedTuple

import numpy as np

from hvshare.erosion.aslr_parts import collect
from hvshare.erosion.aslr_sketches import best_of_each, count_equal, pairs_in_groups
from hvshare.erosion.aslr_words import KERNEL_HALF, is_canonical, mix, positions
from hvshare.erosion.page_store import WORDS

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from hvshare.erosion.page_store import PageStore

_SLICE_PAGES: Final = 2048
_MOST_MARKS: Final = 1 << 24
"""Beyond so many marks a sample is taken, so that memory stays bounded; twins keep the same ones."""

_MOST_ALIKE: Final = 32
_LEAST_MARKS: Final = 2
"""Marks that pages have in common at one displacement."""

_CANDIDATES: Final = 12
MOST_DISPLACED: Final = WORDS // 2
_PLACE_BITS: Final = np.uint64(9)
_SHIFT_BITS: Final = np.int64(10)


class _Marks(NamedTuple):
    """Marks of pages."""

    keys: NDArray[np.uint64]


class Displaced(NamedTuple):
    """Pairs of pages, and by how many words the second page has what the first has further on.

    Attributes
    ----------
    first, second : ndarray of int64, shape (pairs,)
        Numbers of pages.
    words : ndarray of int64, shape (pairs,)
        Positive where the second page has it further on; 0 where both have it at the same place.
    """

    first: NDArray[np.int64]
    second: NDArray[np.int64]
    words: NDArray[np.int64]


def displaced_candidates(
    store: PageStore,
    pages: NDArray[np.int64],
    classes: NDArray[np.int64],
    jobs: int,
    on_pages: Callable[[int], None] | None = None,
) -> Displaced:
    """Find pairs of pages that may be twins at different places in the page.

    Parameters
    ----------
    store : PageStore
        The pages.
    pages : ndarray of int64
        Those to look at, ascending.
    classes : ndarray of int64
        The class of each page of the store; pages of one class are not paired.
    jobs : int
        Processes at the most.
    on_pages : callable, optional
        Receives how many more pages were looked at.

    Returns
    -------
    Displaced
        Each pair of pages once for each displacement.
    """
    page_bits = np.uint64(max(1, (len(pages) - 1).bit_length()))
    share = min(1.0, _MOST_MARKS / max(1, len(pages) * WORDS))
    threshold = np.uint64(min(int(share * 2.0**64), (1 << 64) - 1))
    tasks = [
        partial(_mark, store, pages, start, page_bits, threshold)
        for start in range(0, len(pages), _SLICE_PAGES)
    ]
    done = None if on_pages is None else lambda tasks: on_pages(tasks * _SLICE_PAGES)
    keys = collect(tasks, _Marks(np.empty(0, np.uint64)), jobs, done).keys
    keys.sort()
    place = (keys & ((np.uint64(1) << _PLACE_BITS) - np.uint64(1))).astype(np.int16)
    keys >>= _PLACE_BITS
    page = (keys & ((np.uint64(1) << page_bits) - np.uint64(1))).astype(np.int32)
    keys >>= page_bits
    bits = np.int64(page_bits)
    found = [np.empty(0, np.int64)]
    for one, other in pairs_in_groups(keys, _MOST_ALIKE):
        # Pages ascend within a group, so the first of a pair is the lower one.
        shift = place[other] - place[one]
        apart = (page[one] != page[other]) & (np.abs(shift) <= MOST_DISPLACED)
        triples = page[one[apart]].astype(np.int64) << bits
        triples |= page[other[apart]]
        triples <<= _SHIFT_BITS
        triples += shift[apart] + np.int16(WORDS)
        found.append(triples)
    del keys, place, page
    chosen, marks = count_equal(found)
    chosen, marks = chosen[marks >= _LEAST_MARKS], marks[marks >= _LEAST_MARKS]
    shift = (chosen & ((1 << _SHIFT_BITS) - 1)) - WORDS
    both = chosen >> _SHIFT_BITS
    first, second = pages[both >> bits], pages[both & ((1 << bits) - 1)]
    apart = classes[first] != classes[second]
    first, second, shift, marks = first[apart], second[apart], shift[apart], marks[apart]
    best = best_of_each(first, second, marks, _CANDIDATES)
    return Displaced(first[best], second[best], shift[best])


def _mark(
    store: PageStore, pages: NDArray[np.int64], start: int, page_bits: np.uint64, threshold: np.uint64
) -> _Marks:
    end = min(start + _SLICE_PAGES, len(pages))
    words = store.rows(pages[start:end])
    addresses = is_canonical(words)
    parts = [_keys(mix(words), (words != 0) & ~addresses, start, page_bits, threshold)]
    steps = words[:, 1:] - words[:, :-1]
    followed = addresses[:, :-3] & addresses[:, 1:-2] & addresses[:, 2:-1] & addresses[:, 3:]
    followed &= (steps[:, :-2] != steps[:, 1:-1]) | (steps[:, 1:-1] != steps[:, 2:])
    marks = mix(steps[:, :-2], steps[:, 1:-1], steps[:, 2:])
    parts.append(_keys(marks, followed, start, page_bits, threshold))
    return _Marks(np.concatenate(parts))


def _keys(
    marks: NDArray[np.uint64],
    wanted: NDArray[np.bool_],
    start: int,
    page_bits: np.uint64,
    threshold: np.uint64,
) -> NDArray[np.uint64]:
    """Put page and place into the low bits of marks."""
    row, column = positions(wanted & (marks <= threshold))
    mask = (np.uint64(1) << (page_bits + _PLACE_BITS)) - np.uint64(1)
    where = (row.astype(np.uint64) + np.uint64(start)) << _PLACE_BITS | column.astype(np.uint64)
    keys: NDArray[np.uint64] = (marks[row, column] & ~mask) | where
    return keys


def overlaps(
    store: PageStore, pairs: Displaced, rows: NDArray[np.int64]
) -> tuple[NDArray[np.uint64], NDArray[np.uint64]]:
    """Give the words of some pairs of one displacement that both pages have.

    Parameters
    ----------
    store : PageStore
        The pages.
    pairs : Displaced
        All pairs.
    rows : ndarray of int64
        Numbers of pairs with the same displacement.

    Returns
    -------
    words, of_twins : ndarray of uint64, shape (len(rows), 512 - displacement)
    """
    shift = int(pairs.words[rows[0]])
    words, of_twins = store.rows(pairs.first[rows]), store.rows(pairs.second[rows])
    if shift >= 0:
        return words[:, : WORDS - shift], of_twins[:, shift:]
    return words[:, -shift:], of_twins[:, : WORDS + shift]


def is_user_address(words: NDArray[np.uint64]) -> NDArray[np.bool_]:
    """Tell which words may be addresses of programs."""
    return is_canonical(words) & (words < KERNEL_HALF)

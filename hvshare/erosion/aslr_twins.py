"""What slides explain of the difference between two pages."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Final, NamedTuple

import numpy as np

from hvshare.erosion.aslr_contents import sorted_unique
from hvshare.erosion.aslr_fields import FIELD_BITS, clear_fields, fields_of_code
from hvshare.erosion.aslr_keys import KeySet
from hvshare.erosion.aslr_parts import collect
from hvshare.erosion.aslr_words import (
    ADDRESS,
    KERNEL_HALF,
    PAGE_BITS,
    REGION_PAGES,
    across,
    mix,
    moved_words,
    positions,
)
from hvshare.erosion.page_store import word_bytes
from hvshare.units import PAGE_SIZE

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from hvshare.erosion.aslr_slides import Votes
    from hvshare.erosion.page_store import PageWords

_BATCH_PAIRS: Final = 512
_MOST_LEFT: Final = 200
"""Pairs of which more words are left are not looked at more closely."""

_HIGHEST_PAGE_NUMBER: Final = np.uint64(1 << 36)


class Explained(NamedTuple):
    """How much is left unexplained of pairs.

    Attributes
    ----------
    pairs : ndarray of int64
        Numbers of pairs.
    left : ndarray of int64
        Words that differ and that nothing explains.
    pointers : ndarray of int64
        Words that hold an address that moved by a slide, or a number derived from one.
    fields : ndarray of int64
        Further words with fields of 32 bits, or with addresses across words, that moved by a slide.
    field_pairs : ndarray of int64, shape (n,)
        Numbers of pairs in which fields of 32 bits moved, once for each distance.
    field_distances : ndarray of uint64, shape (n,)
        By how many pages, modulo 2**20.
    """

    pairs: NDArray[np.int64]
    left: NDArray[np.int64]
    pointers: NDArray[np.int64]
    fields: NDArray[np.int64]
    field_pairs: NDArray[np.int64]
    field_distances: NDArray[np.uint64]


class SlideTable:
    """Slides, to be asked for many words at once.

    Parameters
    ----------
    slides : Votes
        The slides that were elected.
    word_bytes : int
        Bytes of a word.
    """

    def __init__(self, slides: Votes, word_bytes: int = 8) -> None:
        # Slides hold at places of a region that nobody voted at, too: in the kernel, since an area of it has
        # one slide; with words of 32 bits, since aligned words alone vote, and code points elsewhere.
        self._first_by_region = KERNEL_HALF >> PAGE_BITS if word_bytes == 8 else np.uint64(0)
        spaces = slides.spaces.astype(np.uint64)
        by_region = slides.places >= self._first_by_region
        regions = slides.places[by_region] >> REGION_PAGES
        self._places = KeySet(np.sort(mix(spaces, slides.places, slides.distances)))
        self._regions = KeySet(np.sort(mix(spaces[by_region], regions, slides.distances[by_region])))
        self.fields = fields_of_code(slides)

    def explains(
        self, spaces: NDArray[np.uint64], words: NDArray[np.uint64], of_twins: NDArray[np.uint64]
    ) -> NDArray[np.bool_]:
        """Tell which words moved by the slide of the page that they point into.

        Parameters
        ----------
        spaces : ndarray of uint64, shape (n,)
            The VMs between which each word is compared.
        words, of_twins : ndarray of uint64, shape (n,)
            Words of pages and of their twins.

        Returns
        -------
        ndarray of bool, shape (n,)
        """
        distances = ((of_twins - words) & ADDRESS) >> PAGE_BITS
        explained = moved_words(words, of_twins)
        rows = np.flatnonzero(explained)
        place, distance, space = (words[rows] & ADDRESS) >> PAGE_BITS, distances[rows], spaces[rows]
        found = self._places.has(mix(space, place, distance))
        by_region = place >= self._first_by_region
        regions = place[by_region] >> REGION_PAGES
        found[by_region] |= self._regions.has(mix(space[by_region], regions, distance[by_region]))
        explained[rows] = found
        return explained


def explain(
    store: PageWords,
    first: NDArray[np.int64],
    second: NDArray[np.int64],
    spaces: NDArray[np.int64],
    slides: Votes,
    jobs: int,
    on_pairs: Callable[[int], None] | None = None,
) -> Explained:
    """Tell how much of the difference of each pair slides explain.

    Parameters
    ----------
    store : PageWords
        The pages.
    first, second, spaces : ndarray of int64, shape (pairs,)
        The pages of each pair, and the VMs between which it compares.
    slides : Votes
        The slides that were elected.
    jobs : int
        Processes at the most.
    on_pairs : callable, optional
        Receives how many more pairs were looked at.

    Returns
    -------
    Explained
        In the order of the pairs.
    """
    table = SlideTable(slides, PAGE_SIZE // store.columns)
    tasks = [
        partial(_explain, store, table, first, second, spaces, start)
        for start in range(0, len(first), _BATCH_PAIRS)
    ]
    none = np.empty(0, np.int64)
    done = None if on_pairs is None else lambda tasks: on_pairs(tasks * _BATCH_PAIRS)
    nothing = Explained(none, none, none, none, none, none.view(np.uint64))
    found = collect(tasks, nothing, jobs, done)
    order = np.argsort(found.pairs)
    return Explained(
        found.pairs[order],
        found.left[order],
        found.pointers[order],
        found.fields[order],
        found.field_pairs,
        found.field_distances,
    )


def _explain(
    store: PageWords,
    table: SlideTable,
    first: NDArray[np.int64],
    second: NDArray[np.int64],
    spaces: NDArray[np.int64],
    start: int,
) -> Explained:
    end = min(start + _BATCH_PAIRS, len(first))
    words, of_twin = store.rows(first[start:end]), store.rows(second[start:end])
    space = spaces[start:end].astype(np.uint64)
    bytes_apart = words.view(np.uint8) != of_twin.view(np.uint8)
    apart = bytes_apart.view(np.uint64)
    _clear(apart, words, of_twin, space, table.explains)
    differ = np.count_nonzero(words != of_twin, axis=1)
    left = np.count_nonzero(apart, axis=1)
    some = np.flatnonzero((left > 0) & (left <= _MOST_LEFT))
    pointers = differ - left
    moved = []
    if len(some):
        parts = words[some], of_twin[some], space[some]
        some_bytes = bytes_apart[some]
        some_apart = some_bytes.view(np.uint64)
        for derive in (_page_number, _safe_link, _rotated):
            _clear(some_apart, *parts, partial(_explains_derived, table, derive))
        pointers_left = np.count_nonzero(some_apart, axis=1)
        open_rows = np.flatnonzero(pointers_left)
        _clear_across_words(some_bytes, open_rows, *parts, table)
        for number, moves in table.fields.items():
            rows = open_rows[(parts[2][open_rows] == number) & some_apart[open_rows].any(axis=1)]
            moved.append(clear_fields(some_bytes, rows, parts[0], parts[1], moves))
        pointers[some] = differ[some] - pointers_left
        left[some] = np.count_nonzero(some_apart, axis=1)
    keys = np.concatenate([np.empty(0, np.int64), *moved])
    return Explained(
        np.arange(start, end),
        left,
        pointers,
        differ - left - pointers,
        some[keys >> FIELD_BITS] + start,
        (keys & ((1 << FIELD_BITS) - 1)).astype(np.uint64),
    )


def _clear(
    apart: NDArray[np.uint64],
    words: NDArray[np.uint64],
    of_twin: NDArray[np.uint64],
    space: NDArray[np.uint64],
    explains: Callable[[NDArray[np.uint64], NDArray[np.uint64], NDArray[np.uint64]], NDArray[np.bool_]],
) -> None:
    row, column = positions(apart != 0)
    found = explains(space[row], words[row, column], of_twin[row, column])
    apart[row[found], column[found]] = 0


def _explains_derived(
    table: SlideTable,
    derive: Callable[[NDArray[np.uint64]], NDArray[np.uint64]],
    space: NDArray[np.uint64],
    words: NDArray[np.uint64],
    of_twin: NDArray[np.uint64],
) -> NDArray[np.bool_]:
    return table.explains(space, derive(words), derive(of_twin))


def _page_number(words: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """Give the address whose number of a page a word holds, as a safe link to nothing does (glibc 2.32)."""
    return np.where(words < _HIGHEST_PAGE_NUMBER, words << PAGE_BITS, np.uint64(0))


def _safe_link(words: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """Undo glibc's PROTECT_PTR (malloc/malloc.c): an address xor the number of the page that it stands in."""
    addresses = words.copy()
    for _ in range(4):  # each round makes 12 more bits right
        addresses = words ^ (addresses >> PAGE_BITS)
    return addresses


def _rotated(words: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """Undo the hash that CPython makes of an address (Python/pyhash.c, _Py_HashPointer)."""
    return (words << np.uint64(4)) | (words >> np.uint64(60))


def _clear_across_words(
    bytes_apart: NDArray[np.bool_],
    rows: NDArray[np.int64],
    words: NDArray[np.uint64],
    of_twin: NDArray[np.uint64],
    space: NDArray[np.uint64],
    table: SlideTable,
) -> None:
    """Clear the bytes of addresses that are not aligned to words."""
    size, columns = word_bytes(words), words.shape[1]
    row, column = positions(bytes_apart.view(np.uint64)[rows] != 0)
    at = sorted_unique(np.concatenate((row * columns + column, row * columns + np.maximum(column - 1, 0))))
    at = at[at % columns < columns - 1]
    row, column = rows[at // columns], at % columns
    for shift in range(1, size):
        shifted, of_shifted = (across(each, row, column, shift) for each in (words, of_twin))
        found = table.explains(space[row], shifted, of_shifted)
        for byte in range(shift, shift + size):
            # A word stands in eight bytes here, whatever its size.
            bytes_apart[row[found], (column[found] + byte // size) * 8 + byte % size] = False

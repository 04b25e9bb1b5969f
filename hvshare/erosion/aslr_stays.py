"""What contents with several copies say: nothing moved where they point to."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Final, NamedTuple

import numpy as np

from hvshare.erosion.aslr_contents import sorted_unique
from hvshare.erosion.aslr_parts import collect
from hvshare.erosion.aslr_slides import count_groups
from hvshare.erosion.aslr_words import (
    ADDRESS,
    CROWDED,
    LEAST_MOVED,
    PAGE_BITS,
    REGION_BITS,
    is_canonical,
    positions,
)
from hvshare.erosion.page_store import word_bytes

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from hvshare.erosion.aslr_contents import Contents
    from hvshare.erosion.page_store import PageWords

_BATCH_PAGES: Final = 4096
_MOST_HOLDERS: Final = 8
"""Of a content that more VMs hold, the first ones speak for all."""


_UNALIGNED: Final = 3
_LEAST_ALIGNED: Final = 4
"""Words that point into a region of the lower 4 GB from one page are addresses if so many more of them are
aligned than three times those that are not: of other words of 32 bits a quarter is."""


class _Seen(NamedTuple):
    """Which places contents point into."""

    contents: NDArray[np.int64]
    places: NDArray[np.int64]


def count_stays(
    store: PageWords,
    contents: Contents,
    places: NDArray[np.uint64],
    jobs: int,
    on_pages: Callable[[int], None] | None = None,
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """List what stayed where it was, between VMs or within one.

    Parameters
    ----------
    store : PageWords
        The pages.
    contents : Contents
        Who holds them.
    places : ndarray of uint64
        The pages of address spaces that are of interest, by their numbers, ascending.
    jobs : int
        Processes at the most.
    on_pages : callable, optional
        Receives how many more pages were looked at.

    Returns
    -------
    spaces : ndarray of int64, shape (n,)
        Numbers of two VMs together, as `Contents.spaces` makes them.
    stays : ndarray of int64, shape (n,)
        Content, and index of the place that it points into: `content * len(places) + index`.
    """
    repeated = np.flatnonzero(contents.pages > 1)
    tasks = [
        partial(_look, store, repeated[start : start + _BATCH_PAGES], places)
        for start in range(0, len(repeated), _BATCH_PAGES)
    ]
    none = np.empty(0, np.int64)
    done = None if on_pages is None else lambda tasks: on_pages(tasks * _BATCH_PAGES)
    seen = collect(tasks, _Seen(none, none), jobs, done)
    content, space = _spaces_of(contents, repeated)
    order = np.argsort(seen.contents, kind="stable")
    of, place = seen.contents[order], seen.places[order]
    low, high = np.searchsorted(of, content, "left"), np.searchsorted(of, content, "right")
    times = high - low
    before = np.cumsum(times) - times
    rows = np.repeat(low - before, times) + np.arange(int(times.sum()))
    return np.repeat(space, times), of[rows] * np.int64(len(places)) + place[rows]


def _spaces_of(
    contents: Contents, repeated: NDArray[np.int64]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """List the pairs of VMs, or the VM alone, that hold each content several times."""
    low = np.searchsorted(contents.held, repeated, "left")
    high = np.minimum(np.searchsorted(contents.held, repeated, "right"), low + _MOST_HOLDERS)
    found, spaces = [], []
    for one in range(_MOST_HOLDERS):
        for other in range(one, _MOST_HOLDERS):
            has = low + other < high
            first, second = contents.held_by[low[has] + one], contents.held_by[low[has] + other]
            if one == other:
                again = contents.held_copies[low[has] + one] > 1
                has[has] = again
                first, second = first[again], second[again]
            found.append(repeated[has])
            spaces.append(first.astype(np.int64) * contents.vms + second)
    return np.concatenate(found), np.concatenate(spaces)


def _addresses(words: NDArray[np.uint64]) -> tuple[NDArray[np.int64], NDArray[np.uint64]]:
    """List the rows and the values of words that are likely to be addresses.

    In the lower 4 GB, a number of 64 bits may be one by chance, and almost any word of 32 bits of code and
    text. Those that are come several to a region, and are aligned.
    """
    row, column = positions(is_canonical(words, LEAST_MOVED))
    address = words[row, column]
    crowded = np.flatnonzero(address < CROWDED)
    within = address[crowded]
    groups, first = count_groups((row[crowded].astype(np.uint64) << REGION_BITS) | (within >> REGION_BITS))
    aligned = within % np.uint64(word_bytes(words)) == 0
    score = np.bincount(groups, weights=np.where(aligned, 1, -_UNALIGNED), minlength=len(first))
    likely = np.ones(len(row), bool)
    likely[crowded] = score[groups] >= _LEAST_ALIGNED
    return row[likely], address[likely]


def _look(store: PageWords, contents: NDArray[np.int64], places: NDArray[np.uint64]) -> _Seen:
    words = store.rows(contents)
    row, address = _addresses(words)
    pointed = (address & ADDRESS) >> PAGE_BITS
    at = np.minimum(np.searchsorted(places, pointed), max(0, len(places) - 1))
    hit = places[at] == pointed if len(places) else np.zeros(len(at), bool)
    once = sorted_unique(row[hit] * np.int64(max(1, len(places))) + at[hit])
    return _Seen(contents[once // max(1, len(places))], once % max(1, len(places)))

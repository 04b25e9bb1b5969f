"""Slides known to a few KB, and what they explain of displaced twins."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Final, NamedTuple

import numpy as np

from hvshare.erosion.aslr_displaced import is_user_address, overlaps
from hvshare.erosion.aslr_keys import KeySet
from hvshare.erosion.aslr_parts import collect
from hvshare.erosion.aslr_slides import count_groups, fewer_pages
from hvshare.erosion.aslr_words import (
    ADDRESS,
    KERNEL_HALF,
    LEAST_MOVED,
    PAGE_BITS,
    REGION_BITS,
    REGION_PAGES,
    first_of_each,
    mix,
    opens_group,
    positions,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from hvshare.erosion.aslr_displaced import Displaced
    from hvshare.erosion.aslr_slides import Votes
    from hvshare.erosion.aslr_spaces import Areas
    from hvshare.erosion.page_store import PageStore

_BIN_BITS: Final = np.uint64(14)
_HALF_BIN: Final = np.uint64(1 << 13)
_PHASES: Final = (np.uint64(0), _HALF_BIN)
"""Bins of 16 KB overlap by half, so that what is spread over 8 KB lies in one of them."""

_LEAST_TWINS: Final = 5
_BATCH_PAIRS: Final = 1024


class _Drifts(NamedTuple):
    """What moved by about how much in pairs."""

    pairs: NDArray[np.int64]
    regions: NDArray[np.uint64]
    bins: NDArray[np.uint64]
    phases: NDArray[np.uint64]


class Judged(NamedTuple):
    """How many words of pairs moved by about a slide, and how many differ otherwise.

    Attributes
    ----------
    pairs : ndarray of int64
        Numbers of pairs.
    moved, left : ndarray of int64
        Words that differ: by about a slide, and otherwise.
    numbers : ndarray of int64
        Those of the latter that are small in both pages: counters and the like, which no slide moves.
    """

    pairs: NDArray[np.int64]
    moved: NDArray[np.int64]
    left: NDArray[np.int64]
    numbers: NDArray[np.int64]


def elect_drifts(
    store: PageStore,
    pairs: Displaced,
    spaces: NDArray[np.int64],
    slides: Votes,
    areas: Areas,
    vms: int,
    jobs: int,
    on_pairs: Callable[[int], None] | None = None,
) -> NDArray[np.uint64]:
    """Choose about how far regions of programs moved, by what displaced pages say.

    Parameters
    ----------
    store : PageStore
        The pages.
    pairs : Displaced
        Candidates, with spaces in mind.
    spaces : ndarray of int64, shape (pairs,)
        The VMs between which each compares.
    slides : Votes
        Slides that are known exactly.
    areas : Areas
        The areas of each VM.
    vms : int
        How many VMs there are.
    jobs : int
        Processes at the most.
    on_pairs : callable, optional
        Receives how many more pairs were looked at.

    Returns
    -------
    ndarray of uint64
        Keys of what was chosen, ascending, for `judge`.
    """
    none = np.empty(0, np.int64)
    unsigned = none.view(np.uint64)
    tasks = [partial(_drifts, store, pairs, rows) for rows in _batches(pairs)]
    done = None if on_pairs is None else lambda tasks: on_pairs(tasks * _BATCH_PAIRS)
    drifts = collect(tasks, _Drifts(none, unsigned, unsigned, unsigned), jobs, done)
    space = spaces[drifts.pairs]
    groups, rows = count_groups(mix(space.astype(np.uint64), drifts.regions, drifts.bins, drifts.phases))
    twins = fewer_pages(groups, pairs.first[drifts.pairs], pairs.second[drifts.pairs])
    keep = twins >= _LEAST_TWINS
    rows, twins = rows[keep], twins[keep]
    space, region, bin_, phase = space[rows], drifts.regions[rows], drifts.bins[rows], drifts.phases[rows]
    middle = ((bin_ << _BIN_BITS) - phase + _HALF_BIN) & ADDRESS
    place = region << REGION_PAGES
    target = (place + (middle >> PAGE_BITS)) & (ADDRESS >> PAGE_BITS)
    first_vm, second_vm = space // vms, space % vms
    into, source = areas.numbers(second_vm, target), areas.numbers(first_vm, place)
    key = mix(space.astype(np.uint64), region, into.astype(np.uint64))
    order = np.lexsort((phase, bin_, -twins, key))
    best = np.zeros(len(rows), bool)
    best[order[opens_group(key[order])]] = True
    size = np.minimum(middle, (ADDRESS + np.uint64(1) - middle) & ADDRESS)
    best &= (size > 2 * _HALF_BIN) & ~((first_vm == second_vm) & (into == source))
    best &= areas.align(first_vm, place, second_vm, (middle >> PAGE_BITS))
    chosen = [mix(space[best].astype(np.uint64), region[best], bin_[best], phase[best])]
    exact = slides.places < KERNEL_HALF >> PAGE_BITS
    for each in _PHASES:
        distance = slides.distances[exact] << PAGE_BITS
        chosen.append(
            mix(
                slides.spaces[exact].astype(np.uint64),
                slides.places[exact] >> REGION_PAGES,
                ((distance + each) & ADDRESS) >> _BIN_BITS,
                np.full(len(distance), each),
            )
        )
    keys = np.sort(np.concatenate(chosen))
    return keys[opens_group(keys)]


def _batches(pairs: Displaced) -> list[NDArray[np.int64]]:
    """Put pairs of one displacement together."""
    order = np.argsort(pairs.words, kind="stable")
    starts = np.flatnonzero(opens_group(pairs.words[order].view(np.uint64)))
    ends = np.append(starts, len(order))[1:]
    return [
        order[at : min(at + _BATCH_PAIRS, end)]
        for start, end in zip(starts.tolist(), ends.tolist(), strict=True)
        for at in range(start, end, _BATCH_PAIRS)
    ]


def _moved_addresses(
    words: NDArray[np.uint64], of_twins: NDArray[np.uint64]
) -> tuple[NDArray[np.int64], NDArray[np.uint64], NDArray[np.uint64]]:
    """List addresses of programs that differ: their rows, regions and distances."""
    row, column = positions((words != of_twins) & is_user_address(words) & is_user_address(of_twins))
    address = words[row, column]
    return row, address >> REGION_BITS, (of_twins[row, column] - address) & ADDRESS


def _drifts(store: PageStore, pairs: Displaced, rows: NDArray[np.int64]) -> _Drifts:
    row, region, distance = _moved_addresses(*overlaps(store, pairs, rows))
    parts = []
    for phase in _PHASES:
        bins = ((distance + phase) & ADDRESS) >> _BIN_BITS
        once = first_of_each(mix(row.astype(np.uint64), region, bins))
        parts.append(_Drifts(rows[row[once]], region[once], bins[once], np.full(len(once), phase)))
    return _Drifts(*(np.concatenate(both) for both in zip(*parts, strict=True)))


def judge(
    store: PageStore,
    pairs: Displaced,
    spaces: NDArray[np.int64],
    drifts: NDArray[np.uint64],
    jobs: int,
    on_pairs: Callable[[int], None] | None = None,
) -> Judged:
    """Tell how much of the difference of displaced pages slides explain.

    Parameters
    ----------
    store : PageStore
        The pages.
    pairs : Displaced
        Candidates.
    spaces : ndarray of int64, shape (pairs,)
        The VMs between which each compares.
    drifts : ndarray of uint64
        As `elect_drifts` gives them.
    jobs : int
        Processes at the most.
    on_pairs : callable, optional
        Receives how many more pairs were looked at.

    Returns
    -------
    Judged
        In the order of the pairs; words at the ends of pages that have no counterpart are in no count.
    """
    keys = KeySet(drifts)
    tasks = [partial(_judge, store, pairs, spaces, keys, rows) for rows in _batches(pairs)]
    none = np.empty(0, np.int64)
    done = None if on_pairs is None else lambda tasks: on_pairs(tasks * _BATCH_PAIRS)
    judged = collect(tasks, Judged(none, none, none, none), jobs, done)
    order = np.argsort(judged.pairs)
    return Judged(*(column[order] for column in judged))


def _judge(
    store: PageStore,
    pairs: Displaced,
    spaces: NDArray[np.int64],
    drifts: KeySet,
    rows: NDArray[np.int64],
) -> Judged:
    words, of_twins = overlaps(store, pairs, rows)
    row, region, distance = _moved_addresses(words, of_twins)
    space = spaces[rows[row]].astype(np.uint64)
    explained = np.zeros(len(row), bool)
    for phase in _PHASES:
        bins = ((distance + phase) & ADDRESS) >> _BIN_BITS
        explained |= drifts.has(mix(space, region, bins, np.full(len(row), phase)))
    moved = np.bincount(row[explained], minlength=len(rows))
    differ = words != of_twins
    small = differ & ((words | of_twins) < LEAST_MOVED)
    return Judged(rows, moved, np.count_nonzero(differ, axis=1) - moved, np.count_nonzero(small, axis=1))

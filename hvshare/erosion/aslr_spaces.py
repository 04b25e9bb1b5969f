"""Which parts of address spaces the pages of a VM point into."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Final, NamedTuple

import numpy as np

from hvshare.erosion.aslr_words import (
    ADDRESS,
    CROWDED,
    PAGE_BITS,
    REGION_BITS,
    is_canonical,
    is_wide,
    opens_group,
    positions,
)
from hvshare.sharing.range_pool import add_up

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from hvshare.erosion.aslr_contents import Contents
    from hvshare.erosion.page_store import PageStore
    from hvshare.sharing.range_pool import Task

_SLICE_PAGES: Final = 4096
_LEAST_ADDRESSES: Final = 64
"""A region that fewer words point into is taken for noise among numbers."""

_GAP: Final = 4
"""Regions that are no further apart belong to one area."""

_PLACES: Final = 36  # bits of a page's number
_LEAST_AT_END: Final = 8
_CLOSE: Final = 384
"""Pages by which the ends of alike areas may be apart, as they are seen by what points there: less than
the 2 MB to which large areas are aligned."""

_CLOSE_WITHIN: Final = 192
_CLOSE_ALONE: Final = 64
"""The same within a VM, where many pairs are of different programs that have libraries in common; and where
there is no other VM."""

_SMALL: Final = CROWDED >> PAGE_BITS
"""Below, numbers are taken for addresses so often that areas have no ends."""


class _Pointed(NamedTuple):
    """How many words point into regions."""

    keys: NDArray[np.int64]
    counts: NDArray[np.int64]


class _Sums:
    """Counts of several parts, added up once as many more of them are there as were added up before."""

    def __init__(self, parts: list[_Pointed]) -> None:
        self._parts = parts

    def __add__(self, other: _Sums) -> _Sums:
        parts = self._parts + other._parts
        if sum(len(each.keys) for each in parts[1:]) > len(parts[0].keys):
            parts = [_Sums(parts).total()]
        return _Sums(parts)

    def total(self) -> _Pointed:
        """Add up what is left."""
        return _sum(*(np.concatenate(both) for both in zip(*self._parts, strict=True)))


def _sum(keys: NDArray[np.int64], counts: NDArray[np.int64]) -> _Pointed:
    order = np.argsort(keys, kind="stable")
    keys, counts = keys[order], counts[order]
    starts = np.flatnonzero(opens_group(keys.view(np.uint64)))
    return _Pointed(keys[starts], np.add.reduceat(counts, starts) if len(starts) else counts)


class Areas:
    """The areas of each VM, as far as its pages point into them: regions with small gaps only.

    Parameters
    ----------
    regions : list of ndarray of int64
        For each VM the regions of 2 MB that many words point into, ascending.
    places : list of ndarray of int64
        For each VM the pages of address spaces that some words point into, ascending.
    wide : ndarray of bool, optional
        Which VMs have address spaces of 64 bits; none by default.
    """

    def __init__(
        self,
        regions: list[NDArray[np.int64]],
        places: list[NDArray[np.int64]],
        wide: NDArray[np.bool_] | None = None,
    ) -> None:
        self.wide: NDArray[np.bool_] = np.zeros(len(regions), bool) if wide is None else wide
        self._regions = regions
        self._numbers = [np.cumsum(np.diff(each, prepend=each[:1]) > _GAP) for each in regions]
        self._ends: list[tuple[NDArray[np.int64], NDArray[np.int64]]] = []
        for vm, pointed in enumerate(places):
            number = self.numbers(np.full(len(pointed), vm), pointed.astype(np.uint64))
            inside, number = pointed[number >= 0], number[number >= 0]
            # Numbers ascend with places, so each area's places follow each other.
            each = np.arange(int(self._numbers[vm].max(initial=-1)) + 1)
            low = np.searchsorted(number, each, "left")
            high = np.searchsorted(number, each, "right")
            known = high > low
            first, last = np.full(len(each), -1), np.full(len(each), -1)
            first[known], last[known] = inside[low[known]], inside[high[known] - 1]
            self._ends.append((first, last))

    @classmethod
    def of(
        cls, store: PageStore, contents: Contents, jobs: int, on_pages: Callable[[int], None] | None = None
    ) -> Areas:
        """Find the areas of each VM.

        Parameters
        ----------
        store : PageStore
            The pages.
        contents : Contents
            Who holds them.
        jobs : int
            Processes at the most.
        on_pages : callable, optional
            Receives how many more pages were looked at.

        Returns
        -------
        Areas
        """
        tasks: list[Task[_Sums]] = [
            partial(_count, store, contents, start) for start in range(0, store.pages, _SLICE_PAGES)
        ]
        done = None if on_pages is None else lambda tasks: on_pages(tasks * _SLICE_PAGES)
        pointed = add_up([tasks], jobs, done).total()
        place_bits = int(REGION_BITS - PAGE_BITS)
        by_region = _sum(pointed.keys >> place_bits, pointed.counts)
        often = by_region.keys[by_region.counts >= _LEAST_ADDRESSES]
        seen = pointed.keys[pointed.counts >= _LEAST_AT_END]
        region_bits = _PLACES - place_bits
        return cls(
            [often[often >> region_bits == vm] & ((1 << region_bits) - 1) for vm in range(contents.vms)],
            [seen[seen >> _PLACES == vm] & ((1 << _PLACES) - 1) for vm in range(contents.vms)],
            _have_wide(by_region, contents.vms, region_bits),
        )

    @classmethod
    def none(cls, vms: int, wide: NDArray[np.bool_]) -> Areas:
        """Tell no areas apart."""
        nothing = [np.empty(0, np.int64)] * vms
        return cls(nothing, nothing, wide)

    def align(
        self,
        first_vm: NDArray[np.int64],
        places: NDArray[np.uint64],
        second_vm: NDArray[np.int64],
        distances: NDArray[np.uint64],
        *,
        strict_within: bool = False,
    ) -> NDArray[np.bool_]:
        """Tell whether distances bring an end of a area to that of another.

        Two programs that are laid out alike have their areas start or end alike. Where they are not, a
        library that both have still moved by one distance, which it would be apart without ASLR, too.

        Parameters
        ----------
        first_vm, second_vm : ndarray of int64, shape (n,)
            Numbers of VMs.
        places : ndarray of uint64, shape (n,)
            Numbers of pages of an address space of the first VM.
        distances : ndarray of uint64, shape (n,)
            In pages, modulo 2**36.
        strict_within : bool
            Whether ends have to be closer within a VM.

        Returns
        -------
        ndarray of bool, shape (n,)
            True also where that cannot be told.
        """
        moved = (places + distances) & np.uint64((1 << _PLACES) - 1)
        source, target = self.numbers(first_vm, places), self.numbers(second_vm, moved)
        by = distances.astype(np.int64)
        by = np.where(by >= 1 << (_PLACES - 1), by - (1 << _PLACES), by)
        aligned = np.zeros(len(places), bool)
        told = (source >= 0) & (target >= 0) & (places >= _SMALL) & (moved >= _SMALL)
        within = _CLOSE_ALONE if len(self._regions) == 1 else _CLOSE_WITHIN
        close = np.where(strict_within & (first_vm == second_vm), within, _CLOSE)
        for end in (0, 1):
            here, there = self._end(first_vm, source, end), self._end(second_vm, target, end)
            aligned |= np.abs(there - here - by) <= close
        return aligned | ~told

    def _end(self, vm: NDArray[np.int64], number: NDArray[np.int64], end: int) -> NDArray[np.int64]:
        found = np.full(len(vm), -1, np.int64)
        for each, ends in enumerate(self._ends):
            here = np.flatnonzero((vm == each) & (number >= 0))
            found[here] = ends[end][number[here]]
        return found

    def numbers(self, vm: NDArray[np.int64], places: NDArray[np.uint64]) -> NDArray[np.int64]:
        """Tell in which area of a VM some pages of an address space lie.

        Parameters
        ----------
        vm : ndarray of int64, shape (n,)
            Numbers of VMs.
        places : ndarray of uint64, shape (n,)
            Numbers of pages of an address space.

        Returns
        -------
        ndarray of int64, shape (n,)
            Numbers that tell the areas of a VM apart; -1 for none.
        """
        region = (places >> (REGION_BITS - PAGE_BITS)).astype(np.int64)
        numbers = np.full(len(region), -1, np.int64)
        for each, known in enumerate(self._regions):
            here = np.flatnonzero(vm == each)
            if not len(known) or not len(here):
                continue
            at = np.searchsorted(known, region[here])
            above = np.minimum(at, len(known) - 1)
            below = np.maximum(at - 1, 0)
            nearest = np.where(
                np.abs(known[above] - region[here]) < np.abs(known[below] - region[here]), above, below
            )
            found = np.abs(known[nearest] - region[here]) <= _GAP
            numbers[here[found]] = self._numbers[each][nearest[found]]
        return numbers


def _have_wide(by_region: _Pointed, vms: int, region_bits: int) -> NDArray[np.bool_]:
    """Tell which VMs have address spaces of 64 bits.

    Words of a 32-bit guest look like such addresses here and there, but all over; half of those that are some
    point where many point.
    """
    rows = is_wide(by_region.keys & ((1 << region_bits) - 1))
    vm, counts = by_region.keys[rows] >> region_bits, by_region.counts[rows]
    often = np.where(counts >= _LEAST_ADDRESSES, counts, 0)
    all_, dense = (np.bincount(vm, weights=each, minlength=vms) for each in (counts, often))
    wide: NDArray[np.bool_] = (dense > 0) & (2 * dense >= all_)
    return wide


def _count(store: PageStore, contents: Contents, start: int) -> _Sums:
    end = min(start + _SLICE_PAGES, store.pages)
    words = store.slice(start, end)
    row, column = positions(is_canonical(words))
    places = ((words[row, column] & ADDRESS) >> PAGE_BITS).astype(np.int64)
    parts = [
        holder[start:end][row].astype(np.int64) << _PLACES | places
        for holder in (contents.first_vm, contents.last_vm)
    ]
    apart = (contents.first_vm != contents.last_vm)[start:end][row]
    keys = np.concatenate((parts[0], parts[1][apart]))
    return _Sums([_counted(keys)])


def _counted(keys: NDArray[np.int64]) -> _Pointed:
    keys = np.sort(keys)
    starts = np.flatnonzero(opens_group(keys.view(np.uint64)))
    return _Pointed(keys[starts], np.diff(np.append(starts, len(keys))))

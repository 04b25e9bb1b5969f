"""Which parts of address spaces the pages of a VM point into."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Final, NamedTuple

import numpy as np

from hvshare.erosion.aslr_words import ADDRESS, PAGE_BITS, REGION_BITS, is_canonical, opens_group
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
"""Regions that are no further apart belong to one mapping."""

_REGIONS: Final = 27  # bits of a region's number


class _Pointed(NamedTuple):
    """How many words point into regions: parts of a whole that add up."""

    keys: NDArray[np.int64]
    counts: NDArray[np.int64]

    def __add__(self, other: object) -> _Pointed:
        if not isinstance(other, _Pointed):
            return NotImplemented
        keys = np.concatenate((self.keys, other.keys))
        counts = np.concatenate((self.counts, other.counts))
        return _sum(keys, counts)


def _sum(keys: NDArray[np.int64], counts: NDArray[np.int64]) -> _Pointed:
    order = np.argsort(keys, kind="stable")
    keys, counts = keys[order], counts[order]
    starts = np.flatnonzero(opens_group(keys.view(np.uint64)))
    return _Pointed(keys[starts], np.add.reduceat(counts, starts) if len(starts) else counts)


class Mappings:
    """The mappings of each VM, as far as its pages point into them: regions with small gaps only.

    Parameters
    ----------
    regions : list of ndarray of int64
        For each VM the regions of 2 MB that many words point into, ascending.
    """

    def __init__(self, regions: list[NDArray[np.int64]]) -> None:
        self._regions = regions
        self._numbers = [np.cumsum(np.diff(each, prepend=each[:1]) > _GAP) for each in regions]

    @classmethod
    def of(
        cls, store: PageStore, contents: Contents, jobs: int, on_pages: Callable[[int], None] | None = None
    ) -> Mappings:
        """Find the mappings of each VM.

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
        Mappings
        """
        tasks: list[Task[_Pointed]] = [
            partial(_count, store, contents, start) for start in range(0, store.pages, _SLICE_PAGES)
        ]
        done = None if on_pages is None else lambda tasks: on_pages(tasks * _SLICE_PAGES)
        pointed = add_up([tasks], jobs, done)
        often = pointed.keys[pointed.counts >= _LEAST_ADDRESSES]
        region = often & ((1 << _REGIONS) - 1)
        return cls([region[often >> _REGIONS == vm] for vm in range(contents.vms)])

    def numbers(self, vm: NDArray[np.int64], places: NDArray[np.uint64]) -> NDArray[np.int64]:
        """Tell in which mapping of a VM some pages of an address space lie.

        Parameters
        ----------
        vm : ndarray of int64, shape (n,)
            Numbers of VMs.
        places : ndarray of uint64, shape (n,)
            Numbers of pages of an address space.

        Returns
        -------
        ndarray of int64, shape (n,)
            Numbers that tell the mappings of a VM apart; -1 for none.
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


def _count(store: PageStore, contents: Contents, start: int) -> _Pointed:
    end = min(start + _SLICE_PAGES, store.pages)
    words = store.slice(start, end)
    row, column = np.nonzero(is_canonical(words))
    regions = ((words[row, column] & ADDRESS) >> REGION_BITS).astype(np.int64)
    parts = [
        holder[start:end][row].astype(np.int64) << _REGIONS | regions
        for holder in (contents.first_vm, contents.last_vm)
    ]
    apart = (contents.first_vm != contents.last_vm)[start:end][row]
    keys = np.concatenate((parts[0], parts[1][apart]))
    return _sum(keys, np.ones(len(keys), np.int64))

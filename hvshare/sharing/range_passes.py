"""Digests of many VMs taken pass by pass, and counted in processes that share the memory for them."""

from __future__ import annotations

import mmap
from functools import partial
from typing import TYPE_CHECKING, Final, NamedTuple

import numpy as np

from hvshare.fingerprint.pages import ZERO_DIGEST
from hvshare.sharing.grouping import heavy_contents
from hvshare.sharing.range_counts import count_apart, count_ordered
from hvshare.sharing.range_pool import add_up

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from hvshare.sharing.range_counts import RangeCounts
    from hvshare.sharing.range_pool import Task

_RUN_DIGESTS: Final = 1 << 20
_RANGE_DIGESTS: Final = 1 << 17
_RANGES_OF_A_JOB: Final = 8
_MOST_RANGES: Final = 1 << 10
_ONE_PASS_DIGESTS: Final = 1 << 21
_SHARE_OF_A_PASS: Final = 0.3
_SAMPLE_DIGESTS: Final = 1 << 12
_CHUNK: Final = 1 << 14  # 128 KiB stay in a core's caches from one look to the next


class _Part(NamedTuple):
    """A range of digests, both ends included."""

    lowest: int
    highest: int

    def split(self, parts: int) -> list[_Part]:
        """Cut it into ranges of about one size."""
        size = self.highest + 1 - self.lowest
        edges = [self.lowest + size * index // parts for index in range(parts + 1)]
        return [_Part(edges[index], edges[index + 1] - 1) for index in range(parts)]


_ALL_DIGESTS: Final = _Part(0, 2**64 - 1)


def count_in_passes(
    vms: Sequence[NDArray[np.uint64]], domains: Sequence[int], *, pairs: bool, jobs: int
) -> RangeCounts:
    """Count the digests of many VMs.

    Parameters
    ----------
    vms : sequence of ndarray of uint64
        The digests of each VM, those of zero among them.
    domains : sequence of int
        The number of the sharing domain of each VM, from 0 on.
    pairs : bool
        Whether to count what each pair of VMs has in common.
    jobs : int
        Processes at the most.

    Returns
    -------
    RangeCounts

    Raises
    ------
    WorkerError
        If a process ends without having done its work.
    """
    heavy = heavy_contents(vms)
    passes = _passes(vms, heavy)
    digests = sum(map(len, vms))
    ranges = max(1, min(_RANGES_OF_A_JOB * jobs, _MOST_RANGES, digests // passes // _RANGE_DIGESTS))
    runs = _Runs(vms, [np.uint64(ZERO_DIGEST), *heavy])
    steps: list[list[Task[RangeCounts]]] = []
    for part in _ALL_DIGESTS.split(passes):
        steps.append([partial(runs.fill, number, part) for number in range(len(runs.vm_of))])
        steps.append([partial(runs.count, each, domains, pairs=pairs) for each in part.split(ranges)])
    counts: RangeCounts = add_up(steps, jobs)
    copies_of = runs.apart_of_vms(len(vms))
    return counts + count_apart(copies_of[0], copies_of[1:], domains, pairs=pairs)


def _passes(vms: Sequence[NDArray[np.uint64]], heavy: Sequence[np.uint64]) -> int:
    """Choose in how many passes to go, so that memory for one stays a part of that for the digests."""
    digests = sum(map(len, vms))
    if digests <= _ONE_PASS_DIGESTS:
        return 1
    step = -(-digests // _SAMPLE_DIGESTS)
    sample = np.concatenate([of_vm[::step] for of_vm in vms])
    sorted_share = 1 - np.isin(sample, [np.uint64(ZERO_DIGEST), *heavy]).mean()
    return max(1, -int(-sorted_share // _SHARE_OF_A_PASS))


class _Runs:
    """Room for the digests of one pass: a run for each VM, or several for a large one.

    All of it could hold all digests, but takes memory only where it is used.

    Parameters
    ----------
    vms : sequence of ndarray of uint64
        The digests of each VM.
    apart : sequence of uint64
        Contents that are counted but not kept, as they may hold most pages.

    Attributes
    ----------
    vm_of : list of int
        The VM of each run.
    """

    def __init__(self, vms: Sequence[NDArray[np.uint64]], apart: Sequence[np.uint64]) -> None:
        self._sources = [
            np.asarray(digests)[start : start + _RUN_DIGESTS]
            for digests in vms
            for start in range(0, len(digests), _RUN_DIGESTS)
        ]
        self.vm_of = [vm for vm, digests in enumerate(vms) for _ in range(0, len(digests), _RUN_DIGESTS)]
        self._apart = apart
        lengths = [len(source) for source in self._sources]
        room = _shared(sum(lengths)).view(np.uint64)
        self._slots = np.split(room, np.cumsum(lengths)[:-1]) if lengths else []
        self._filled = _shared(len(lengths))
        self._copies = _shared(len(apart) * len(lengths)).reshape(len(lengths), len(apart))

    def fill(self, number: int, part: _Part) -> None:
        """Take the digests of a run that lie in a range, sort them, and count those that are kept apart."""
        source, slot = self._sources[number], self._slots[number]
        lowest, width = np.uint64(part.lowest), np.uint64(part.highest - part.lowest)
        apart = [index for index, digest in enumerate(self._apart) if part.lowest <= digest <= part.highest]
        filled = 0
        for start in range(0, len(source), _CHUNK):
            chunk = source[start : start + _CHUNK]
            # Below the range, differences wrap around.
            kept = chunk - lowest <= width
            for index in apart:
                others = chunk != self._apart[index]
                if found := len(chunk) - int(np.count_nonzero(others)):
                    self._copies[number, index] += found
                    kept &= others
            positions = np.flatnonzero(kept)
            end = filled + len(positions)
            # Clipping never happens: it is the mode that writes to its place without a copy.
            chunk.take(positions, out=slot[filled:end], mode="clip")
            filled = end
        slot[:filled].sort()
        self._filled[number] = filled

    def count(self, part: _Part, domains: Sequence[int], *, pairs: bool) -> RangeCounts:
        """Count what runs hold in a range."""
        lowest, highest = np.uint64(part.lowest), np.uint64(part.highest)
        found = []
        for slot, filled in zip(self._slots, self._filled.tolist(), strict=True):
            run = slot[:filled]
            found.append(run[run.searchsorted(lowest) : run.searchsorted(highest, side="right")])
        return count_ordered(found, self.vm_of, domains, pairs=pairs)

    def apart_of_vms(self, vms: int) -> NDArray[np.int64]:
        """Give how many copies of each content that is kept apart there are in each VM."""
        copies_of = np.zeros((len(self._apart), vms), np.int64)
        np.add.at(copies_of.T, self.vm_of, self._copies)
        return copies_of


def _shared(length: int) -> NDArray[np.int64]:
    """Make an array of zeros that processes share."""
    return np.frombuffer(mmap.mmap(-1, max(1, 8 * length)), np.int64, length)

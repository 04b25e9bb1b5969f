"""Digests grouped by content, one range of digests after another.

The unit of the work is `count_range`: it gets the digests of every VM within one range of digests and
knows neither files nor other ranges. What it returns adds up over the ranges.
"""

from __future__ import annotations

import enum
import heapq
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, NamedTuple

import numpy as np

from hvshare.fingerprint.pages import ZERO_DIGEST
from hvshare.fingerprint.workers import default_jobs

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

_RANGE_DIGESTS: Final = 1 << 17
_MOST_RANGES: Final = 32
_SAMPLE_DIGESTS: Final = 1 << 12
_MOST_THREADS: Final = 4
_NO_RANGE: Final = 255
_CHUNK: Final = 1 << 18


class PageClass(enum.IntEnum):
    """Where else the content of a page is found."""

    ZERO = 0
    SELF = 1  # elsewhere in the same VM, whatever other VMs hold
    INTER = 2  # not in the same VM, but in another one
    UNIQUE = 3


class FrequentContent(NamedTuple):
    """A content that occurs more than once.

    Attributes
    ----------
    copies : int
        How often, over all VMs.
    digest : int
        Its digest.
    vm : int
        Index of the first VM that holds it.
    position : int
        Where that VM's digests first have it.
    """

    copies: int
    digest: int
    vm: int
    position: int


class VmDigests(NamedTuple):
    """The digests of one VM within a range.

    Attributes
    ----------
    digests : ndarray of uint64, shape (n,)
        In order of position; none is that of zero.
    positions : ndarray of intp, shape (n,)
        Where they stand among all digests of the VM.
    """

    digests: NDArray[np.uint64]
    positions: NDArray[np.intp]


@dataclass
class Groups:
    """Digests grouped by content, zero apart; results of several ranges add up.

    Attributes
    ----------
    distinct_of : ndarray of int64, shape (VMs,)
        Different contents within each VM.
    distinct : int
        Different contents over all VMs.
    contents_by_copies, frames_by_copies : ndarray of int64, shape (64,)
        At index b, contents with 2**b to 2**(b + 1) - 1 copies, and the frames that hold them.
    frequent : list of FrequentContent
        The most frequent ones, most copies first, then by digest.
    """

    distinct_of: NDArray[np.int64]
    distinct: int = 0
    contents_by_copies: NDArray[np.int64] = field(default_factory=lambda: np.zeros(64, np.int64))
    frames_by_copies: NDArray[np.int64] = field(default_factory=lambda: np.zeros(64, np.int64))
    frequent: list[FrequentContent] = field(default_factory=list)

    def add(self, other: Groups, top: int) -> None:
        """Add what another range holds, keeping so many frequent contents."""
        self.distinct_of += other.distinct_of
        self.distinct += other.distinct
        self.contents_by_copies += other.contents_by_copies
        self.frames_by_copies += other.frames_by_copies
        self.frequent = heapq.nsmallest(
            top, self.frequent + other.frequent, key=lambda content: (-content.copies, content.digest)
        )


def group(
    vms: Sequence[NDArray[np.uint64]], *, top: int = 0, classes: Sequence[NDArray[np.uint8]] | None = None
) -> Groups:
    """Group the digests of several VMs by content.

    Parameters
    ----------
    vms : sequence of ndarray of uint64
        The digests of each VM, those of zero among them.
    top : int
        How many of the most frequent contents to name.
    classes : sequence of ndarray of uint8, optional
        For each VM an array of zeros as long as its digests; receives the `PageClass` of each.

    Returns
    -------
    Groups
        Over all contents but zero.
    """
    total = Groups(np.zeros(len(vms), np.int64))
    heavy = heavy_contents(vms)
    for digest in heavy:
        total.add(_count_heavy(vms, digest, classes), top)
    bits = _range_bits(vms)
    numbers = [_range_numbers(digests, bits, heavy) for digests in vms]

    def count(number: int) -> Groups:
        return count_range(_select(vms, numbers, number), top=top, classes=classes)

    # Threads, since numpy lets go of the interpreter while it sorts and selects; few, for each holds a range.
    with ThreadPoolExecutor(min(_MOST_THREADS, default_jobs())) as pool:
        for groups in pool.map(count, range(1 << bits)):
            total.add(groups, top)
    return total


def repeated_contents(vms: Sequence[NDArray[np.uint64]], most: int) -> NDArray[np.uint64]:
    """List contents with two or more copies over all VMs, zero apart.

    Parameters
    ----------
    vms : sequence of ndarray of uint64
        The digests of each VM.
    most : int
        How many at the most. The smallest digests are taken; as digests are spread evenly, that is a
        fair sample.

    Returns
    -------
    ndarray of uint64
        Digests, ascending.
    """
    heavy = heavy_contents(vms)
    repeated = [digest for digest in heavy if sum(np.count_nonzero(vm == digest) for vm in vms) > 1]
    found = [np.array(repeated, np.uint64)]
    bits = _range_bits(vms)
    numbers = [_range_numbers(digests, bits, heavy) for digests in vms]
    for number in range(1 << bits):
        digests = np.sort(np.concatenate([part.digests for part in _select(vms, numbers, number)]))
        starts = _starts(digests)
        found.append(digests[starts[np.diff(np.append(starts, len(digests))) > 1]])
        if sum(map(len, found)) >= most:
            break
    return np.sort(np.concatenate(found))[:most]


def count_range(
    vms: Sequence[VmDigests], *, top: int, classes: Sequence[NDArray[np.uint8]] | None = None
) -> Groups:
    """Group the digests of several VMs that lie in one range.

    Parameters
    ----------
    vms : sequence of VmDigests
        The digests of each VM in the range.
    top : int
        How many of the most frequent contents to name.
    classes : sequence of ndarray of uint8, optional
        Receives the `PageClass` of each digest at its position.

    Returns
    -------
    Groups
    """
    unsorted = np.concatenate([part.digests for part in vms])
    groups = Groups(np.zeros(len(vms), np.int64))
    if not len(unsorted):
        return groups
    ends = np.cumsum([len(part.digests) for part in vms])
    order, digests = _sorted_with_order(unsorted)
    starts = _starts(digests)
    copies = np.diff(np.append(starts, len(digests)))
    # Within a content, order ascends, so the copies of one VM follow each other.
    opens_content = np.zeros(len(digests), bool)
    opens_content[starts] = True
    opens_vm = opens_content.copy()
    if len(vms) > 1:
        vm = np.searchsorted(ends, order, side="right")
        opens_vm[1:] |= vm[1:] != vm[:-1]
        groups.distinct_of = np.bincount(vm[opens_vm], minlength=len(vms))
    else:
        groups.distinct_of[0] = len(starts)
    groups.distinct = len(starts)
    repeated = copies[copies > 1]
    bins = np.frexp(repeated)[1] - 1
    groups.contents_by_copies = np.bincount(bins, minlength=64)
    groups.frames_by_copies = np.bincount(bins, weights=repeated, minlength=64).astype(np.int64)
    groups.contents_by_copies[0] = groups.frames_by_copies[0] = len(copies) - len(repeated)
    groups.frequent = _frequent(vms, ends, order, digests, starts, copies, groups.contents_by_copies, top)
    if classes is not None:
        _classify(vms, ends, order, opens_content, opens_vm, classes)
    return groups


def _range_bits(vms: Sequence[NDArray[np.uint64]]) -> int:
    """Choose how many leading bits of a digest tell its range, so that ranges stay small."""
    total = sum(map(len, vms))
    size = max(_RANGE_DIGESTS, total // _MOST_RANGES)
    return max(0, (-(-total // size) - 1).bit_length())


def heavy_contents(vms: Sequence[NDArray[np.uint64]]) -> list[np.uint64]:
    """Guess from a sample which contents, zero apart, hold so many pages that their range would be large.

    Parameters
    ----------
    vms : sequence of ndarray of uint64
        The digests of each VM.

    Returns
    -------
    list of uint64
        Digests that hold about a sixteenth of all pages or more. Wrong guesses cost time or memory, and
        change no count.
    """
    total = sum(map(len, vms))
    if total <= _RANGE_DIGESTS:
        return []
    step = -(-total // _SAMPLE_DIGESTS)
    sample = np.sort(np.concatenate([digests[::step] for digests in vms]))
    starts = _starts(sample)
    copies = np.diff(np.append(starts, len(sample)))
    frequent = sample[starts[copies * _MOST_RANGES > 2 * len(sample)]]
    return [digest for digest in frequent if digest != np.uint64(ZERO_DIGEST)]


def _count_heavy(
    vms: Sequence[NDArray[np.uint64]], digest: np.uint64, classes: Sequence[NDArray[np.uint8]] | None
) -> Groups:
    """Group the pages of one content, without sorting."""
    copies = [int(np.count_nonzero(digests == digest)) for digests in vms]
    holders = [vm for vm, count in enumerate(copies) if count]
    groups = Groups(np.array(copies, np.int64).astype(bool).astype(np.int64), 1)
    of_bin = sum(copies).bit_length() - 1
    groups.contents_by_copies[of_bin] = 1
    groups.frames_by_copies[of_bin] = sum(copies)
    if sum(copies) > 1:
        first = int(np.argmax(vms[holders[0]] == digest))
        groups.frequent = [FrequentContent(sum(copies), int(digest), holders[0], first)]
    if classes is not None:
        alone = PageClass.UNIQUE if len(holders) == 1 else PageClass.INTER
        for vm in holders:
            classes[vm][vms[vm] == digest] = PageClass.SELF if copies[vm] > 1 else alone
    return groups


def _range_numbers(digests: NDArray[np.uint64], bits: int, heavy: Sequence[np.uint64]) -> NDArray[np.uint8]:
    """Tell the number of the range that each digest lies in; zero and heavy contents lie in none."""
    numbers = np.empty(len(digests), np.uint8)
    for start in range(0, len(digests), _CHUNK):
        chunk = digests[start : start + _CHUNK]
        # In two steps, since a shift by all 64 bits is not defined.
        numbers[start : start + _CHUNK] = chunk >> np.uint64(63 - bits) >> np.uint64(1)
        for digest in (np.uint64(ZERO_DIGEST), *heavy):
            numbers[start : start + _CHUNK][chunk == digest] = _NO_RANGE
    return numbers


def _select(
    vms: Sequence[NDArray[np.uint64]], numbers: Sequence[NDArray[np.uint8]], number: int
) -> list[VmDigests]:
    """Take the digests of each VM that lie in one range."""
    positions = [np.flatnonzero(of_vm == number) for of_vm in numbers]
    return [VmDigests(digests[where], where) for digests, where in zip(vms, positions, strict=True)]


def _sorted_with_order(digests: NDArray[np.uint64]) -> tuple[NDArray[np.intp], NDArray[np.uint64]]:
    """Sort digests and tell where each one came from, equal ones in their old order.

    Sorting numbers that carry their index in the low bits is twice as fast as a stable argsort. The index
    takes the place of digest bits that almost never decide; where they do, the result shows it.
    """
    shift = np.uint64(max(1, (len(digests) - 1).bit_length()))
    low_bits = (np.uint64(1) << shift) - np.uint64(1)
    keys = digests & ~low_bits
    keys |= np.arange(len(digests), dtype=np.uint64)
    keys.sort()
    keys &= low_bits
    order = keys.view(np.intp)
    in_order = digests[order]
    if (in_order[1:] < in_order[:-1]).any():
        order = np.argsort(digests, kind="stable")
        in_order = digests[order]
    return order, in_order


def _starts(ordered: NDArray[np.uint64]) -> NDArray[np.intp]:
    """Find where each content starts among sorted digests."""
    opens = np.ones(len(ordered), bool)
    opens[1:] = ordered[1:] != ordered[:-1]
    return np.flatnonzero(opens)


def _frequent(
    vms: Sequence[VmDigests],
    ends: NDArray[np.intp],
    order: NDArray[np.intp],
    digests: NDArray[np.uint64],
    starts: NDArray[np.intp],
    copies: NDArray[np.intp],
    contents_by_copies: NDArray[np.int64],
    top: int,
) -> list[FrequentContent]:
    if not top:
        return []
    # Bins from the top down until they hold enough contents spare a sort of all that are unique.
    in_bins = np.cumsum(contents_by_copies[:0:-1])
    least = 2 << max(0, len(in_bins) - 1 - int(np.searchsorted(in_bins, top)))
    candidates = np.flatnonzero(copies >= least)
    # Stable, so that equal counts stay in order of their digests.
    chosen = candidates[np.argsort(-copies[candidates], kind="stable")[:top]]
    frequent = []
    for content in chosen.tolist():
        first = int(order[starts[content]])
        vm = int(np.searchsorted(ends, first, side="right"))
        position = int(vms[vm].positions[first - (int(ends[vm - 1]) if vm else 0)])
        frequent.append(FrequentContent(int(copies[content]), int(digests[starts[content]]), vm, position))
    return frequent


def _classify(
    vms: Sequence[VmDigests],
    ends: NDArray[np.intp],
    order: NDArray[np.intp],
    opens_content: NDArray[np.bool_],
    opens_vm: NDArray[np.bool_],
    classes: Sequence[NDArray[np.uint8]],
) -> None:
    ordered = np.full(len(order), PageClass.UNIQUE, np.uint8)
    ordered[_not_alone(opens_content)] = PageClass.INTER
    ordered[_not_alone(opens_vm)] = PageClass.SELF
    unsorted = np.empty_like(ordered)
    unsorted[order] = ordered
    for part, of_vm, here in zip(vms, classes, np.split(unsorted, ends[:-1]), strict=True):
        of_vm[part.positions] = here


def _not_alone(opens: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Mark the members of groups of two or more, given where groups start."""
    joined = ~opens
    joined[:-1] |= ~opens[1:]
    return joined

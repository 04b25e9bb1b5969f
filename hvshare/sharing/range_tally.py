"""Sorted keys, each a content and a VM that holds it, to counts: the inner loop of comparing many VMs."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Final

import numpy as np

from hvshare.sharing.range_pairs import PairTally

if TYPE_CHECKING:
    from numpy.typing import NDArray

_SMALL: Final = 256  # copies below this are counted in an array, others one by one


class Tally:
    """Counts over pieces of a range, VMs and sharing domains by number.

    Parameters
    ----------
    pages_of : ndarray of int64, shape (VMs,)
        Keys of each VM in all pieces together. Each is a content of its own as long as no piece tells
        otherwise.
    domain_of : ndarray of intp, shape (VMs,)
        The sharing domain of each VM, ascending.
    pairs : bool
        Whether to count what pairs of VMs have in common.

    Attributes
    ----------
    distinct_of, exclusive_of : ndarray of int64, shape (VMs,)
        As in `RangeCounts`.
    """

    def __init__(self, pages_of: NDArray[np.int64], domain_of: NDArray[np.intp], *, pairs: bool) -> None:
        vms = len(pages_of)
        domains = int(domain_of.max(initial=0)) + 1
        self.distinct_of = pages_of.copy()
        self.exclusive_of = pages_of.copy()
        self._alone_of = pages_of.copy()
        self._domain_of = domain_of
        self._copies = _CopiesTally(1)
        self._domain_copies = _CopiesTally(domains) if domains > 1 else None
        self._pairs = PairTally(vms) if pairs else None
        self._vms = vms
        self._vm_bits = np.uint64((vms - 1).bit_length()) if vms else np.uint64(0)
        self._vm_mask = (np.uint64(1) << self._vm_bits) - np.uint64(1)

    def add(self, keys: NDArray[np.uint64]) -> None:
        """Count a piece that holds all copies of its contents.

        Parameters
        ----------
        keys : ndarray of uint64, shape (n,), n > 0
            In ascending order; the number of the VM is in as many of the lowest bits as numbers of VMs need.
        """
        # Most contents occur once; what is dear is done with the others alone.
        same = (keys[1:] ^ keys[:-1]) <= self._vm_mask
        repeated = np.zeros(len(keys), bool)
        repeated[1:] = same
        repeated[:-1] |= same
        rest = np.flatnonzero(repeated)
        if len(rest):
            opens = np.ones(len(rest), bool)
            opens[1:] = ~same[rest[1:] - 1]
            self._add_repeated((keys[rest] & self._vm_mask).view(np.intp), opens)

    def copies(self) -> dict[int, int]:
        """Tell how many contents there are with so many copies."""
        return self._copies.histograms(np.array([self._alone_of.sum()]))[0]

    def domain_copies(self) -> tuple[dict[int, int], ...]:
        """Tell how many contents each sharing domain holds with so many copies."""
        if self._domain_copies is None:
            return (self.copies(),)
        alone = np.zeros(self._domain_copies.groups, np.int64)
        np.add.at(alone, self._domain_of, self._alone_of)
        return self._domain_copies.histograms(alone)

    def pairs(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Give what pairs have in common; see `PairTally.matrices`."""
        if self._pairs is None:
            raise ValueError("pairs are not counted")
        return self._pairs.matrices()

    def _add_repeated(self, vm: NDArray[np.intp], opens: NDArray[np.bool_]) -> None:
        """Count contents that occur twice or more.

        Parameters
        ----------
        vm : ndarray of intp, shape (n,)
            Of each copy, ascending within a content.
        opens : ndarray of bool, shape (n,)
            Where a content starts.
        """
        pages = np.bincount(vm, minlength=self._vms)
        self._alone_of -= pages
        opens_vm = opens.copy()
        opens_vm[1:] |= vm[1:] != vm[:-1]
        holding = np.flatnonzero(opens_vm)  # a holding: all copies of one content in one VM
        vm, opens = vm[holding], opens[holding]
        first = np.flatnonzero(opens)
        copies = np.diff(holding, append=len(opens_vm))
        holders = np.diff(first, append=len(holding))
        self.distinct_of += np.bincount(vm, minlength=self._vms) - pages
        self.exclusive_of += np.bincount(vm[first[holders == 1]], minlength=self._vms) - pages
        self._copies.add(np.diff(holding[first], append=len(opens_vm)))
        if self._domain_copies:
            domain = self._domain_of[vm]
            opens_domain = opens.copy()
            opens_domain[1:] |= domain[1:] != domain[:-1]
            start = np.flatnonzero(opens_domain)
            self._domain_copies.add(np.diff(holding[start], append=len(opens_vm)), domain[start])
        if self._pairs:
            held_by_several = np.flatnonzero(np.repeat(holders > 1, holders))
            self._pairs.add(vm[held_by_several], copies[held_by_several], holders[holders > 1])


class _CopiesTally:
    """How many contents there are with so many copies, in each of several groups."""

    def __init__(self, groups: int) -> None:
        self.groups = groups
        self._small = np.zeros(groups * _SMALL, np.int64)
        self._large: Counter[tuple[int, int]] = Counter()

    def add(self, copies: NDArray[np.intp], group: NDArray[np.intp] | None = None) -> None:
        """Add contents with so many copies in a group, the first by default."""
        large = np.flatnonzero(copies >= _SMALL)
        slots = np.minimum(copies, _SMALL - 1) if len(large) else copies
        if group is None:
            self._small += np.bincount(slots, minlength=_SMALL)
        else:
            np.add.at(self._small, slots + group * _SMALL, 1)
        if len(large):
            groups = [0] * len(large) if group is None else group[large].tolist()
            for which, count in zip(groups, copies[large].tolist(), strict=True):
                self._small[which * _SMALL + _SMALL - 1] -= 1
                self._large[which, count] += 1

    def histograms(self, alone: NDArray[np.int64]) -> tuple[dict[int, int], ...]:
        """Give the contents of each group by their copies, ascending.

        Parameters
        ----------
        alone : ndarray of int64, shape (groups,)
            Further contents of each group that occur once.
        """
        small = self._small.copy()
        small[1::_SMALL] += alone
        found: list[dict[int, int]] = [{} for _ in range(self.groups)]
        for slot in np.flatnonzero(small).tolist():
            found[slot // _SMALL][slot % _SMALL] = int(small[slot])
        for (which, count), contents in sorted(self._large.items()):
            found[which][count] = contents
        return tuple(found)

"""The different contents of some VMs, who holds them, and what merging them would save."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from hvshare.fingerprint.pages import ZERO_DIGEST

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from hvshare.fingerprint.fingerprints import Fingerprints


@dataclass(frozen=True)
class Contents:
    """The different contents other than zero of some VMs, numbered by where they occur first.

    Attributes
    ----------
    vms : int
        How many VMs there are.
    first_vm, last_vm : ndarray of int32, shape (contents,)
        The first and the last VM that hold a content.
    first_position : ndarray of int64, shape (contents,)
        Where the first VM holds it first, among its PRESENT pages.
    pages : ndarray of int64, shape (contents,)
        How many pages of all VMs hold it.
    held : ndarray of int64, shape (holdings,)
        Contents, once for each VM that holds them, in ascending order.
    held_by : ndarray of int32, shape (holdings,)
        These VMs, ascending for each content.
    held_copies : ndarray of int64, shape (holdings,)
        How many pages of that VM hold it.
    """

    vms: int
    first_vm: NDArray[np.int32]
    last_vm: NDArray[np.int32]
    first_position: NDArray[np.int64]
    pages: NDArray[np.int64]
    held: NDArray[np.int64]
    held_by: NDArray[np.int32]
    held_copies: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.pages)

    @classmethod
    def of(cls, fingerprints: Sequence[Fingerprints]) -> Contents:
        """Find the different contents of some VMs.

        Parameters
        ----------
        fingerprints : sequence of Fingerprints
            One a VM.

        Returns
        -------
        Contents
        """
        zero = np.uint64(ZERO_DIGEST)
        positions = [np.flatnonzero(each.digests != zero) for each in fingerprints]
        digests = np.concatenate(
            [each.digests[where] for each, where in zip(fingerprints, positions, strict=True)]
        )
        ends = np.cumsum([len(where) for where in positions])
        # Stable, so the first page of a content is the first in the order of VMs and positions.
        order = np.argsort(digests, kind="stable")
        digests = digests[order]
        opens = np.ones(len(order), bool)
        opens[1:] = digests[1:] != digests[:-1]
        first = order[opens]
        rank = np.empty(len(first), np.int64)
        rank[np.argsort(first)] = np.arange(len(first))
        content = rank[np.cumsum(opens) - 1]
        vm = np.searchsorted(ends, order, side="right").astype(np.int32)
        opens_holding = opens.copy()
        opens_holding[1:] |= vm[1:] != vm[:-1]
        starts = np.flatnonzero(opens_holding)
        held, held_by = content[starts], vm[starts]
        copies = np.diff(np.append(starts, len(order)))
        by_content = np.argsort(held, kind="stable")
        held, held_by, copies = held[by_content], held_by[by_content], copies[by_content]
        first_of = np.searchsorted(held, np.arange(len(first)))
        last_of = np.searchsorted(held, np.arange(len(first)), side="right") - 1
        at = np.sort(first)
        return cls(
            len(fingerprints),
            held_by[first_of],
            held_by[last_of],
            np.concatenate([np.empty(0, np.int64), *positions])[at],
            np.bincount(held, weights=copies, minlength=len(first)).astype(np.int64),
            held,
            held_by,
            copies,
        )

    def saved(self, classes: NDArray[np.int64]) -> tuple[int, int]:
        """Tell what would be saved further if the contents of a class were one.

        Parameters
        ----------
        classes : ndarray of int64, shape (contents,)
            The class of each content, from 0 on.

        Returns
        -------
        saved_self, saved_inter : int
            Frames within VMs and between them. With fewer different contents in a VM, more of its pages are
            copies (self); with fewer in all than in the VMs together, more of them are alike between VMs.
        """
        held_by = np.int64(self.vms)
        in_vms = len(sorted_unique(classes[self.held] * held_by + self.held_by))
        kinds = len(sorted_unique(classes))
        saved_self = len(self.held) - in_vms
        saved = len(self) - kinds
        return saved_self, saved - saved_self

    def spaces(self, first: NDArray[np.int64], second: NDArray[np.int64]) -> tuple[NDArray[np.int64], ...]:
        """Choose for pairs of contents the VMs between which to compare them: within one where that can be.

        Contents that one VM holds both are told apart there, whatever is different in another.

        Parameters
        ----------
        first, second : ndarray of int64, shape (n,)
            Contents.

        Returns
        -------
        first, second, space : ndarray of int64, shape (n,)
            The pairs, turned so that the first VM has the lower number; and the number of the two VMs
            together, `first VM * vms + second VM`.
        """
        one, other = self.first_vm[first], self.first_vm[second]
        for of_first in (self.first_vm[first], self.last_vm[first]):
            for of_second in (self.first_vm[second], self.last_vm[second]):
                common = of_first == of_second
                one, other = np.where(common, of_first, one), np.where(common, of_first, other)
        turned = one > other
        pairs = np.where(turned, second, first), np.where(turned, first, second)
        low, high = np.minimum(one, other).astype(np.int64), np.maximum(one, other)
        return *pairs, low * self.vms + high


def sorted_unique(values: NDArray[np.int64]) -> NDArray[np.int64]:
    """Give each value once, ascending; far faster than numpy's own way on wide integers."""
    ordered = np.sort(values)
    keep = np.ones(len(ordered), bool)
    keep[1:] = ordered[1:] != ordered[:-1]
    return ordered[keep]

"""Many VMs by ranges of digests: each range is counted by itself, and what it counts adds up.

All digests are taken in a few passes. In each, those of its part are taken out of all others and sorted, run
by run, and then counted, range by range: two steps that processes share. So memory beside the digests stays a
part of theirs, and each digest is looked at a few times only, however many processes there are.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np

from hvshare.fingerprint.workers import default_jobs
from hvshare.sharing.range_counts import RangeCounts, count_range
from hvshare.sharing.range_passes import count_in_passes

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

__all__ = ["ManyCounts", "RangeCounts", "count_many", "count_range"]

_WORTH_FORKING: Final = 1 << 19  # digests; fewer are counted before processes have started


@dataclass(frozen=True, eq=False)
class ManyCounts(RangeCounts):
    """What the digests of many VMs count over all ranges: see `RangeCounts`, with zero pages in holes.

    Attributes
    ----------
    domains : tuple of int
        The number of the sharing domain of each VM.
    """

    domains: tuple[int, ...] = ()

    @property
    def contribution_of(self) -> list[int]:
        """For each VM, what leaving it out would cost in savings: those of all VMs less those of all others.

        That is its frames, less the contents that only it holds, zero among them.
        """
        zero = self.zero_of > 0
        lone_zero = zero & (np.count_nonzero(zero) == 1)
        contribution: list[int] = (self.zero_of + self.nonzero_of - self.exclusive_of - lone_zero).tolist()
        return contribution

    def vms_of(self, domain: int) -> list[int]:
        """List the VMs of a sharing domain."""
        return [vm for vm, of_vm in enumerate(self.domains) if of_vm == domain]


def count_many(
    vms: Sequence[NDArray[np.uint64]],
    *,
    domains: Sequence[int] | None = None,
    pairs: bool = True,
    jobs: int | None = None,
    zero_in_holes: Sequence[int] | None = None,
) -> ManyCounts:
    """Count what many VMs share, all together, in sharing domains and in pairs.

    Parameters
    ----------
    vms : sequence of ndarray of uint64
        The digests of each VM, in memory or mapped; they may be read-only. `ZERO_DIGEST` for zero pages.
    domains : sequence of int, optional
        The number of the sharing domain of each VM, from 0 on; all are in one domain by default.
    pairs : bool
        Whether to count what each pair of VMs has in common.
    jobs : int, optional
        Processes at the most; `default_jobs` by default.
    zero_in_holes : sequence of int, optional
        Zero frames of each VM that have no digest.

    Returns
    -------
    ManyCounts

    Raises
    ------
    WorkerError
        If a process ends without having done its work.
    ValueError
        If there are not as many domains as VMs, or one has a negative number.

    Notes
    -----
    Nothing is hashed: with the digests of further VMs the count is taken anew, which takes about as long as
    one sort of all digests. Beside the digests, processes hold about a third of them in all, and a few MiB
    each; with pairs, some 50 bytes a pair of VMs and process as well.

    Examples
    --------
    >>> counts = count_many([np.array([7, 7, 8], np.uint64), np.array([8, 9], np.uint64)], domains=[0, 1])
    >>> counts.distinct, counts.domain_distinct, counts.contribution_of
    (3, [2, 2], [2, 1])
    """
    if domains is not None and (len(domains) != len(vms) or min(domains, default=0) < 0):
        raise ValueError(f"{list(domains)} are no domains of {len(vms)} VMs")
    of_vms = [0] * len(vms) if domains is None else list(domains)
    forked = sum(map(len, vms)) >= _WORTH_FORKING
    counts = count_in_passes(vms, of_vms, pairs=pairs, jobs=(jobs or default_jobs()) if forked else 1)
    return ManyCounts(
        counts.zero_of + np.array(zero_in_holes or np.zeros(len(vms)), np.int64),
        counts.nonzero_of,
        counts.distinct_of,
        counts.exclusive_of,
        counts.copies,
        counts.domain_copies,
        counts.common_contents,
        counts.common_pages,
        tuple(of_vms),
    )

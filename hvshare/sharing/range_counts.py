"""The unit of comparing many VMs: what those of their digests count that lie in one range.

`count_range` knows neither files nor other ranges and keeps no state; what it returns can be pickled and
adds up over ranges. So a range may be counted in another process or on another machine.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

import numpy as np

from hvshare.fingerprint.pages import ZERO_DIGEST
from hvshare.sharing.range_pieces import pieces
from hvshare.sharing.range_tally import Tally

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from numpy.typing import NDArray


@dataclass(frozen=True, eq=False)
class RangeCounts:
    """What the digests of some VMs in one range count; those of ranges that do not overlap add up.

    Attributes
    ----------
    zero_of, nonzero_of : ndarray of int64, shape (VMs,)
        Digests of each VM that are that of zero, and all others.
    distinct_of : ndarray of int64, shape (VMs,)
        Different contents within each VM, zero apart.
    exclusive_of : ndarray of int64, shape (VMs,)
        Those among them that no other VM holds.
    copies : mapping of int to int
        How many contents other than zero there are with so many copies over all VMs.
    domain_copies : tuple of mapping of int to int
        The same within each sharing domain, by its number.
    common_contents : ndarray of int64, shape (VMs, VMs), or None
        Contents other than zero that both VMs hold; on the diagonal, `distinct_of`. None if pairs are not
        counted.
    common_pages : ndarray of int64, shape (VMs, VMs), or None
        At [a, b], digests of a whose content b holds, too; on the diagonal, `nonzero_of`.
    """

    zero_of: NDArray[np.int64]
    nonzero_of: NDArray[np.int64]
    distinct_of: NDArray[np.int64]
    exclusive_of: NDArray[np.int64]
    copies: Mapping[int, int]
    domain_copies: tuple[Mapping[int, int], ...]
    common_contents: NDArray[np.int64] | None = None
    common_pages: NDArray[np.int64] | None = None

    def __add__(self, other: Self) -> RangeCounts:
        """Put two ranges of the same VMs together."""
        return RangeCounts(
            self.zero_of + other.zero_of,
            self.nonzero_of + other.nonzero_of,
            self.distinct_of + other.distinct_of,
            self.exclusive_of + other.exclusive_of,
            _merged(self.copies, other.copies),
            tuple(map(_merged, self.domain_copies, other.domain_copies)),
            _sum(self.common_contents, other.common_contents),
            _sum(self.common_pages, other.common_pages),
        )

    @property
    def distinct(self) -> int:
        """Different contents over all VMs, zero apart."""
        return sum(self.copies.values())

    @property
    def domain_distinct(self) -> list[int]:
        """Different contents within each sharing domain, zero apart."""
        return [sum(copies.values()) for copies in self.domain_copies]


def count_range(
    vms: Iterable[NDArray[np.uint64]], domains: Sequence[int] | None = None, *, pairs: bool = True
) -> RangeCounts:
    """Count the digests of several VMs that lie in one range.

    Parameters
    ----------
    vms : iterable of ndarray of uint64
        The digests of each VM in the range, in any order; `ZERO_DIGEST` for zero pages. They are taken one
        VM after another, so a generator needs no room for all. What "the range" is, is not told: any set of
        digests will do from which no copy of a content is missing.
    domains : sequence of int, optional
        The number of the sharing domain of each VM, from 0 on; all are in one domain by default.
    pairs : bool
        Whether to count what each pair of VMs has in common.

    Returns
    -------
    RangeCounts

    Examples
    --------
    >>> counts = count_range([np.array([7, 7, 8, 9], np.uint64), np.array([9, 8, 5], np.uint64)])
    >>> counts.distinct, counts.distinct_of.tolist(), counts.exclusive_of.tolist(), dict(counts.copies)
    (4, [3, 3], [1, 1], {1: 1, 2: 3})
    >>> counts.common_contents.tolist(), counts.common_pages.tolist()
    ([[3, 2], [2, 3]], [[4, 2], [2, 3]])
    """
    ordered = [np.sort(digests) for digests in vms]
    return count_ordered(ordered, range(len(ordered)), domains or [0] * len(ordered), pairs=pairs)


def count_ordered(
    runs: Sequence[NDArray[np.uint64]], vm_of: Sequence[int], domains: Sequence[int], *, pairs: bool
) -> RangeCounts:
    """Count digests that are sorted already, in one or more runs a VM.

    Parameters
    ----------
    runs : sequence of ndarray of uint64
        Digests in ascending order; all that the VMs have of a content.
    vm_of : sequence of int
        The VM that each run belongs to, by its place among `domains`.
    domains : sequence of int
        The number of the sharing domain of each VM, from 0 on.
    pairs : bool
        Whether to count what each pair of VMs has in common.

    Returns
    -------
    RangeCounts
    """
    zero_of, nonzero_of = (np.zeros(len(domains), np.int64) for _ in range(2))
    nonzero = []
    for digests, vm in zip(runs, vm_of, strict=True):
        others, zero = _without_zero(digests)
        zero_of[vm] += zero
        nonzero_of[vm] += len(others)
        nonzero.append(others)
    domain_of = np.asarray(domains, np.intp)
    # VMs of a domain follow each other among the copies of a content, so that its copies do.
    order = np.argsort(domain_of, kind="stable")
    rank = np.argsort(order)
    tally = Tally(nonzero_of[order], domain_of[order], pairs=pairs)
    least = len(domains) ** 2 // 2 if pairs else 0
    for keys in pieces(nonzero, rank[np.asarray(vm_of, np.intp)], len(domains), least):
        tally.add(keys)
    distinct_of = tally.distinct_of[rank]
    common = pages = None
    if pairs:
        common, further = (matrix[np.ix_(rank, rank)] for matrix in tally.pairs())
        pages = common + further
        # Pages of a VM whose content it holds itself are all that it has.
        np.fill_diagonal(common, distinct_of)
        np.fill_diagonal(pages, nonzero_of)
    return RangeCounts(
        zero_of,
        nonzero_of,
        distinct_of,
        tally.exclusive_of[rank],
        tally.copies(),
        tally.domain_copies(),
        common,
        pages,
    )


def count_apart(
    zero_of: NDArray[np.int64], copies_of: NDArray[np.int64], domains: Sequence[int], *, pairs: bool
) -> RangeCounts:
    """Count contents whose copies are known, such as those that are too frequent to be sorted.

    Parameters
    ----------
    zero_of : ndarray of int64, shape (VMs,)
        Digests of zero in each VM.
    copies_of : ndarray of int64, shape (contents, VMs)
        The copies of each content, none of them zero, in each VM.
    domains, pairs
        As for `count_ordered`.

    Returns
    -------
    RangeCounts
    """
    domain_of = np.asarray(domains, np.intp)
    held = (copies_of > 0).astype(np.int64)
    of_domains = np.zeros((len(copies_of), int(domain_of.max(initial=0)) + 1), np.int64)
    np.add.at(of_domains.T, domain_of, copies_of.T)
    return RangeCounts(
        zero_of,
        copies_of.sum(0),
        held.sum(0),
        held[held.sum(1) == 1].sum(0),
        _histogram(copies_of.sum(1)),
        tuple(map(_histogram, of_domains.T)),
        held.T @ held if pairs else None,
        copies_of.T @ held if pairs else None,
    )


def _without_zero(ordered: NDArray[np.uint64]) -> tuple[NDArray[np.uint64], int]:
    """Take the digest of zero out of sorted digests, and tell how often it was there."""
    zero = np.uint64(ZERO_DIGEST)
    first, end = (int(np.searchsorted(ordered, zero, side)) for side in ("left", "right"))
    return (np.concatenate((ordered[:first], ordered[end:])), end - first) if end > first else (ordered, 0)


def _histogram(copies: NDArray[np.int64]) -> dict[int, int]:
    return dict(sorted(Counter(copies[copies > 0].tolist()).items()))


def _merged(counts: Mapping[int, int], others: Mapping[int, int]) -> dict[int, int]:
    return dict(sorted((Counter(counts) + Counter(others)).items()))


def _sum(matrix: NDArray[np.int64] | None, other: NDArray[np.int64] | None) -> NDArray[np.int64] | None:
    return None if matrix is None or other is None else matrix + other

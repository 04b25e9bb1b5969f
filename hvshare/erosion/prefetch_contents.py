"""Contents as sorted arrays of digests, and what VMs save as one after another is added."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np

from hvshare.erosion.prefetch_result import Whereabouts
from hvshare.fingerprint.pages import ZERO_DIGEST
from hvshare.sharing.counts import count_domain
from hvshare.units import PAGE_SIZE

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import NDArray

    from hvshare.sharing.counts import Counts

_CHUNK: Final = 1 << 18
_RANGE_CONTENTS: Final = 1 << 18


def contents_of(digests: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """List the contents of a VM, zero apart.

    Parameters
    ----------
    digests : ndarray of uint64, shape (n,)
        Of its pages.

    Returns
    -------
    ndarray of uint64, shape (contents,)
        Digests, ascending, each once.

    Examples
    --------
    >>> contents_of(np.array([7, ZERO_DIGEST, 3, 7], np.uint64)).tolist()
    [3, 7]
    """
    ordered = _ordered(digests)
    return ordered[_opens(ordered)]


def repeated_of(digests: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """List the contents that a VM holds more than once, zero apart; see `contents_of`.

    Examples
    --------
    >>> repeated_of(np.array([7, ZERO_DIGEST, 3, 7, ZERO_DIGEST, 7], np.uint64)).tolist()
    [7]
    """
    ordered = _ordered(digests)
    further = ~_opens(ordered)
    # The second copy is the first of the further ones.
    further[1:] &= _opens(ordered)[:-1]
    return ordered[further]


def is_among(digests: NDArray[np.uint64], contents: NDArray[np.uint64]) -> NDArray[np.bool_]:
    """Tell which digests are among some contents.

    Parameters
    ----------
    digests : ndarray of uint64, shape (n,)
        In any order.
    contents : ndarray of uint64
        Ascending, each once.

    Returns
    -------
    ndarray of bool, shape (n,)

    Examples
    --------
    >>> is_among(np.array([7, 4, 3], np.uint64), np.array([3, 7], np.uint64)).tolist()
    [True, False, True]
    """
    among = np.zeros(len(digests), bool)
    if len(contents):
        for start in range(0, len(digests), _CHUNK):
            chunk = digests[start : start + _CHUNK]
            at = np.searchsorted(contents, chunk)
            np.minimum(at, len(contents) - 1, out=at)
            among[start : start + _CHUNK] = contents[at] == chunk
    return among


def held_by_several(vms: Sequence[NDArray[np.uint64]]) -> NDArray[np.uint64]:
    """List the contents that two or more VMs hold.

    Parameters
    ----------
    vms : sequence of ndarray of uint64
        The contents of each VM, ascending, each once.

    Returns
    -------
    ndarray of uint64
        Ascending, each once.

    Examples
    --------
    >>> held_by_several([np.array([3, 7], np.uint64), np.array([4, 7], np.uint64)]).tolist()
    [7]
    """
    several = [np.empty(0, np.uint64)]
    several.extend(repeated_of(np.concatenate(parts)) for parts in _ranges(vms))
    return np.concatenate(several)


def held_by_any(vms: Sequence[NDArray[np.uint64]]) -> NDArray[np.uint64]:
    """List the contents that some VM holds.

    Parameters
    ----------
    vms : sequence of ndarray of uint64
        The contents of each VM, ascending, each once.

    Returns
    -------
    ndarray of uint64
        Ascending, each once.

    Examples
    --------
    >>> held_by_any([np.array([3, 7], np.uint64), np.array([4, 7], np.uint64)]).tolist()
    [3, 4, 7]
    """
    held = np.empty(sum(map(len, vms)), np.uint64)
    count = 0
    for parts in _ranges(vms):
        contents = contents_of(np.concatenate(parts))
        held[count : count + len(contents)] = contents
        count += len(contents)
    return held[:count]


def whereabouts(
    digests: NDArray[np.uint64], between: NDArray[np.uint64], repeated: NDArray[np.uint64]
) -> Whereabouts:
    """Tell of some pages of a VM where else their contents are.

    Parameters
    ----------
    digests : ndarray of uint64, shape (n,)
        Of the pages; none is zero.
    between : ndarray of uint64
        Contents that two or more VMs hold.
    repeated : ndarray of uint64
        Contents that this VM holds more than once.
    """
    in_others = is_among(digests, between)
    between_vms = int(np.count_nonzero(in_others))
    within_vm = int(np.count_nonzero(is_among(digests, repeated) & ~in_others))
    return Whereabouts(len(digests), between_vms, within_vm, len(digests) - between_vms - within_vm)


def first_held(vms: Sequence[NDArray[np.uint64]]) -> NDArray[np.int64]:
    """Count the contents of each VM that no VM before it holds.

    Parameters
    ----------
    vms : sequence of ndarray of uint64
        The contents of each VM, ascending, each once.

    Returns
    -------
    ndarray of int64, shape (VMs,)

    Examples
    --------
    >>> first_held([np.array([3, 7], np.uint64), np.array([4, 7], np.uint64)]).tolist()
    [2, 1]
    """
    new = np.zeros(len(vms), np.int64)
    for parts in _ranges(vms):
        digests = np.concatenate(parts)
        ends = np.cumsum([len(part) for part in parts])
        # Stable, so that equal contents stay in the order of VMs; sorted parts are merged, not sorted again.
        order = np.argsort(digests, kind="stable")
        first = order[_opens(digests[order])]
        new += np.bincount(np.searchsorted(ends, first, side="right"), minlength=len(vms))
    return new


def savings_as_added(
    vms: Sequence[NDArray[np.uint64]], zero_of: Sequence[int], nonzero_of: Sequence[int]
) -> list[Counts]:
    """Count what the first VM saves at 4 KB, the first two, and so on.

    Parameters
    ----------
    vms : sequence of ndarray of uint64
        The contents of each VM, ascending, each once.
    zero_of, nonzero_of : sequence of int
        Known pages of each VM that are zero, and that are not.

    Returns
    -------
    list of Counts
        One a VM; the last is of all of them.

    Examples
    --------
    >>> both = [np.array([3, 7], np.uint64), np.array([4, 7], np.uint64)]
    >>> [counts.saved for counts in savings_as_added(both, [5, 5], [2, 3])]
    [4, 11]
    """
    distinct_of = [len(contents) for contents in vms]
    new = first_held(vms).tolist()
    return [
        count_domain(
            PAGE_SIZE,
            partial_frames=0,
            zero=sum(zero_of[:count]),
            nonzero=sum(nonzero_of[:count]),
            distinct_of=distinct_of[:count],
            distinct=sum(new[:count]),
        )
        for count in range(1, len(vms) + 1)
    ]


def _ordered(digests: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """Sort digests, those of zero left out."""
    ordered: NDArray[np.uint64] = digests[digests != np.uint64(ZERO_DIGEST)]
    ordered.sort()
    return ordered


def _ranges(vms: Sequence[NDArray[np.uint64]]) -> Iterator[list[NDArray[np.uint64]]]:
    """Cut sorted contents into ranges of digests, so that what is made of each takes bounded memory."""
    bits = (sum(map(len, vms)) // _RANGE_CONTENTS).bit_length()
    starts = np.arange(1, 1 << bits, dtype=np.uint64) << np.uint64(64 - bits if bits else 0)
    cuts = [np.split(contents, np.searchsorted(contents, starts)) for contents in vms]
    for number in range(1 << bits):
        yield [parts[number] for parts in cuts]


def _opens(ordered: NDArray[np.uint64]) -> NDArray[np.bool_]:
    """Mark where each content starts among sorted digests."""
    opens = np.ones(len(ordered), bool)
    opens[1:] = ordered[1:] != ordered[:-1]
    return opens

"""The slides between address spaces, elected by what moved in many pairs.

Without ASLR a place has one address in all address spaces that programs lay out alike. So a place of one
address space moved by one distance to another, the slide. Pairs of pages vote for distances at each page of
an address space that they point into. A distance is a slide where several twins bear it out over its region,
where no other distance into the same area has more votes, and where contents with several copies do not
say that nothing moved. The kernel has one address space a VM: it has one slide for each area, and none
within a VM. Nor is there a slide within a area: what points to its neighbour is no twin.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

import numpy as np

from hvshare.erosion.aslr_contents import sorted_unique
from hvshare.erosion.aslr_words import (
    CROWDED,
    KERNEL_HALF,
    PAGE_BITS,
    REGION_PAGES,
    mix,
    opens_group,
)

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from hvshare.erosion.aslr_contents import Contents
    from hvshare.erosion.aslr_moves import Moves
    from hvshare.erosion.aslr_spaces import Areas

_LEAST_TWINS: Final = 3
"""Over a region; a slide that fewer pairs of pages bear out may be chance."""

_LEAST_TWINS_OVERLAPPING: Final = 5
"""The same where a place may have several slides."""

_KERNEL_OF_32_BITS: Final = np.uint64(0xC000_0000 >> 12)
_LARGE_STEP: Final = np.uint64(16)  # pages
_CROWDED: Final = CROWDED >> PAGE_BITS
_WITHIN: Final = np.uint64((1 << 36) - 1)  # numbers of pages have 36 bits
_SECOND: Final = np.int64(1 << 24)


class Votes(NamedTuple):
    """Distances that were voted for, at one page of an address space each.

    Attributes
    ----------
    spaces : ndarray of int64
        Two VMs, as `Contents.spaces` numbers them.
    places : ndarray of uint64
        Numbers of pages of the first address space.
    distances : ndarray of uint64
        In pages, modulo 2**36.
    twins : ndarray of int64
        Pages that bear a distance out there: of the first or of the second VM, whichever are fewer.
    twins_of_region : ndarray of int64
        The same over the whole region of 2 MB.
    """

    spaces: NDArray[np.int64]
    places: NDArray[np.uint64]
    distances: NDArray[np.uint64]
    twins: NDArray[np.int64]
    twins_of_region: NDArray[np.int64]

    def chosen(self, rows: NDArray[np.bool_] | NDArray[np.int64]) -> Votes:
        """Keep some of them."""
        return Votes(
            self.spaces[rows],
            self.places[rows],
            self.distances[rows],
            self.twins[rows],
            self.twins_of_region[rows],
        )


def gather(
    moves: Moves, first: NDArray[np.int64], second: NDArray[np.int64], spaces: NDArray[np.int64], vms: int
) -> Votes:
    """Count who bears out which distance.

    Parameters
    ----------
    moves : Moves
        What moved in pairs.
    first, second, spaces : ndarray of int64, shape (pairs,)
        The pages of each pair, and the VMs between which it compares.
    vms : int
        How many VMs there are.

    Returns
    -------
    Votes
        Those that enough twins of the region bear out.
    """
    place, distance = moves.places, moves.distances
    space, one, other = spaces[moves.pairs], first[moves.pairs], second[moves.pairs]
    # Within a VM, a pair speaks for both directions.
    within = space // vms == space % vms
    space = np.concatenate((space, space[within]))
    one, other = np.concatenate((one, other[within])), np.concatenate((other, one[within]))
    place = np.concatenate((place, (place[within] + distance[within]) & _WITHIN))
    distance = np.concatenate((distance, (np.uint64(0) - distance[within]) & _WITHIN))
    groups, rows = count_groups(mix(space.astype(np.uint64), place, distance))
    twins = fewer_pages(groups, one, other)
    regions, _ = count_groups(mix(space.astype(np.uint64), place >> REGION_PAGES, distance))
    of_region = fewer_pages(regions, one, other)[regions[rows]]
    votes = Votes(space[rows], place[rows], distance[rows], twins, of_region)
    return votes.chosen(of_region >= _LEAST_TWINS)


def count_groups(keys: NDArray[np.uint64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Tell the group of equal keys that each row belongs to, and a row of each group."""
    order = np.argsort(keys)
    opens = opens_group(keys[order])
    groups = np.empty(len(keys), np.int64)
    groups[order] = np.cumsum(opens) - 1
    return groups, order[opens]


def fewer_pages(
    groups: NDArray[np.int64], first: NDArray[np.int64], second: NDArray[np.int64]
) -> NDArray[np.int64]:
    """Count the different pages of each group on either side of pairs, and take the fewer."""
    count = int(groups.max(initial=-1)) + 1
    sides = [
        np.bincount(sorted_unique(groups << np.int64(32) | pages) >> np.int64(32), minlength=count)
        for pages in (first, second)
    ]
    fewer: NDArray[np.int64] = np.minimum(*sides)
    return fewer


def elect(
    votes: Votes,
    stays: tuple[NDArray[np.int64], NDArray[np.int64]],
    places: NDArray[np.uint64],
    contents: Contents,
    areas: Areas,
) -> Votes:
    """Choose the slides among the distances that were voted for.

    Parameters
    ----------
    votes : Votes
        Of all pairs.
    stays : tuple of (ndarray of int64, ndarray of int64)
        What `count_stays` has found at `places`.
    places : ndarray of uint64
        All places of the votes, ascending.
    contents : Contents
        Who holds what.
    areas : Areas
        The areas of each VM.

    Returns
    -------
    Votes
        One distance at each place and into each area at the most, but for the lower 4 GB.
    """
    first_vm, second_vm = votes.spaces // contents.vms, votes.spaces % contents.vms
    source = areas.numbers(first_vm, votes.places)
    target = areas.numbers(second_vm, (votes.places + votes.distances) & _WITHIN)
    unmoved = areas.numbers(second_vm, votes.places)
    stayed, stayed_of_region = stays_at(votes, stays, places)
    within, kernel = first_vm == second_vm, votes.places >= KERNEL_HALF >> PAGE_BITS
    score = votes.twins * _SECOND + np.minimum(votes.twins_of_region, _SECOND - 1)
    stay_score = stayed * _SECOND + np.minimum(stayed_of_region, _SECOND - 1)
    against = target == unmoved
    out = within & (kernel | (source == target))
    out |= ~kernel & against & (stay_score >= score)
    out |= ~kernel & ~areas.align(first_vm, votes.places, second_vm, votes.distances, strict_within=True)
    of_kernel = np.flatnonzero(kernel & ~out)
    out[of_kernel] = ~_leads(
        votes.chosen(of_kernel), source[of_kernel], target[of_kernel], (stayed * against)[of_kernel]
    )
    rows = np.flatnonzero(~out)
    keys = mix(votes.spaces[rows].astype(np.uint64), votes.places[rows], target[rows].astype(np.uint64))
    order = np.lexsort((votes.distances[rows], -score[rows], keys))
    rows = rows[order][opens_group(keys[order])]
    further = overlapping(votes, stayed_of_region, contents.vms) & _in_large_steps(votes)
    return votes.chosen(np.union1d(rows, np.flatnonzero(further)))


def overlapping(votes: Votes, stayed: NDArray[np.int64], vms: int) -> NDArray[np.bool_]:
    """Tell which distances are slides in the lower 4 GB, where address spaces of programs overlap.

    What lies at one place there moved by several distances, each between the processes of two programs. All
    are slides that enough twins of the region bear out, more than contents that say that nothing moved.
    Within a VM, where pages of an array look like twins that moved by any number of pages, only multiples of
    64 KB are.

    Parameters
    ----------
    votes : Votes
        Of all pairs.
    stayed : ndarray of int64, shape (votes,)
        Contents that say of the region of each vote that nothing moved there.
    vms : int
        How many VMs there are.

    Returns
    -------
    ndarray of bool, shape (votes,)
        In the highest GB none within a VM, nor between it and what lies below: there is nothing there but
        kernels of 32 bits (Linux, arch/x86/Kconfig, VMSPLIT; Windows gives programs 2 or 3 GB).
    """
    target = (votes.places + votes.distances) & _WITHIN
    of_kernel, to_kernel = votes.places >= _KERNEL_OF_32_BITS, target >= _KERNEL_OF_32_BITS
    slides: NDArray[np.bool_] = votes.twins_of_region >= _LEAST_TWINS_OVERLAPPING
    slides &= (stayed < votes.twins_of_region) & (votes.places < _CROWDED) & (target < _CROWDED)
    within = votes.spaces // vms == votes.spaces % vms
    slides &= (of_kernel == to_kernel) & ~(of_kernel & within)
    slides &= ~within | _in_large_steps(votes)
    return slides


def _in_large_steps(votes: Votes) -> NDArray[np.bool_]:
    """Tell which distances are multiples of 64 KB in regions where most are, as those of Windows have to be.

    That is the step in which Windows gives out address space. Neighbours in an array of pages, which look
    like twins that moved by any number of pages, are so far apart once in sixteen times.
    """
    large = votes.distances % _LARGE_STEP == 0
    regions, rows = count_groups(mix(votes.spaces.astype(np.uint64), votes.places >> REGION_PAGES))
    in_large, in_all = (
        np.bincount(regions, weights=weights, minlength=len(rows))
        for weights in (np.where(large, votes.twins, 0), votes.twins)
    )
    most: NDArray[np.bool_] = 4 * in_large[regions] >= 3 * in_all[regions]
    most &= large
    return most


def _leads(
    votes: Votes, source: NDArray[np.int64], target: NDArray[np.int64], stayed: NDArray[np.int64]
) -> NDArray[np.bool_]:
    """Tell which distances have most votes between their two areas, and more than staying has."""
    if not len(source):
        return np.zeros(0, bool)
    between = mix(votes.spaces.astype(np.uint64), source.astype(np.uint64), target.astype(np.uint64))
    groups, _ = count_groups(between)
    candidates, _ = count_groups(mix(between, votes.distances))
    total = np.bincount(candidates, weights=votes.twins)[candidates]
    most = np.zeros(int(groups.max()) + 1)
    np.maximum.at(most, groups, total)
    _, once = count_groups(mix(between, votes.places))
    staying = np.bincount(groups[once], weights=stayed[once], minlength=len(most))
    leads: NDArray[np.bool_] = (total == most[groups]) & (total > staying[groups])
    return leads


def stays_at(
    votes: Votes, stays: tuple[NDArray[np.int64], NDArray[np.int64]], places: NDArray[np.uint64]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Count the contents that say of each vote's place, and of its region, that nothing moved."""
    if not len(votes.places):
        return np.zeros(0, np.int64), np.zeros(0, np.int64)
    space, stay = stays
    width = np.int64(len(places))
    content, index = (stay // width), (stay % width).astype(np.int64)
    at_place = np.sort(space * width + index)
    wanted = votes.spaces * width + np.searchsorted(places, votes.places)
    here = np.searchsorted(at_place, wanted, "right") - np.searchsorted(at_place, wanted, "left")
    region = (places >> REGION_PAGES).astype(np.int64)
    once = sorted_unique(_packed(space, region[index]) * np.int64(1 << 24) + content % (1 << 24))
    of_region = once >> np.int64(24)
    wanted = _packed(votes.spaces, (votes.places >> REGION_PAGES).astype(np.int64))
    there = np.searchsorted(of_region, wanted, "right") - np.searchsorted(of_region, wanted, "left")
    return here, there


def _packed(space: NDArray[np.int64], region: NDArray[np.int64]) -> NDArray[np.int64]:
    """Make one number below 2**39 of a pair of VMs and a region, almost always another for others."""
    packed: NDArray[np.int64] = (space * np.int64(0x9E3779B1) + region) & np.int64((1 << 39) - 1)
    return packed

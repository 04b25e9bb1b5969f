"""The search for twins at the same place in the page, by words of 64 or of 32 bits."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

import numpy as np

from hvshare.erosion.aslr_classes import in_company, join_classes
from hvshare.erosion.aslr_constants import list_constants
from hvshare.erosion.aslr_contents import sorted_unique
from hvshare.erosion.aslr_moves import find_moves, screen
from hvshare.erosion.aslr_result import AslrLayer
from hvshare.erosion.aslr_sketches import candidates
from hvshare.erosion.aslr_slides import elect, gather, overlapping, stays_at
from hvshare.erosion.aslr_stays import count_stays
from hvshare.erosion.aslr_twins import explain
from hvshare.erosion.page_store import WORDS

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray

    from hvshare.erosion.aslr_contents import Contents
    from hvshare.erosion.aslr_result import AslrConstant
    from hvshare.erosion.aslr_slides import Votes
    from hvshare.erosion.aslr_spaces import Areas
    from hvshare.erosion.aslr_twins import Explained
    from hvshare.erosion.page_store import PageWords

    Start = Callable[[str, int], Callable[[int], None] | None]

NEAR_WORDS: Final = 96
"""Less than a fifth of a page: near twins differ in no more words of 64 bits that nothing explains."""


class Twins(NamedTuple):
    """Pairs, and how much of them is left unexplained.

    Attributes
    ----------
    first, second : ndarray of int64
        Numbers of pages.
    left : ndarray of int64
        Words that differ and that nothing explains, counted as words of 64 bits.
    """

    first: NDArray[np.int64]
    second: NDArray[np.int64]
    left: NDArray[np.int64]

    def up_to(self, most: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Give the pairs of which no more is left."""
        rows = self.left <= most
        return self.first[rows], self.second[rows]


class SamePlace(NamedTuple):
    """What was found.

    Attributes
    ----------
    twins : Twins
        All pairs that were looked at.
    explained : Explained
        What slides explain of them.
    slides : Votes
        The slides.
    constants : tuple of AslrConstant
        The distances among them that several pages bear out.
    """

    twins: Twins
    explained: Explained
    slides: Votes
    constants: tuple[AslrConstant, ...]

    def join(
        self, contents: Contents, classes: NDArray[np.int64]
    ) -> tuple[NDArray[np.int64], tuple[AslrLayer, ...]]:
        """Put explained twins into one class, layer by layer.

        Parameters
        ----------
        contents : Contents
            Who holds what.
        classes : ndarray of int64
            Of each content, as they are.

        Returns
        -------
        classes : ndarray of int64
            As they are then.
        layers : tuple of AslrLayer
            What each layer has added.
        """
        explained, left = self.explained, self.twins.left
        pointers = (explained.fields == 0) & (left == 0)
        code = (explained.pointers == 0) & (left == 0) & ~pointers
        layers = []
        for name, rows in (
            ("pointers in data", pointers),
            ("code", code),
            ("mixed", (left == 0) & ~pointers & ~code),
        ):
            joined = join_classes(classes, self.twins.first[rows], self.twins.second[rows])
            layers.append(layer_between(name, contents, classes, joined))
            classes = joined
        return classes, tuple(layers)


def _comparable(
    contents: Contents,
    first: NDArray[np.int64],
    second: NDArray[np.int64],
    spaces: NDArray[np.int64],
    wide: NDArray[np.bool_],
) -> NDArray[np.bool_]:
    """Tell which pairs may be twins of address spaces of 32 bits.

    Not where a VM has wider ones; nor within a VM where both pages have copies, as those have that describe
    many alike frames one after the other.
    """
    one, other = spaces // contents.vms, spaces % contents.vms
    alone = (contents.pages[first] == 1) | (contents.pages[second] == 1)
    chosen: NDArray[np.bool_] = ~wide[one] & ~wide[other] & (alone | (one != other))
    return chosen


def wide_spaces(wide: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Tell between which VMs addresses have 64 bits, by the number of the two together."""
    return np.logical_or.outer(wide, wide).ravel()


def layer_between(
    name: str, contents: Contents, before: NDArray[np.int64], after: NDArray[np.int64]
) -> AslrLayer:
    """Tell what classes that were joined save further, and which pages they concern."""
    new = in_company(after) & ~in_company(before)
    saved = len(sorted_unique(before)) - len(sorted_unique(after))
    return AslrLayer(name, int(np.count_nonzero(new & (contents.pages == 1))), saved)


def search_same_place(
    store: PageWords, contents: Contents, areas: Areas, names: Sequence[str], jobs: int, start: Start
) -> SamePlace:
    """Find pages that differ by addresses that moved, and by little else.

    Parameters
    ----------
    store : PageWords
        One page of each content, in words of the size that addresses have.
    contents : Contents
        Who holds what.
    areas : Areas
        The areas of each VM.
    names : sequence of str
        Of the images.
    jobs : int
        Processes at the most.
    start : callable
        Told the name and the size of each pass, it gives what receives how much more is done.

    Returns
    -------
    SamePlace
        With words of 32 bits, of VMs alone that have no wider ones.
    """
    wide = store.columns == WORDS
    of = "" if wide else " of 32 bits"
    one, other = candidates(store, jobs, start(f"Sketching pages{of}", store.pages))
    chosen, others = screen(store, one, other, jobs, start(f"Comparing pairs{of}", len(one)))
    first, second, spaces = contents.spaces(one[chosen], other[chosen])
    if not wide:
        rows = _comparable(contents, first, second, spaces, areas.wide)
        first, second, spaces, others = first[rows], second[rows], spaces[rows], others[rows]
    moves = find_moves(store, first, second, others, jobs, start(f"Finding slides{of}", len(first)))
    votes = gather(moves, first, second, spaces, contents.vms)
    places = sorted_unique(votes.places.astype(np.int64)).astype(np.uint64)
    stays = count_stays(store, contents, places, jobs)
    slides = (
        elect(votes, stays, places, contents, areas)
        if wide
        else votes.chosen(overlapping(votes, stays_at(votes, stays, places)[1], contents.vms))
    )
    explained = explain(
        store, first, second, spaces, slides, jobs, start(f"Explaining pairs{of}", len(first))
    )
    left = -(-explained.left * WORDS // store.columns)
    if wide:
        # Words of 32 bits point close to where others moved from by chance, too.
        left[moves.torn] = NEAR_WORDS + 1
    # Where addresses have 32 bits, words of 64 hold two of them, or one and a number.
    told = wide_spaces(areas.wide)[spaces] if wide else np.ones(len(spaces), bool)
    constants = list_constants(moves, slides, explained, first, spaces, names, told=told, narrow=not wide)
    return SamePlace(Twins(first, second, left), explained, slides, constants)

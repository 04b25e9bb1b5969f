"""The distances by which addresses moved, for people who want to check them."""

from __future__ import annotations

from itertools import chain
from typing import TYPE_CHECKING, Final

import numpy as np

from hvshare.erosion.aslr_contents import sorted_unique
from hvshare.erosion.aslr_result import AslrConstant
from hvshare.erosion.aslr_slides import count_groups
from hvshare.erosion.aslr_words import is_in, mix

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from numpy.typing import NDArray

    from hvshare.erosion.aslr_moves import Moves
    from hvshare.erosion.aslr_slides import Votes
    from hvshare.erosion.aslr_twins import Explained

_LEAST_PAGES: Final = 5
_PAGE: Final = 4096
_NARROW_END: Final = 1 << 32


def list_constants(
    moves: Moves,
    slides: Votes,
    explained: Explained,
    first: NDArray[np.int64],
    spaces: NDArray[np.int64],
    names: Sequence[str],
    *,
    told: NDArray[np.bool_] | None = None,
    narrow: bool = False,
) -> tuple[AslrConstant, ...]:
    """List the distances that several pages bear out, those that most do first.

    Parameters
    ----------
    moves : Moves
        What moved in pairs.
    slides : Votes
        The slides that were elected.
    explained : Explained
        What they explain.
    first, spaces : ndarray of int64, shape (pairs,)
        The first page of each pair, and the VMs between which it compares.
    names : sequence of str
        Of the images.
    told : ndarray of bool, shape (pairs,), optional
        Of which pairs distances are listed; of all by default.
    narrow : bool
        Whether addresses have 32 bits.

    Returns
    -------
    tuple of AslrConstant
    """
    keys = np.sort(mix(slides.spaces.astype(np.uint64), slides.places, slides.distances))
    space = spaces[moves.pairs]
    told = np.ones(len(first), bool) if told is None else told
    elected = is_in(mix(space.astype(np.uint64), moves.places, moves.distances), keys)
    rows = np.flatnonzero(elected & told[moves.pairs])
    found = _constants(
        32 if narrow else 64,
        space[rows],
        moves.distances[rows],
        moves.places[rows],
        first[moves.pairs[rows]],
        names,
    )
    fields = np.flatnonzero(told[explained.field_pairs])
    of_code = explained.field_pairs[fields]
    found += _constants(32, spaces[of_code], explained.field_distances[fields], None, first[of_code], names)
    return most_borne_out([_without_echoes(found) if narrow else found])


def most_borne_out(parts: Iterable[Iterable[AslrConstant]]) -> tuple[AslrConstant, ...]:
    """Put distances in order, those that most pages bear out first."""
    return tuple(
        sorted(chain.from_iterable(parts), key=lambda each: (-each.pages, each.distance, each.field_bits))
    )


def _without_echoes(constants: list[AslrConstant]) -> list[AslrConstant]:
    """Leave out what an address that is not aligned to words looks like beside the distance that it moved by.

    A word that ends some bytes before the address does moved by as many bytes' worth more.
    """
    of_lower: dict[tuple[str, str, int], int] = {}
    of_upper: dict[tuple[str, str, int], int] = {}
    for each in constants:
        for shift in (8, 16):
            for echoes, distance in ((of_lower, each.distance << shift), (of_upper, each.distance >> shift)):
                key = each.first_image, each.second_image, distance % _NARROW_END
                echoes[key] = max(each.pages, echoes.get(key, 0))
    kept = []
    for each in constants:
        key = each.first_image, each.second_image, each.distance % _NARROW_END
        # Of two that as many pages bear out, the smaller one is taken for the distance.
        if each.pages > of_lower.get(key, 0) and each.pages >= of_upper.get(key, 0):
            kept.append(each)
    return kept


def _constants(
    bits: int,
    space: NDArray[np.int64],
    distances: NDArray[np.uint64],
    places: NDArray[np.uint64] | None,
    pages: NDArray[np.int64],
    names: Sequence[str],
) -> list[AslrConstant]:
    if not len(space):
        return []
    groups, rows = count_groups(mix(space.astype(np.uint64), distances))
    count = np.bincount(sorted_unique(groups << np.int64(32) | pages) >> np.int64(32))
    lowest, highest = np.full(len(rows), np.iinfo(np.int64).max), np.full(len(rows), -1)
    if places is not None:
        np.minimum.at(lowest, groups, places.astype(np.int64))
        np.maximum.at(highest, groups, places.astype(np.int64))
    width = 36 if places is not None else 20  # bits of a distance in pages
    found = []
    for group in np.flatnonzero(count >= _LEAST_PAGES).tolist():
        pair, distance = int(space[rows[group]]), int(distances[rows[group]])
        distance -= (1 << width) if distance >> (width - 1) else 0
        found.append(
            AslrConstant(
                names[pair // len(names)],
                names[pair % len(names)],
                bits,
                distance * _PAGE,
                None if places is None else _address(int(lowest[group])),
                None if places is None else _address(int(highest[group])),
                int(count[group]),
            )
        )
    return found


def _address(place: int) -> int:
    """Give the address of a page of an address space, its upper 16 bits as bit 47."""
    return place * _PAGE + (0xFFFF << 48 if place >> 35 else 0)

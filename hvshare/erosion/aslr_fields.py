"""Fields of 32 bits in the code of kernels of 64 bits: the lower halves of addresses, and their distances."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np

from hvshare.erosion.aslr_contents import sorted_unique
from hvshare.erosion.aslr_words import IN_PAGE, KERNEL_CODE, PAGE_BITS, opens_group, positions

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from hvshare.erosion.aslr_slides import Votes

FIELD_BITS: Final = 20
"""Of a distance in pages."""

_LEAST_OF_CONSTANT: Final = 5


def fields_of_code(slides: Votes) -> dict[int, NDArray[np.bool_]]:
    """List by how many pages fields of 32 bits in the code of kernels may move, for each two VMs.

    A field holds the lower half of an address, which moves by a slide, or the distance of one place from
    another, which moves by the difference of two.

    Parameters
    ----------
    slides : Votes
        The slides that were elected.

    Returns
    -------
    dict of int to ndarray of bool, shape (2**20,)
        By the number of the two VMs together: whether fields may move by so many pages, modulo 4 GB.
    """
    kernel = slides.places >= KERNEL_CODE >> PAGE_BITS
    fields = {}
    for space in sorted(set(slides.spaces[kernel].tolist())):
        rows = kernel & (slides.spaces == space)
        order = np.argsort(slides.distances[rows])
        distances, twins = slides.distances[rows][order], slides.twins[rows][order]
        starts = np.flatnonzero(opens_group(distances))
        often = np.add.reduceat(twins, starts) >= _LEAST_OF_CONSTANT
        found = distances[starts][often].astype(np.int64)
        steps = np.concatenate((np.subtract.outer(found, found).ravel(), found, -found)) & ((1 << 20) - 1)
        moves = np.zeros(1 << 20, bool)
        moves[steps] = True
        moves[0] = False
        fields[space] = moves
    return fields


def clear_fields(
    bytes_apart: NDArray[np.bool_],
    rows: NDArray[np.int64],
    words: NDArray[np.uint64],
    of_twin: NDArray[np.uint64],
    moves: NDArray[np.bool_],
) -> NDArray[np.int64]:
    """Clear the bytes of fields that moved by what they may, wherever in a page they stand.

    Parameters
    ----------
    bytes_apart : ndarray of bool, shape (pairs, 4096)
        Which bytes differ and are not explained; changed.
    rows : ndarray of int64
        The pairs to look at.
    words, of_twin : ndarray of uint64, shape (pairs, 512)
        Words of pages and of their twins.
    moves : ndarray of bool, shape (2**20,)
        By how many pages fields may move.

    Returns
    -------
    ndarray of int64
        Each distance that moved a field once for each pair: ``pair << FIELD_BITS | pages``, ascending.
    """
    page, twin = words[rows].view(np.uint8), of_twin[rows].view(np.uint8)
    found = [np.empty(0, np.int64)]
    for shift in range(4 if len(rows) else 0):
        end = page.shape[1] - (4 - shift) % 4
        fields, of_fields = (
            np.ascontiguousarray(each[:, shift:end]).view(np.uint32) for each in (page, twin)
        )
        distance = of_fields - fields
        moved = ((distance & np.uint32(IN_PAGE)) == 0) & moves[distance >> np.uint32(PAGE_BITS)]
        row, column = positions(moved)
        for byte in range(4):
            bytes_apart[rows[row], column * 4 + shift + byte] = False
        pages = (distance[row, column] >> np.uint32(PAGE_BITS)).astype(np.int64)
        found.append(rows[row] << np.int64(FIELD_BITS) | pages)
    _clear_cut_fields(bytes_apart, rows, page, twin, moves)
    return sorted_unique(np.concatenate(found))


def _clear_cut_fields(
    bytes_apart: NDArray[np.bool_],
    rows: NDArray[np.int64],
    page: NDArray[np.uint8],
    twin: NDArray[np.uint8],
    moves: NDArray[np.bool_],
) -> None:
    """Clear the bytes of fields that start in the page before or end in the one behind."""
    distances = np.flatnonzero(moves) << int(PAGE_BITS)
    for count in (1, 2, 3):
        high = distances >> (32 - 8 * count)
        # What the page before holds may carry over.
        for of_page, moved in (
            (slice(0, count), np.concatenate((high, high + 1))),
            (slice(-count, None), distances),
        ):
            apart = _number(twin[:, of_page]) - _number(page[:, of_page])
            wide = (1 << 8 * count) - 1
            hit = rows[np.isin(apart & wide, moved & wide) & (apart != 0)]
            bytes_apart[hit, of_page] = False


def _number(ends: NDArray[np.uint8]) -> NDArray[np.int64]:
    """Read some bytes of each row as a little-endian number."""
    places = np.arange(ends.shape[1], dtype=np.int64) * 8
    number: NDArray[np.int64] = (ends.astype(np.int64) << places).sum(axis=1)
    return number

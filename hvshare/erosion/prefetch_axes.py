"""Two images of one guest beside each other: the pages that both know, at the same places."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Final, NamedTuple

import numpy as np

from hvshare.errors import UnsupportedImageError
from hvshare.fingerprint.coverage import Coverage
from hvshare.fingerprint.pages import ZERO_DIGEST
from hvshare.images.runs import RunKind, Runs
from hvshare.units import PAGE_SIZE, format_size

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from hvshare.fingerprint.fingerprints import Fingerprints

_WINDOW_PAGES: Final = 1 << 18
_NO_MEMORY: Final = 3
_KNOWN: Final = (RunKind.PRESENT, RunKind.ZERO)

MOST_IN_ONE_ONLY: Final = 32
"""One page in so many may be memory in one of the images only, such as device memory that a format has."""


class SideBySide(NamedTuple):
    """Two images, cut to the pages that both know.

    Attributes
    ----------
    cold, warm : Fingerprints
        Whose known pages have the same guest frame numbers; the very ones given where nothing had to be cut.
    in_one_only : int
        Pages that one of the two knows and the other does not.
    """

    cold: Fingerprints
    warm: Fingerprints
    in_one_only: int

    @property
    def pages(self) -> int:
        """Pages that both know."""
        return self.warm.runs.pages - self.warm.runs.pages_of(RunKind.ABSENT)

    def windows(self) -> Iterator[tuple[NDArray[np.uint64], NDArray[np.uint64]]]:
        """Give the digests of pages at the same places, some at a time, without holes of both.

        Yields
        ------
        tuple of ndarray of uint64
            Of the cold and of the warm image, in order of guest frame numbers.
        """
        pieces = _pieces(self.cold.runs, self.warm.runs)
        stored = (pieces.kinds == RunKind.PRESENT).any(axis=0) & np.isin(pieces.kinds, _KNOWN).all(axis=0)
        coverage = Coverage(
            _runs(pieces.first_gfns[stored], pieces.lengths[stored], None), (RunKind.PRESENT,)
        )
        pages = int(pieces.lengths[stored].sum())
        present = [Coverage(each.runs, (RunKind.PRESENT,)) for each in (self.cold, self.warm)]
        for low in range(0, pages, _WINDOW_PAGES):
            gfns = coverage.gfns(low, min(low + _WINDOW_PAGES, pages))
            cold, warm = (
                _digests_at(each, covered, gfns)
                for each, covered in zip((self.cold, self.warm), present, strict=True)
            )
            yield cold, warm


class _Pieces(NamedTuple):
    """Guest-physical memory, cut wherever a run of one of two images starts or ends."""

    first_gfns: NDArray[np.int64]
    lengths: NDArray[np.int64]
    kinds: NDArray[np.int8]  # of the one and of the other, in two rows


def side_by_side(cold: Fingerprints, warm: Fingerprints) -> SideBySide:
    """Put an image beside the cold image of its guest.

    Parameters
    ----------
    cold, warm : Fingerprints
        Before its cache was warm, and now.

    Returns
    -------
    SideBySide

    Raises
    ------
    UnsupportedImageError
        If their memory is not of one size and at the same addresses, device memory aside, or if no page is
        known in both.
    """
    pieces = _pieces(cold.runs, warm.runs)
    is_memory = pieces.kinds != _NO_MEMORY
    elsewhere = int(pieces.lengths[is_memory.any(axis=0) & ~is_memory.all(axis=0)].sum())
    if elsewhere * MOST_IN_ONE_ONLY > max(cold.runs.pages, warm.runs.pages):
        raise UnsupportedImageError(
            f"it has {_memory(cold)}, and {warm.name} {_memory(warm)}: {elsewhere:,} pages are memory in "
            "one of them only",
            path=cold.path,
            advice="a cold image has to be of the same guest with the same memory, in the same kind of dump",
        )
    is_known = np.isin(pieces.kinds, _KNOWN)
    both = is_known[0] & is_known[1]
    if not both.any():
        raise UnsupportedImageError(
            f"no page is known both in it and in {warm.name}",
            path=cold.path,
            advice="take dumps from which no pages are filtered",
        )
    in_one_only = int(pieces.lengths[(is_known[0] | is_known[1]) & ~both].sum())
    if not in_one_only:
        return SideBySide(cold, warm, 0)
    return SideBySide(_cut(cold, pieces, 0, both), _cut(warm, pieces, 1, both), in_one_only)


def _memory(fingerprints: Fingerprints) -> str:
    top = fingerprints.runs.end_gfn * PAGE_SIZE
    return f"{format_size(fingerprints.size_bytes)} of memory up to address {top:#x}"


def _pieces(a: Runs, b: Runs) -> _Pieces:
    firsts, lengths, kinds = zip(*(_arrays(runs) for runs in (a, b)), strict=True)
    edges = np.concatenate(
        [*firsts, *(first + length for first, length in zip(firsts, lengths, strict=True))]
    )
    edges.sort()
    apart = np.ones(len(edges), bool)
    apart[1:] = edges[1:] != edges[:-1]
    edges = edges[apart]
    of_piece = np.full((2, max(len(edges) - 1, 0)), _NO_MEMORY, np.int8)
    for row, first, length, kind in zip(of_piece, firsts, lengths, kinds, strict=True):
        at = np.searchsorted(first, edges[:-1], side="right") - 1
        inside = (at >= 0) & (edges[:-1] < (first + length)[at])
        row[inside] = kind[at[inside]]
    return _Pieces(edges[:-1], np.diff(edges), of_piece)


def _arrays(runs: Runs) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int8]]:
    return (
        np.frombuffer(runs.first_gfns, np.int64),
        np.frombuffer(runs.lengths, np.int64),
        np.frombuffer(runs.kinds, np.int8),
    )


def _runs(first_gfns: NDArray[np.int64], lengths: NDArray[np.int64], kinds: NDArray[np.int8] | None) -> Runs:
    if kinds is None:
        kinds = np.full(len(first_gfns), RunKind.PRESENT, np.int8)
    return Runs.from_arrays(*map(np.ascontiguousarray, (first_gfns, lengths, kinds)))


def _cut(fingerprints: Fingerprints, pieces: _Pieces, row: int, wanted: NDArray[np.bool_]) -> Fingerprints:
    runs = _runs(pieces.first_gfns[wanted], pieces.lengths[wanted], pieces.kinds[row][wanted])
    left, held = Coverage(runs, (RunKind.PRESENT,)), Coverage(fingerprints.runs, (RunKind.PRESENT,))
    pages = runs.pages_of(RunKind.PRESENT)
    digests = np.empty(pages, np.uint64)
    for low in range(0, pages, _WINDOW_PAGES):
        gfns = left.gfns(low, min(low + _WINDOW_PAGES, pages))
        digests[low : low + len(gfns)] = fingerprints.digests[held.below(gfns)]
    return replace(fingerprints, runs=runs, digests=digests)


def _digests_at(fingerprints: Fingerprints, present: Coverage, gfns: NDArray[np.int64]) -> NDArray[np.uint64]:
    """Give the digests of known pages; those that are holes are zero."""
    at = present.below(gfns)
    stored = present.below(gfns + 1) > at
    if stored.all():
        return fingerprints.digests[at]
    digests = np.full(len(gfns), ZERO_DIGEST, np.uint64)
    digests[stored] = fingerprints.digests[at[stored]]
    return digests

"""The large frames of some images, identical ones once, and the pages that lie outside of them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from hvshare.fingerprint.coverage import Coverage
from hvshare.fingerprint.pages import ZERO_DIGEST
from hvshare.images.runs import RunKind
from hvshare.units import PAGE_SIZE

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from hvshare.fingerprint.fingerprints import Fingerprints


@dataclass(frozen=True, eq=False)
class LargeFrames:
    """What the whole large frames of all guests hold, and the pages outside of them.

    Attributes
    ----------
    contents : ndarray of uint64, shape (distinct frames, pages of a frame)
        The digests of the pages of each distinct frame.
    copies : ndarray of int64, shape (distinct frames,)
        Frames of the guests that have each of these contents.
    outside : ndarray of uint64, shape (n,)
        The different digests, ascending, of the known pages that lie in no whole large frame.
    outside_pages : int
        How many pages lie there.
    frames_by_pages : ndarray of int64, shape (pages of a frame + 1,)
        At index n, whole frames of all guests in which n pages are not zero.
    """

    contents: NDArray[np.uint64]
    copies: NDArray[np.int64]
    outside: NDArray[np.uint64]
    outside_pages: int
    frames_by_pages: NDArray[np.int64]

    @property
    def frames(self) -> int:
        """Whole large frames of all guests."""
        return int(self.copies.sum())


def collect_large_frames(fingerprints: Sequence[Fingerprints], frame_size: int) -> LargeFrames:
    """Share identical large frames whole, and keep what the pages of each hold.

    Parameters
    ----------
    fingerprints : sequence of Fingerprints
        One a VM, all in one sharing domain.
    frame_size : int
        Bytes of a large frame.

    Returns
    -------
    LargeFrames
        Frames are identical where their digests are, as for `Counts` of that frame size.
    """
    pages = frame_size // PAGE_SIZE
    frames = [each.frames(frame_size) for each in fingerprints]
    in_holes = sum(each.zero_in_holes for each in frames)
    digests = np.concatenate([np.empty(0, np.uint64), *(each.digests for each in frames)])
    # np.unique is slow, but frames are few; pages are never sorted so.
    different, first, copies = np.unique(digests, return_index=True, return_counts=True)
    chosen = np.zeros(len(digests), bool)
    chosen[first] = True
    order = np.argsort(first)
    copies = copies[order].astype(np.int64)
    zero = np.flatnonzero(different[order] == np.uint64(ZERO_DIGEST))
    if in_holes and not len(zero):
        zero, copies = np.array([len(copies)]), np.append(copies, 0)
    copies[zero] += in_holes
    contents = np.full((len(copies), pages), ZERO_DIGEST, np.uint64)
    filled = np.zeros(pages + 1, np.int64)
    filled[0] = in_holes
    at = kept = 0
    for each in fingerprints:
        for rows in each.frame_rows(frame_size):
            wanted = rows[chosen[at : at + len(rows)]]
            contents[kept : kept + len(wanted)] = wanted
            at, kept = at + len(rows), kept + len(wanted)
            filled += np.bincount(
                np.count_nonzero(rows != np.uint64(ZERO_DIGEST), axis=1), minlength=pages + 1
            )
    outside = np.sort(
        np.concatenate([np.empty(0, np.uint64), *(_outside(each, pages) for each in fingerprints)])
    )
    opens = np.ones(len(outside), bool)
    opens[1:] = outside[1:] != outside[:-1]
    known = sum((each.size_bytes - each.absent_bytes) // PAGE_SIZE for each in fingerprints)
    return LargeFrames(
        contents,
        copies,
        outside[opens],
        known - pages * int(copies.sum()),
        filled,
    )


def _outside(fingerprints: Fingerprints, pages: int) -> NDArray[np.uint64]:
    """Take the digests of pages that lie in no whole frame, and one of zero for all that lie in holes."""
    known = Coverage(fingerprints.runs, (RunKind.PRESENT, RunKind.ZERO))
    present = Coverage(fingerprints.runs, (RunKind.PRESENT,))
    first, end = known.merged()
    # Whole frames follow each other within known memory; what is left of it at either end is outside.
    first_whole, end_whole = -(-first // pages) * pages, end // pages * pages
    within = first_whole < end_whole
    lows = np.concatenate((first, end_whole[within]))
    highs = np.concatenate((np.where(within, first_whole, end), end[within]))
    low, high = present.below(lows), present.below(highs)
    counts = high - low
    positions = np.repeat(low - (np.cumsum(counts) - counts), counts) + np.arange(int(counts.sum()))
    digests = fingerprints.digests[positions]
    in_holes = int((highs - lows).sum()) > len(digests)
    return np.append(digests, np.uint64(ZERO_DIGEST)) if in_holes else digests

"""The digests of one image, and the digests of its larger frames."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Final

import numpy as np
from xxhash import xxh3_64, xxh3_64_intdigest

from hvshare.fingerprint.coverage import Coverage
from hvshare.fingerprint.pages import ZERO_DIGEST, told_from_zero
from hvshare.images.runs import RunKind
from hvshare.units import PAGE_SIZE, check_frame_size

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from hvshare.caveats import Caveat
    from hvshare.images.runs import Runs

_BATCH_PAGES: Final = 1 << 18


@dataclass(frozen=True)
class FrameDigests:
    """The whole frames of one size in one image.

    Attributes
    ----------
    frame_size : int
        Bytes of a frame.
    digests : ndarray of uint64
        A digest for each whole frame that holds a PRESENT page, in ascending order of address;
        `ZERO_DIGEST` for zero frames.
    zero_in_holes : int
        Whole frames that lie in ZERO runs altogether, and so have no digest here.
    partial_frames : int
        Frames of which the image knows some pages and not others: these are no memory of the guest, or
        ABSENT.
    """

    frame_size: int
    digests: NDArray[np.uint64]
    zero_in_holes: int
    partial_frames: int

    @property
    def frames(self) -> int:
        """Whole frames."""
        return len(self.digests) + self.zero_in_holes

    @cached_property
    def zero(self) -> int:
        """Whole frames that are zero."""
        return self.zero_in_holes + int(np.count_nonzero(self.digests == np.uint64(ZERO_DIGEST)))


@dataclass(frozen=True)
class Fingerprints:
    """What sharing needs to know of one image.

    Attributes
    ----------
    name, path, format : str
        As in `GuestImage`.
    runs : Runs
        All runs of the image.
    digests : ndarray of uint64, shape (PRESENT pages,)
        XXH3-64 of each PRESENT page in order of guest frame numbers; `ZERO_DIGEST` for zero pages.
    caveats : tuple of Caveat
        What was odd about the image.
    """

    name: str
    path: str
    format: str
    runs: Runs
    digests: NDArray[np.uint64]
    caveats: tuple[Caveat, ...] = ()

    def __post_init__(self) -> None:
        if len(self.digests) != self.runs.pages_of(RunKind.PRESENT):
            raise ValueError(f"{len(self.digests)} digests for {self.runs.pages_of(RunKind.PRESENT)} pages")

    @property
    def size_bytes(self) -> int:
        """Memory of the guest, as far as the image describes it."""
        return self.runs.pages * PAGE_SIZE

    @property
    def absent_bytes(self) -> int:
        """Memory of the guest that the image does not hold."""
        return self.runs.pages_of(RunKind.ABSENT) * PAGE_SIZE

    @cached_property
    def identity(self) -> int:
        """XXH3-64 over runs and digests: equal for images of equal contents at equal places."""
        state = xxh3_64()
        for of_runs in (self.runs.first_gfns, self.runs.lengths, self.runs.kinds):
            state.update(of_runs)
        state.update(self.digests.data)
        return state.intdigest()

    def frames(self, frame_size: int) -> FrameDigests:
        """Digest the frames of one size.

        Parameters
        ----------
        frame_size : int
            Bytes: a power of two from 4 KB to 1 GB.

        Returns
        -------
        FrameDigests
            The digest of a frame is XXH3-64 of its page digests, 8 bytes each, little-endian, in order of
            address. A frame of one page has the digest of that page.

        Raises
        ------
        SizeError
            If frames cannot have that size.
        """
        pages = check_frame_size(frame_size) // PAGE_SIZE
        if pages == 1:
            return FrameDigests(frame_size, self.digests, self.runs.pages_of(RunKind.ZERO), 0)
        known = Coverage(self.runs, (RunKind.PRESENT, RunKind.ZERO))
        parts = [_digest_frames(rows) for rows in self.frame_rows(frame_size)]
        digests = np.concatenate([np.empty(0, np.uint64), *parts])
        first, end = known.merged()
        first_whole, end_whole = -(-first // pages), end // pages
        whole = int(np.maximum(end_whole - first_whole, 0).sum())
        # Where known memory starts or ends within a frame, that frame is not whole, and no others are.
        edges = np.concatenate((first[first % pages > 0], end[end % pages > 0])) // pages
        partial = len(set(edges.tolist()))
        return FrameDigests(frame_size, digests, whole - len(digests), partial)

    def frame_rows(self, frame_size: int) -> Iterator[NDArray[np.uint64]]:
        """Give what the digests of larger frames are made of, some frames at a time.

        Parameters
        ----------
        frame_size : int
            Bytes.

        Yields
        ------
        ndarray of uint64, shape (n, pages of a frame)
            The digests of the pages of each whole frame that holds a PRESENT page, in ascending order of
            address, as in `FrameDigests.digests`.
        """
        pages = frame_size // PAGE_SIZE
        known = Coverage(self.runs, (RunKind.PRESENT, RunKind.ZERO))
        present = Coverage(self.runs, (RunKind.PRESENT,))
        frames = _touched_frames(present, pages)
        batch = max(1, _BATCH_PAGES // pages)
        for start in range(0, len(frames), batch):
            wanted = frames[start : start + batch]
            whole = known.below((wanted + 1) * pages) - known.below(wanted * pages) == pages
            low, high = present.below(np.array([wanted[0] * pages, (wanted[-1] + 1) * pages])).tolist()
            slots = self.digests[low:high]
            if len(slots) < len(wanted) * pages:
                gfns = present.gfns(low, high)
                slots = np.full(len(wanted) * pages, ZERO_DIGEST, np.uint64)
                slots[np.searchsorted(wanted, gfns // pages) * pages + gfns % pages] = self.digests[low:high]
            rows = slots.reshape(-1, pages)
            yield rows if whole.all() else rows[whole]


def _digest_frames(rows: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """Digest frames from the digests of their pages, a row each."""
    digests = np.full(len(rows), ZERO_DIGEST, np.uint64)
    nonzero = (rows != np.uint64(ZERO_DIGEST)).any(axis=1)
    contents = (rows if nonzero.all() else rows[nonzero]).astype("<u8", copy=False)
    found = np.fromiter(map(xxh3_64_intdigest, contents), np.uint64, len(contents))
    found[found == np.uint64(ZERO_DIGEST)] = told_from_zero(ZERO_DIGEST)
    digests[nonzero] = found
    return digests


def _touched_frames(present: Coverage, pages: int) -> NDArray[np.int64]:
    """List the frames that hold a PRESENT page, by their numbers, ascending."""
    first = present.first_gfns // pages
    counts = (present.end_gfns - 1) // pages - first + 1
    before = np.cumsum(counts) - counts
    frames = np.repeat(first - before, counts) + np.arange(int(counts.sum()))
    apart = np.ones(len(frames), bool)
    apart[1:] = frames[1:] != frames[:-1]
    touched: NDArray[np.int64] = frames[apart]
    return touched

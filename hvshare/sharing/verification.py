"""Equal digests held against the bytes: the images are read again and compared."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from hvshare.caveats import Caveat
from hvshare.fingerprint.coverage import Coverage
from hvshare.fingerprint.pages import BLOCK_PAGES
from hvshare.images.runs import RunKind
from hvshare.sharing.caveats import DIGESTS_ONLY
from hvshare.sharing.grouping import repeated_contents
from hvshare.units import PAGE_SIZE, format_size

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray

    from hvshare.fingerprint.fingerprints import Fingerprints
    from hvshare.images.image import GuestImage
    from hvshare.sharing.report import SharingReport

DEFAULT_VERIFY_LIMIT: Final = 128 << 20


@dataclass(frozen=True)
class Verification:
    """How many pages with equal digests were compared, and what came of it.

    Attributes
    ----------
    contents : int
        Repeated contents that were compared, each with all of its copies.
    all_contents : int
        Repeated contents that there are, zero apart; zero pages are told by their bytes anyway.
    pages : int
        Pages that were compared with the first copy of their content.
    frames : int
        Larger frames that were compared with the first one of equal digest, by the digests of their pages.
    unequal, unequal_frames : int
        Pages and larger frames that differ from it.
    caveats : tuple of Caveat
        What reading the images again has shown.
    """

    contents: int
    all_contents: int
    pages: int
    frames: int
    unequal: int
    unequal_frames: int
    caveats: tuple[Caveat, ...] = ()

    def noted_in(self, report: SharingReport) -> SharingReport:
        """Say so in a report, in place of the caveat that digests alone were compared."""
        others = dict.fromkeys(
            caveat for caveat in (*report.caveats, *self.caveats) if caveat.code != DIGESTS_ONLY
        )
        return replace(report, caveats=(*others, self.caveat()))

    def caveat(self) -> Caveat:
        """Put it into words."""
        compared = (
            f"{self.contents:,} of {self.all_contents:,} repeated contents were compared byte by byte, "
            f"{self.pages:,} pages ({format_size(self.pages * PAGE_SIZE)}) in all, "
            f"and {self.frames:,} larger frames by the digests of their pages: "
        )
        if self.unequal or self.unequal_frames:
            return Caveat(
                "unequal-pages",
                compared
                + f"{self.unequal:,} pages and {self.unequal_frames:,} larger frames differ from those "
                "of equal digest, so savings are too high by about as many frames",
                "if the image was not written to meanwhile, report this: it should not occur",
            )
        if self.contents < self.all_contents:
            return Caveat(
                "verified-in-part",
                compared + "all alike",
                "raise --verify-limit to compare more contents",
            )
        return Caveat(
            "verified",
            compared + "all alike",
            "none is needed: no figure rests on a digest alone",
        )


def verify(
    images: Sequence[GuestImage],
    fingerprints: Sequence[Fingerprints],
    report: SharingReport,
    *,
    limit: int = DEFAULT_VERIFY_LIMIT,
    on_progress: Callable[[int, int], None] | None = None,
) -> Verification:
    """Read images again and compare the bytes of pages with equal digests.

    Parameters
    ----------
    images : sequence of GuestImage
        Opened images that can be read again.
    fingerprints : sequence of Fingerprints
        Theirs, in the same order.
    report : SharingReport
        What was measured of them.
    limit : int
        Bytes of repeated contents to hold in memory, one copy each. Where there are more, those with the
        smallest digests are taken, a fair sample.
    on_progress : callable, optional
        Receives the index of an image and how many more bytes of its file were read.

    Returns
    -------
    Verification

    Raises
    ------
    ImageError
        If an image cannot be read again.
    """
    most = max(1, limit // PAGE_SIZE)
    sample = repeated_contents([each.digests for each in fingerprints], most)
    pages = _Comparison(sample, np.empty((len(sample), PAGE_SIZE), np.uint8))
    buffer = memoryview(bytearray(BLOCK_PAGES * PAGE_SIZE))
    rows = np.frombuffer(buffer, np.uint8).reshape(-1, PAGE_SIZE)
    caveats: list[Caveat] = []
    for index, (image, each) in enumerate(zip(images, fingerprints, strict=True)):
        present = Coverage(each.runs, (RunKind.PRESENT,))
        for block in image.blocks(buffer):
            position = int(present.below(np.array([block.first_gfn]))[0])
            pages.add(rows[: block.pages], each.digests[position : position + block.pages])
            if on_progress:
                on_progress(index, block.source_bytes)
        caveats += image.finish()
    frames = [_compare_frames(fingerprints, size, limit) for size in report.pooled if size > PAGE_SIZE]
    return Verification(
        len(sample),
        sum(each.contents for each in report.copies if each.fewest > 1),
        pages.compared,
        sum(each.compared for each in frames),
        pages.unequal,
        sum(each.unequal for each in frames),
        tuple(caveats),
    )


def _compare_frames(fingerprints: Sequence[Fingerprints], frame_size: int, limit: int) -> _Comparison:
    """Compare larger frames of equal digest by the digests of their pages."""
    frame_pages = frame_size // PAGE_SIZE
    digests = [each.frames(frame_size).digests for each in fingerprints]
    sample = repeated_contents(digests, max(1, limit // (8 * frame_pages)))
    frames = _Comparison(sample, np.empty((len(sample), frame_pages), np.uint64))
    for each, of_vm in zip(fingerprints, digests, strict=True):
        position = 0
        for rows in each.frame_rows(frame_size):
            frames.add(rows, of_vm[position : position + len(rows)])
            position += len(rows)
    return frames


class _Comparison:
    """The first copy of each content of a sample, and what came of comparing others with it."""

    def __init__(self, sample: NDArray[np.uint64], room: NDArray[Any]) -> None:
        self._sample = sample
        self._first = room
        self._held = np.zeros(len(sample), bool)
        self.compared = 0
        self.unequal = 0

    def add(self, rows: NDArray[Any], digests: NDArray[np.uint64]) -> None:
        if not len(self._sample):
            return
        content = np.minimum(np.searchsorted(self._sample, digests), len(self._sample) - 1)
        wanted = np.flatnonzero(self._sample[content] == digests)
        content = content[wanted]
        new, first = np.unique(content, return_index=True)
        first, new = first[~self._held[new]], new[~self._held[new]]
        self._first[new] = rows[wanted[first]]
        self._held[new] = True
        alike = (rows[wanted] == self._first[content]).all(axis=1)
        self.compared += len(wanted) - len(new)
        self.unequal += int(np.count_nonzero(~alike))

"""What a reader must know before trusting the counts of sharing."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Final

from hvshare.caveats import Caveat
from hvshare.units import LARGE_FRAME_SIZE, PAGE_SIZE, format_frame_size

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from hvshare.fingerprint.fingerprints import Fingerprints
    from hvshare.sharing.counts import Counts


DIGESTS_ONLY: Final = "digests-only"
"""Code of the caveat that bytes were not compared."""


def expected_collisions(pages: int) -> float:
    """Estimate how many pairs of different pages have one digest: n**2 / 2**65 for n pages.

    Examples
    --------
    >>> round(expected_collisions(1 << 28), 4)
    0.002
    """
    return pages * pages / 2**65


def sharing_caveats(
    fingerprints: Sequence[Fingerprints],
    of_images: Sequence[Mapping[int, Counts]],
    pooled: Mapping[int, Counts],
    further: Sequence[Caveat],
) -> tuple[Caveat, ...]:
    """Gather the caveats of the images and of their counts.

    Parameters
    ----------
    fingerprints : sequence of Fingerprints
        One an image.
    of_images : sequence of mapping of int to Counts
        The counts of each image, by frame size.
    pooled : mapping of int to Counts
        The counts of all of them, by frame size.
    further : sequence of Caveat
        Facts that are known to the caller.

    Returns
    -------
    tuple of Caveat
        Those of single images first.
    """
    caveats = [caveat for each in fingerprints for caveat in each.caveats]
    for each, counts in zip(fingerprints, of_images, strict=True):
        caveats.extend(_of_image(each, counts))
    caveats.extend(_same_contents(fingerprints))
    caveats.extend(_partial_frames(pooled))
    caveats.extend(further)
    pages = pooled[PAGE_SIZE].frames - pooled[PAGE_SIZE].zero
    caveats.append(
        Caveat(
            DIGESTS_ONLY,
            f"pages are compared by 64-bit digests: {expected_collisions(pages):.1g} pairs of different "
            f"pages among {pages:,} are expected to look alike",
            "use hvshare analyze --verify, on images, to compare the bytes",
        )
    )
    return tuple(caveats)


def _of_image(fingerprints: Fingerprints, counts: Mapping[int, Counts]) -> list[Caveat]:
    caveats = []
    pages = counts[PAGE_SIZE]
    if absent := fingerprints.absent_bytes:
        caveats.append(
            Caveat(
                "absent-pages",
                f"{absent // PAGE_SIZE:,} pages of the guest are not in the image and are in no count",
                "take a full dump to count them",
                fingerprints.name,
            )
        )
    if not pages.saved and pages.frames * PAGE_SIZE >= LARGE_FRAME_SIZE:
        caveats.append(
            Caveat(
                "nothing-repeats",
                f"none of its {pages.frames:,} pages is zero twice or occurs twice, as in encrypted or "
                "compressed data",
                "check that it is guest memory, not encrypted (SEV, TDX), and that pages start at its front",
                fingerprints.name,
            )
        )
    return caveats


def _same_contents(fingerprints: Sequence[Fingerprints]) -> list[Caveat]:
    """Find images of equal contents, unless they are known to be one file already."""
    sizes = Counter(map(_size, fingerprints))
    first: dict[int, Fingerprints] = {}
    caveats = []
    for each in fingerprints:
        if sizes[_size(each)] == 1:
            continue
        twin = first.setdefault(each.identity, each)
        if twin is not each and not any(caveat.code == "same-image-twice" for caveat in each.caveats):
            caveats.append(
                Caveat(
                    "same-contents-twice",
                    f"it has the same contents at the same places as {twin.name}, so all of it is found in "
                    "another VM",
                    "leave one of them out, unless clones are what you want to measure",
                    each.name,
                )
            )
    return caveats


def _size(fingerprints: Fingerprints) -> tuple[int, int, int]:
    return fingerprints.size_bytes, len(fingerprints.digests), len(fingerprints.runs)


def _partial_frames(pooled: Mapping[int, Counts]) -> list[Caveat]:
    return [
        Caveat(
            "partial-frames",
            f"{counts.partial_frames:,} frames of {format_frame_size(size)} are known in part only and "
            "cannot be shared at that size",
            "nothing is wrong: guest memory ends or has absent pages within them",
        )
        for size, counts in pooled.items()
        if counts.partial_frames
    ]

"""Fingerprints to a sharing report: one way for one image and for many."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np

from hvshare.sharing.caveats import sharing_caveats
from hvshare.sharing.contents import describe_contents
from hvshare.sharing.counts import count_domain
from hvshare.sharing.grouping import group
from hvshare.sharing.memory_map import MemoryMap, map_memory
from hvshare.sharing.report import CopiesBin, ImageSharing, SharingReport
from hvshare.units import LARGE_FRAME_SIZE, PAGE_SIZE, check_frame_size

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from hvshare.caveats import Caveat
    from hvshare.fingerprint.fingerprints import Fingerprints, FrameDigests
    from hvshare.images.image import GuestImage
    from hvshare.sharing.counts import Counts
    from hvshare.sharing.grouping import Groups

DEFAULT_FRAME_SIZES: Final = (PAGE_SIZE, LARGE_FRAME_SIZE)


def measure(
    fingerprints: Sequence[Fingerprints],
    frame_sizes: Sequence[int] = DEFAULT_FRAME_SIZES,
    *,
    map_cells: int = 0,
    top: int = 0,
    images: Sequence[GuestImage] = (),
    further_caveats: Sequence[Caveat] = (),
) -> SharingReport:
    """Count what sharing would free in some images, taken as one sharing domain.

    Parameters
    ----------
    fingerprints : sequence of Fingerprints
        One a VM.
    frame_sizes : sequence of int
        Bytes of the frames to count in; 4 KB is always among them.
    map_cells : int
        Cells of the memory map of each image, 0 for none.
    top : int
        How many of the most frequent contents to describe.
    images : sequence of GuestImage
        Opened images, to look at frequent contents.
    further_caveats : sequence of Caveat
        Facts that are known to the caller.

    Returns
    -------
    SharingReport

    Raises
    ------
    SizeError
        If frames cannot have one of the sizes.
    """
    sizes = sorted({PAGE_SIZE, *map(check_frame_size, frame_sizes)})
    of_images: list[dict[int, Counts]] = [{} for _ in fingerprints]
    pooled: dict[int, Counts] = {}
    classes = [np.zeros(len(each.digests), np.uint8) for each in fingerprints] if map_cells else None
    pages = group([each.digests for each in fingerprints], top=top, classes=classes)
    for size in sizes:
        frames = [each.frames(size) for each in fingerprints]
        groups = pages if size == PAGE_SIZE else group([each.digests for each in frames])
        distinct_of = groups.distinct_of.tolist()
        pooled[size] = _pooled(size, frames, distinct_of, groups.distinct)
        for counts, each, distinct in zip(of_images, frames, distinct_of, strict=True):
            counts[size] = _pooled(size, [each], [distinct], distinct)
    return SharingReport(
        tuple(ImageSharing.of(each, counts) for each, counts in zip(fingerprints, of_images, strict=True)),
        pooled,
        sharing_caveats(fingerprints, of_images, pooled, further_caveats),
        _maps(fingerprints, classes, map_cells),
        _copies(pages),
        describe_contents(pages.frequent, fingerprints, {image.name: image for image in images}),
    )


def _pooled(size: int, frames: Sequence[FrameDigests], distinct_of: list[int], distinct: int) -> Counts:
    zero = sum(each.zero for each in frames)
    return count_domain(
        size,
        partial_frames=sum(each.partial_frames for each in frames),
        zero=zero,
        nonzero=sum(each.frames for each in frames) - zero,
        distinct_of=distinct_of,
        distinct=distinct,
    )


def _maps(
    fingerprints: Sequence[Fingerprints], classes: list[NDArray[np.uint8]] | None, cells: int
) -> tuple[MemoryMap, ...]:
    if classes is None:
        return ()
    return tuple(
        map_memory(each, of_pages, cells) for each, of_pages in zip(fingerprints, classes, strict=True)
    )


def _copies(groups: Groups) -> tuple[CopiesBin, ...]:
    contents, pages = groups.contents_by_copies.tolist(), groups.frames_by_copies.tolist()
    last = max((index for index, count in enumerate(contents) if count), default=-1)
    return tuple(
        CopiesBin(1 << index, (2 << index) - 1, contents[index], pages[index]) for index in range(last + 1)
    )

"""Whether the blocks of a disk's file system start between multiples of 4 KB: a sample tells."""

from __future__ import annotations

import mmap
from typing import TYPE_CHECKING, Final

import numpy as np

from hvshare.erosion.prefetch_contents import is_among
from hvshare.fingerprint.pages import ZERO_DIGEST, digest_pages
from hvshare.images.runs import RunKind
from hvshare.units import PAGE_SIZE

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from hvshare.images.image import GuestImage

SECTOR: Final = 512
"""Bytes by whose multiples partitions may start."""

_SAMPLES: Final = 64
_SAMPLE_BLOCKS: Final = 257
_LEAST_FOUND: Final = 16
_LEAST_TIMES: Final = 8


def sector_offset(disk: GuestImage, contents: NDArray[np.uint64]) -> int | None:
    """Look for the offset at which blocks of a disk equal pages of memory, if it is no multiple of 4 KB.

    Parameters
    ----------
    disk : GuestImage
        That can be read at any position, as raw.
    contents : ndarray of uint64
        Digests of pages of memory, ascending, each once.

    Returns
    -------
    int or None
        Bytes behind a multiple of 4,096; None where no offset of whole sectors is better than none.

    Notes
    -----
    Partitions start at sector 63 where they were made for cylinders, and at 1 MiB since about 2009, when
    disks with sectors of 4 KB came. The sample is some 64 MiB.
    """
    found = [0] * (PAGE_SIZE // SECTOR)
    for data in _sample(disk):
        for number in range(len(found)):
            first = number * SECTOR
            views = [data[at : at + PAGE_SIZE] for at in range(first, len(data) - PAGE_SIZE + 1, PAGE_SIZE)]
            digests = np.frombuffer(digest_pages(views), np.uint64)
            among = is_among(digests, contents) & (digests != np.uint64(ZERO_DIGEST))
            found[number] += int(np.count_nonzero(among))
    best = max(range(1, len(found)), key=found.__getitem__)
    if found[best] < max(_LEAST_FOUND, _LEAST_TIMES * found[0]):
        return None
    return best * SECTOR


def _sample(disk: GuestImage) -> Iterator[memoryview]:
    """Read blocks that follow each other, in many places."""
    runs = disk.runs
    if runs is None or not (stored := runs.pages_of(RunKind.PRESENT)):
        return
    buffer = memoryview(mmap.mmap(-1, _SAMPLE_BLOCKS * PAGE_SIZE))
    for position in range(0, stored, max(_SAMPLE_BLOCKS, stored // _SAMPLES)):
        first = runs.gfn_of(position)
        run = next(runs.within(first, first + _SAMPLE_BLOCKS))
        for block in disk.blocks(buffer, (first, run.end_gfn)):
            yield buffer[: block.pages * PAGE_SIZE]

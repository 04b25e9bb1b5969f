"""Page tables of 64-bit entries: runs of pages of memory, and gaps."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np

from hvshare.synth.contents.batches import CHUNK_WORDS, PAGE_CHUNKS, PageDraws, in_chunks

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from hvshare.synth.contents.batches import Batch

_RUN_CHUNKS: Final = 4
_GFN_BITS: Final = 19
"""Runs start below 2 GB."""
_FLAGS: Final = np.array(
    # Present, writable, user, accessed, dirty; some read-only, some of the kernel; the highest is no-execute.
    [0x67, 0x25, 0x8000_0000_0000_0067, 0x8000_0000_0000_0025, 0x63, 0x8000_0000_0000_0063, 0x67, 0x67],
    np.uint64,
)
# Of eight entries, which are there: most often all or none.
_PRESENT: Final = np.array(
    [[first <= entry < last for entry in range(8)] for first, last in
     [(0, 8)] * 7 + [(0, 0)] * 4 + [(0, 3), (0, 6), (2, 8), (5, 8), (3, 5)]],
    np.bool_,
)  # fmt: skip
_ENTRIES: Final = np.arange(CHUNK_WORDS, dtype=np.uint64)


def page_table(pages: NDArray[np.uint64], batch: Batch) -> None:
    """Fill pages with 512 entries each, as PAE and x86-64 have them: gfn << 12 | flags."""
    draws = PageDraws.of(batch).chunks
    runs = draws[:, ::_RUN_CHUNKS].repeat(_RUN_CHUNKS, axis=1)
    gfns = runs >> np.uint64(64 - _GFN_BITS)
    gfns += np.arange(PAGE_CHUNKS, dtype=np.uint64) % np.uint64(_RUN_CHUNKS) * np.uint64(CHUNK_WORDS)
    first = (gfns & np.uint64((1 << _GFN_BITS) - 1)) << np.uint64(12)
    first |= np.take(_FLAGS, (runs & np.uint64(7)).view(np.int64), mode="clip")
    chunks = in_chunks(pages)
    np.add(first[:, :, None], _ENTRIES << np.uint64(12), out=chunks)
    chunks *= np.take(_PRESENT, (draws >> np.uint64(8) & np.uint64(15)).view(np.int64), axis=0, mode="clip")

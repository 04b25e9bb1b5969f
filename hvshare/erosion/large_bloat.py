"""Large frames in which few pages hold anything."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np

from hvshare.erosion.large_pages_result import Bloat, BloatBin
from hvshare.units import PAGE_SIZE

if TYPE_CHECKING:
    from numpy.typing import NDArray

_PARTS: Final = (64, 8, 2)
"""Parts of a frame at which bins end; the second one is where a frame stops to be nearly empty."""

NEARLY_EMPTY: Final = _PARTS[1]
"""Of a nearly empty frame, at most one page in so many holds anything."""


def count_bloat(frames_by_pages: NDArray[np.int64]) -> Bloat:
    """Sort large frames by how many of their pages hold anything.

    Parameters
    ----------
    frames_by_pages : ndarray of int64, shape (pages of a frame + 1,)
        At index n, whole large frames of all guests in which n pages are not zero.

    Returns
    -------
    Bloat
        Zero frames are not bloat: they are shared whole.

    Examples
    --------
    >>> frames = np.zeros(513, np.int64)
    >>> frames[[0, 3, 500]] = 7, 2, 1
    >>> bloat = count_bloat(frames)
    >>> bloat.nearly_empty_frames, bloat.nearly_empty_zero_bytes // 4096, bloat.frames
    (2, 1018, 3)
    """
    pages = len(frames_by_pages) - 1
    zeros = frames_by_pages * np.arange(pages, -1, -1)
    ends = [0, *(pages // part for part in _PARTS), pages - 1, pages]
    bins = tuple(
        BloatBin(
            fewest,
            most,
            int(frames_by_pages[fewest : most + 1].sum()),
            int(zeros[fewest : most + 1].sum()) * PAGE_SIZE,
        )
        for fewest, most in zip([0, *(end + 1 for end in ends[:-1])], ends, strict=True)
    )
    nearly = slice(1, pages // NEARLY_EMPTY + 1)
    return Bloat(
        int(frames_by_pages[1:pages].sum()),
        int(zeros[1:].sum()) * PAGE_SIZE,
        int(frames_by_pages[nearly].sum()),
        int(zeros[nearly].sum()) * PAGE_SIZE,
        bins,
    )

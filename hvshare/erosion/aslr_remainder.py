"""What pages look like that differ between address spaces with ASLR and without."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np

from hvshare.erosion.aslr_words import PAGE_BITS

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from hvshare.erosion.page_store import PageStore

_BATCH_PAGES: Final = 4096
_FRAME: Final = np.uint64(((1 << 52) - 1) >> 12 << 12)  # bits 12 to 51 (Intel SDM, volume 3A, 4.5)
_PRESENT: Final = np.uint64(1)
_LEAST_SHARE: Final = 0.9


def is_page_table(store: PageStore, pages: NDArray[np.int64], end_gfn: int) -> NDArray[np.bool_]:
    """Tell which pages look like page tables of x86-64.

    Parameters
    ----------
    store : PageStore
        The pages.
    pages : ndarray of int64, shape (n,)
        Their numbers.
    end_gfn : int
        Guest frame number behind the last one of any guest.

    Returns
    -------
    ndarray of bool, shape (n,)
        True where nine tenths of the words other than zero are entries that are present and name a frame of
        the guest.
    """
    found = [np.zeros(0, bool)]
    for start in range(0, len(pages), _BATCH_PAGES):
        words = store.rows(pages[start : start + _BATCH_PAGES])
        frame = (words & _FRAME) >> PAGE_BITS
        entries = ((words & _PRESENT) == 1) & (frame < np.uint64(end_gfn)) & (frame > 0)
        used = np.count_nonzero(words, axis=1)
        found.append(np.count_nonzero(entries, axis=1) >= _LEAST_SHARE * used)
    return np.concatenate(found)

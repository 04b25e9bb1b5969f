"""Addresses in pages: where they stand and what they point to follows from the key, their values from spaces.

A page points into a few windows: its own region, parts of its heap close by, some libraries. These are looked
up once a page, and each address then picks one of them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

import numpy as np

from hvshare.synth.contents.batches import Column
from hvshare.synth.draws import below

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from hvshare.synth.contents.batches import Batch, PageDraws

PAGE_BYTES: Final = np.uint64(4096)
NEAR_BYTES: Final = np.uint64(1 << 14)
_MOST_BYTES: Final = np.uint64(1 << 32)
"""Of a window, since a place in it is chosen by 32 bits."""

_HALF: Final = np.uint64(32)


class Windows(NamedTuple):
    """What pages point into: an address and how many bytes, none where a page has nothing there.

    Attributes
    ----------
    starts, sizes : ndarray of uint64, shape (n, windows)
        Bytes.
    """

    starts: NDArray[np.uint64]
    sizes: NDArray[np.uint64]

    @classmethod
    def of(cls, batch: Batch, regions: Sequence[NDArray[np.int64] | int]) -> Windows:
        """Look up whole regions, each given for all pages or for each one, in the spaces of pages."""
        spaces = batch.spaces
        index = np.empty((len(batch.keys), len(regions)), np.int64)
        for place, region in enumerate(regions):
            index[:, place] = region
        index += (batch.space * spaces.bases.shape[1])[:, None]
        sizes = np.minimum(np.take(spaces.sizes, index), _MOST_BYTES)
        return cls(np.take(spaces.bases, index), sizes)

    def narrow(self, place: int, offset: NDArray[np.uint64], most: np.uint64 = NEAR_BYTES) -> None:
        """Leave of a window the part from the page of an offset on, or as much before that as is needed."""
        whole = self.sizes[:, place]
        size = np.minimum(whole, most)
        self.starts[:, place] += np.minimum(offset & ~(PAGE_BYTES - np.uint64(1)), whole - size)
        self.sizes[:, place] = size

    def narrow_to_near(self, place: int, draws: PageDraws) -> None:
        """Leave of a window a part that follows from the key: what is close by."""
        self.narrow(place, below(draws.page[:, Column.PLACE_IN_REGION], self.sizes[:, place]))

    def spread(self, shares: Sequence[int]) -> Windows:
        """Repeat each window as often as its share says; a power of two of them in all."""
        places = np.repeat(np.arange(len(shares)), shares)
        return Windows(self.starts[:, places], self.sizes[:, places])

    def targets(
        self, pages: NDArray[np.int64], draws: NDArray[np.uint64], alignment: int
    ) -> tuple[NDArray[np.uint64], NDArray[np.bool_] | None]:
        """Draw addresses.

        Parameters
        ----------
        pages : ndarray of int64, shape (m,)
            The page that each is for.
        draws : ndarray of uint64, shape (m,)
            The lowest bits choose one of the windows, a power of two; the highest 32 the place in it.
        alignment : int
            Offsets are multiples of so many bytes.

        Returns
        -------
        addresses : ndarray of uint64, shape (m,)
            Where they point to.
        there : ndarray of bool, shape (m,), or None
            False where there is nothing to point to; None where there always is.
        """
        count = self.sizes.shape[1]
        index = pages * count
        index += (draws & np.uint64(count - 1)).view(np.int64)
        sizes = np.take(self.sizes, index, mode="clip")
        offsets = draws >> _HALF
        offsets *= sizes
        offsets >>= _HALF
        offsets &= np.uint64((1 << 64) - alignment)
        offsets += np.take(self.starts, index, mode="clip")
        return offsets, None if self.sizes.all() else sizes > 0


def libraries(batch: Batch, draws: PageDraws, count: int) -> list[NDArray[np.int64]]:
    """Choose regions of libraries, 5 at the most, for each page, out of those loaded in its space."""
    spaces = batch.spaces
    loaded = spaces.loaded_count[batch.space].astype(np.uint64)[:, None]
    columns = draws.page[:, Column.FIRST_LIBRARY : Column.FIRST_LIBRARY + count]
    index = below(columns, loaded).view(np.int64)
    index += (batch.space * spaces.loaded.shape[1])[:, None]
    chosen = np.take(spaces.loaded, index).astype(np.int64)
    return [chosen[:, place] for place in range(count)]


def how_many(draws: PageDraws, least: int, most: int) -> NDArray[np.uint64]:
    """Draw for each page a number of addresses, both bounds included."""
    return below(draws.page[:, Column.ADDRESSES], most - least + 1) + np.uint64(least)

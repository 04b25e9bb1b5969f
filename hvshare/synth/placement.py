"""Where in guest-physical memory pages lie that a guest allocates one after another."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from hvshare.synth.draws import below
from hvshare.units import LARGE_FRAME_SIZE, PAGE_SIZE

if TYPE_CHECKING:
    from fractions import Fraction

    from numpy.typing import NDArray

    from hvshare.synth.draws import Draws

_BLOCK: int = LARGE_FRAME_SIZE // PAGE_SIZE


class Placement:
    """The order in which gfns are handed out.

    Parameters
    ----------
    pages : int
        Of the guest; a multiple of 512.
    reserved : int
        Pages from gfn 0 on that are handed out by themselves, by `reserve`; a multiple of 512.
    fragmentation : Fraction
        Share of the blocks of 2 MB that are broken up. Whole blocks are handed out in order, page by page.
        Pages of broken blocks are handed out among them in an order of their own, so that they hold a bit of
        everything, free pages as well.
    draws : Draws
        What is drawn follows from these.

    Notes
    -----
    With a fragmentation of 0 everything lies contiguous and free memory is whole blocks; with 1 every block
    holds a bit of everything.
    """

    def __init__(self, pages: int, reserved: int, fragmentation: Fraction, draws: Draws) -> None:
        blocks = np.arange(reserved // _BLOCK, pages // _BLOCK)
        broken_count = int(len(blocks) * fragmentation)
        broken = np.zeros(len(blocks), bool)
        broken[draws.child("broken").permutation(len(blocks))[:broken_count]] = True
        self._reserved = np.arange(reserved)
        self._whole = list(blocks[~broken])
        self._loose = _gfns(blocks[broken])[draws.child("loose").permutation(broken_count * _BLOCK)]
        self._draws = draws

    def reserve(self, pages: int) -> NDArray[np.int64]:
        """Hand out pages of the reserved ones, in order; fewer where there are no more."""
        taken, self._reserved = np.split(self._reserved, [pages])
        return taken

    def large(self, blocks: int) -> NDArray[np.int64]:
        """Hand out whole blocks of 2 MB: those at the highest addresses that are not broken up.

        Returns
        -------
        ndarray of int64
            Gfns, 512 a block; fewer blocks where there are no more.
        """
        count = min(blocks, len(self._whole))
        taken = self._whole[len(self._whole) - count :]
        del self._whole[len(self._whole) - count :]
        return _gfns(np.array(taken, np.int64))

    def rest(self) -> NDArray[np.int64]:
        """Hand out all other pages: whole blocks in order, and loose pages drawn in between."""
        whole = np.concatenate([self._reserved, _gfns(np.array(self._whole, np.int64))])
        total = len(whole) + len(self._loose)
        is_loose = np.zeros(total, bool)
        is_loose[_spread(total, len(self._loose), self._draws.child("between"))] = True
        order = np.empty(total, np.int64)
        order[is_loose], order[~is_loose] = self._loose, whole
        return order


def _gfns(blocks: NDArray[np.int64]) -> NDArray[np.int64]:
    return np.asarray(blocks[:, None] * _BLOCK + np.arange(_BLOCK)).ravel()


def _spread(total: int, count: int, draws: Draws) -> NDArray[np.int64]:
    """Draw so many places out of all, spread evenly, in runs of a few."""
    if not count:
        return np.empty(0, np.int64)
    ends = np.arange(1, count + 1) * total // count
    room = np.diff(ends, prepend=0)
    return ends - 1 - below(draws.words(count), room.astype(np.uint64)).astype(np.int64)

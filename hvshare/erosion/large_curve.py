"""The break curve: what is saved when so many large frames are broken, with a bound on what could be."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np

from hvshare.erosion.large_orders import greedy_order, peeled_order

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from hvshare.erosion.large_links import Links
    from hvshare.erosion.large_orders import Order

_MOST_ROUNDS: Final = 32
_LEAST_ROUNDS: Final = 3
_STEPS: Final = 1 << 17
"""Frames that one kind of order may break over all rounds, so that large pools take seconds."""


@dataclass(frozen=True, eq=False)
class BreakCurve:
    """What breaking frames saves, in pages, beyond what is saved without breaking any.

    Attributes
    ----------
    saved : ndarray of int64, shape (frames + 1,)
        At index k, what the best set of k frames that was found saves.
    mappings : ndarray of int64, shape (frames + 1,)
        Frames of the guests that this set backs.
    most : ndarray of int64, shape (frames + 1,)
        What no set of k frames can exceed.
    """

    saved: NDArray[np.int64]
    mappings: NDArray[np.int64]
    most: NDArray[np.int64]


def break_curve(links: Links, copies: NDArray[np.int64]) -> BreakCurve:
    """Choose for each number of frames which of them to break.

    Parameters
    ----------
    links : Links
        What distinct large frames hold in common.
    copies : ndarray of int64, shape (frames,)
        Frames of the guests that each of them backs.

    Returns
    -------
    BreakCurve
        Its last point is exact, since it leaves no choice. Between, each point is the best of several orders
        from both ends: greedy ones, which break what saves most now and count again, and peeled ones, which
        mend what saves least in company. Up to 32 frames each start a greedy order of their own.

    Notes
    -----
    Which set of k saves most is NP-hard to tell, so `saved` is what was found, and `most` is a proof of how
    far from the best it can be. What sets save is supermodular, so the gains of any order are at least as
    large, over every set, as what that set saves, and so is the mean of such gains over several orders
    (Shapley, "Cores of convex games", 1971). Hence the k largest mean gains add up to a bound.

    Examples
    --------
    Two frames with everything in common save little alone, and much together:

    >>> from hvshare.erosion.large_links import link_frames
    >>> contents = np.array([[1, 2, 3, 4], [1, 2, 3, 5], [7, 7, 8, 9]], np.uint64)
    >>> curve = break_curve(link_frames(contents, np.empty(0, np.uint64)), np.array([1, 1, 1]))
    >>> curve.saved.tolist(), curve.most.tolist()
    ([0, 1, 3, 4], [0, 1, 3, 4])
    """
    best = _Best(links, copies)
    best.add(greedy_order(links))
    rounds = max(_LEAST_ROUNDS, min(_MOST_ROUNDS, _STEPS // max(1, links.frames)))
    loads = np.zeros(links.frames, np.int64)
    for number in range(1, rounds + 1):
        best.add(peeled_order(links, loads))
        best.limit(loads, number)
        if best.proven:
            return best.curve()
    # Where few frames leave the room for it, start from each; else from those that company helps most.
    starts = min(_MOST_ROUNDS, _STEPS // max(1, links.frames) // 2)
    for first in np.argsort(-loads, kind="stable")[:starts].tolist():
        best.add(greedy_order(links, first))
    return best.curve()


class _Best:
    """The best that was found for each number of frames, and what bounds it."""

    def __init__(self, links: Links, copies: NDArray[np.int64]) -> None:
        self._copies = copies
        # Broken all, every content that links frames is kept once.
        total = int(links.own_gain.sum()) + len(links.held) - links.contents
        self._saved = np.full(links.frames + 1, -1, np.int64)
        self._saved[0] = 0
        self._mappings = np.zeros(links.frames + 1, np.int64)
        self._most = np.full(links.frames + 1, total, np.int64)
        self._most[0] = 0

    @property
    def proven(self) -> bool:
        """Whether nothing better can exist."""
        return bool((self._saved == self._most).all())

    def add(self, order: Order) -> None:
        """Keep what an order does better."""
        saved, mappings = _sums(order.gains), _sums(self._copies[order.frames])
        better = (saved > self._saved) | ((saved == self._saved) & (mappings < self._mappings))
        self._saved[better] = saved[better]
        self._mappings[better] = mappings[better]

    def limit(self, loads: NDArray[np.int64], rounds: int) -> None:
        """Bound what sets of each size can save by gains that were added up over some orders."""
        np.minimum(self._most, _sums(np.sort(loads)[::-1]) // rounds, out=self._most)

    def curve(self) -> BreakCurve:
        return BreakCurve(self._saved, self._mappings, self._most)


def _sums(values: NDArray[np.int64]) -> NDArray[np.int64]:
    return np.concatenate(([0], np.cumsum(values)))

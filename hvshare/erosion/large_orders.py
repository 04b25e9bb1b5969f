"""Orders in which large frames can be broken, each step counted exactly.

What a set of broken frames saves is supermodular: breaking a frame saves the more, the more others are
broken, since a content needs one copy to stay. So the frame that saves most now is not always on the way to
the set that saves most, and the best sets of each size need not contain each other (to choose them is the
minimum k-union problem, which is NP-hard). Hence two orders from opposite ends.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from hvshare.erosion.large_links import Links

_TAKEN: Final = np.int64(1) << np.int64(62)


class Order(NamedTuple):
    """Large frames one after another.

    Attributes
    ----------
    frames : ndarray of int64, shape (frames,)
        In the order of breaking.
    gains : ndarray of int64, shape (frames,)
        Pages that each saves when all before it are broken.
    """

    frames: NDArray[np.int64]
    gains: NDArray[np.int64]


def greedy_order(links: Links, first: int | None = None) -> Order:
    """Break what saves most now, one frame after another, and count again after each.

    Parameters
    ----------
    links : Links
        What the frames hold in common.
    first : int, optional
        The frame to start with.

    Returns
    -------
    Order
        Of equal frames, the one that comes first in `links` is taken first.
    """
    gain = links.own_gain.copy()
    kept = np.zeros(links.contents, bool)
    frames, gains = np.empty(links.frames, np.int64), np.empty(links.frames, np.int64)
    for step in range(links.frames):
        frame = int(gain.argmax()) if step or first is None else first
        frames[step], gains[step] = frame, gain[frame]
        gain[frame] = -_TAKEN
        held = links.held_by(frame)
        new = held[~kept[held]]
        kept[new] = True
        # Every other frame that holds one of these can now do without a copy of its own.
        np.add.at(gain, links.holders_of(new), 1)
    return Order(frames, gains)


def peeled_order(links: Links, loads: NDArray[np.int64]) -> Order:
    """Break all, then mend the frame whose pages save least in the company of the rest, and so on; reversed.

    Parameters
    ----------
    links : Links
        What the frames hold in common.
    loads : ndarray of int64, shape (frames,)
        What earlier rounds found each frame to save, which counts with what this one finds; the gains of
        this round are added.

    Returns
    -------
    Order

    Notes
    -----
    Super-Greedy++ of Chekuri, Quanrud and Torres, "Densest Subgraph: Supermodularity, Iterative Peeling, and
    Flow" (SODA 2022), after Boob et al., "Flowless" (WWW 2020): rounds that carry their loads over approach
    the sets that save most per broken frame.
    """
    counts = np.diff(links.content_starts)
    # With one holder left, the sum of the holders of a content is that holder.
    sums = np.zeros(links.contents, np.int64)
    if links.contents:
        sums = np.add.reduceat(links.holders.astype(np.int64), links.content_starts[:-1])
    loss = links.own_gain + np.diff(links.frame_starts)
    weight = loads + loss
    frames, gains = np.empty(links.frames, np.int64), np.empty(links.frames, np.int64)
    for step in range(links.frames - 1, -1, -1):
        frame = int(weight.argmin())
        frames[step], gains[step] = frame, loss[frame]
        weight[frame] = _TAKEN
        held = links.held_by(frame)
        counts[held] -= 1
        sums[held] -= frame
        last = sums[held[counts[held] == 1]]
        np.subtract.at(loss, last, 1)
        np.subtract.at(weight, last, 1)
    loads[frames] += gains
    return Order(frames, gains)


def static_order(links: Links) -> Order:
    """Break frames in the order of what each saves when all others are broken, never counting again.

    Parameters
    ----------
    links : Links
        What the frames hold in common.

    Returns
    -------
    Order
        A yardstick for the others; its gains are counted exactly all the same.
    """
    scores = links.own_gain + np.diff(links.frame_starts)
    frames = np.argsort(-scores, kind="stable")
    return Order(frames, gains_in_order(links, frames))


def gains_in_order(links: Links, frames: NDArray[np.int64]) -> NDArray[np.int64]:
    """Count what each frame saves when all before it are broken.

    Parameters
    ----------
    links : Links
        What the frames hold in common.
    frames : ndarray of int64, shape (frames,)
        All frames, in the order of breaking.

    Returns
    -------
    ndarray of int64, shape (frames,)
    """
    rank = np.empty(links.frames, np.int64)
    rank[frames] = np.arange(links.frames)
    gains = (links.own_gain + np.diff(links.frame_starts))[frames]
    if links.contents:
        keepers = np.minimum.reduceat(rank[links.holders], links.content_starts[:-1])
        gains -= np.bincount(keepers, minlength=links.frames)
    return gains

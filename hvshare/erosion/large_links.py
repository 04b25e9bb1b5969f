"""Which large frames hold the same page contents, as arrays that a frame or a content is looked up in."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

_RANGE_DIGESTS: Final = 1 << 18
_MOST_RANGES: Final = 32


@dataclass(frozen=True, eq=False)
class Links:
    """Distinct large frames, and the contents that occur in two or more of them and not outside.

    Attributes
    ----------
    own_gain : ndarray of int64, shape (frames,)
        Pages that breaking a frame saves whatever else is broken: its pages less its different contents that
        do not occur outside of large frames.
    holders : ndarray of int32, shape (links,)
        The frames that hold content 0, then those that hold content 1, and so on; a frame once a content.
    content_starts : ndarray of int64, shape (contents + 1,)
        Where the holders of each content start.
    held : ndarray of int32, shape (links,)
        The contents that frame 0 holds, then those of frame 1, and so on.
    frame_starts : ndarray of int64, shape (frames + 1,)
        Where the contents of each frame start.
    """

    own_gain: NDArray[np.int64]
    holders: NDArray[np.int32]
    content_starts: NDArray[np.int64]
    held: NDArray[np.int32]
    frame_starts: NDArray[np.int64]

    @property
    def frames(self) -> int:
        """Distinct large frames."""
        return len(self.own_gain)

    @property
    def contents(self) -> int:
        """Contents that link frames."""
        return len(self.content_starts) - 1

    def holders_of(self, contents: NDArray[np.int32]) -> NDArray[np.int32]:
        """List the frames that hold some contents, a frame once for each of these that it holds."""
        return self.holders[_spread(self.content_starts[contents], self.content_starts[contents + 1])]

    def held_by(self, frame: int) -> NDArray[np.int32]:
        """List the contents that link a frame to others."""
        return self.held[self.frame_starts[frame] : self.frame_starts[frame + 1]]


def link_frames(contents: NDArray[np.uint64], outside: NDArray[np.uint64]) -> Links:
    """Find the contents that large frames have in common.

    Parameters
    ----------
    contents : ndarray of uint64, shape (frames, pages of a frame)
        The digests of the pages of each distinct frame; sorted in place, row by row.
    outside : ndarray of uint64, shape (n,)
        The different digests of pages outside of large frames, ascending.

    Returns
    -------
    Links

    Examples
    --------
    >>> links = link_frames(np.array([[1, 1, 2], [2, 3, 4]], np.uint64), np.array([4], np.uint64))
    >>> links.own_gain.tolist(), links.holders.tolist(), links.content_starts.tolist()
    ([1, 1], [0, 1], [0, 2])
    """
    frames, pages = contents.shape
    contents.sort(axis=1)
    # From here on, a frame holds a content once.
    opens = np.ones(contents.shape, bool)
    np.not_equal(contents[:, 1:], contents[:, :-1], out=opens[:, 1:])
    own_gain = pages - np.count_nonzero(opens, axis=1).astype(np.int64)
    holders, sizes = [np.empty(0, np.int32)], [np.empty(0, np.int64)]
    for digests, frame, known in _ranges(contents, opens, outside):
        starts = np.flatnonzero(np.concatenate(([True], digests[1:] != digests[:-1])))
        counts = np.diff(np.append(starts, len(digests)))
        is_outside = _isin(digests[starts], known)
        own_gain += np.bincount(frame[np.repeat(is_outside, counts)], minlength=frames)
        links = (counts > 1) & ~is_outside
        holders.append(frame[np.repeat(links, counts)])
        sizes.append(counts[links])
    return _index(own_gain, np.concatenate(holders), np.concatenate(sizes))


def _ranges(
    contents: NDArray[np.uint64], opens: NDArray[np.bool_], outside: NDArray[np.uint64]
) -> Iterator[tuple[NDArray[np.uint64], NDArray[np.int32], NDArray[np.uint64]]]:
    """Give digests in ascending order with the frames that hold them, and those outside, range by range."""
    pages = contents.shape[1]
    size = max(_RANGE_DIGESTS, contents.size // _MOST_RANGES)
    bits = max(0, (-(-contents.size // size) - 1).bit_length())
    cuts = [number << (64 - bits) for number in range(1 << bits)]
    for low, high in zip(cuts, [*cuts[1:], 1 << 64], strict=True):
        inside = opens & (contents >= np.uint64(low)) & (contents <= np.uint64(high - 1))
        where = np.flatnonzero(inside)
        if not len(where):
            continue
        digests = contents.ravel()[where]
        order = np.argsort(digests)
        first = np.searchsorted(outside, np.uint64(low))
        end = np.searchsorted(outside, np.uint64(high - 1), side="right")
        yield digests[order], (where[order] // pages).astype(np.int32), outside[first:end]


def _isin(digests: NDArray[np.uint64], known: NDArray[np.uint64]) -> NDArray[np.bool_]:
    """Tell which digests are among some that are in ascending order."""
    if not len(known):
        return np.zeros(len(digests), bool)
    at = np.minimum(np.searchsorted(known, digests), len(known) - 1)
    found: NDArray[np.bool_] = known[at] == digests
    return found


def _index(own_gain: NDArray[np.int64], holders: NDArray[np.int32], sizes: NDArray[np.int64]) -> Links:
    """Turn holders by content into contents by holder as well."""
    # One sort of numbers that carry both orders them by frame, then by content.
    keys = holders.astype(np.uint64)
    keys <<= np.uint64(32)
    keys |= np.repeat(np.arange(len(sizes), dtype=np.uint32), sizes)
    keys.sort()
    keys &= np.uint64(0xFFFFFFFF)
    held = keys.astype(np.int32)
    counts = np.bincount(holders, minlength=len(own_gain))
    return Links(
        own_gain,
        holders,
        np.concatenate(([0], np.cumsum(sizes))),
        held,
        np.concatenate(([0], np.cumsum(counts))),
    )


def _spread(lows: NDArray[np.int64], highs: NDArray[np.int64]) -> NDArray[np.int64]:
    """List all positions from each low up to its high."""
    counts = highs - lows
    return np.repeat(lows - (np.cumsum(counts) - counts), counts) + np.arange(int(counts.sum()))

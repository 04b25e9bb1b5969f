"""Arithmetic on runs: how many pages of some kinds lie below a guest frame number, for many at once."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Collection

    from numpy.typing import NDArray

    from hvshare.images.runs import RunKind, Runs


class Coverage:
    """The pages of some kinds among the runs of an image.

    Parameters
    ----------
    runs : Runs
        All runs of the image.
    kinds : collection of RunKind
        The kinds that count.

    Attributes
    ----------
    first_gfns, end_gfns : ndarray of int64, shape (runs,)
        Where each run of these kinds starts, and the guest frame number behind it.
    """

    def __init__(self, runs: Runs, kinds: Collection[RunKind]) -> None:
        wanted = np.isin(np.frombuffer(runs.kinds, np.int8), [int(kind) for kind in kinds])
        self.first_gfns: NDArray[np.int64] = np.frombuffer(runs.first_gfns, np.int64)[wanted]
        lengths = np.frombuffer(runs.lengths, np.int64)[wanted]
        self.end_gfns: NDArray[np.int64] = self.first_gfns + lengths
        self._pages_before = np.concatenate(([0], np.cumsum(lengths)))

    def below(self, gfns: NDArray[np.int64]) -> NDArray[np.int64]:
        """Count the pages of these kinds below each guest frame number.

        Parameters
        ----------
        gfns : ndarray of int64, shape (n,)
            Guest frame numbers.

        Returns
        -------
        ndarray of int64, shape (n,)
        """
        if not len(self.first_gfns):
            return np.zeros(len(gfns), np.int64)
        run = np.searchsorted(self.first_gfns, gfns, side="right") - 1
        run = np.maximum(run, 0)
        into = np.minimum(gfns, self.end_gfns[run]) - self.first_gfns[run]
        pages: NDArray[np.int64] = self._pages_before[run] + np.maximum(into, 0)
        return pages

    def gfns(self, low: int, high: int) -> NDArray[np.int64]:
        """Give the guest frame numbers of the pages of these kinds from one position up to another.

        Parameters
        ----------
        low, high : int
            Positions, counted over all pages of these kinds.

        Returns
        -------
        ndarray of int64, shape (high - low,)
        """
        positions = np.arange(low, high)
        run = np.searchsorted(self._pages_before, positions, side="right") - 1
        gfns: NDArray[np.int64] = self.first_gfns[run] + positions - self._pages_before[run]
        return gfns

    def merged(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Join runs that touch.

        Returns
        -------
        tuple of ndarray of int64
            First guest frame numbers, and those behind the last.
        """
        apart = self.first_gfns[1:] != self.end_gfns[:-1]
        first, last = np.ones(len(self.first_gfns), bool), np.ones(len(self.first_gfns), bool)
        first[1:], last[:-1] = apart, apart
        return self.first_gfns[first], self.end_gfns[last]

"""SuperFetch: free memory holds what programs will want, by how often and when they were used.

J. Woolsey, "Dynamic Memory Coming to Hyper-V", part 4 (2010): it fills free memory with what programs will
want, goes by which are used, how often and at what time, runs at low priority, and gives way to programs.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from hvshare.errors import PresetError
from hvshare.synth.prefetching.orders import by_page, first_of_each

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from hvshare.synth.prefetching.memory import PageCache
    from hvshare.synth.prefetching.usage import UsageHistory


class SuperFetch:
    """Which disk pages programs will want, from how often and when these were used.

    Parameters
    ----------
    history : UsageHistory
    files_of : sequence of ndarray of int64
        For each program the disk pages that it maps or reads, in its order. Programs may have pages in
        common.
    rest : ndarray of int64, optional
        Other disk pages that are used at all, which come behind all that programs want.

    Raises
    ------
    PresetError
        The history is of other programs.

    Examples
    --------
    >>> from hvshare.synth.prefetching.usage import HOURS, UsageHistory
    >>> uses = np.zeros((2, HOURS), np.int64)
    >>> uses[0, 9], uses[1, 20] = 3, 3
    >>> superfetch = SuperFetch(UsageHistory(uses), [np.array([10, 11, 50]), np.array([20, 50])])
    >>> superfetch.order(9).tolist(), superfetch.order(20).tolist()
    ([50, 10, 11, 20], [50, 20, 10, 11])
    """

    def __init__(
        self,
        history: UsageHistory,
        files_of: Sequence[NDArray[np.int64]],
        rest: NDArray[np.int64] | None = None,
    ) -> None:
        if history.programs != len(files_of):
            raise PresetError(
                f"the usage history is of {history.programs} programs, and files are of {len(files_of)}",
                advice="give both for the same programs",
            )
        none = np.zeros(0, np.int64)
        # A program wants a page once, however often it reads it.
        distinct = [first_of_each(np.asarray(pages, np.int64)) for pages in files_of]
        pages = np.concatenate((none, *distinct))
        positions, first = by_page(pages)
        self._history = history
        self._rest = none if rest is None else np.asarray(rest, np.int64)
        self._programs = np.repeat(np.arange(len(distinct)), [len(each) for each in distinct])[positions]
        self._starts = np.flatnonzero(first)
        self._in_files = np.argsort(positions[first], kind="stable")
        self._pages = pages[positions[first][self._in_files]]

    def order(self, hour: int) -> NDArray[np.int64]:
        """Put disk pages in order, those most wanted at an hour of the week first.

        A page is wanted as much as all programs that map or read it together. Pages wanted alike are in the
        order of programs and of their files; pages of programs that are never used are left out.

        Parameters
        ----------
        hour : int
            0 to 167, from Monday at midnight.

        Returns
        -------
        ndarray of int64, shape (pages,)
            No page twice.

        Raises
        ------
        PresetError
            There is no such hour.
        """
        wanted = self._history.wanted(hour)[self._programs]
        weights = np.add.reduceat(wanted, self._starts)[self._in_files] if len(wanted) else wanted
        most_first = np.argsort(-weights, kind="stable")
        pages = self._pages[most_first[: np.count_nonzero(weights)]]
        return first_of_each(np.concatenate((pages, self._rest))) if len(self._rest) else pages

    def prefetch(self, memory: PageCache, hour: int, most: int) -> NDArray[np.int64]:
        """Fill free memory with at most so many pages; see `PageCache.prefetch`."""
        return memory.prefetch(self.order(hour), most)

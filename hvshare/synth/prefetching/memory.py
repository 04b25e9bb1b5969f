"""A guest's memory while programs demand it and a prefetcher fills what is left."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from hvshare.errors import BudgetError
from hvshare.synth.prefetching.orders import new_pages

if TYPE_CHECKING:
    from numpy.typing import NDArray


class PageCache:
    """Memory that programs, the cache and nobody hold: free + used + cached == capacity, always.

    Programs take free memory first, then the cache's pages, least wanted first; the cache never takes a page
    of a program. What was read stands before what was prefetched: read pages give way oldest first,
    prefetched ones last in their order first, and all prefetched ones before any that was read.

    Parameters
    ----------
    capacity : int
        Pages of memory.
    used : int
        Pages that programs and the kernel hold already, of no disk.

    Attributes
    ----------
    capacity : int

    Raises
    ------
    BudgetError
        More is used than there is.

    Examples
    --------
    >>> memory = PageCache(8, used=3)
    >>> memory.prefetch(np.array([70, 71, 72, 73]), most=3).tolist()
    [70, 71, 72]
    >>> memory.demand(3)
    >>> memory.free, memory.used, memory.cached.tolist()
    (0, 6, [70, 71])
    """

    def __init__(self, capacity: int, used: int = 0) -> None:
        none = np.zeros(0, np.int64)
        self.capacity = _count(capacity)
        self._anonymous = 0
        self._mapped = none
        self._read = none  # oldest first
        self._prefetched = none  # most wanted first
        self.demand(used)

    @property
    def used(self) -> int:
        """Pages that programs hold, of disks or not."""
        return self._anonymous + len(self._mapped)

    @property
    def cached_count(self) -> int:
        """Pages that the cache holds."""
        return len(self._read) + len(self._prefetched)

    @property
    def free(self) -> int:
        """Pages that nobody holds."""
        return self.capacity - self.used - self.cached_count

    @property
    def cached(self) -> NDArray[np.int64]:
        """Disk pages in the cache, most wanted first: shape (cached,), none twice."""
        return np.concatenate((self._read[::-1], self._prefetched))

    @property
    def resident(self) -> NDArray[np.int64]:
        """Disk pages that programs have mapped, first mapped first: shape (mapped,), none twice."""
        return self._mapped.copy()

    def demand(self, pages: int) -> None:
        """Give programs so many pages more that are of no disk.

        Raises
        ------
        BudgetError
            It is more than nobody and the cache hold; nothing has changed then.
        """
        self._make_room(_count(pages))
        self._anonymous += pages

    def release(self, pages: int) -> None:
        """Take so many pages that are of no disk back from programs.

        Raises
        ------
        BudgetError
            Programs hold fewer; nothing has changed then.
        """
        if _count(pages) > self._anonymous:
            raise BudgetError(
                f"programs would give back {pages:,} pages, and hold {self._anonymous:,} that are of no disk",
                advice="release no more than was demanded",
            )
        self._anonymous -= pages

    def map(self, pages: NDArray[np.int64]) -> None:
        """Give programs disk pages: out of the cache where it has them, read for them where not.

        Parameters
        ----------
        pages : ndarray of int64, shape (any,)
            Those that are mapped already stay so, and take no more memory.

        Raises
        ------
        BudgetError
            It is more than nobody and the cache hold; nothing has changed then.
        """
        fresh = new_pages(pages, self._mapped)
        read, prefetched = _without(self._read, fresh), _without(self._prefetched, fresh)
        hits = self.cached_count - len(read) - len(prefetched)
        room = self.free + len(read) + len(prefetched)
        if len(fresh) - hits > room:
            raise self._too_much(len(fresh) - hits, room)
        short = len(fresh) - hits - self.free
        self._read, self._prefetched = read, prefetched
        self._give_up(max(short, 0))
        self._mapped = np.concatenate((self._mapped, fresh))

    def read(self, pages: NDArray[np.int64]) -> None:
        """Read disk pages one after the other, through the cache.

        Once no memory is free, each page takes the place of the cache's least wanted one. Pages that programs
        have mapped are there already; a page that the cache has becomes its most wanted one.

        Parameters
        ----------
        pages : ndarray of int64, shape (any,)
        """
        # Of a page that is read twice the last time counts, so what is last is looked for from behind.
        latest = new_pages(pages[::-1], self._mapped)[::-1]
        self._prefetched = _without(self._prefetched, latest)
        self._read = np.concatenate((_without(self._read, latest), latest))
        self._give_up(max(-self.free, 0))

    def prefetch(self, pages: NDArray[np.int64], most: int) -> NDArray[np.int64]:
        """Fill free memory, and no other, with disk pages that neither programs nor the cache have.

        Parameters
        ----------
        pages : ndarray of int64, shape (any,)
            Most wanted first; less wanted than all that the cache has.
        most : int
            How many pages it may bring in.

        Returns
        -------
        ndarray of int64, shape (up to most,)
            What it brought in, in the same order.

        Raises
        ------
        BudgetError
            It may bring in fewer than no pages.
        """
        most = min(_count(most), self.free)
        fresh = new_pages(pages, self._mapped, self._read, self._prefetched)[:most]
        self._prefetched = np.concatenate((self._prefetched, fresh))
        return fresh

    def _make_room(self, pages: int) -> None:
        """Have the cache give up what is demanded beyond free memory."""
        if pages > self.free + self.cached_count:
            raise self._too_much(pages, self.free + self.cached_count)
        self._give_up(max(pages - self.free, 0))

    def _give_up(self, pages: int) -> None:
        """Drop so many of the cache's least wanted pages."""
        of_prefetched = min(pages, len(self._prefetched))
        self._prefetched = self._prefetched[: len(self._prefetched) - of_prefetched]
        self._read = self._read[pages - of_prefetched :]

    def _too_much(self, pages: int, room: int) -> BudgetError:
        return BudgetError(
            f"programs demand {pages:,} pages, and {room:,} of {self.capacity:,} are free or in the cache",
            advice="give the guest more memory, or programs less",
        )


def _without(pages: NDArray[np.int64], others: NDArray[np.int64]) -> NDArray[np.int64]:
    """Leave out of pages, none of which is there twice, those that are among others."""
    return new_pages(pages, others) if len(pages) and len(others) else pages


def _count(pages: int) -> int:
    if pages < 0:
        raise BudgetError(f"{pages:,} pages", advice="give at least 0")
    return pages

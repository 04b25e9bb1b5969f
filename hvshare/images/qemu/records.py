"""Which record of a QEMU migration stream holds each page of RAM: the last one that was sent.

A guest that runs while it is migrated has pages sent again, so records overlap and the last one counts. They
are kept as ranges of pages, and overlaps are resolved from time to time, so that memory depends on how
fragmented RAM is and not on how often it was sent.
"""

from __future__ import annotations

from array import array
from typing import TYPE_CHECKING, Final

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    _Ints = NDArray[np.int64]
    _Ranges = tuple[_Ints, _Ints, _Ints]

NEVER: Final = -1 << 62
"""Stands for the offset of pages that were never sent."""

MOST_PAGES: Final = 1 << 17
"""Pages of one range, at the most."""

_PIECE: Final = 1 << 18
_FIRST_COMPACTION: Final = 1 << 20


class PageRecords:
    """Ranges of pages and where their contents are, in the order in which they were sent.

    Parameters
    ----------
    stride : int
        Bytes from one page of a range to the next.

    Attributes
    ----------
    pages_sent : int
        Pages in all ranges, as often as each was sent.

    Examples
    --------
    >>> records = PageRecords(4104)
    >>> records.append(0, 3, 100)
    >>> records.append(1, 1, 9000)
    >>> list(records.within(0, 4)) == [(0, 1, 100), (1, 1, 9000), (2, 1, 8308), (3, 1, NEVER)]
    True
    """

    def __init__(self, stride: int) -> None:
        self._stride = stride
        self._firsts = array("q")
        self._counts = array("q")
        self._wheres = array("q")
        self._limit = _FIRST_COMPACTION
        self._resolved = True
        self.pages_sent = 0

    def append(self, first: int, pages: int, where: int) -> None:
        """Add one range.

        Parameters
        ----------
        first, pages : int
            Number of its first page, and how many there are, up to `MOST_PAGES`.
        where : int
            Offset of the first page; for pages that repeat one byte, -1 - that byte.
        """
        self._firsts.append(first)
        self._counts.append(pages)
        self._wheres.append(where)
        self.pages_sent += pages
        self._resolved = False
        if len(self._firsts) > self._limit:
            self._compact()

    def extend(self, firsts: NDArray[np.int64], counts: NDArray[np.int64], wheres: NDArray[np.int64]) -> None:
        """Add ranges; arrays of one length, with what `append` takes."""
        self._firsts.frombytes(firsts.tobytes())
        self._counts.frombytes(counts.tobytes())
        self._wheres.frombytes(wheres.tobytes())
        self.pages_sent += int(counts.sum())
        self._resolved = False
        if len(self._firsts) > self._limit:
            self._compact()

    def within(self, low: int, high: int) -> Iterator[tuple[int, int, int]]:
        """List what holds the pages from one number up to another.

        Yields
        ------
        tuple of int
            First page, pages, and offset as for `append`, or `NEVER`; ascending and without gaps.
        """
        if not self._resolved:
            self._compact()
        firsts = np.frombuffer(self._firsts, np.int64)
        start = max(int(np.searchsorted(firsts, low, "right")) - 1, 0)
        stop = int(np.searchsorted(firsts, high))
        at = low
        for number in range(start, stop):
            first, where = self._firsts[number], self._wheres[number]
            end = min(first + self._counts[number], high)
            if first < at:
                where += (at - first) * self._stride if where >= 0 else 0
                first = at
            if end <= first:
                continue
            if first > at:
                yield at, first - at, NEVER
            yield first, end - first, where
            at = end
        if at < high:
            yield at, high - at, NEVER

    def _compact(self) -> None:
        """Sort the ranges by page and cut away what a later one overwrote."""
        firsts, counts, wheres = (
            np.frombuffer(each, np.int64).copy() for each in (self._firsts, self._counts, self._wheres)
        )
        order = np.argsort(firsts, kind="stable")
        ranges = firsts[order], counts[order], wheres[order]
        if np.any(ranges[0][1:] < ranges[0][:-1] + ranges[1][:-1]):
            ranges = self._without_overlaps(*ranges, order)
        self._firsts, self._counts, self._wheres = (array("q", each.tobytes()) for each in ranges)
        self._limit = max(_FIRST_COMPACTION, 4 * len(self._firsts))
        self._resolved = True

    def _without_overlaps(self, firsts: _Ints, counts: _Ints, wheres: _Ints, order: _Ints) -> _Ranges:
        """Resolve overlaps of sorted ranges; `order` tells which one was sent first."""
        tops = np.maximum.accumulate(firsts + counts)
        # Ranges that overlap, directly or through others, are a cluster.
        heads = np.flatnonzero(np.append(True, firsts[1:] >= tops[:-1]))
        members = np.diff(np.append(heads, len(firsts)))
        tangled = np.repeat(members > 1, members)
        heads, members = heads[members > 1], members[members > 1]
        # Clusters are moved together, so that the work depends on their pages and not on what lies between.
        lengths = tops[heads + members - 1] - firsts[heads]
        behind = np.cumsum(lengths)
        moved = firsts[heads] - (behind - lengths)
        painted = self._painted(
            firsts[tangled] - np.repeat(moved, members),
            counts[tangled],
            wheres[tangled],
            order[tangled],
            behind,
        )
        back = moved[np.searchsorted(behind, painted[0], "right")]
        alone = ~tangled
        joined = (
            np.concatenate((firsts[alone], painted[0] + back)),
            np.concatenate((counts[alone], painted[1])),
            np.concatenate((wheres[alone], painted[2])),
        )
        sort = np.argsort(joined[0])
        return joined[0][sort], joined[1][sort], joined[2][sort]

    def _painted(self, firsts: _Ints, counts: _Ints, wheres: _Ints, order: _Ints, borders: _Ints) -> _Ranges:
        """Write the offsets of pages over each other, piece by piece; no range shall cross a border."""
        ends = firsts + counts
        found: list[_Ranges] = []
        for low in range(0, int(borders[-1]), _PIECE):
            high = min(low + _PIECE, int(borders[-1]))
            start = int(np.searchsorted(firsts, low - MOST_PAGES))
            here = np.arange(start, int(np.searchsorted(firsts, high)))
            here = here[ends[here] > low]
            here = here[np.argsort(order[here])]
            held = np.full(high - low, NEVER, np.int64)
            self._paint(held, low, firsts[here], counts[here], wheres[here])
            steps = np.where(held[:-1] >= 0, self._stride, 0)
            starts = np.flatnonzero(np.append(True, held[1:] != held[:-1] + steps))
            inner = borders[(borders > low) & (borders < high)] - low
            starts = np.union1d(np.union1d(starts, inner), np.arange(0, len(held), MOST_PAGES))
            lengths = np.diff(np.append(starts, len(held)))
            found.append((starts + low, lengths, held[starts]))
        first, count, where = (np.concatenate([each[part] for each in found]) for part in range(3))
        return first, count, where

    def _paint(self, held: _Ints, low: int, firsts: _Ints, counts: _Ints, wheres: _Ints) -> None:
        """Write ranges into a piece in the order in which they were sent, in steps of bounded size."""
        sums = np.cumsum(counts)
        at = 0
        while at < len(firsts):
            before = int(sums[at - 1]) if at else 0
            behind = max(int(np.searchsorted(sums, before + _PIECE, "right")), at + 1)
            step = slice(at, behind)
            into = np.arange(int(sums[behind - 1]) - before)
            into -= np.repeat(sums[step] - counts[step] - before, counts[step])
            page = np.repeat(firsts[step] - low, counts[step]) + into
            offset = np.repeat(wheres[step], counts[step])
            offset += np.where(offset >= 0, into * self._stride, 0)
            inside = (page >= 0) & (page < len(held))
            # Of several offsets for one page numpy keeps the last, which was sent last.
            held[page[inside]] = offset[inside]
            at = behind

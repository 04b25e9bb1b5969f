"""Runs of guest pages, and what an image knows about each."""

from __future__ import annotations

import enum
from array import array
from bisect import bisect_left, bisect_right
from typing import TYPE_CHECKING, Final, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any, TypeAlias

    from numpy.typing import NDArray

    Integers: TypeAlias = array[int] | NDArray[Any]


class RunKind(enum.IntEnum):
    """What an image holds of a page.

    Attributes
    ----------
    PRESENT
        Its contents are stored.
    ZERO
        Its contents are not stored and are zero by the definition of the format.
    ABSENT
        The guest has the page, the image does not.
    """

    PRESENT = 0
    ZERO = 1
    ABSENT = 2


_KINDS: Final = tuple(RunKind)


class Run(NamedTuple):
    """Pages that follow each other in guest-physical memory and are of one kind."""

    first_gfn: int
    pages: int
    kind: RunKind

    @property
    def end_gfn(self) -> int:
        """The guest frame number just behind the run."""
        return self.first_gfn + self.pages


class Runs:
    """All runs of one image, in ascending order of guest frame numbers, without overlaps.

    Guest frame numbers that no run covers are no memory of the guest. A run takes 25 bytes, since a
    fragmented sparse file has millions.

    Examples
    --------
    >>> runs = Runs()
    >>> runs.append(0, 2, RunKind.PRESENT)
    >>> runs.append(2, 3, RunKind.PRESENT)
    >>> list(runs), runs.pages_of(RunKind.PRESENT)
    ([Run(first_gfn=0, pages=5, kind=<RunKind.PRESENT: 0>)], 5)
    """

    def __init__(self) -> None:
        self.first_gfns = array("q")
        self.lengths = array("q")
        self.kinds = array("b")
        self._present_before = array("q")
        self._pages = [0, 0, 0]

    def append(self, first_gfn: int, pages: int, kind: RunKind) -> None:
        """Add a run behind all others, as part of the last one where it continues that.

        Raises
        ------
        ValueError
            If the run is empty or does not lie behind all others.
        """
        if pages <= 0 or first_gfn < self.end_gfn:
            raise ValueError(f"run of {pages} pages at gfn {first_gfn} behind gfn {self.end_gfn}")
        if self.kinds and self.kinds[-1] == kind and self.end_gfn == first_gfn:
            self.lengths[-1] += pages
        else:
            self.first_gfns.append(first_gfn)
            self.lengths.append(pages)
            self.kinds.append(kind)
            self._present_before.append(self._pages[RunKind.PRESENT])
        self._pages[kind] += pages

    @classmethod
    def from_arrays(cls, first_gfns: Integers, lengths: Integers, kinds: Integers) -> Runs:
        """Make runs out of arrays; see `extend`.

        Examples
        --------
        >>> from array import array
        >>> Runs.from_arrays(array("q", [4, 6, 20]), array("q", [2, 6, 8]), array("b", [0, 0, 2]))
        Runs([(4, 8, <RunKind.PRESENT: 0>), (20, 8, <RunKind.ABSENT: 2>)])
        """
        runs = cls()
        runs.extend(first_gfns, lengths, kinds)
        return runs

    def extend(self, first_gfns: Integers, lengths: Integers, kinds: Integers) -> None:
        """Add many runs behind all others at once, joining those that continue each other.

        Parameters
        ----------
        first_gfns, lengths : array of int64
            Of each run, in ascending order: an ``array("q")``, or one of numpy.
        kinds : array of int8
            Values of `RunKind`: an ``array("b")``, or one of numpy.

        Raises
        ------
        ValueError
            If a run is empty, is of no kind, or does not lie behind all others, or if the arrays are not of
            one length. Nothing is added then.
        """
        import numpy as np

        first = np.frombuffer(first_gfns, np.int64)
        pages = np.frombuffer(lengths, np.int64)
        kind = np.frombuffer(kinds, np.int8)
        if not len(first) == len(pages) == len(kind):
            raise ValueError(f"{len(first)} starts, {len(pages)} lengths and {len(kind)} kinds of runs")
        if not len(first):
            return
        end = first + pages
        in_order = first[0] >= self.end_gfn and bool((first[1:] >= end[:-1]).all())
        if not in_order or (end <= first).any() or kind.min() < 0 or kind.max() > max(_KINDS):
            raise ValueError(
                f"runs that are empty, of no kind, or not one behind the other and {self.end_gfn}"
            )
        heads = np.flatnonzero((first[1:] != end[:-1]) | (kind[1:] != kind[:-1])) + 1
        heads = np.concatenate((np.zeros(1, np.int64), heads))
        first, kind, pages = first[heads], kind[heads], np.add.reduceat(pages, heads)
        if self.kinds and first[0] == self.end_gfn and kind[0] == self.kinds[-1]:
            self.lengths[-1] += int(pages[0])
            self._pages[kind[0]] += int(pages[0])
            first, kind, pages = first[1:], kind[1:], pages[1:]
        present = np.where(kind == RunKind.PRESENT, pages, 0)
        before = np.cumsum(present) - present + self._pages[RunKind.PRESENT]
        for each in _KINDS:
            self._pages[each] += int(pages[kind == each].sum())
        self.first_gfns.frombytes(first.tobytes())
        self.lengths.frombytes(pages.tobytes())
        self.kinds.frombytes(kind.tobytes())
        self._present_before.frombytes(before.tobytes())

    @property
    def end_gfn(self) -> int:
        """The guest frame number just behind the last run."""
        return self.first_gfns[-1] + self.lengths[-1] if self.kinds else 0

    @property
    def pages(self) -> int:
        """Pages of the guest, of all kinds."""
        return sum(self._pages)

    def pages_of(self, kind: RunKind) -> int:
        """Pages in the runs of one kind."""
        return self._pages[kind]

    def present_below(self, gfn: int) -> int:
        """Count the PRESENT pages below a guest frame number, which is the position of a PRESENT page.

        Examples
        --------
        >>> runs = Runs()
        >>> runs.append(4, 8, RunKind.PRESENT)
        >>> runs.append(20, 8, RunKind.PRESENT)
        >>> [runs.present_below(gfn) for gfn in (0, 6, 15, 20, 99)]
        [0, 2, 8, 8, 16]
        """
        at = bisect_right(self.first_gfns, gfn) - 1
        if at < 0:
            return 0
        before = self._present_before[at]
        if self.kinds[at] != RunKind.PRESENT:
            return before
        return before + min(gfn - self.first_gfns[at], self.lengths[at])

    def gfn_of(self, position: int) -> int:
        """Give the guest frame number of a PRESENT page by its position among them.

        Examples
        --------
        >>> runs = Runs()
        >>> runs.append(4, 8, RunKind.PRESENT)
        >>> runs.append(12, 8, RunKind.ZERO)
        >>> runs.append(20, 8, RunKind.PRESENT)
        >>> [runs.gfn_of(position) for position in (0, 7, 8)]
        [4, 11, 20]
        """
        at = bisect_right(self._present_before, position) - 1
        return self.first_gfns[at] + position - self._present_before[at]

    def within(self, low: int, high: int) -> Iterator[Run]:
        """List the runs, or the parts of them, from one guest frame number up to another.

        Examples
        --------
        >>> runs = Runs()
        >>> runs.append(4, 8, RunKind.PRESENT)
        >>> [tuple(run) for run in runs.within(6, 99)]
        [(6, 6, <RunKind.PRESENT: 0>)]
        """
        at = slice(max(bisect_right(self.first_gfns, low) - 1, 0), bisect_left(self.first_gfns, high))
        for first_gfn, pages, kind in zip(self.first_gfns[at], self.lengths[at], self.kinds[at], strict=True):
            start, end = max(first_gfn, low), min(first_gfn + pages, high)
            if start < end:
                yield Run(start, end - start, _KINDS[kind])

    def spans(self, pages: int) -> Iterator[tuple[int, int]]:
        """Cut guest-physical memory into spans that hold about so many PRESENT pages each.

        Parameters
        ----------
        pages : int
            PRESENT pages a span, at the most.

        Yields
        ------
        tuple of int
            First guest frame number of a span and the one behind it; both ends hold a PRESENT page.
        """
        start = held = end = 0
        for run in self:
            if run.kind != RunKind.PRESENT:
                continue
            at = run.first_gfn
            while at < run.end_gfn:
                if not held:
                    start = at
                take = min(pages - held, run.end_gfn - at)
                at += take
                held += take
                end = at
                if held == pages:
                    yield start, end
                    held = 0
        if held:
            yield start, end

    def __len__(self) -> int:
        return len(self.kinds)

    def __iter__(self) -> Iterator[Run]:
        for first_gfn, pages, kind in zip(self.first_gfns, self.lengths, self.kinds, strict=True):
            yield Run(first_gfn, pages, _KINDS[kind])

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Runs):
            return NotImplemented
        return (self.first_gfns, self.lengths, self.kinds) == (other.first_gfns, other.lengths, other.kinds)

    __hash__ = None  # type: ignore[assignment]  # it grows; mypy has no other spelling for "unhashable"

    def __repr__(self) -> str:
        return f"Runs({list(map(tuple, self))})"

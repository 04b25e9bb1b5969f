"""What is free of an address space."""

from __future__ import annotations

from bisect import bisect_left, bisect_right


class Gaps:
    """The free parts of an address space.

    Parameters
    ----------
    start, end : int
        First address of the space, and the one behind its last. All of it is free.

    Examples
    --------
    >>> gaps = Gaps(0, 100)
    >>> gaps.take(20, 30)
    >>> gaps.holds(10, 10), gaps.holds(10, 11), gaps.lowest(25), gaps.highest(15), gaps.widest
    (True, False, 50, 85, 50)
    """

    def __init__(self, start: int, end: int) -> None:
        self._starts = [start] if start < end else []
        self._ends = [end] if start < end else []

    def copy(self) -> Gaps:
        """Return the same, of which parts can be taken alone."""
        other = Gaps(0, 0)
        other._starts, other._ends = self._starts.copy(), self._ends.copy()
        return other

    def take(self, base: int, size: int) -> None:
        """Take a part, whatever was taken of it before."""
        end = base + size
        first, last = bisect_right(self._ends, base), bisect_left(self._starts, end)
        if size and first < last:
            left = [(self._starts[first], base), (end, self._ends[last - 1])]
            left = [gap for gap in left if gap[0] < gap[1]]
            self._starts[first:last] = [gap[0] for gap in left]
            self._ends[first:last] = [gap[1] for gap in left]

    def holds(self, base: int, size: int) -> bool:
        """Tell whether a part is free."""
        gap = bisect_right(self._starts, base) - 1
        return gap >= 0 and base + size <= self._ends[gap]

    def lowest(self, size: int, start: int = 0) -> int | None:
        """Return the lowest address, from a start on, behind which so many bytes are free."""
        for gap, end in zip(self._starts, self._ends, strict=True):
            base = max(gap, start)
            if base + size <= end:
                return base
        return None

    def highest(self, size: int) -> int | None:
        """Return the highest address behind which so many bytes are free."""
        for gap, end in zip(reversed(self._starts), reversed(self._ends), strict=True):
            if gap + size <= end:
                return end - size
        return None

    @property
    def widest(self) -> int:
        """Bytes of the largest part that is free."""
        return max((end - start for start, end in zip(self._starts, self._ends, strict=True)), default=0)

"""Choices by which tables of chunks are made, once, out of a fixed key."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

import numpy as np

from hvshare.synth.draws import Draws

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

T = TypeVar("T")

_AT_ONCE = 1 << 14


class Picks:
    """An endless row of choices that follow from a name.

    Examples
    --------
    >>> Picks("wood").below(10) == Picks("wood").below(10)
    True
    """

    def __init__(self, name: str) -> None:
        self._draws = Draws.of("contents", name)
        self._taken = 0
        self._ready: list[int] = []

    def word(self) -> int:
        """Draw a word of 64 bits."""
        if not self._ready:
            self._ready = self._draws.words(_AT_ONCE, self._taken).tolist()
            self._taken += _AT_ONCE
        return self._ready.pop()

    def below(self, limit: int) -> int:
        """Draw a number below a limit of at most 2**32."""
        return (self.word() >> 32) * limit >> 32

    def skewed(self, limit: int) -> int:
        """Draw a number below a limit of at most 65,536, small ones far more often."""
        # Tables take a quarter of a million of these, which a call less makes faster by a third.
        word = self._ready.pop() if self._ready else self.word()
        return ((word >> 48) * (word >> 32 & 0xFFFF) >> 16) * limit >> 16

    def one_of(self, choices: Sequence[T]) -> T:
        """Pick one of several, all as often."""
        return choices[self.below(len(choices))]

    def early_one_of(self, choices: Sequence[T]) -> T:
        """Pick one of several, the first ones far more often."""
        word = self._ready.pop() if self._ready else self.word()
        return choices[((word >> 48) * (word >> 32 & 0xFFFF) >> 16) * len(choices) >> 16]


def table_of(rows: Sequence[bytes]) -> NDArray[np.uint64]:
    """Make a table of little-endian words out of rows of equally many bytes.

    Raises
    ------
    ValueError
        If rows have different lengths, or lengths that are not multiples of 8.
    """
    return np.stack([np.frombuffer(row, np.dtype("<u8")) for row in rows]).astype(np.uint64)

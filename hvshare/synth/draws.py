"""Numbers that look random and follow from a key and a counter, on every machine alike.

SplitMix64's output function (Steele, Lea and Flood, "Fast Splittable Pseudorandom Number Generators", OOPSLA
2014) of a key and a counter: any number can be had without those before it, and only whole numbers of 64 bits
are reckoned with, so neither the machine nor the version of numpy matters.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

_WEYL: Final = np.uint64(0x9E3779B97F4A7C15)
_FIRST: Final = np.uint64(0xBF58476D1CE4E5B9)
_SECOND: Final = np.uint64(0x94D049BB133111EB)
_HALF: Final = np.uint64(32)


def mix(words: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """Scramble words of 64 bits, in place and one to one: SplitMix64's output function.

    Parameters
    ----------
    words : ndarray of uint64
        Overwritten.

    Returns
    -------
    ndarray of uint64
        The same array.

    Examples
    --------
    >>> [hex(int(word)) for word in mix(np.array([0x9E3779B97F4A7C15], np.uint64))]
    ['0xe220a8397b1dcdaf']
    """
    shifted = words >> np.uint64(30)
    words ^= shifted
    words *= _FIRST
    np.right_shift(words, np.uint64(27), out=shifted)
    words ^= shifted
    words *= _SECOND
    np.right_shift(words, np.uint64(31), out=shifted)
    words ^= shifted
    return words


def numbered(keys: NDArray[np.uint64], counters: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """Draw the word of each key that has a number: of shape ``keys`` against ``counters``, broadcast.

    Examples
    --------
    >>> keys, counters = np.arange(3, dtype=np.uint64), np.arange(4, dtype=np.uint64)
    >>> numbered(keys[:, None], counters).shape
    (3, 4)
    """
    return mix(mix(keys + _WEYL) + counters * _WEYL)


def below(words: NDArray[np.uint64], limit: NDArray[np.uint64] | int) -> NDArray[np.uint64]:
    """Turn drawn words into numbers from 0 up to a limit of at most 2**32, exclusive.

    Examples
    --------
    >>> [int(number) for number in below(np.array([0, 2**63, 2**64 - 1], np.uint64), 10)]
    [0, 5, 9]
    """
    return ((words >> _HALF) * np.asarray(limit, np.uint64)) >> _HALF


def fractions(words: NDArray[np.uint64]) -> NDArray[np.float64]:
    """Turn drawn words into numbers from 0 up to 1, exclusive, that a double holds exactly.

    Examples
    --------
    >>> [float(number) for number in fractions(np.array([0, 2**63], np.uint64))]
    [0.0, 0.5]
    """
    return (words >> np.uint64(11)).astype(np.float64) * 2.0**-53


@dataclass(frozen=True)
class Draws:
    """Numbers that follow from a key; those of another key have nothing to do with them.

    Attributes
    ----------
    key : int
        64 bits.

    Examples
    --------
    >>> template = Draws.of("template", 1)
    >>> template.child("disk") == template.child("disk"), template.child("disk") == template
    (True, False)
    >>> sorted(int(place) for place in template.permutation(4))
    [0, 1, 2, 3]
    """

    key: int

    @classmethod
    def of(cls, *names: str | int) -> Draws:
        """Make the draws of a key that follows from names and numbers."""
        text = "".join(f"{type(name).__name__}:{len(str(name))}:{name};" for name in names)
        return cls(int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "little"))

    def child(self, *names: str | int) -> Draws:
        """Make the draws of a key that follows from this one and from names."""
        return Draws.of(self.key, *names)

    def words(self, count: int, start: int = 0) -> NDArray[np.uint64]:
        """Draw so many words of 64 bits, from a number on."""
        counters = np.arange(start, start + count, dtype=np.uint64)
        return numbered(np.full(1, self.key, np.uint64), counters)

    def word(self, number: int = 0) -> int:
        """Draw a word of 64 bits."""
        return int(self.words(1, number)[0])

    def below(self, limit: int, number: int = 0) -> int:
        """Draw a number from 0 up to a limit of at most 2**32, exclusive."""
        return (self.word(number) >> 32) * limit >> 32

    def fractions(self, count: int, start: int = 0) -> NDArray[np.float64]:
        """Draw numbers from 0 up to 1, exclusive."""
        return fractions(self.words(count, start))

    def permutation(self, count: int) -> NDArray[np.int64]:
        """Draw an order of so many things."""
        return np.argsort(self.words(count), kind="stable").astype(np.int64)

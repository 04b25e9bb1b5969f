"""Records, objects and what else programs keep: small numbers, lengths, times and short strings."""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, Final

import numpy as np

from hvshare.synth.contents.batches import PageDraws
from hvshare.synth.contents.chunks import Stock, lay
from hvshare.synth.contents.text import WORDS
from hvshare.synth.draws import Draws, below

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from hvshare.synth.contents.batches import Batch

_CHUNKS: Final = 2048
_SOME_TIME: Final = 0x6540_0000

# What a word is, in 64ths: nothing, a count, two counts, a length with flags, a string, a time, a checksum.
_RECORDS: Final = (10, 14, 10, 8, 14, 5, 3)
_OBJECTS: Final = (43, 8, 4, 3, 4, 1, 1)
_NUMBERS: Final = (34, 16, 8, 4, 0, 1, 1)


def data(pages: NDArray[np.uint64], batch: Batch) -> None:
    """Fill pages with records and tables without addresses."""
    lay(pages, PageDraws.of(batch), stock_of_records())


@lru_cache(maxsize=1)
def stock_of_records() -> Stock:
    """Make the chunks of tables."""
    return Stock(_chunks("records", _RECORDS), 48, (0xFF_FFFF, 0xF_FFFF))


@lru_cache(maxsize=1)
def stock_of_objects() -> Stock:
    """Make the chunks of heaps."""
    return Stock(_chunks("objects", _OBJECTS), 48, (0xFFF, 0xFFF))


@lru_cache(maxsize=1)
def stock_of_numbers() -> Stock:
    """Make the chunks of stacks."""
    return Stock(_chunks("numbers", _NUMBERS), 48, (0xFFFF, 0xFFF))


def _chunks(name: str, shares: tuple[int, ...]) -> NDArray[np.uint64]:
    count = _CHUNKS * 8
    draws = Draws.of("contents", name)
    what, first, second = (draws.words(count, start) for start in (0, count, 2 * count))
    small = below(first, 48) * below(second, 6)
    strings = np.array([int.from_bytes(word[:8].encode(), "little") for word in WORDS], np.uint64)
    values = (
        np.zeros(count, np.uint64),
        small,
        small | below(second, 16) << np.uint64(32),
        below(second, 64) * np.uint64(8) | below(first, 12) << np.uint64(40),
        strings[below(first, len(WORDS)).view(np.int64)],
        below(first, 1 << 22) + np.uint64(_SOME_TIME),
        first,
    )
    kind = np.searchsorted(np.cumsum(shares), below(what, 64).view(np.int64), side="right")
    return np.choose(kind, values).astype(np.uint64).reshape(-1, 8)

"""The few words in which a page differs from others of its kind and key: counters, times, process numbers."""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, Final

import numpy as np

from hvshare.synth.contents.batches import CHUNK_WORDS, PAGE_CHUNKS, PAGE_WORDS, PRIVATE_DRAWS
from hvshare.synth.contents.kinds import Kind
from hvshare.synth.draws import below, numbered

if TYPE_CHECKING:
    from numpy.typing import NDArray

_MOST: Final = 8
_PLACES: Final = np.arange(PRIVATE_DRAWS, PRIVATE_DRAWS + _MOST, dtype=np.uint64)
_COUNT: Final = np.array([PRIVATE_DRAWS + _MOST], np.uint64)
_STACKS: Final = (Kind.STACK_I386, Kind.STACK_X86_64)
_STACK_CHUNKS: Final = 12
"""At the end of a stack's page, where it is in use on all."""
_CODE: Final = (
    Kind.CODE_I386,
    Kind.CODE_X86_64,
    Kind.MOVED_CODE_I386,
    Kind.KERNEL_CODE_X86_64,
)


def write_private(
    pages: NDArray[np.uint64], kind: Kind, keys: NDArray[np.uint64], private: NDArray[np.uint64]
) -> None:
    """Write private words over what pages hold.

    Parameters
    ----------
    pages : ndarray of uint64, shape (n, 512), contiguous
        Changed in 1 to 8 words each.
    kind : Kind
        Of all of them.
    keys : ndarray of uint64, shape (n,)
        Which words.
    private : ndarray of uint64, shape (n,)
        What is written; 0 for pages that have none.
    """
    rows = np.flatnonzero(private)
    if kind == Kind.ZERO or not len(rows):
        return
    draws = numbered(keys[rows][:, None], _PLACES)
    count = below(numbered(keys[rows], _COUNT), _MOST) + np.uint64(1)
    words = _words(kind, numbered(private[rows][:, None], _PLACES))
    first, chunks = (PAGE_CHUNKS - _STACK_CHUNKS, _STACK_CHUNKS) if kind in _STACKS else (0, PAGE_CHUNKS)
    places = below(draws, chunks * CHUNK_WORDS).view(np.int64) + first * CHUNK_WORDS
    if kind in _CODE:
        # Addresses in code end before the last word of a chunk, so that none is cut.
        places |= CHUNK_WORDS - 1
    places += rows[:, None] * PAGE_WORDS
    # From the last to the first: where two fall on one place, the first word of a page is what stands there.
    for number in reversed(range(_MOST)):
        chosen = count > np.uint64(number)
        pages.reshape(-1)[places[chosen, number]] = words[chosen, number]


def _words(kind: Kind, draws: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """Turn draws into what stands in pages of a kind."""
    if kind == Kind.MEDIA:
        return draws
    if kind == Kind.TEXT:
        low, high = (below(bits, 10_000).view(np.int64) for bits in (draws, draws << np.uint64(32)))
        return _digits()[low] | _digits()[high] << np.uint64(32)
    if kind == Kind.PAGE_TABLE_PAE:
        return (draws >> np.uint64(45)) << np.uint64(12) | np.uint64(0x8000_0000_0000_0067)
    # The first is like a time, the others like counters and numbers of processes.
    words = draws >> np.uint64(50)
    words[:, 0] = (draws[:, 0] >> np.uint64(36)) + np.uint64(0x6000_0000)
    return words


@lru_cache(maxsize=1)
def _digits() -> NDArray[np.uint64]:
    """Make the numbers of four digits, in ASCII."""
    digits = "".join(f"{number:04}" for number in range(10_000)).encode("ascii")
    return np.frombuffer(digits, np.dtype("<u4")).astype(np.uint64)

"""Files that look like guest memory, of any size and quickly made."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path
from typing import BinaryIO, Final

import numpy as np
from numpy.typing import NDArray

from hvshare.units import PAGE_SIZE

BATCH_BYTES: Final = 4 << 20
"""Files hold a whole number of batches."""

_SEED: Final = 1
_BATCH_PAGES: Final = BATCH_BYTES // PAGE_SIZE
_PAGE_WORDS: Final = PAGE_SIZE // 8
_MEAN_ZERO_RUN: Final = _BATCH_PAGES * 40 // 100
_POOLED_PAGES: Final = _BATCH_PAGES * 15 // 100
_POOL_CONTENTS: Final = 4096
_VOCABULARY: Final = 4096
_LARGEST_WINDOW: Final = 512
_LETTERS: Final = b"etaoinshrdlucmfwypvbgkjq        "
_POINTER: Final = np.uint64(0xFFFF_8880_0000_0000)


PageMaker = Callable[[np.random.Generator, int], NDArray[np.uint64]]
"""Makes as many pages as it is asked for."""


def random_pages(random: np.random.Generator, count: int) -> NDArray[np.uint64]:
    """Make pages quickly, of random bytes that do not compress."""
    return random.integers(0, 2**64, (count, _PAGE_WORDS), dtype=np.uint64)


def compressible_pages(random: np.random.Generator, count: int) -> NDArray[np.uint64]:
    """Make pages that compress like those of a guest, at a fifth of the speed of random ones.

    Each takes its words of 8 bytes out of a window of 2 to 512 neighbours in a vocabulary, the first ones
    more often than the last; this vocabulary is three parts letters, a half part pointers into the memory of
    a kernel, and a half part small numbers. Up to 85 % of the words, few in most pages, are replaced by
    pointers that occur nowhere else. Half of the pages have zeros at their end.

    They are alike to the pages other than zero of a Debian guest of 512 MiB after its start: zlib at level 1
    makes them 2.95 times smaller, and those of the guest 3.2 times; at 1, 25, 50, 75 and 90 % they take 160,
    790, 1,360, 1,980 and 2,390 bytes then, and those of the guest 40, 690, 950, 1,960 and 2,580; to unpack
    one takes 0.87 of the time. LZO makes 2.7 (2.8), Snappy 2.3 (2.3) and zstd 3.1 (3.3).
    """
    vocabulary = _vocabulary(random)
    window = np.exp(random.uniform(np.log(2), np.log(_LARGEST_WINDOW), (count, 1)))
    first = random.integers(0, len(vocabulary) - _LARGEST_WINDOW, (count, 1))
    pages = vocabulary[first + (window * _fractions(random, count) ** 2).astype(np.int64)]
    rare = _fractions(random, count) < 0.85 * random.random((count, 1)) ** 1.5
    pages[rare] = _POINTER + random.integers(0, 2**32, np.count_nonzero(rare), dtype=np.uint64)
    length = random.integers(16, 2 * _PAGE_WORDS, (count, 1))
    pages[np.arange(_PAGE_WORDS) >= length] = 0
    return pages


def _vocabulary(random: np.random.Generator) -> NDArray[np.uint64]:
    positions = random.random((_VOCABULARY * 3 // 4, 8)) ** 1.5 * len(_LETTERS)
    text = np.frombuffer(_LETTERS, np.uint8)[positions.astype(np.int64)].view(np.uint64).ravel()
    rest = _VOCABULARY // 8
    pointers = _POINTER + 64 * random.integers(0, 2**24, rest, dtype=np.uint64)
    return np.concatenate((text, pointers, random.integers(0, 2**12, rest, dtype=np.uint64)))


def _fractions(random: np.random.Generator, count: int) -> NDArray[np.float32]:
    return random.random((count, _PAGE_WORDS), dtype=np.float32)


def guest_batches(make_pages: PageMaker = random_pages) -> Iterator[NDArray[np.uint64]]:
    """Make guest memory without end, the same one each time.

    Parameters
    ----------
    make_pages : callable
        Makes the contents other than zero.

    Yields
    ------
    ndarray of uint64, shape (1024, 512)
        Pages. A run of 205 to 613 of them is zero, as guests have their free memory in long runs; 15 % are
        copies out of 4,096 contents, spread over the rest; all others are unique.
    """
    random = np.random.Generator(np.random.SFC64(_SEED))
    pool = make_pages(random, _POOL_CONTENTS)
    while True:
        pages = make_pages(random, _BATCH_PAGES)
        zeros = int(random.integers(_MEAN_ZERO_RUN // 2 + 1, _MEAN_ZERO_RUN * 3 // 2))
        first_zero = int(random.integers(0, _BATCH_PAGES - zeros + 1))
        free = slice(first_zero, first_zero + zeros)
        pooled = random.choice(np.delete(np.arange(_BATCH_PAGES), free), _POOLED_PAGES, replace=False)
        pages[free] = 0
        pages[pooled] = pool[random.integers(0, _POOL_CONTENTS, _POOLED_PAGES)]
        yield pages


class GrowingGuestFile:
    """A dense file that grows from one size to the next, so that each byte is written once.

    Parameters
    ----------
    path : Path
        Where to make it.
    make_pages : callable
        Makes the contents other than zero.
    """

    def __init__(self, path: Path, make_pages: PageMaker = random_pages) -> None:
        self.path = path
        self.size = 0
        self._batches = guest_batches(make_pages)

    @property
    def pages(self) -> int:
        """Whole pages of it."""
        return self.size // PAGE_SIZE

    def grow_to(self, size: int) -> None:
        """Append batches until the file has a size."""
        with self.path.open("ab") as file:
            for batch in islice(self._batches, (size - self.size) // BATCH_BYTES):
                file.write(batch.data)
            settle(file)
        self.size = size


def write_sparse_guest(path: Path, size: int, data_bytes: int) -> None:
    """Write a sparse file with the data of a dense one spread evenly in it.

    Parameters
    ----------
    path : Path
        Where to make it.
    size, data_bytes : int
        Bytes of the file, and how many of them are not holes.
    """
    batches = data_bytes // BATCH_BYTES
    with path.open("wb") as file:
        for number, batch in enumerate(islice(guest_batches(), batches)):
            file.seek(number * (size // batches))
            file.write(batch.data)
        file.truncate(size)
        settle(file)


def settle(file: BinaryIO) -> None:
    """Write to disk now what the kernel would else write while commands are timed."""
    file.flush()
    os.fsync(file.fileno())

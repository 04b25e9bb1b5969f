"""Files that look like guest memory, of any size and quickly made."""

from __future__ import annotations

import os
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Final

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


def guest_batches() -> Iterator[NDArray[np.uint64]]:
    """Make guest memory without end, the same one each time.

    Yields
    ------
    ndarray of uint64, shape (1024, 512)
        Pages. A run of 205 to 613 of them is zero, as guests have their free memory in long runs; 15 % are
        copies out of 4,096 contents, spread over the rest; all others are unique.
    """
    random = np.random.Generator(np.random.SFC64(_SEED))
    pool = _random_pages(random, _POOL_CONTENTS)
    while True:
        pages = _random_pages(random, _BATCH_PAGES)
        zeros = int(random.integers(_MEAN_ZERO_RUN // 2 + 1, _MEAN_ZERO_RUN * 3 // 2))
        first_zero = int(random.integers(0, _BATCH_PAGES - zeros + 1))
        free = slice(first_zero, first_zero + zeros)
        pooled = random.choice(np.delete(np.arange(_BATCH_PAGES), free), _POOLED_PAGES, replace=False)
        pages[free] = 0
        pages[pooled] = pool[random.integers(0, _POOL_CONTENTS, _POOLED_PAGES)]
        yield pages


def _random_pages(random: np.random.Generator, count: int) -> NDArray[np.uint64]:
    return random.integers(0, 2**64, (count, _PAGE_WORDS), dtype=np.uint64)


class GrowingGuestFile:
    """A dense file that grows from one size to the next, so that each byte is written once.

    Parameters
    ----------
    path : Path
        Where to make it.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.size = 0
        self._batches = guest_batches()

    def grow_to(self, size: int) -> None:
        """Append batches until the file has a size."""
        with self.path.open("ab") as file:
            for batch in islice(self._batches, (size - self.size) // BATCH_BYTES):
                file.write(batch.data)
            _settle(file.fileno())
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
        _settle(file.fileno())


def _settle(descriptor: int) -> None:
    """Write to disk now what the kernel would else write while commands are timed."""
    os.fsync(descriptor)

"""Pairs of guests that address randomization drove apart, and a disk that their files are from."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice, pairwise
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from hvshare.units import PAGE_SIZE
from tests.benchmarks.guest_files import BATCH_BYTES, compressible_pages, settle

PAIR: Final = ("guest-a.raw", "guest-b.raw")
DISK: Final = "disk.raw"

_SEED: Final = 5
_WORDS: Final = PAGE_SIZE // 8
_BATCH: Final = BATCH_BYTES // PAGE_SIZE
_REGION_BYTES: Final = 64 << 20
_ZERO_PAGES: Final = _BATCH * 58 // 100
_FILE_PAGES: Final = _BATCH * 12 // 100
_POINTER_PAGES: Final = _BATCH * 12 // 100
_CODE_PAGES: Final = _BATCH * 5 // 100
_EVERY: Final = 4
_LEAST_ADDRESS: Final = np.uint64(1 << 21)
_KERNEL: Final = np.uint64(0x1FFFF)  # bits 47 to 63 of an address of the kernel

# Where regions of a guest lie without randomization: kernel text, direct map, libraries, heap.
_BASES: Final = np.array(
    [0xFFFF_FFFF_8100_0000, 0xFFFF_8880_0000_0000, 0x7FFF_F700_0000, 0x5555_5555_0000], np.uint64
)


def write_pair(folder: Path, size: int, disk_size: int) -> tuple[Path, Path, Path]:
    """Write two guests and their disk, the same ones each time.

    Parameters
    ----------
    folder : Path
        Where to make them.
    size, disk_size : int
        Bytes of a guest and of the disk, a multiple of a batch.

    Returns
    -------
    tuple of Path
        The two guests, and the disk.

    Notes
    -----
    Of each batch of pages 58 % are zero and 12 % blocks of the disk in both guests; 12 % hold pointers into
    one of four regions, which lie elsewhere in each guest, and 5 % fields of 32 bits into the first one. All
    others are of a guest alone.
    """
    paths = tuple(folder / name for name in (*PAIR, DISK))
    random = np.random.Generator(np.random.SFC64(_SEED))
    slides = [np.zeros(4, np.uint64), random.integers(1, 1 << 8, 4, dtype=np.uint64) << np.uint64(21)]
    with paths[0].open("wb") as a, paths[1].open("wb") as b, paths[2].open("wb") as disk:
        for blocks, *batches in islice(_batches(random, slides), size // BATCH_BYTES):
            disk.write(blocks.data)
            for file, pages in zip((a, b), batches, strict=True):
                file.write(pages.data)
        while disk.tell() < disk_size:
            disk.write(compressible_pages(random, _BATCH).data)
        disk.truncate(disk_size)
        for file in (a, b, disk):
            settle(file)
    return paths[0], paths[1], paths[2]


def write_repeated(source: Path, target: Path, times: int) -> Path:
    """Write a guest several times over into one file, with changes from one time to the next.

    Parameters
    ----------
    source, target : Path
        What is repeated, and where to.
    times : int
        How often. From the second time on, every fourth word that is neither zero nor an address is another
        number. That depends on the word and the time alone, so pages that are alike stay alike, and pages
        that differ by what their addresses are still do so.
    """
    with target.open("wb") as file:
        for time in range(times):
            step = np.random.Generator(np.random.SFC64((_SEED, time))).integers(1, 2**64, dtype=np.uint64)
            with source.open("rb") as original:
                while data := original.read(BATCH_BYTES):
                    words = np.frombuffer(bytearray(data), np.uint64)
                    if time:
                        changed = words[time % _EVERY :: _EVERY]
                        high = changed >> np.uint64(47)
                        address = ((high == 0) & (changed >= _LEAST_ADDRESS)) | (high == _KERNEL)
                        changed[(changed != 0) & ~address] += step
                    file.write(words.data)
        settle(file)
    return target


def _batches(
    random: np.random.Generator, slides: list[NDArray[np.uint64]]
) -> Iterator[tuple[NDArray[np.uint64], NDArray[np.uint64], NDArray[np.uint64]]]:
    """Give the blocks of the disk in a batch, and the pages of both guests."""
    ends = np.cumsum((_ZERO_PAGES, _FILE_PAGES, _POINTER_PAGES, _CODE_PAGES)).tolist()
    files, pointers, code = (slice(start, end) for start, end in pairwise(ends))
    own = ends[-1]
    while True:
        pages = compressible_pages(random, _BATCH)
        pages[:_ZERO_PAGES] = 0
        offsets = random.integers(0, _REGION_BYTES // 8, (_POINTER_PAGES, _WORDS), dtype=np.uint64)
        regions = random.integers(0, len(_BASES), (_POINTER_PAGES, _WORDS))
        held = random.random((_POINTER_PAGES, _WORDS)) < random.random((_POINTER_PAGES, 1)) ** 2
        fields = random.random((_CODE_PAGES, _WORDS)) < 0.1
        guests: list[NDArray[np.uint64]] = []
        for slide in slides:
            mine = pages.copy()
            mine[pointers][held] = (_BASES + slide)[regions[held]] + offsets[held] * np.uint64(8)
            mine[code][fields] += slide[0]
            if guests:
                mine[own:] = compressible_pages(random, _BATCH - own)
            guests.append(mine)
        yield pages[files], guests[0], guests[1]

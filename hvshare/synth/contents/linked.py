"""Objects that point to each other: heaps, stacks, and what kernels allocate."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

import numpy as np

from hvshare.synth.address_spaces import DIRECT_MAP, KERNEL, PROGRAM, STACK
from hvshare.synth.contents.addresses import PAGE_BYTES, Windows, how_many, libraries
from hvshare.synth.contents.batches import CHUNK_WORDS, PAGE_CHUNKS, PAGE_WORDS, Column, PageDraws
from hvshare.synth.contents.chunks import lay
from hvshare.synth.contents.records import stock_of_numbers, stock_of_objects
from hvshare.synth.draws import below

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from hvshare.synth.contents.batches import Batch

BLANK_CHUNKS: Final = 40
"""Of a stack, which grows downward from the other end of the page; some have more."""

_EXTRA_BLANK: Final = 6


class _Slots(NamedTuple):
    """Addresses of a page: in half a chunk one at the most, in so many halves from one on, of 128 a share."""

    width: np.dtype[np.unsignedinteger]
    alignment: int
    first_half: int
    least: int
    most: int


_OF_HEAPS: Final = (18, 6, 2, 1, 1, 1, 1, 1, 1)
"""Of 32 addresses: close by, elsewhere in the heap, in the program, the stack, and five libraries."""
_OF_STACKS: Final = (8, 4, 8, 3, 3, 3, 3)
"""Of 32: close by, elsewhere on the stack, in the program, and in libraries, to which functions return."""
_OF_KERNELS: Final = (14, 6, 4, 8)
"""Of 32: in the page itself, others close by, elsewhere in memory, and in the kernel."""

_ODD: Final = np.uint64(0x9E6C63D0876A9A47)
_WIDE: Final = np.dtype("<u8")
_NARROW: Final = np.dtype("<u4")


def heap_i386(pages: NDArray[np.uint64], batch: Batch) -> None:
    """Fill pages with objects of a heap, with 30 to 120 addresses of 32 bits."""
    _heap(pages, batch, _NARROW)


def heap_x86_64(pages: NDArray[np.uint64], batch: Batch) -> None:
    """Fill pages with objects of a heap, with 30 to 120 addresses of 64 bits."""
    _heap(pages, batch, _WIDE)


def stack_i386(pages: NDArray[np.uint64], batch: Batch) -> None:
    """Fill pages with the frames of functions, below which they are zero; addresses have 32 bits."""
    _stack(pages, batch, _NARROW)


def stack_x86_64(pages: NDArray[np.uint64], batch: Batch) -> None:
    """Fill pages with the frames of functions, below which they are zero; addresses have 64 bits."""
    _stack(pages, batch, _WIDE)


def kernel_data_i386(pages: NDArray[np.uint64], batch: Batch) -> None:
    """Fill pages with what a kernel of 32 bits allocates, linked by where it lies."""
    _kernel_data(pages, batch, _NARROW)


def kernel_data_x86_64(pages: NDArray[np.uint64], batch: Batch) -> None:
    """Fill pages with what a kernel of 64 bits allocates, linked by where it lies."""
    _kernel_data(pages, batch, _WIDE)


def _heap(pages: NDArray[np.uint64], batch: Batch, width: np.dtype[np.unsignedinteger]) -> None:
    draws = PageDraws.of(batch)
    lay(pages, draws, stock_of_objects())
    others = libraries(batch, draws, 5)
    windows = Windows.of(batch, [batch.region, batch.region, PROGRAM, STACK, *others])
    windows.narrow_to_near(0, draws)
    _link(pages, draws, windows.spread(_OF_HEAPS), _Slots(width, 16, 0, 36, 114))


def _stack(pages: NDArray[np.uint64], batch: Batch, width: np.dtype[np.unsignedinteger]) -> None:
    draws = PageDraws.of(batch, PAGE_CHUNKS - BLANK_CHUNKS)
    frames = np.empty((len(pages), PAGE_WORDS - BLANK_CHUNKS * CHUNK_WORDS), np.uint64)
    lay(frames, draws, stock_of_numbers())
    pages[:, : BLANK_CHUNKS * CHUNK_WORDS] = 0
    pages[:, BLANK_CHUNKS * CHUNK_WORDS :] = frames
    windows = Windows.of(batch, [batch.region, batch.region, PROGRAM, *libraries(batch, draws, 4)])
    windows.narrow_to_near(0, draws)
    _link(pages, draws, windows.spread(_OF_STACKS), _Slots(width, 8, 2 * BLANK_CHUNKS, 64, 112))
    blank = (below(draws.page[:, Column.BLANK], _EXTRA_BLANK + 1) * np.uint64(CHUNK_WORDS))[:, None]
    begin, end = BLANK_CHUNKS * CHUNK_WORDS, (BLANK_CHUNKS + _EXTRA_BLANK) * CHUNK_WORDS
    pages[:, begin:end] *= np.arange(end - begin, dtype=np.uint64) >= blank


def _kernel_data(pages: NDArray[np.uint64], batch: Batch, width: np.dtype[np.unsignedinteger]) -> None:
    draws = PageDraws.of(batch)
    lay(pages, draws, stock_of_objects())
    windows = Windows.of(batch, [DIRECT_MAP, DIRECT_MAP, DIRECT_MAP, KERNEL])
    # Not all memory is mapped where addresses have 32 bits; what a kernel allocates is spread over what is.
    here = batch.gfns.astype(np.uint64) * PAGE_BYTES % np.maximum(windows.sizes[:, 0], PAGE_BYTES)
    windows.narrow(0, here, PAGE_BYTES)
    windows.narrow(1, here)
    windows.narrow_to_near(2, draws)
    _link(pages, draws, windows.spread(_OF_KERNELS), _Slots(width, 16, 0, 36, 114))


def _link(pages: NDArray[np.uint64], draws: PageDraws, windows: Windows, slots: _Slots) -> None:
    """Write addresses."""
    halves = draws.for_halves()
    share = how_many(draws, slots.least, slots.most).astype(np.uint32)
    where = np.flatnonzero((halves & np.uint32(0x7F00)) < (share << np.uint32(8))[:, None])
    words = np.take(halves, where, mode="clip").astype(np.uint64)
    words *= _ODD
    rows = where // halves.shape[1]
    addresses, there = windows.targets(rows, words, slots.alignment)
    in_half = 32 // slots.width.itemsize
    # Halves are numbered over all pages, of which the first ones are left out in each.
    places = where + slots.first_half * (rows + 1) if slots.first_half else where
    places *= in_half
    places += (words >> np.uint64(5) & np.uint64(in_half - 1)).view(np.int64)
    if there is not None:
        places, addresses = places[there], addresses[there]
    pages.view(slots.width).reshape(-1)[places] = addresses.astype(slots.width, copy=False)

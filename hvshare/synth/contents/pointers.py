"""Tables of addresses of the image that they are in: virtual tables, dispatch tables, lists of strings."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

import numpy as np

from hvshare.synth.contents.addresses import Windows, how_many
from hvshare.synth.contents.batches import PageDraws
from hvshare.synth.contents.chunks import lay
from hvshare.synth.contents.records import stock_of_records
from hvshare.synth.draws import Draws, below

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from hvshare.synth.contents.batches import Batch

_AT_ONCE: Final = 2048
"""Chunks whose addresses stay in a core's caches."""
_OFFSETS: Final = 512
_STEPS: Final = 8
_STEP_BYTES: Final = 16
_RUNS: Final = (*[(0, 8)] * 9, (0, 5), (0, 3), (2, 8), (4, 8), (1, 7), (3, 6), (1, 8))
"""Which eighths of a chunk are addresses."""


class _Form(NamedTuple):
    """How tables are written.

    Attributes
    ----------
    runs : ndarray of bool, shape (16, slots)
        Which slots of a chunk are addresses.
    offsets : ndarray of uint32 or uint64, shape (512, slots)
        How far behind the first target the others are, as functions of some sizes follow each other.
    least, most : int
        Chunks of a page that have addresses.
    """

    runs: NDArray[np.bool_]
    offsets: NDArray[np.unsignedinteger]
    least: int
    most: int

    @classmethod
    def of(cls, width: str, least: int, most: int) -> _Form:
        slots = 64 // np.dtype(width).itemsize
        places = np.arange(slots)
        runs = [(first * slots <= places * 8) & (places * 8 < last * slots) for first, last in _RUNS]
        sizes = below(Draws.of("contents", "targets", slots).words(_OFFSETS * slots), _STEPS) + np.uint64(1)
        offsets = np.cumsum(sizes.reshape(_OFFSETS, slots), axis=1) * np.uint64(_STEP_BYTES)
        return cls(np.stack(runs), offsets.astype(width), least, most)


_NARROW: Final = _Form.of("<u4", 9, 30)
_WIDE: Final = _Form.of("<u8", 12, 63)


def pointers_i386(pages: NDArray[np.uint64], batch: Batch) -> None:
    """Fill pages with tables of 32-bit addresses of their own image."""
    _tables(pages, batch, _NARROW)


def pointers_x86_64(pages: NDArray[np.uint64], batch: Batch) -> None:
    """Fill pages with tables of 64-bit addresses of their own image."""
    _tables(pages, batch, _WIDE)


def _tables(pages: NDArray[np.uint64], batch: Batch, form: _Form) -> None:
    """Write runs of addresses, one in a chunk at the most."""
    draws = PageDraws.of(batch)
    lay(pages, draws, stock_of_records())
    windows = Windows.of(batch, [batch.region])
    words = draws.again()
    count = how_many(draws, form.least, form.most)
    there = (words & np.uint64(0x3F00)) < (count << np.uint64(8))[:, None]
    there &= windows.sizes > 0
    where = np.flatnonzero(there)
    for start in range(0, len(where), _AT_ONCE):
        _write(pages, words, windows, form, where[start : start + _AT_ONCE])


def _write(
    pages: NDArray[np.uint64],
    words: NDArray[np.uint64],
    windows: Windows,
    form: _Form,
    where: NDArray[np.int64],
) -> None:
    """Write runs of addresses into some chunks."""
    draws = np.take(words, where, mode="clip")
    rows = where >> 6
    slots = form.offsets.shape[1]
    # A region is at least a page, so a run of addresses fits behind its start.
    room = np.take(windows.sizes, rows, mode="clip") - np.uint64(slots * _STEPS * _STEP_BYTES)
    first = below(draws, room) & ~np.uint64(_STEP_BYTES - 1)
    first += np.take(windows.starts, rows, mode="clip")
    others = (draws >> np.uint64(14) & np.uint64(_OFFSETS - 1)).view(np.int64)
    addresses = np.take(form.offsets, others, axis=0, mode="clip")
    addresses += first.astype(form.offsets.dtype)[:, None]
    runs = (draws & np.uint64(len(form.runs) - 1)).view(np.int64)
    chunks = pages.view(form.offsets.dtype).reshape(-1, slots)
    before = np.take(chunks, where, axis=0, mode="clip")
    chunks[where] = np.where(np.take(form.runs, runs, axis=0, mode="clip"), addresses, before)

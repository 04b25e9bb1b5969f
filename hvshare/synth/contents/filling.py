"""Pages out of what is planned for them: by kinds, in pieces that stay in a core's caches."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Protocol

import numpy as np

from hvshare.synth.contents.batches import PAGE_WORDS, Batch
from hvshare.synth.contents.code import code_i386, code_x86_64
from hvshare.synth.contents.embedded import kernel_code_x86_64, moved_code_i386
from hvshare.synth.contents.kinds import Kind
from hvshare.synth.contents.linked import (
    heap_i386,
    heap_x86_64,
    kernel_data_i386,
    kernel_data_x86_64,
    stack_i386,
    stack_x86_64,
)
from hvshare.synth.contents.media import media
from hvshare.synth.contents.page_tables import page_table
from hvshare.synth.contents.pointers import pointers_i386, pointers_x86_64
from hvshare.synth.contents.private import write_private
from hvshare.synth.contents.records import data
from hvshare.synth.contents.text import text

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from hvshare.synth.address_spaces import AddressSpaces
    from hvshare.synth.contents.kinds import Pages

_AT_ONCE: Final = 256
"""Measured: of 64 pages at once, numpy's calls take longer than what they do; 512 gain little over 256."""

_MAKERS: Final[dict[Kind, Callable[[NDArray[np.uint64], Batch], None]]] = {
    Kind.CODE_I386: code_i386,
    Kind.MOVED_CODE_I386: moved_code_i386,
    Kind.CODE_X86_64: code_x86_64,
    Kind.POINTERS_I386: pointers_i386,
    Kind.POINTERS_X86_64: pointers_x86_64,
    Kind.KERNEL_CODE_X86_64: kernel_code_x86_64,
    Kind.TEXT: text,
    Kind.MEDIA: media,
    Kind.DATA: data,
    Kind.HEAP_I386: heap_i386,
    Kind.HEAP_X86_64: heap_x86_64,
    Kind.STACK_I386: stack_i386,
    Kind.STACK_X86_64: stack_x86_64,
    Kind.KERNEL_DATA_I386: kernel_data_i386,
    Kind.KERNEL_DATA_X86_64: kernel_data_x86_64,
    Kind.PAGE_TABLE_PAE: page_table,
}


class MappedPages(Protocol):
    """Pages of real programs and libraries."""

    def fill(self, out: NDArray[np.uint64], numbers: NDArray[np.int64], bases: NDArray[np.uint64]) -> None:
        """Write pages by their numbers, relocated to where the images that they are of lie."""


def fill(
    out: NDArray[np.uint64],
    pages: Pages,
    spaces: AddressSpaces,
    gfns: NDArray[np.int64],
    mapped: MappedPages | None = None,
) -> None:
    """Make pages: each follows from its own row of `pages` alone, whatever is made with it.

    Parameters
    ----------
    out : ndarray of uint64, shape (n, 512)
        Overwritten, with the 4,096 bytes of a page in each row as little-endian words.
    pages : Pages
        What they hold.
    spaces : AddressSpaces
        Where what they point to lies.
    gfns : ndarray of int64, shape (n,)
        Where they lie in guest-physical memory.
    mapped : MappedPages, optional
        Pages of real programs.

    Raises
    ------
    ValueError
        If there are pages of real programs, and no programs.
    """
    order = np.argsort(pages.kinds, kind="stable")
    counts = np.bincount(pages.kinds, minlength=len(Kind)).tolist()
    room = np.empty((min(_AT_ONCE, len(pages)), PAGE_WORDS), np.uint64)
    end = 0
    for kind, count in zip(Kind, counts, strict=True):
        begin, end = end, end + count
        for start in range(begin, end, _AT_ONCE):
            rows = order[start : min(start + _AT_ONCE, end)]
            first, last = int(rows[0]), int(rows[-1])
            together = last - first == len(rows) - 1
            where = slice(first, last + 1) if together else rows
            if kind == Kind.ZERO:
                out[where] = 0
            elif together and out.flags.c_contiguous:
                _make(out[where], kind, pages[where], spaces, gfns[where], mapped)
            else:
                _make(room[: len(rows)], kind, pages[where], spaces, gfns[where], mapped)
                out[where] = room[: len(rows)]


def _make(
    made: NDArray[np.uint64],
    kind: Kind,
    pages: Pages,
    spaces: AddressSpaces,
    gfns: NDArray[np.int64],
    mapped: MappedPages | None,
) -> None:
    if kind == Kind.MAPPED:
        if mapped is None:
            raise ValueError("pages of real programs are planned, and no programs are given")
        mapped.fill(made, pages.keys.astype(np.int64), spaces.bases[pages.spaces, pages.regions])
    else:
        _MAKERS[kind](
            made,
            Batch(pages.keys, spaces, pages.spaces.astype(np.int64), pages.regions.astype(np.int64), gfns),
        )
    write_private(made, kind, pages.keys, pages.private)

"""What kinds of contents there are, and what tells one page of a kind from another."""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


class Kind(IntEnum):
    """What a page looks like."""

    ZERO = 0
    CODE_I386 = 1
    """Machine code without addresses."""
    MOVED_CODE_I386 = 2
    """Machine code with 32-bit addresses of its own image, on no boundary."""
    CODE_X86_64 = 3
    """Machine code, which addresses by distance."""
    POINTERS_I386 = 4
    """Tables of 32-bit addresses of the same image."""
    POINTERS_X86_64 = 5
    """Tables of 64-bit addresses of the same image, as in .rdata and .data.rel.ro."""
    KERNEL_CODE_X86_64 = 6
    """Machine code of a kernel or module with 32-bit fields of addresses in the highest 2 GB."""
    TEXT = 7
    """Documents, settings, logs."""
    MEDIA = 8
    """What is compressed already."""
    DATA = 9
    """Records and tables without addresses."""
    HEAP_I386 = 10
    HEAP_X86_64 = 11
    """Linked objects: addresses of the heap, of libraries and of the program, among numbers and strings."""
    STACK_I386 = 12
    STACK_X86_64 = 13
    """Mostly zero; return addresses, saved frames and numbers."""
    KERNEL_DATA_I386 = 14
    KERNEL_DATA_X86_64 = 15
    """Pools and slabs: addresses of kernel memory, which follow from where things lie in memory."""
    PAGE_TABLE_PAE = 16
    """64-bit entries of page tables: gfns and flags."""
    MAPPED = 17
    """A page of a real program or library; its key is its number among the mapped pages."""


@dataclass(frozen=True)
class Pages:
    """What pages hold, before they are made.

    Attributes
    ----------
    kinds : ndarray of uint8, shape (pages,)
        Out of `Kind`.
    keys : ndarray of uint64, shape (pages,)
        Pages of one kind and key are alike but for addresses and private words.
    private : ndarray of uint64, shape (pages,)
        0, or a key from which a few words follow in which a page differs from others of its kind and key:
        counters, times, numbers of processes.
    spaces : ndarray of int32, shape (pages,)
        The address space whose addresses a page holds.
    regions : ndarray of int32, shape (pages,)
        The region that a page lies in.
    """

    kinds: NDArray[np.uint8]
    keys: NDArray[np.uint64]
    private: NDArray[np.uint64]
    spaces: NDArray[np.int32]
    regions: NDArray[np.int32]

    def __len__(self) -> int:
        return len(self.kinds)

    def __getitem__(self, rows: slice | NDArray[np.int64] | NDArray[np.bool_]) -> Pages:
        return Pages(
            self.kinds[rows], self.keys[rows], self.private[rows], self.spaces[rows], self.regions[rows]
        )

"""Where programs and their libraries lie in the address spaces of a guest."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

PROGRAM: Final = 0
HEAP: Final = 1
STACK: Final = 2
KERNEL: Final = 3
MODULES: Final = 4
DIRECT_MAP: Final = 5
"""All memory by its guest-physical address, as Linux maps it; what Windows' pools lie in."""
LIBRARIES: Final = 6
"""The first region that is a library or another image, one a file of the template's disk."""

ON_DISK: Final = 0
"""The space in which every image lies where it was linked to lie, as files hold it."""
BOOT: Final = 1
"""The space of what all processes of a boot have in common: the kernel, and on Windows the images."""
FIRST_PROCESS: Final = 2
"""The first space of a process, of which each has one."""


@dataclass(frozen=True)
class AddressSpaces:
    """Where each region lies in each address space.

    Attributes
    ----------
    bases : ndarray of uint64, shape (spaces, regions)
        First virtual address of a region in a space; 0 where it is not there. Row `ON_DISK` has the
        addresses that files hold.
    sizes : ndarray of uint64, shape (spaces, regions)
        Bytes, a multiple of 4 KB; 0 where the region is not there.
    loaded : ndarray of int32, shape (spaces, most)
        Regions of the libraries of each space in the order in which they were loaded; the rest of a row is
        filled with its first one (`PROGRAM` where there is none).
    loaded_count : ndarray of int32, shape (spaces,)
        How many of them there are, at least 1.
    """

    bases: NDArray[np.uint64]
    sizes: NDArray[np.uint64]
    loaded: NDArray[np.int32]
    loaded_count: NDArray[np.int32]

"""Where the loaders and kernels of an architecture put things unless they are randomized."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, TypeVar

from hvshare.units import PAGE_SIZE

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from hvshare.synth.preset import Preset

N = TypeVar("N", int, "NDArray[np.int64]")
"""Bytes, of one thing or of many."""

GRAIN: Final = 1 << 16
"""64 KB: what Windows aligns images, heaps and stacks to."""
BIASES: Final = 256
"""Of images that Windows loads, one of which is drawn at a boot."""
PROGRAM_PLACES: Final = 254
"""Of an executable of Windows, beside the one that it was linked to lie at and never gets."""
MODULE_PAGES: Final = 1024
"""By so many pages at the most Linux moves its modules."""
DIRECT_MAPS: Final = 1 << 14
"""Places of its direct map, 1 GB apart."""
MOVED_BITS: Final = (28, 28, 18, 22)
"""Pages by which Linux moves libraries, the program, the heap and the stack; that is 1 GB for the heap."""
MOVED: Final = tuple(PAGE_SIZE << bits for bits in MOVED_BITS)


@dataclass(frozen=True)
class Places:
    """Addresses.

    Attributes
    ----------
    libraries : int
        Windows: where the first library is linked to lie, if the others find room behind it. Linux: behind
        the highest one.
    programs : int
        Executables.
    heap, stack : int
        Windows: where a process has them first; Linux: the heap lies behind the program, and this is behind
        the stack.
    user_most : int
        The user's part of an address space ends here at the latest.
    kernel, modules, modules_end : int
        The kernel's image, what it loads, and where that ends at the latest. The image ends before modules.
    direct_map, direct_map_end : int
        Where the kernel maps memory, as far as there is room.
    """

    libraries: int
    programs: int
    heap: int
    stack: int
    user_most: int
    kernel: int
    modules: int
    modules_end: int
    direct_map: int
    direct_map_end: int


WINDOWS_I386: Final = Places(
    libraries=0x6000_0000,
    programs=0x40_0000,
    heap=0x25_0000,
    stack=0x3_0000,
    user_most=0x8000_0000,
    kernel=0x8280_0000,
    modules=0x8A00_0000,
    modules_end=0x9000_0000,
    # Modelled: pools lie in one piece, 768 MB at the most. Page tables lie behind it.
    direct_map=0x9000_0000,
    direct_map_end=0xC000_0000,
)
WINDOWS_X86_64: Final = Places(
    libraries=0x7FE_0000_0000,
    programs=0x1_4000_0000,
    heap=0x25_0000,
    stack=0x3_0000,
    user_most=0x8000_0000_0000,
    kernel=0xFFFF_F800_0280_0000,
    modules=0xFFFF_F880_0000_0000,
    modules_end=0xFFFF_FA80_0000_0000,
    direct_map=0xFFFF_FA80_0000_0000,
    direct_map_end=1 << 64,
)
LINUX: Final = Places(
    libraries=0x7FFF_F7FF_F000,
    programs=0x5555_5555_4000,
    heap=0,
    stack=0x7FFF_FFFF_F000,
    user_most=0x7FFF_FFFF_F000,
    kernel=0xFFFF_FFFF_8100_0000,
    modules=0xFFFF_FFFF_C000_0000,
    modules_end=0xFFFF_FFFF_FF00_0000 - MODULE_PAGES * PAGE_SIZE,
    # 64 TB (Documentation/arch/x86/x86_64/mm.rst), less what it may be moved by.
    direct_map=0xFFFF_8880_0000_0000,
    direct_map_end=0xFFFF_C880_0000_0000 - (DIRECT_MAPS << 30),
)


BELOW_STACK: Final = LINUX.stack - LINUX.libraries
"""Where libraries begin, but for how far they are moved."""


def places_of(preset: Preset) -> Places:
    """Return the places of a preset's operating system and architecture."""
    if preset.aslr.kind == "linux":
        return LINUX
    return WINDOWS_I386 if preset.architecture == "i386" else WINDOWS_X86_64


def grains(size: N) -> N:
    """Round bytes up to whole grains."""
    return -(-size // GRAIN) * GRAIN


def packed_down(top: int, sizes: NDArray[np.int64]) -> NDArray[np.uint64]:
    """Lay images one below the other, from an address downward."""
    return (top - sizes.cumsum()).astype("uint64")

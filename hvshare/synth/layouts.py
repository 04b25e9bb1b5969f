"""Address space layout, with randomization and without.

Windows, from Vista on: early in the boot one image-load bias out of 256 is drawn, 64 KB apart, in the 16 MB
below the end of the user's address space; libraries are packed downward from it, in the order in which they
are loaded first, and lie there in all processes until the next boot. An executable has a place of its own,
drawn when it is loaded (Russinovich, Inside the Windows Vista Kernel, part 3, TechNet 2007; Woolsey, part 4).
Heaps and stacks are moved by multiples of 64 KB. The kernel stays, as in the series.

Linux (arch/x86/mm/mmap.c, fs/binfmt_elf.c, arch/x86/kernel/process.c, arch/x86/boot/compressed/kaslr.c,
arch/x86/kernel/module.c, arch/x86/mm/kaslr.c): each program draws places for itself, its libraries, its heap
and its stack, in pages; the kernel is moved by multiples of 2 MB, modules by up to 1,024 pages, the direct
map by GB.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np

from hvshare.synth.address_spaces import (
    DIRECT_MAP,
    HEAP,
    KERNEL,
    LIBRARIES,
    MODULES,
    ON_DISK,
    PROGRAM,
    STACK,
    AddressSpaces,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from hvshare.synth.disk import Disk
    from hvshare.synth.draws import Draws
    from hvshare.synth.preset import Preset

BOOT: Final = 1
"""The space of what all processes of a boot have in common: the kernel, and on Windows the images."""
FIRST_PROCESS: Final = 2

BIASES: Final = 256
GRAIN: Final = 1 << 16
"""64 KB: what Windows aligns images, heaps and stacks to."""

_PAGE: Final = 1 << 12
_LARGE: Final = 1 << 21
_MODULE_PAGES: Final = 1024
_KERNEL_WINDOW: Final = 1 << 30


@dataclass(frozen=True)
class Process:
    """A process that runs.

    Attributes
    ----------
    name : str
        Of its program and its number.
    program : int
        File of its executable on the disk.
    libraries : ndarray of int64
        Files of its libraries, in the order in which it loads them.
    heap, stack : int
        Bytes that it allocates.
    """

    name: str
    program: int
    libraries: NDArray[np.int64]
    heap: int
    stack: int


@dataclass(frozen=True)
class _Places:
    """Where the loader of an architecture puts things unless they are randomized."""

    libraries: int
    programs: int
    heap: int
    stack: int
    kernel: int
    modules: int
    direct_map: int


_WINDOWS_I386: Final = _Places(
    0x6000_0000, 0x40_0000, 0x25_0000, 0x3_0000, 0x8280_0000, 0x8A00_0000, 0x9000_0000
)
_WINDOWS_X86_64: Final = _Places(
    0x7FE_0000_0000,
    0x1_4000_0000,
    0x25_0000,
    0x3_0000,
    0xFFFF_F800_0280_0000,
    0xFFFF_F880_0000_0000,
    0xFFFF_FA80_0000_0000,
)
_LINUX: Final = _Places(
    0x7FFF_F7FF_F000,
    0x5555_5555_4000,
    0,  # behind the program
    0x7FFF_FFFF_F000,
    0xFFFF_FFFF_8100_0000,
    0xFFFF_FFFF_C000_0000,
    0xFFFF_8880_0000_0000,
)


def lay_out(
    preset: Preset, disk: Disk, processes: Sequence[Process], memory: int, boot: Draws | None
) -> AddressSpaces:
    """Lay out the address spaces of a guest.

    Parameters
    ----------
    preset : Preset
        Says which operating system's rules hold.
    disk : Disk
        Whose images are loaded.
    processes : sequence of Process
        In the order in which they are started.
    memory : int
        Bytes of the guest, all of which its kernel maps.
    boot : Draws or None
        What is drawn at this boot; None without ASLR.

    Returns
    -------
    AddressSpaces
        `ON_DISK`, `BOOT`, and from `FIRST_PROCESS` on one a process.
    """
    images = disk.documents.start
    bases = np.zeros((FIRST_PROCESS + len(processes), LIBRARIES + images), np.uint64)
    sizes = np.zeros_like(bases)
    sizes[:, LIBRARIES:] = disk.image_sizes
    sizes[BOOT:, KERNEL], sizes[BOOT:, MODULES] = preset.kernel.image, preset.kernel.drivers
    sizes[BOOT:, DIRECT_MAP] = memory
    for space, process in enumerate(processes, FIRST_PROCESS):
        sizes[space, PROGRAM] = disk.image_sizes[process.program]
        sizes[space, HEAP], sizes[space, STACK] = process.heap, process.stack
    most = max([1, *(len(process.libraries) for process in processes)])
    loaded = np.zeros((len(bases), most), np.int32)
    count = np.ones(len(bases), np.int32)
    for space, process in enumerate(processes, FIRST_PROCESS):
        if len(process.libraries):
            loaded[space] = LIBRARIES + process.libraries[0]
            loaded[space, : len(process.libraries)] = LIBRARIES + process.libraries
            count[space] = len(process.libraries)
    lay = _linux if preset.aslr.kind == "linux" else _windows
    lay(preset, disk, processes, bases, None if preset.aslr.kind == "none" else boot)
    return AddressSpaces(bases, sizes, loaded, count)


def _windows(
    preset: Preset, disk: Disk, processes: Sequence[Process], bases: NDArray[np.uint64], boot: Draws | None
) -> None:
    places = _WINDOWS_I386 if preset.architecture == "i386" else _WINDOWS_X86_64
    sizes = _up(disk.image_sizes, GRAIN)
    count = len(disk.libraries)
    linked = places.libraries + np.concatenate([[0], np.cumsum(sizes[:count])[:-1]])[:count]
    bases[ON_DISK, LIBRARIES : LIBRARIES + count] = _preferred(disk, linked.astype(np.uint64))
    bases[ON_DISK, LIBRARIES + count :] = places.programs
    shared = bases[ON_DISK, LIBRARIES:].copy()
    order = _first_loaded(processes)
    if boot is not None:
        bias = boot.child("image-load bias").below(BIASES)
        shared[order] = _packed_down(preset.aslr.user_end - bias * GRAIN, sizes[order])
        for number in disk.programs:
            # One of 254 places, never the one that it was linked to lie at.
            shared[number] += np.uint64((1 + boot.child("program", number).below(254)) * GRAIN)
    else:
        shared[order] = _moved_apart(shared[order], sizes[order])
    bases[BOOT:, LIBRARIES:] = shared
    bases[BOOT:, KERNEL], bases[BOOT:, MODULES] = places.kernel, places.modules
    bases[BOOT:, DIRECT_MAP] = places.direct_map
    for space, process in enumerate(processes, FIRST_PROCESS):
        slots = [0, 0]
        if boot is not None:
            draws = boot.child("process", process.name)
            slots = [draws.below(preset.aslr.heap_places, number) for number in range(2)]
        bases[space, PROGRAM] = shared[process.program]
        bases[space, HEAP] = places.heap + slots[0] * GRAIN
        bases[space, STACK] = places.stack + slots[1] * GRAIN


def _linux(
    preset: Preset, disk: Disk, processes: Sequence[Process], bases: NDArray[np.uint64], boot: Draws | None
) -> None:
    sizes = disk.image_sizes
    bases[ON_DISK, LIBRARIES:] = _preferred(disk, np.zeros(len(disk.libraries), np.uint64), len(sizes))
    kernel, modules, direct_map = _LINUX.kernel, _LINUX.modules, _LINUX.direct_map
    if boot is not None:
        draws = boot.child("kernel")
        free = (_KERNEL_WINDOW - preset.kernel.image - (kernel & (_KERNEL_WINDOW - 1))) // _LARGE
        kernel += draws.below(max(1, free)) * _LARGE
        modules += (1 + draws.below(_MODULE_PAGES, 1)) * _PAGE
        direct_map += draws.below(1 << 14, 2) << 30
    bases[BOOT:, KERNEL], bases[BOOT:, MODULES], bases[BOOT:, DIRECT_MAP] = kernel, modules, direct_map
    for space, process in enumerate(processes, FIRST_PROCESS):
        drawn = [0, 0, 0, 0]
        if boot is not None:
            of_process = boot.child("process", process.name)
            # Pages: 28 bits for libraries and for the program, 1 GB for the heap, 22 bits for the stack.
            drawn = [of_process.below(1 << bits, number) for number, bits in enumerate((28, 28, 18, 22))]
        top = preset.aslr.user_end - (_LINUX.stack - _LINUX.libraries) - drawn[0] * _PAGE
        bases[space, LIBRARIES + process.libraries] = _packed_down(top, sizes[process.libraries])
        program = _LINUX.programs + drawn[1] * _PAGE
        bases[space, PROGRAM] = bases[space, LIBRARIES + process.program] = program
        bases[space, HEAP] = program + int(sizes[process.program]) + drawn[2] * _PAGE
        bases[space, STACK] = preset.aslr.user_end - process.stack - drawn[3] * _PAGE


def _first_loaded(processes: Sequence[Process]) -> NDArray[np.int64]:
    """Return libraries in the order in which they are loaded for the first time."""
    order = dict.fromkeys(int(number) for process in processes for number in process.libraries)
    return np.array(list(order), np.int64)


def _packed_down(top: int, sizes: NDArray[np.int64]) -> NDArray[np.uint64]:
    return (top - np.cumsum(sizes)).astype(np.uint64)


def _preferred(disk: Disk, synthetic: NDArray[np.uint64], count: int | None = None) -> NDArray[np.uint64]:
    """Return where images were linked to lie: real ones say so."""
    if count is None:
        return np.where(disk.preferred[: len(synthetic)], disk.preferred[: len(synthetic)], synthetic)
    return disk.preferred[:count]


def _moved_apart(bases: NDArray[np.uint64], sizes: NDArray[np.int64]) -> NDArray[np.uint64]:
    """Move libraries that would lie where an earlier one does to behind all, as a loader does."""
    taken: list[tuple[int, int]] = []
    found = bases.copy()
    behind = max((int(base) + int(size) for base, size in zip(bases, sizes, strict=True)), default=0)
    for number, (base, size) in enumerate(zip(bases, sizes, strict=True)):
        start, end = int(base), int(base) + int(size)
        if any(start < other_end and other < end for other, other_end in taken):
            start, end = behind, behind + int(size)
            behind = end
            found[number] = start
        taken.append((start, end))
    return found


def _up(sizes: NDArray[np.int64], grain: int) -> NDArray[np.int64]:
    return -(-sizes // grain) * grain

"""Address space layout, with randomization and without.

Windows, from Vista on: early in the boot one image-load bias out of 256 is drawn, 64 KB apart, in the 16 MB
below the end of the user's address space; libraries are packed downward from it, in the order in which they
are loaded first, and lie there in all processes until the next boot. An executable has a place of its own,
drawn when it is loaded (Russinovich, Inside the Windows Vista Kernel, part 3, TechNet 2007; Woolsey, part 4).
Heaps and stacks are moved by multiples of 64 KB. The kernel stays, as in the series.

Without ASLR images lie where they were linked to lie: executables at 0x400000 or 0x140000000, libraries one
behind the other and, where a disk has many, further down, so that all find room.

Linux (arch/x86/mm/mmap.c, fs/binfmt_elf.c, arch/x86/kernel/process.c, arch/x86/boot/compressed/kaslr.c,
arch/x86/kernel/module.c, arch/x86/mm/kaslr.c): each program draws places for itself, its libraries, its heap
and its stack, in pages; the kernel is moved by multiples of 2 MB, modules by up to 1,024 pages, the direct
map by GB.

No two regions of a process overlap. On Windows a library has one place in all processes, so nothing else lies
there in any. What a kernel allocates lies at its guest-physical address plus a constant; where that finds no
room (beyond 768 MB on i386, which is modelled) some of it has the address of other memory.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from hvshare.synth.address_spaces import (
    BOOT,
    DIRECT_MAP,
    FIRST_PROCESS,
    HEAP,
    KERNEL,
    LIBRARIES,
    MODULES,
    PROGRAM,
    STACK,
    AddressSpaces,
)
from hvshare.synth.linux_layout import lay_out_linux, linux_heap_rooms
from hvshare.synth.places import places_of
from hvshare.synth.windows_layout import lay_out_windows, windows_heap_rooms

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from hvshare.synth.disk import Disk
    from hvshare.synth.draws import Draws
    from hvshare.synth.preset import Preset


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
        Bytes of the guest, of which its kernel maps as much as there is room for.
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
    places = places_of(preset)
    sizes[BOOT:, DIRECT_MAP] = min(memory, places.direct_map_end - places.direct_map)
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
    lay = lay_out_linux if preset.aslr.kind == "linux" else lay_out_windows
    lay(preset, disk, processes, bases, None if preset.aslr.kind == "none" else boot)
    return AddressSpaces(bases, sizes, loaded, count)


def heap_rooms(preset: Preset, disk: Disk, processes: Sequence[Process]) -> list[int]:
    """Tell how large the heap of each process can be at the most.

    Parameters
    ----------
    preset, disk, processes
        As for `lay_out`.

    Returns
    -------
    list of int
        Bytes that find room at every boot, with ASLR and without, beside all that the process has else.

    Raises
    ------
    PresetError
        If not even programs and libraries find room.
    """
    of_system = linux_heap_rooms if preset.aslr.kind == "linux" else windows_heap_rooms
    return of_system(preset, disk, processes)

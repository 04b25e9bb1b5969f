"""Address spaces of Linux; `layouts` says by which rules."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from hvshare.synth.address_spaces import (
    BOOT,
    DIRECT_MAP,
    FIRST_PROCESS,
    HEAP,
    KERNEL,
    LIBRARIES,
    MODULES,
    ON_DISK,
    PROGRAM,
    STACK,
)
from hvshare.synth.places import (
    BELOW_STACK,
    DIRECT_MAPS,
    LINUX,
    MODULE_PAGES,
    MOVED,
    MOVED_BITS,
    packed_down,
)
from hvshare.units import PAGE_SIZE

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np
    from numpy.typing import NDArray

    from hvshare.synth.disk import Disk
    from hvshare.synth.draws import Draws
    from hvshare.synth.layouts import Process
    from hvshare.synth.preset import Preset

_LARGE: Final = 1 << 21
_KERNEL_WINDOW: Final = 1 << 30


def lay_out_linux(
    preset: Preset, disk: Disk, processes: Sequence[Process], bases: NDArray[np.uint64], boot: Draws | None
) -> None:
    """Fill in the bases of `layouts.lay_out`."""
    sizes, end = disk.image_sizes, preset.aslr.user_end
    bases[ON_DISK, LIBRARIES:] = disk.preferred
    kernel, modules, direct_map = LINUX.kernel, LINUX.modules, LINUX.direct_map
    if boot is not None:
        draws = boot.child("kernel")
        free = (_KERNEL_WINDOW - preset.kernel.image - (kernel & (_KERNEL_WINDOW - 1))) // _LARGE
        kernel += draws.below(max(1, free)) * _LARGE
        modules += (1 + draws.below(MODULE_PAGES, 1)) * PAGE_SIZE
        direct_map += draws.below(DIRECT_MAPS, 2) << 30
    bases[BOOT:, KERNEL], bases[BOOT:, MODULES], bases[BOOT:, DIRECT_MAP] = kernel, modules, direct_map
    for space, process in enumerate(processes, FIRST_PROCESS):
        moved = [0, 0, 0, 0]
        if boot is not None:
            of_process = boot.child("process", process.name)
            moved = [
                of_process.below(1 << bits, number) * PAGE_SIZE for number, bits in enumerate(MOVED_BITS)
            ]
        stack = end - process.stack - moved[3]
        top, loaded = end - BELOW_STACK - moved[0], int(sizes[process.libraries].sum())
        if stack < top and top - loaded < stack + process.stack:
            # Places are looked for downward, so libraries that meet the stack lie below it.
            top = stack
        bases[space, LIBRARIES + process.libraries] = packed_down(top, sizes[process.libraries])
        program = LINUX.programs + moved[1]
        bases[space, PROGRAM] = bases[space, LIBRARIES + process.program] = program
        bases[space, HEAP] = program + int(sizes[process.program]) + moved[2]
        bases[space, STACK] = stack


def linux_heap_rooms(preset: Preset, disk: Disk, processes: Sequence[Process]) -> list[int]:
    """Tell how large the heap of each process can be, whatever is drawn at a boot, with ASLR and without."""
    found = []
    for process in processes:
        loaded = int(disk.image_sizes[process.libraries].sum())
        program = LINUX.programs + MOVED[1] + int(disk.image_sizes[process.program]) + MOVED[2]
        below = max(BELOW_STACK + MOVED[0], process.stack + MOVED[3])
        found.append(max(0, preset.aslr.user_end - below - loaded - program))
    return found

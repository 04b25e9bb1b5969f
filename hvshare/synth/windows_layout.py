"""Address spaces of Windows; `layouts` says by which rules.

What finds no room where it usually lies takes the lowest gap that holds it, as Windows looks for room from
low addresses on unless it is asked for the contrary (MEM_TOP_DOWN of VirtualAlloc): so a heap that is too
large for the room below the executable lies behind it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from hvshare.errors import PresetError
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
from hvshare.synth.gaps import Gaps
from hvshare.synth.places import BIASES, GRAIN, PROGRAM_PLACES, grains, packed_down, places_of
from hvshare.units import format_size

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from hvshare.synth.disk import Disk
    from hvshare.synth.draws import Draws
    from hvshare.synth.layouts import Process
    from hvshare.synth.preset import Preset


def lay_out_windows(
    preset: Preset, disk: Disk, processes: Sequence[Process], bases: NDArray[np.uint64], boot: Draws | None
) -> None:
    """Fill in the bases of `layouts.lay_out`."""
    places = places_of(preset)
    sizes = grains(disk.image_sizes)
    bases[ON_DISK, LIBRARIES:] = _linked(preset, disk, sizes)
    shared = bases[ON_DISK, LIBRARIES:].copy()
    order = _first_loaded(processes)
    if boot is not None:
        bias = boot.child("image-load bias").below(BIASES)
        shared[order] = packed_down(preset.aslr.user_end - bias * GRAIN, sizes[order])
        for number in disk.programs:
            place = 1 + boot.child("program", number).below(PROGRAM_PLACES)
            shared[number] += np.uint64(place * GRAIN)
    else:
        shared[order] = _without_aslr(preset, shared[order], sizes[order], _largest(processes, sizes))
    bases[BOOT:, LIBRARIES:] = shared
    bases[BOOT:, KERNEL], bases[BOOT:, MODULES] = places.kernel, places.modules
    bases[BOOT:, DIRECT_MAP] = places.direct_map
    beside = _beside(preset, shared[order], sizes[order])
    for space, process in enumerate(processes, FIRST_PROCESS):
        moved = [0, 0]
        if boot is not None:
            draws = boot.child("process", process.name)
            moved = [draws.below(preset.aslr.heap_places, number) * GRAIN for number in range(2)]
        free = beside.copy()
        free.take(int(shared[process.program]), int(sizes[process.program]))
        bases[space, PROGRAM] = shared[process.program]
        bases[space, STACK] = _place(preset, free, places.stack, grains(process.stack), moved[1])
        bases[space, HEAP] = _place(preset, free, places.heap, grains(process.heap), moved[0])


def windows_heap_rooms(preset: Preset, disk: Disk, processes: Sequence[Process]) -> list[int]:
    """Tell how large the heap of each process can be, whatever is drawn at a boot, with ASLR and without."""
    places = places_of(preset)
    sizes = grains(disk.image_sizes)
    order = _first_loaded(processes)
    linked, loaded = _linked(preset, disk, sizes)[order], int(sizes[order].sum())
    fixed = _without_aslr(preset, linked, sizes[order], _largest(processes, sizes))
    layouts = [_beside(preset, fixed, sizes[order])]
    moves = 0
    if preset.aslr.kind != "none":
        moves = PROGRAM_PLACES * GRAIN
        lowest = preset.aslr.user_end - (BIASES - 1) * GRAIN - loaded
        if lowest < places.programs + _largest(processes, sizes) + moves:
            raise _too_small(preset, loaded)
        layouts.append(_beside(preset, np.array([lowest], np.uint64), np.array([loaded])))
        layouts[-1].take(lowest + loaded, (BIASES - 1) * GRAIN)
    # The heap and the stack may lie in one gap, each behind as much as it is moved by at the most.
    drawn = 2 * (preset.aslr.heap_places - 1) * GRAIN
    found: dict[tuple[int, int], int] = {}
    for process in processes:
        if (process.program, process.stack) not in found:
            gaps = [each.copy() for each in layouts]
            for free in gaps:
                free.take(0, places.heap)
                free.take(places.programs, int(sizes[process.program]) + moves)
            room = min(free.widest for free in gaps) - grains(process.stack) - drawn
            found[process.program, process.stack] = max(0, room)
    return [found[process.program, process.stack] for process in processes]


def _first_loaded(processes: Sequence[Process]) -> NDArray[np.int64]:
    """Return libraries in the order in which they are loaded for the first time."""
    order = dict.fromkeys(int(number) for process in processes for number in process.libraries)
    return np.array(list(order), np.int64)


def _largest(processes: Sequence[Process], sizes: NDArray[np.int64]) -> int:
    """Return the bytes of the largest executable that runs."""
    return max((int(sizes[process.program]) for process in processes), default=0)


def _linked(preset: Preset, disk: Disk, sizes: NDArray[np.int64]) -> NDArray[np.uint64]:
    """Return where images were linked to lie: real ones say so."""
    places, end = places_of(preset), preset.aslr.user_end
    linked = np.full(len(sizes), places.programs, np.int64)
    of_libraries = sizes[: len(disk.libraries)]
    ends, total = np.cumsum(of_libraries), int(of_libraries.sum())
    first = min(places.libraries, max(end - total, end // 4 // GRAIN * GRAIN))
    linked[: len(ends)] = first + ends - of_libraries
    if first + total > end:
        # Where not all find room, some were linked to lie where others were, as those of real disks.
        base = first
        for number, size in enumerate(of_libraries.tolist()):
            base = first if base + size > end else base
            linked[number] = base
            base += size
    return np.where(disk.preferred, disk.preferred, linked.astype(np.uint64))


def _without_aslr(
    preset: Preset, linked: NDArray[np.uint64], sizes: NDArray[np.int64], largest: int
) -> NDArray[np.uint64]:
    """Move libraries that would lie where an earlier one or a program does, as a loader does.

    Parameters
    ----------
    preset : Preset
        Whose address space it is.
    linked, sizes : ndarray
        Where those that are loaded were linked to lie, in the order in which they are, and their bytes.
    largest : int
        Bytes of the largest executable.

    Returns
    -------
    ndarray of uint64
        Where they lie; those that are moved behind all others, or at the highest place that holds them.
    """
    free = Gaps(GRAIN, preset.aslr.user_end)
    free.take(places_of(preset).programs, largest)
    found = linked.tolist()
    behind = grains(max((base + size for base, size in zip(found, sizes.tolist(), strict=True)), default=0))
    for number, (base, size) in enumerate(zip(found, sizes.tolist(), strict=True)):
        if base % GRAIN or not free.holds(base, size):
            place = behind if free.holds(behind, size) else free.highest(size)
            if place is None:
                raise _too_small(preset, int(sizes.sum()))
            behind = max(behind, place + size)
            found[number] = place
        free.take(found[number], size)
    return np.array(found, np.uint64)


def _beside(preset: Preset, bases: NDArray[np.uint64], sizes: NDArray[np.int64]) -> Gaps:
    """Return what is free beside libraries."""
    free = Gaps(GRAIN, preset.aslr.user_end)
    order = np.argsort(bases)
    starts = bases[order].astype(np.int64)
    ends = starts + sizes[order]
    # Those that touch are taken as one.
    for touching in np.split(np.arange(len(order)), np.flatnonzero(starts[1:] != ends[:-1]) + 1):
        if len(touching):
            first, last = touching[0], touching[-1]
            free.take(int(starts[first]), int(ends[last] - starts[first]))
    return free


def _place(preset: Preset, free: Gaps, usual: int, size: int, moved: int) -> int:
    """Take the usual place or, where that is not free, the lowest behind it; moved by what was drawn."""
    base = usual + moved
    if not free.holds(base, size):
        lowest = free.lowest(moved + size, usual)
        if lowest is None:
            raise _too_small(preset, size)
        base = lowest + moved
    free.take(base, size)
    return base


def _too_small(preset: Preset, size: int) -> PresetError:
    return PresetError(
        f"aslr.user-end is {preset.aslr.user_end:#x}, and {format_size(size)} of what lies before it find no "
        "room beside the rest",
        path=preset.name,
        advice="raise it, load fewer libraries, give programs less, or use a smaller scale",
    )

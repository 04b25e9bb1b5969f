"""Processes of applications, in as many as their heaps need to find room in address spaces."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

from hvshare.errors import PresetError
from hvshare.synth.layouts import heap_rooms
from hvshare.synth.preset_spaces import check_address_spaces
from hvshare.synth.template import APPLICATION
from hvshare.units import LARGE_FRAME_SIZE, PAGE_SIZE, format_size

if TYPE_CHECKING:
    from hvshare.synth.layouts import Process
    from hvshare.synth.preset import Preset
    from hvshare.synth.template import Template


def with_applications(template: Template, pages: int) -> list[Process]:
    """Give the processes of a template, and those that allocate so many pages more.

    Parameters
    ----------
    template : Template
        Its processes come first.
    pages : int
        What applications allocate. What is more than an address space holds is allocated by further
        processes: each but the last one has as much as it holds in whole large pages. They are programs of
        their own, so that what they have in common does not depend on how many they are.

    Returns
    -------
    list of Process

    Raises
    ------
    PresetError
        If an address space does not hold what is to lie in it.
    """
    preset = template.preset
    check_address_spaces(preset, preset.name)
    application = [template.application(pages * PAGE_SIZE)] if pages else []
    processes = [*template.processes, *application]
    rooms = heap_rooms(preset, template.disk, processes)
    for process, room in zip(template.processes, rooms, strict=False):
        if process.heap > room:
            raise _too_little(preset, room, f"the heap of {process.name} has {format_size(process.heap)}")
    if not pages or application[0].heap <= rooms[-1]:
        return processes
    room = rooms[-1] // LARGE_FRAME_SIZE * LARGE_FRAME_SIZE
    if not room:
        raise _too_little(preset, rooms[-1], "applications have large pages")
    return [
        *template.processes,
        *(
            dataclasses.replace(
                application[0],
                name=f"{APPLICATION} {number} 0" if number else application[0].name,
                heap=min(room, application[0].heap - number * room),
            )
            for number in range(-(-application[0].heap // room))
        ),
    ]


def _too_little(preset: Preset, room: int, told: str) -> PresetError:
    return PresetError(
        f"aslr.user-end is {preset.aslr.user_end:#x}, which leaves {format_size(room)} for a heap beside all "
        f"libraries, and {told}",
        path=preset.name,
        advice="raise it, load fewer libraries, give the program less, or use a smaller scale",
    )

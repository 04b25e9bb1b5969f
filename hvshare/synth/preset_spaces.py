"""Whether what a preset describes finds room in the address spaces of its architecture."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hvshare.errors import PresetError
from hvshare.synth.places import BELOW_STACK, BIASES, GRAIN, LINUX, MOVED, PROGRAM_PLACES, grains, places_of
from hvshare.units import format_size

if TYPE_CHECKING:
    from hvshare.synth.preset import Preset, Program


def check_address_spaces(preset: Preset, path: str) -> None:
    """Hold the sizes of a preset against its address spaces, the libraries that programs load apart.

    Parameters
    ----------
    preset : Preset
        Scaled or not.
    path : str
        What errors call it.

    Raises
    ------
    PresetError
        If its kernel finds no room, or one of its programs beside the places where libraries may begin.
    """
    places, end = places_of(preset), preset.aslr.user_end
    is_linux = preset.aslr.kind == "linux"
    system = f"{'Linux' if is_linux else 'Windows'} for {preset.architecture}"
    for key, size, room in (
        ("image", preset.kernel.image, places.modules - places.kernel),
        ("drivers", preset.kernel.drivers, places.modules_end - places.modules),
    ):
        if size > room:
            raise PresetError(
                f"kernel.{key} is {format_size(size)}, and {system} has room for {format_size(room)}",
                path=path,
                advice="lower it, or use a smaller scale",
            )
    if not is_linux and end % GRAIN:
        raise PresetError(
            f"aslr.user-end is {end:#x}", path=path, advice="give a multiple of 64 KB (0x10000) for Windows"
        )
    if end > places.user_most:
        raise PresetError(
            f"aslr.user-end is {end:#x}, and {system} has programs below {places.user_most:#x}",
            path=path,
            advice="lower it",
        )
    for number, program in enumerate(preset.programs):
        least = (_least_end_of_linux if is_linux else _least_end_of_windows)(preset, program)
        if least > places.user_most:
            raise PresetError(
                f"programs[{number}].heap, stack and image need addresses up to {least:#x}, and {system} has "
                f"programs below {places.user_most:#x}",
                path=path,
                advice="lower them, or use a smaller scale",
            )
        if least > end:
            raise PresetError(
                f"aslr.user-end is {end:#x}, and programs[{number}] and the places of libraries need "
                f"addresses up to {least:#x}",
                path=path,
                advice="raise it, or give the program less",
            )


def _least_end_of_windows(preset: Preset, program: Program) -> int:
    moves = 0 if preset.aslr.kind == "none" else (PROGRAM_PLACES + BIASES) * GRAIN
    moves += 2 * (preset.aslr.heap_places - 1) * GRAIN
    own = grains(program.image) + grains(program.heap) + grains(program.stack)
    return places_of(preset).programs + moves + own


def _least_end_of_linux(preset: Preset, program: Program) -> int:  # noqa: ARG001  # as that of Windows
    lower = LINUX.programs + MOVED[1] + program.image + MOVED[2] + program.heap
    return lower + max(BELOW_STACK + MOVED[0], program.stack + MOVED[3])

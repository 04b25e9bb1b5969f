"""Memory of VMware guests: ``.vmem`` files, placed by the ``.vmss`` or ``.vmsn`` beside them.

Some versions of ESX keep memory within the state file; others, Workstation and Fusion keep it in a file of
its own, which has no header. Source: see `hvshare.images.vmware.state`. Which state file belongs to a
``.vmem`` is told by their names, which differ in the suffix alone, as crash and volatility3 have it.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Final

from hvshare.errors import ImageError, UnreadableImageError
from hvshare.images.flat import (
    addresses_are_linear,
    describe_ranges,
    flat_image,
    is_regular_file,
    read_head,
)
from hvshare.images.raw import tail_left_out
from hvshare.images.source import Source
from hvshare.images.vmware.state import MAGICS, MemoryState, read_state
from hvshare.units import PAGE_SIZE

if TYPE_CHECKING:
    from hvshare.images.image import GuestImage
    from hvshare.images.opening import Opening

_STATE_SUFFIXES: Final = (".vmss", ".vmsn", ".VMSS", ".VMSN")


def is_vmem(path: str) -> bool:
    """Whether a file is named as VMware names memory."""
    return path.lower().endswith(".vmem")


def find_state(path: str) -> str | None:
    """Find the state file that tells where the bytes of a file of memory belong.

    Parameters
    ----------
    path : str
        A file that no magic tells the format of.

    Returns
    -------
    str or None
        A file beside it with the same name up to its suffix, ``.vmss`` or ``.vmsn``, that starts as a state
        file does. A file that is not named ``.vmem`` has to have the size that it describes, too, since what
        was converted from such a snapshot may lie there as well.
    """
    for suffix in _STATE_SUFFIXES:
        state_path = str(Path(path).with_suffix(suffix))
        if read_head(state_path, 4).startswith(MAGICS) and (is_vmem(path) or _describes(state_path, path)):
            return state_path
    return None


def _describes(state_path: str, path: str) -> bool:
    try:
        return _state_of(state_path).size == Path(path).stat().st_size
    except (ImageError, OSError):
        return False


def holds_memory(path: str) -> bool:
    """Whether a file is a state file that holds memory itself."""
    if not read_head(path, 4).startswith(MAGICS):
        return False
    try:
        return _state_of(path).block is not None
    except ImageError:
        return False


def _state_of(path: str) -> MemoryState:
    source = Source(path)
    try:
        return read_state(source)
    finally:
        source.close()


def read_vmem(opening: Opening, state_path: str) -> GuestImage:
    """Make an image of a file of memory and the state file that belongs to it.

    Parameters
    ----------
    opening : Opening
        The opened file of memory.
    state_path : str
        As `find_state` gives it.

    Raises
    ------
    ImageError
        If the state file is damaged or describes other memory.
    """
    return _placed(opening, opening.positioned(), _state_of(state_path))


def read(opening: Opening) -> GuestImage:
    """Make an image of a state file; see `hvshare.images.formats.Format.read`.

    Memory is taken from the state file if it is there, and from the ``.vmem`` beside it otherwise.
    """
    seekable = opening.is_positioned
    source = opening.positioned()
    state = read_state(source)
    if state.block is not None:
        image = flat_image(opening, source, state.segments(*state.block, "the memory in it"))
        _describe(image, opening, state, state.block[1])
        image.layout = "regions of memory within the state file"
        return image
    path = _vmem_beside(opening.path) if seekable else None
    if path is None:
        raise UnreadableImageError(
            "this state file holds no memory, which VMware keeps in a .vmem file beside it"
            if seekable
            else "this state file holds no memory, and a stream has no .vmem file beside it",
            path=opening.path,
            advice=f"put {Path(opening.path).stem}.vmem beside it" if seekable else "name the .vmem file",
        )
    opening.source.close()
    opening.source = Source(path)
    return _placed(opening, opening.source, state)


def _vmem_beside(path: str) -> str | None:
    names = (str(Path(path).with_suffix(suffix)) for suffix in (".vmem", ".VMEM"))
    return next(filter(is_regular_file, names), None)


def _placed(opening: Opening, source: Source, state: MemoryState) -> GuestImage:
    size = source.end
    image = flat_image(opening, source, state.segments(0, size, Path(source.path).name))
    if tail := size % PAGE_SIZE:
        image.caveats.append(tail_left_out(tail, opening.name))
    _describe(image, opening, state, size)
    image.details["state file"] = Path(state.path).name
    image.layout = "regions of memory, placed by the state file beside it"
    return image


def _describe(image: GuestImage, opening: Opening, state: MemoryState, size: int) -> None:
    image.format, image.tool = "vmware", "VMware"
    if state.regions:
        image.details["regions"] = describe_ranges(
            [(each.first_gfn * PAGE_SIZE, each.pages * PAGE_SIZE) for each in state.regions]
        )
    else:
        image.caveats += addresses_are_linear(size, opening.name)

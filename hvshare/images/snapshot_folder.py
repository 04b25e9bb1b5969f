"""Snapshots of several files: which file of a folder is memory, and which beside it tells where that belongs.

The registry calls two functions: `open_folder` with a directory that the user named, and
`read_with_state` with what was opened, if no magic told its format. A folder and the file of memory in it
give the same image, since the first only names that file.
"""

from __future__ import annotations

import os
import re
import stat
from pathlib import Path
from typing import TYPE_CHECKING, Final

from hvshare.caveats import Caveat
from hvshare.errors import UnreadableImageError, UnsupportedImageError
from hvshare.images.flat import addresses_are_linear, is_regular_file, read_head
from hvshare.images.formats import recognise_format
from hvshare.images.microvm import cloud_hypervisor, firecracker
from hvshare.images.source import HEAD_BYTES
from hvshare.images.unsupported import recognise_unsupported
from hvshare.images.vmware import snapshot as vmware
from hvshare.units import format_size

if TYPE_CHECKING:
    from collections.abc import Iterator

    from hvshare.images.image import GuestImage
    from hvshare.images.opening import Opening

_MOST_ENTRIES: Final = 4096
_SHOWN: Final = 8
_GUID: Final = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", re.IGNORECASE | re.ASCII)
_ADVICE: Final = (
    "name the image files in it; a directory is read as one image if it holds memory-ranges and state.json "
    "(Cloud Hypervisor), a state file and its memory (Firecracker), or one .vmem with its .vmss or .vmsn"
)


def open_folder(path: str) -> str:
    """Find the file of memory in the directory of a snapshot.

    Parameters
    ----------
    path : str
        A directory, as the user named it.

    Returns
    -------
    str
        Path of the file.

    Raises
    ------
    UnreadableImageError
        If it holds no snapshot, or more than one.
    """
    try:
        files = dict(_files(Path(path)))
    except OSError as error:
        raise UnreadableImageError(
            f"the directory cannot be listed ({error.strerror or error})",
            path=path,
            advice="ask for the right to read it, or name the image files in it",
        ) from error
    found = list(_memory_in(Path(path), files))
    if len(found) == 1:
        return str(Path(path, found[0]))
    if found:
        shown = ", ".join(found[:_SHOWN])
        raise UnreadableImageError(
            f"it is a directory with {len(found)} files of memory",
            path=path,
            advice=f"name those that are meant: {shown}" + (", …" if len(found) > _SHOWN else ""),
        )
    if cloud_hypervisor.STATE_FILE in files and cloud_hypervisor.CONFIG_FILE in files:
        raise UnreadableImageError(
            "it is a directory like those of Cloud Hypervisor's snapshots, without the file memory-ranges",
            path=path,
            advice="name the files of the shared memory zones instead, which such a snapshot leaves in place",
        )
    raise UnreadableImageError("it is a directory", path=path, advice=_ADVICE)


def read_with_state(opening: Opening) -> GuestImage | None:
    """Make an image of a file of memory that a state file beside it describes.

    Parameters
    ----------
    opening : Opening
        Of a file that no magic tells the format of.

    Returns
    -------
    GuestImage or None
        None if nothing beside it belongs to it, so that it has to be taken as raw. What is odd about that is
        then in the caveats of `opening`.

    Raises
    ------
    ImageError
        If the state is damaged or describes other memory.
    """
    path, size = opening.path, opening.source.size
    if not opening.is_positioned or not size or not stat.S_ISREG(opening.source.stat.st_mode):
        return None
    if path == "-" or path.startswith(("/dev/fd/", "/dev/std", "/proc/")):
        return None
    if state_path := cloud_hypervisor.find_state(path):
        return cloud_hypervisor.read_memory(opening, state_path)
    if state_path := vmware.find_state(path):
        return vmware.read_vmem(opening, state_path)
    _refuse_texts(opening)
    _refuse_hyper_v(path)
    states = _firecracker_states(Path(path).parent)
    if states and (placement := firecracker.place(states, size)):
        return firecracker.read_memory(opening, placement)
    if states:
        opening.caveats.append(_does_not_fit(states[0], size, opening.name))
    if vmware.is_vmem(path) or Path(path).name == cloud_hypervisor.MEMORY_FILE:
        opening.caveats += addresses_are_linear(size, opening.name)
    return None


def _refuse_hyper_v(path: str) -> None:
    """Refuse the two files of a saved state of older Hyper-V, which have no magic but go by one GUID."""
    file = Path(path)
    other = {".bin": ".vsv", ".vsv": ".bin"}.get(file.suffix.lower())
    if other is None or not _GUID.fullmatch(file.stem):
        return
    if any(is_regular_file(str(file.with_suffix(each))) for each in (other, other.upper())):
        raise UnsupportedImageError(
            "it is recognised as: Hyper-V saved state of two files, .bin and .vsv (up to Server 2012 R2)",
            path=path,
            advice="start the guest from it, and take a complete memory dump in it, or read both files with "
            "vmsavedstatedumpprovider.dll of the Windows SDK; --image-format raw reads the file as it is",
        )


def firecracker_memory_beside(path: str) -> list[str]:
    """Name the files of memory that a state file of Firecracker may belong to.

    Parameters
    ----------
    path : str
        The state file.

    Returns
    -------
    list of str
        Paths, at most a few.
    """
    folder = Path(path).parent
    state = firecracker.read_state(path)
    if state is None:
        return []
    try:
        files = dict(_files(folder))
    except OSError:
        return []
    return [str(folder / name) for name in _placed_in(folder, files, [state])][:_SHOWN]


def _files(folder: Path) -> Iterator[tuple[str, int]]:
    """List the regular files of a folder and their bytes; none if there are too many to be a snapshot."""
    with os.scandir(folder) as entries:
        listed = [entry for entry, _ in zip(entries, range(_MOST_ENTRIES + 1), strict=False)]
    if len(listed) > _MOST_ENTRIES:
        return
    for entry in sorted(listed, key=lambda entry: entry.name):
        try:
            if entry.is_file():
                yield entry.name, entry.stat().st_size
        except OSError:
            continue


def _memory_in(folder: Path, files: dict[str, int]) -> Iterator[str]:
    if cloud_hypervisor.MEMORY_FILE in files and cloud_hypervisor.STATE_FILE in files:
        yield cloud_hypervisor.MEMORY_FILE
        return
    states = _firecracker_states(folder, files)
    yield from _placed_in(folder, files, states)
    for name in files:
        path = str(folder / name)
        if (vmware.is_vmem(name) and vmware.find_state(path)) or vmware.holds_memory(path):
            yield name


def _placed_in(folder: Path, files: dict[str, int], states: list[firecracker.State]) -> Iterator[str]:
    for name, size in files.items() if states else ():
        if firecracker.place(states, size) is None:
            continue
        head = read_head(str(folder / name), HEAD_BYTES)
        known = recognise_format(head) or recognise_unsupported(head)
        if known is None and not head.startswith(firecracker.MAGICS):
            yield name


def _firecracker_states(folder: Path, files: dict[str, int] | None = None) -> list[firecracker.State]:
    try:
        files = dict(_files(folder)) if files is None else files
    except OSError:
        return []
    small = (name for name, size in files.items() if 16 <= size <= firecracker.MOST_STATE_BYTES)
    heads = (str(folder / name) for name in small)
    paths = [path for path in heads if read_head(path, 8).startswith(firecracker.MAGICS)]
    states = (firecracker.read_state(path) for path in paths[:_SHOWN])
    return [state for state in states if state is not None]


def _refuse_texts(opening: Opening) -> None:
    """Refuse the texts of a Cloud Hypervisor snapshot, which would pass for raw memory."""
    path = Path(opening.path)
    memory = str(path.with_name(cloud_hypervisor.MEMORY_FILE))
    texts = (cloud_hypervisor.STATE_FILE, cloud_hypervisor.CONFIG_FILE)
    if path.name in texts and opening.head.lstrip().startswith(b"{") and is_regular_file(memory):
        raise UnsupportedImageError(
            "it describes a snapshot of Cloud Hypervisor and holds no memory",
            path=opening.path,
            advice=f"name {memory}, or its directory",
        )


def _does_not_fit(state: firecracker.State, size: int, name: str) -> Caveat:
    told = "" if state.memory_mib is None else f" with {state.memory_mib:,} MiB"
    return Caveat(
        "state-does-not-fit",
        f"{Path(state.path).name} beside it is the state of another Firecracker microVM{told}, and this file "
        f"of {format_size(size)} was taken as raw",
        "check that the file is whole and lies beside the state file of its own snapshot",
        name,
    )

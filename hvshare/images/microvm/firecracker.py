"""Snapshots of Firecracker: a flat file of memory and a state file that tells of which machine.

Source: Firecracker, ``src/vmm/src/snapshot/mod.rs`` (magic, version, state), ``vstate/memory.rs``
(`GuestMemoryState` lists regions; `dump` writes them one after another, `dump_dirty` leaves holes for pages
that did not change), ``arch/x86_64`` and ``arch/aarch64`` (`arch_memory_regions`). The state is what
versionize and later bincode write with integers of fixed size, and since version 9 what bitcode writes
(bitcode, ``src/pack_ints.rs`` and ``src/serde/ser.rs``). Its structures differ from version to version, so
that the list of regions is searched for: it has to start where memory of the architecture does and to add up
to the size of the file. Where no list is found, regions are placed by the architecture.
"""

from __future__ import annotations

import struct
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple

from hvshare.caveats import Caveat
from hvshare.errors import UnsupportedImageError
from hvshare.images.flat import describe_ranges, flat_image, read_head
from hvshare.images.runs import RunKind
from hvshare.images.segments import Segment
from hvshare.units import PAGE_SIZE, format_size

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from hvshare.images.image import GuestImage
    from hvshare.images.opening import Opening

_ARCHITECTURES: Final = {0x0710_1984_8664: "x86-64", 0x0710_1984_AAAA: "AArch64"}
_FIRST_VERSION: Final = 1
MAGICS: Final = tuple(
    ((base << 16) + low).to_bytes(8, "little") for base in _ARCHITECTURES for low in (0, _FIRST_VERSION)
)
MOST_STATE_BYTES: Final = 16 << 20
"""Firecracker itself refuses state files of more than 10 MB."""

_MIB: Final = 1 << 20
_GIB: Final = 1 << 30
_DRAM_START: Final = {"x86-64": 0, "AArch64": 0x8000_0000}
_OLD_GAP: Final = 0xD000_0000
_NEW_GAP: Final = 0xC000_0000
_NEW_GAP_SINCE: Final = 8
_HIGH_GAP: Final = (256 * _GIB, 512 * _GIB)
_MOST_REGIONS: Final = 8
_MOST_SLOTS: Final = 1 << 14
_MOST_TRIES: Final = 1 << 12

Regions = list[tuple[int, int, bool]]
"""Address, bytes, and whether the memory is plugged in."""


class State(NamedTuple):
    """A state file.

    Attributes
    ----------
    path : str
        Where it is.
    architecture : str
        Of the guest.
    version : str
        Of the format, where that is known.
    memory_mib : int or None
        Memory of the guest at boot in MiB, where it is found.
    told : mapping of int to list
        Lists of regions that are found in it, by how many bytes the regions of each have.
    data : bytes
        All of it.
    """

    path: str
    architecture: str
    version: str
    memory_mib: int | None
    told: Mapping[int, Regions]
    data: bytes


class Placement(NamedTuple):
    """Where a state file puts the bytes of a file of memory."""

    state: State
    regions: Regions
    is_told: bool


def read_state(path: str) -> State | None:
    """Read a state file; None if it is none."""
    data = read_head(path, MOST_STATE_BYTES)
    if not data.startswith(MAGICS):
        return None
    magic = int.from_bytes(data[:8], "little")
    version, memory_mib = "", None
    if magic & 0xFFFF == _FIRST_VERSION:
        version = "1"
    else:
        size = int.from_bytes(data[8:16], "little")
        text, rest = data[16 : 16 + min(size, 64)], data[16 + min(size, 64) :]
        if text.isascii() and text.replace(b".", b"").isdigit() and text.count(b".") == 2 and len(rest) >= 8:
            version = text.decode()
            memory_mib = int.from_bytes(rest[:8], "little")
    architecture = _ARCHITECTURES[magic >> 16]
    return State(path, architecture, version, memory_mib, _told_regions(data, architecture), data)


def place(states: Sequence[State], size: int) -> Placement | None:
    """Find the state file that a file of memory belongs to.

    Parameters
    ----------
    states : sequence of State
        Those beside it.
    size : int
        Bytes of the file of memory.

    Returns
    -------
    Placement or None
        None if no state file is of a guest with so much memory.
    """
    possible = []
    for state in states:
        if regions := _regions_of(state, size):
            return Placement(state, regions, is_told=True)
        # Before versions with three parts, all lists of regions are of one form: it would have been found.
        if state.version != "1" and size and not size % _MIB and state.memory_mib in (None, size // _MIB):
            possible.append(state)
    if not possible:
        return None
    return Placement(possible[0], _usual_regions(possible[0], size), is_told=False)


def read_memory(opening: Opening, placement: Placement) -> GuestImage:
    """Make an image of a file of memory, as `place` places it."""
    state, regions, is_told = placement
    segments, offset = [], 0
    for address, size, plugged in regions:
        if plugged:
            segments.append(Segment(address, size, offset))
        offset += size
    image = flat_image(opening, opening.source, segments)
    image.format, image.tool = "firecracker", "Firecracker"
    image.layout = "regions of memory one after another"
    image.details["state file"] = Path(state.path).name
    image.details["architecture"] = state.architecture
    if state.version:
        image.details["state version"] = state.version
    image.details["regions"] = describe_ranges([(address, size) for address, size, _ in regions])
    if not is_told and len(regions) > 1:
        image.caveats.append(
            Caveat(
                "addresses-inferred",
                f"the state file does not tell where memory is in a form known here; from its architecture, "
                f"{format_size(regions[0][1])} were placed below the hole for devices, as Firecracker does",
                "page counts do not depend on it, nor do those of large frames",
                opening.name,
            )
        )
    holes = image.runs.pages_of(RunKind.ZERO) if image.runs else 0
    image.caveats = [
        _holes_of_a_diff(holes, opening.name) if each.code == "holes-are-zero" else each
        for each in image.caveats
    ]
    return image


def _holes_of_a_diff(pages: int, name: str) -> Caveat:
    return Caveat(
        "holes-are-zero",
        f"{format_size(pages * PAGE_SIZE)} are holes of the file and count as zero pages, although "
        "Firecracker writes holes for unchanged pages of diff snapshots only",
        "for a diff snapshot use --holes absent; leave it at zero if the file was copied sparsely",
        name,
    )


def read(opening: Opening) -> GuestImage:
    """Refuse a state file by naming the file of memory; see `hvshare.images.formats.Format.read`."""
    from hvshare.images.snapshot_folder import firecracker_memory_beside

    beside = firecracker_memory_beside(opening.path) if opening.is_positioned else []
    raise UnsupportedImageError(
        "it is the state file of a Firecracker snapshot and holds no memory",
        path=opening.path,
        advice=f"name the file of its memory: {', '.join(beside)}"
        if beside
        else "name the file of its memory, which was given as mem_file_path when the snapshot was taken",
    )


def _told_regions(data: bytes, architecture: str) -> dict[int, Regions]:
    """Find lists of regions in a state file, by how many bytes the regions of each have."""
    found: dict[int, Regions] = {}
    for count in range(1, _MOST_REGIONS + 1):
        pattern = struct.pack("<QQ", count, _DRAM_START[architecture])
        at = data.find(pattern)
        for _ in range(_MOST_TRIES):
            if at < 0:
                break
            for parse in (_plain_regions, _regions_with_offsets):
                if _is_possible(regions := parse(data, at + 8, count)):
                    found.setdefault(_size(regions), regions)
            whole, slots = _regions_with_slots(data, at + 8, count)
            if _is_possible(whole):
                found.setdefault(_size(whole), _plugged(whole, slots))
            at = data.find(pattern, at + 1)
    return found


def _regions_of(state: State, size: int) -> Regions | None:
    """Give the list of regions in a state file that makes up a file of memory."""
    if size in state.told:
        return state.told[size]
    for gap in (_NEW_GAP, _OLD_GAP):
        regions = _usual_regions(state, size, gap)
        if _is_possible(regions) and len(regions) <= 2 and _columns(regions) in state.data:
            return regions
    return None


def _is_possible(regions: Regions) -> bool:
    end = 0
    for address, part, _ in regions:
        if address < end or part <= 0 or address % PAGE_SIZE or part % PAGE_SIZE:
            return False
        end = address + part
    return bool(regions)


def _size(regions: Regions) -> int:
    return sum(part for _, part, _ in regions)


def _plain_regions(data: bytes, at: int, count: int) -> Regions:
    """Address and bytes; snapshot versions 3 to 7."""
    part = data[at : at + 16 * count]
    return [(*each, True) for each in struct.iter_unpack("<QQ", part)] if len(part) == 16 * count else []


def _regions_with_offsets(data: bytes, at: int, count: int) -> Regions:
    """Address, bytes and offset in the file; before."""
    part = data[at : at + 24 * count]
    if len(part) < 24 * count:
        return []
    regions: Regions = []
    end = 0
    for address, size, offset in struct.iter_unpack("<QQQ", part):
        if offset != end:
            return []
        regions.append((address, size, True))
        end += size
    return regions


def _regions_with_slots(data: bytes, at: int, count: int) -> tuple[Regions, list[bytes]]:
    """Address, bytes, type, and for each of equal slots whether it is plugged in; version 8."""
    head = struct.Struct("<QQIQ")
    whole: Regions = []
    slots: list[bytes] = []
    for _ in range(count):
        if at + head.size > len(data):
            return [], []
        address, size, kind, number = head.unpack_from(data, at)
        at += head.size
        if kind > 1 or not 0 < number <= _MOST_SLOTS or size % number:
            return [], []
        whole.append((address, size, True))
        slots.append(data[at : at + number])
        at += number
        # Only memory that can be unplugged (1) has slots without it.
        if len(slots[-1]) < number or slots[-1].strip(b"\0\1" if kind else b"\1"):
            return [], []
    return whole, slots


def _plugged(whole: Regions, slots: list[bytes]) -> Regions:
    """Cut regions where memory that is plugged in ends or starts."""
    regions: Regions = []
    for (address, size, _), flags in zip(whole, slots, strict=True):
        part = size // len(flags)
        start = 0
        for flag, run in groupby(flags):
            length = len(list(run)) * part
            regions.append((address + start, length, bool(flag)))
            start += length
    return regions


def _columns(regions: Regions) -> bytes:
    """Regions as bitcode writes them: addresses, then bytes; two of each behind a byte for their width."""
    addresses, sizes = ([each[column] for each in regions] for column in (0, 1))
    if len(regions) == 1:
        return struct.pack("<QQ", *addresses, *sizes)
    narrow = max(sizes) < 1 << 32
    return struct.pack("<BQQB2" + ("I" if narrow else "Q"), 0, *addresses, 2 * narrow, *sizes)


def _usual_regions(state: State, size: int, gap: int = 0) -> Regions:
    """Place memory as Firecracker does for an architecture."""
    if not gap:
        major = int(state.version.split(".")[0] or 9)
        gap = _NEW_GAP if major >= _NEW_GAP_SINCE else _OLD_GAP
    gaps = [_HIGH_GAP] if gap == _NEW_GAP else []
    if state.architecture == "x86-64":
        gaps.insert(0, (gap, 4 * _GIB))
    regions: Regions = []
    start = _DRAM_START[state.architecture]
    for low, end in gaps:
        part = min(size, low - start)
        regions.append((start, part, True))
        start, size = end, size - part
        if not size:
            return regions
    return [*regions, (start, size, True)]

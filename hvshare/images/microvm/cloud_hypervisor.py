"""Snapshots of Cloud Hypervisor: a folder with ``config.json``, ``state.json`` and ``memory-ranges``.

Source: Cloud Hypervisor, ``vmm/src/memory_manager.rs`` (`MemoryManagerSnapshotData`, `memory_range_table`,
`send`, `fill_saved_regions`), ``vmm/src/migration.rs`` and ``vm-migration/src/lib.rs`` (the tree of snapshots
in ``state.json``). ``memory-ranges`` holds the ranges of the table `memory_ranges`, one after another and in
its order. `guest_ram_mappings` lists all memory: what is in no range lies in the file of a shared zone of
memory, or is memory of virtio-mem that is not plugged in. The state of the memory manager is JSON in JSON, as
a text or as numbers of bytes; some versions write it with the versionize crate: the same fields, in binary.
"""

from __future__ import annotations

import re
import struct
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from hvshare.caveats import Caveat
from hvshare.errors import DamagedImageError, TruncatedImageError, UnsupportedImageError
from hvshare.images.flat import describe_ranges, flat_image, is_regular_file
from hvshare.images.runs import RunKind
from hvshare.images.segments import MOST_SEGMENTS, Segment, check_address
from hvshare.images.source import Source, read_part
from hvshare.units import format_size

if TYPE_CHECKING:
    from hvshare.images.image import GuestImage
    from hvshare.images.opening import Opening

MEMORY_FILE: Final = "memory-ranges"
STATE_FILE: Final = "state.json"
CONFIG_FILE: Final = "config.json"

_MOST_STATE: Final = 64 << 20
_MOST_NODE: Final = 8 << 20
_NODE: Final = re.compile(rb'"memory-manager"\s*:\s*(?=\{)')
_AGAIN: Final = "copy it again, or take the snapshot again"


class Range(NamedTuple):
    """Guest memory by its first address and bytes."""

    address: int
    size: int

    @property
    def end(self) -> int:
        """The address just behind it."""
        return self.address + self.size


class _Mapping(NamedTuple):
    range: Range
    pluggable: bool


class _State(NamedTuple):
    ranges: list[Range]
    mappings: list[_Mapping]


def find_state(path: str) -> str | None:
    """Find the state of the snapshot that memory belongs to: ``state.json`` beside ``memory-ranges``."""
    if Path(path).name != MEMORY_FILE:
        return None
    state_path = str(Path(path).with_name(STATE_FILE))
    return state_path if is_regular_file(state_path) else None


def read_memory(opening: Opening, state_path: str) -> GuestImage:
    """Make an image of the memory of a snapshot.

    Parameters
    ----------
    opening : Opening
        The opened ``memory-ranges``.
    state_path : str
        As `find_state` gives it.

    Raises
    ------
    DamagedImageError
        If the state contradicts itself or describes other memory.
    UnsupportedImageError
        If the state is not written as by a version that this reader knows.
    """
    source = opening.source
    state = _read_state(state_path)
    told = sum(each.size for each in state.ranges)
    if told != source.end:
        error = TruncatedImageError if told > source.end else DamagedImageError
        raise error(
            f"{STATE_FILE} describes {told:,} bytes of memory, and the file has {source.end:,}: it is of "
            "another snapshot, or not whole",
            path=opening.path,
            advice=_AGAIN,
        )
    elsewhere = _elsewhere(state, state_path)
    segments, offset = [Segment(each.address, each.size, 0, RunKind.ABSENT) for each in elsewhere], 0
    for each in state.ranges:
        segments.append(Segment(each.address, each.size, offset))
        offset += each.size
    image = flat_image(opening, source, segments)
    image.format, image.tool = "cloud-hypervisor", "Cloud Hypervisor"
    image.layout = f"ranges of memory, placed by {STATE_FILE}"
    image.details["ranges"] = describe_ranges(state.ranges)
    if missing := sum(each.size for each in elsewhere):
        image.caveats.append(
            Caveat(
                "memory-elsewhere",
                f"{format_size(missing)} of the guest lie in the files of its shared memory zones "
                f"({describe_ranges(elsewhere)}), which a snapshot does not copy, and count as absent",
                "measure those files as images of their own, if they were kept",
                opening.name,
            )
        )
    return image


def _read_state(path: str) -> _State:
    source = Source(path)
    try:
        if source.end > _MOST_STATE:
            raise UnsupportedImageError(
                f"it has {source.end:,} bytes, and no state of a VM has more than {format_size(_MOST_STATE)}",
                path=path,
                advice="check that it is the state.json of the snapshot",
            )
        data = read_part(source, 0, source.end, "the state of the VM")
    finally:
        source.close()
    # The state of other devices may be large, so that the one part that tells of memory is read alone.
    found = _NODE.search(data)
    if found is None:
        raise UnsupportedImageError(
            "it does not describe memory as Cloud Hypervisor does (no memory-manager)",
            path=path,
            advice="check that it is the state.json of the snapshot, or use --image-format raw to take "
            "addresses as linear",
        )
    at = found.end()
    import json

    text = data[at : at + _MOST_NODE].decode("utf-8", "replace")
    try:
        node, _ = json.JSONDecoder().raw_decode(text)
        return _state_of(_section(node))
    except (ValueError, RecursionError, LookupError, TypeError, AttributeError, struct.error) as error:
        raise DamagedImageError(
            f"the state of the memory manager cannot be read ({_words(error)})",
            path=path,
            offset=at,
            advice=_AGAIN,
        ) from error


def _words(error: Exception) -> str:
    if isinstance(error, RecursionError):
        return "its JSON is nested too deeply"
    if isinstance(error, KeyError):
        return f"{str(error.args[0])[:40]!r} is missing"
    return str(error)[:120]


def _section(node: dict[str, Any]) -> object:
    """Find the state of the memory manager in its snapshot, as any version writes it."""
    import json

    data = node["snapshot_data"]
    if "state" not in data:
        data = next(value for value in data.values()) if len(data) == 1 else data["memory-manager-section"]
        content = data["snapshot"]
    else:
        content = data["state"]
    if isinstance(content, list):
        content = bytes(content)
        return json.loads(content) if content.lstrip().startswith(b"{") else content
    return json.loads(content) if isinstance(content, str) else content


def _state_of(section: object) -> _State:
    if isinstance(section, bytes):
        return _Fields(section).state()
    if not isinstance(section, dict):
        raise TypeError("it should be a table of fields")
    table = section["memory_ranges"]
    if isinstance(table, dict):
        table = table["data"]
    ranges = [_range(each["gpa"], each["length"]) for each in _limited(table)]
    return _State(ranges, [_mapping(each) for each in _limited(section.get("guest_ram_mappings", []))])


def _mapping(fields: dict[str, Any]) -> _Mapping:
    return _Mapping(_range(fields["gpa"], fields["size"]), bool(fields.get("virtio_mem")))


def _limited(items: object) -> list[Any]:
    if not isinstance(items, list) or len(items) > MOST_SEGMENTS:
        raise TypeError("it should have a list of ranges of memory")
    return items


def _range(address: object, size: object) -> Range:
    if type(address) is int and type(size) is int and 0 <= address < 1 << 64 > size > 0:
        return Range(address, size)
    raise TypeError(f"no memory is at {str(address)[:24]} with {str(size)[:24]} bytes")


class _Fields:
    """What the versionize crate writes: fields one after another, a list or text behind its length."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0

    def state(self) -> _State:
        """Read the fields up to those that tell nothing about memory."""
        ranges = [_range(*self._take("<QQ")) for _ in range(self._count(16))]
        if self._at == len(self._data):  # versions without guest_ram_mappings
            return _State(ranges, [])
        return _State(ranges, [self._mapping() for _ in range(self._count(37))])

    def _mapping(self) -> _Mapping:
        _, address, size = self._take("<IQQ")
        name_size = self._count(1)
        self._at += name_size
        pluggable, _ = self._take("<BQ")
        if pluggable > 1:
            raise ValueError("it is not written as this reader knows")
        return _Mapping(_range(address, size), bool(pluggable))

    def _take(self, layout: str) -> tuple[int, ...]:
        values = struct.unpack_from(layout, self._data, self._at)
        self._at += struct.calcsize(layout)
        return values

    def _count(self, least: int) -> int:
        (count,) = self._take("<Q")
        if count * least > len(self._data) - self._at:
            raise ValueError(f"{count:,} items cannot follow")
        return count


def _elsewhere(state: _State, path: str) -> list[Range]:
    """Find the memory that is in no range; ranges have to lie within memory, where that is listed."""
    ranges = sorted(state.ranges)
    for each in ranges:
        check_address(each.address, each.size, path, 0)
    elsewhere: list[Range] = []
    at = 0
    for mapping in sorted(state.mappings):
        low, end = mapping.range.address, mapping.range.end
        check_address(low, end - low, path, 0)
        while at < len(ranges) and ranges[at].end <= end and ranges[at].address >= low:
            if ranges[at].address > low and not mapping.pluggable:
                elsewhere.append(Range(low, ranges[at].address - low))
            low = ranges[at].end
            at += 1
        if low < end and not mapping.pluggable:
            elsewhere.append(Range(low, end - low))
    if state.mappings and at < len(ranges):
        raise DamagedImageError(
            f"the range of memory at {ranges[at].address:#x} is no part of the guest's memory",
            path=path,
            offset=0,
            advice=_AGAIN,
        )
    return elsewhere

"""Writes snapshots of Cloud Hypervisor and of Firecracker.

Cloud Hypervisor: ``vmm/src/memory_manager.rs``, ``vm-migration/src/lib.rs``; the versionize crate.
Firecracker: ``src/vmm/src/snapshot/mod.rs``, ``src/vmm/src/vstate/memory.rs``; bincode with integers of fixed
size; bitcode, ``src/pack_ints.rs``.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from tests.oracle import PAGE

Ranges = Sequence[tuple[int, int]]
"""Addresses and bytes."""

FORMS = ("text", "bytes", "versionize", "old versionize")
X86, ARM = 0x0710_1984_8664_0000, 0x0710_1984_AAAA_0000


def ranges_of(memory: Mapping[int, bytes | None]) -> list[tuple[int, int]]:
    """Give the ranges of memory that follow each other and are all there or all not."""
    ranges: list[tuple[int, int]] = []
    last = None
    for gfn, page in sorted(memory.items()):
        if ranges and sum(ranges[-1]) == gfn * PAGE and (last is None) == (page is None):
            ranges[-1] = (ranges[-1][0], ranges[-1][1] + PAGE)
        else:
            ranges.append((gfn * PAGE, PAGE))
        last = page
    return ranges


def memory_manager(ranges: Ranges, mappings: Iterable[tuple[int, int, bool]]) -> dict[str, Any]:
    """Give the state of Cloud Hypervisor's memory manager; mappings have a flag for virtio-mem."""
    return {
        "memory_ranges": {"data": [{"gpa": gpa, "length": length} for gpa, length in ranges]},
        "guest_ram_mappings": [
            {"slot": slot, "gpa": gpa, "size": size, "zone_id": "mem0", "virtio_mem": flag, "file_offset": 0}
            for slot, (gpa, size, flag) in enumerate(mappings)
        ],
        "start_of_device_area": 1 << 40,
        "boot_ram": 1 << 30,
        "current_ram": 1 << 30,
        "arch_mem_regions": [{"base": 0, "size": (1 << 64) - 1, "r_type": "Ram"}],
    }


def versionized(state: Mapping[str, Any], *, mappings: bool) -> bytes:
    """Write it as the versionize crate does; versions before there were mappings end with the ranges."""
    ranges = state["memory_ranges"]["data"]
    data = struct.pack("<Q", len(ranges))
    data += b"".join(struct.pack("<QQ", each["gpa"], each["length"]) for each in ranges)
    if not mappings:
        return data
    data += struct.pack("<Q", len(state["guest_ram_mappings"]))
    for each in state["guest_ram_mappings"]:
        data += struct.pack("<IQQQ", each["slot"], each["gpa"], each["size"], len(each["zone_id"]))
        data += each["zone_id"].encode() + struct.pack("<?Q", each["virtio_mem"], each["file_offset"])
    return data + struct.pack("<QQQ", 1 << 40, 1 << 30, 1 << 30)


def state_json(state: Mapping[str, Any], form: str = "text") -> bytes:
    """Write ``state.json``."""
    decoy = json.dumps({"name": '"memory-manager":{"snapshot_data":{}}'})
    if form == "text":
        node: dict[str, Any] = {"snapshots": {}, "snapshot_data": {"state": json.dumps(state)}}
    else:
        content = (
            json.dumps(state).encode() if form == "bytes" else versionized(state, mappings="old" not in form)
        )
        section = {"id": "memory-manager-section", "snapshot": list(content)}
        node = {"id": "memory-manager", "snapshots": {}, "snapshot_data": {section["id"]: section}}
    tree = {
        "snapshots": {
            "cpu-manager": {"snapshots": {}, "snapshot_data": {"state": decoy}},
            "memory-manager": node,
            "vgic": {},
        },
        "snapshot_data": {"state": "{}"},
    }
    return json.dumps(tree).encode()


def cloud_hypervisor(folder: Path, memory: Mapping[int, bytes | None], form: str = "text") -> Path:
    """Write a snapshot folder; pages that are None are in a shared zone. Gives the file of memory."""
    held = {gfn: page for gfn, page in memory.items() if page is not None}
    mappings = [(gpa, size, False) for gpa, size in ranges_of(memory)]
    (folder / "state.json").write_bytes(state_json(memory_manager(ranges_of(held), mappings), form))
    (folder / "config.json").write_text('{"cpus":{"boot_vcpus":1}}')
    (folder / "memory-ranges").write_bytes(b"".join(held[gfn] for gfn in sorted(held)))
    return folder / "memory-ranges"


def vmstate(
    regions: Ranges,
    *,
    magic: int = X86,
    version: int = 8,
    memory_mib: int = 0,
    slots: Sequence[Sequence[bool]] | None = None,
) -> bytes:
    """Write a state file of Firecracker; version 1 is what versionize writes, from 9 on it is bitcode."""
    before, behind = b"\x01\0\0\0" * 9, struct.pack("<QQQ", 1, 7, 9) * 3
    size = 0
    if version >= 9:
        addresses, sizes = ([each[column] for each in regions] for column in (0, 1))
        head = struct.pack("<Q", magic) + b"\x00\x05" + f"{version}.0.0".encode()
        return head + struct.pack("<Q", memory_mib) + before + packed(addresses) + packed(sizes) + behind
    listed = struct.pack("<Q", len(regions))
    for index, (address, length) in enumerate(regions):
        listed += struct.pack("<QQ", address, length)
        if version < 3:
            listed += struct.pack("<Q", size)
        elif version == 8:
            flags = bytes(slots[index]) if slots else b"\x01"
            listed += struct.pack("<IQ", int(len(flags) > 1), len(flags)) + flags
        size += length
    if version == 1:
        head = struct.pack("<QHQ", magic + 1, 3, memory_mib)
    else:
        text = f"{version}.0.0".encode()
        head = struct.pack("<QQ", magic, len(text)) + text + struct.pack("<Q", memory_mib)
    return head + before + listed + behind


def packed(numbers: Sequence[int]) -> bytes:
    """Write a column of 64-bit numbers as bitcode does; none of the tests needs less than 4 bytes each."""
    if len(numbers) < 2:
        return struct.pack(f"<{len(numbers)}Q", *numbers)
    if max(numbers) - min(numbers) < 1 << 32 and max(numbers) < 1 << 32:
        assert max(numbers) >= 1 << 16
        return b"\x02" + struct.pack(f"<{len(numbers)}I", *numbers)
    return b"\x00" + struct.pack(f"<{len(numbers)}Q", *numbers)

"""Writes state files of VMware: ``vmware_vmss.h``, as VMware gave it to crash."""

from __future__ import annotations

import struct
from collections.abc import Iterable, Sequence

from tests.oracle import PAGE

MAGIC = 0xBED2BED2
OLD_MAGIC = 0xBED0BED0
HEADER = 12 + 2 * 80
"""Bytes in front of the first group of `vmss`."""


def value(name: str, indices: Sequence[int], number: int, size: int = 4) -> bytes:
    """Write a tag with a value."""
    tag = len(name) << 8 | len(indices) << 6 | size
    return (
        struct.pack("<H", tag)
        + name.encode()
        + struct.pack(f"<{len(indices)}I", *indices)
        + number.to_bytes(size, "little")
    )


def block(
    name: str,
    indices: Sequence[int],
    data: bytes,
    *,
    padding: int = 0,
    compressed: bool = False,
    wide: bool = True,
    unpacked: int | None = None,
) -> bytes:
    """Write a tag with a block behind its padding."""
    tag = len(name) << 8 | len(indices) << 6 | (62 if compressed else 63)
    sizes = (len(data), len(data) if unpacked is None else unpacked)
    return (
        struct.pack("<H", tag)
        + name.encode()
        + struct.pack(f"<{len(indices)}I", *indices)
        + struct.pack("<QQH" if wide else "<IIH", *sizes, padding)
        + bytes(padding)
        + data
    )


def region_tags(regions: Iterable[tuple[int, int, int]]) -> list[bytes]:
    """Describe regions, given by guest frame number, page in the file and number of pages."""
    listed = list(regions)
    tags = [value("regionsCount", (), len(listed))]
    for index, (gfn, page, pages) in enumerate(listed):
        tags += [
            value("regionPPN", (index,), gfn),
            value("regionPageNum", (index,), page),
            value("regionSize", (index,), pages),
        ]
    return tags


def vmss(
    memory_tags: Iterable[bytes], magic: int = MAGIC, groups: Sequence[str] = ("cpu", "memory")
) -> bytes:
    """Write a state file with some tags in the group ``memory`` and others in those in front of it."""
    bodies = [
        (
            b"".join(memory_tags)
            if name == "memory"
            else value("cpu:numVCPUs", (), 2) + block("x", (0,), b"y" * 9, wide=magic != OLD_MAGIC)
        )
        + bytes(2)
        for name in groups
    ]
    at = 12 + 80 * len(groups)
    table = b""
    for name, body in zip(groups, bodies, strict=True):
        table += struct.pack("<64sQQ", name.encode(), at, len(body))
        at += len(body)
    return struct.pack("<III", magic, 8, len(groups)) + table + b"".join(bodies)


def flat(memory: dict[int, bytes]) -> tuple[bytes, list[tuple[int, int, int]]]:
    """Lay memory out as a ``.vmem``: its bytes, and its regions as `region_tags` takes them."""
    regions: list[tuple[int, int, int]] = []
    for page, gfn in enumerate(sorted(memory)):
        if regions and sum(regions[-1][::2]) == gfn:
            regions[-1] = (*regions[-1][:2], regions[-1][2] + 1)
        else:
            regions.append((gfn, page, 1))
    data = b"".join(memory[gfn] for gfn in sorted(memory))
    assert len(data) == PAGE * len(memory)
    return data, regions

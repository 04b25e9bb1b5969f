"""The headers of kdump-compressed dumps, in whichever word size and byte order the dumped machine had.

Source: makedumpfile ``diskdump_mod.h`` (``struct disk_dump_header``, ``struct kdump_sub_header``) and its
``IMPLEMENTATION``; QEMU ``include/sysemu/dump.h``, which spells the padding out.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, NamedTuple

from hvshare.errors import DamagedImageError, UnsupportedImageError
from hvshare.images.segments import ADDRESS_LIMIT
from hvshare.images.source import read_part
from hvshare.units import PAGE_SIZE

if TYPE_CHECKING:
    from hvshare.images.source import Positioned

MAGICS: Final = (b"KDUMP   ", b"DISKDUMP")
_COMPRESSIONS: Final = {0x01: "zlib", 0x02: "lzo", 0x04: "snappy", 0x20: "zstd"}
_INCOMPLETE: Final = 0x08
_BLOCK_SIZES: Final = {1 << shift for shift in range(9, 21)}
_UTSNAME_AT, _UTSNAME_FIELD = 12, 65
_MOST_VMCOREINFO: Final = 1 << 20
_MOST_HEADER_BLOCKS: Final = 1 << 16


class _Layout(NamedTuple):
    """Where fields stand for one word size: of the header from ``status`` on, and of the sub header."""

    bits: int
    status_at: int
    split_at: int
    vmcoreinfo_at: int
    vmcoreinfo_size: str
    max_mapnr_64_at: int


_LAYOUTS: Final = (_Layout(64, 424, 12, 32, "qQ", 96), _Layout(32, 412, 8, 20, "qI", 72))


@dataclass(frozen=True)
class KdumpHeaders:
    """What the headers of a kdump-compressed dump say, checked against the file.

    Attributes
    ----------
    order : str
        Byte order as `struct` spells it.
    version : int
        Of the header.
    machine, release, node : str
        Of the dumped machine, as ``uname`` prints them; empty where the writer did not know.
    sysname : str
        Empty where a hypervisor wrote the dump.
    compression : str or None
        What pages are compressed by, as far as the header tells.
    max_gfn : int
        Bits of each bitmap: guest frame numbers are below it.
    known_at, stored_at, bitmap_bytes : int
        Where the bitmaps of all pages and of the stored ones are, and their length.
    descriptors_at : int
        Where the page descriptors start.
    dump_level : int
        What makedumpfile was told to filter out.
    vmcoreinfo : bytes or None
        As the kernel wrote it.
    """

    order: str
    version: int
    machine: str
    release: str
    node: str
    sysname: str
    compression: str | None
    max_gfn: int
    known_at: int
    stored_at: int
    bitmap_bytes: int
    descriptors_at: int
    dump_level: int
    vmcoreinfo: bytes | None


def read_headers(data: Positioned) -> KdumpHeaders:
    """Read and check the headers.

    Raises
    ------
    UnsupportedImageError
        If the dump is one part of a split one, is marked incomplete, or has pages of another size.
    DamagedImageError
        If the headers contradict themselves.
    TruncatedImageError
        If what they describe goes beyond the end of the file.
    """
    head = read_part(data, 0, 464, "the header")
    layout, order = _layout_of(head, data.path)
    status, block_size, sub_blocks, bitmap_blocks, max_mapnr = struct.unpack_from(
        f"{order}IiiII", head, layout.status_at
    )
    (version,) = struct.unpack_from(f"{order}i", head, 8)
    if block_size != PAGE_SIZE:
        raise UnsupportedImageError(
            f"its pages are of {block_size:,} bytes, and only pages of {PAGE_SIZE:,} are counted",
            path=data.path,
            offset=layout.status_at + 4,
            advice="there is no way around it: sharing on such a host goes by its own page size",
        )
    if not 0 < sub_blocks <= _MOST_HEADER_BLOCKS:
        raise _damaged(f"a sub header of {sub_blocks:,} blocks", data.path, layout.status_at + 8)
    sub = read_part(data, block_size, 104, "the sub header")
    if version >= 6:
        (max_mapnr,) = struct.unpack_from(f"{order}Q", sub, layout.max_mapnr_64_at)
    (dump_level,) = struct.unpack_from(f"{order}i", sub, layout.bits // 8)
    _refuse_parts(version, status, struct.unpack_from(f"{order}i", sub, layout.split_at)[0], data.path)
    # A dump with all of its pages may have one bitmap, which then says both.
    has_both = bitmap_blocks >= 2 * -(-max_mapnr // (8 * block_size))
    bitmap_bytes = (bitmap_blocks // 2 if has_both else bitmap_blocks) * block_size
    if not 0 < max_mapnr <= min(8 * bitmap_bytes, ADDRESS_LIMIT // PAGE_SIZE):
        raise _damaged(
            f"{max_mapnr:,} pages in bitmaps of {bitmap_bytes:,} bytes", data.path, layout.status_at + 12
        )
    known_at = (1 + sub_blocks) * block_size
    descriptors_at = known_at + bitmap_blocks * block_size
    sysname, node, release, _, machine, _ = (
        head[at : at + _UTSNAME_FIELD].split(b"\0")[0].decode("ascii", "backslashreplace")
        for at in range(_UTSNAME_AT, _UTSNAME_AT + 6 * _UTSNAME_FIELD, _UTSNAME_FIELD)
    )
    return KdumpHeaders(
        order,
        version,
        machine,
        release,
        node,
        sysname,
        next((name for bit, name in _COMPRESSIONS.items() if status & bit), None),
        max_mapnr,
        known_at,
        known_at + (bitmap_bytes if has_both else 0),
        bitmap_bytes,
        descriptors_at,
        dump_level,
        _vmcoreinfo(data, sub, layout, order) if version >= 3 else None,
    )


def _layout_of(head: bytes, path: str) -> tuple[_Layout, str]:
    """Find the word size and byte order by which the header makes sense."""
    for layout in _LAYOUTS:
        for order in "<>":
            block_size, sub_blocks, bitmap_blocks = struct.unpack_from(
                f"{order}iii", head, layout.status_at + 4
            )
            (version,) = struct.unpack_from(f"{order}i", head, 8)
            plausible = block_size in _BLOCK_SIZES and 0 < version < 0x100
            if plausible and 0 < sub_blocks <= _MOST_HEADER_BLOCKS and bitmap_blocks > 0:
                return layout, order
    raise DamagedImageError(
        "the header makes no sense in any word size and byte order",
        path=path,
        offset=8,
        advice="copy or take the dump again",
    )


def _refuse_parts(version: int, status: int, split: int, path: str) -> None:
    if version >= 2 and split:
        raise UnsupportedImageError(
            "it is one part of a split dump",
            path=path,
            advice="join the parts with: makedumpfile --reassemble PART1 PART2 ... DUMP",
        )
    if status & _INCOMPLETE:
        raise UnsupportedImageError(
            "its writer has marked it as incomplete, as when the disk was full",
            path=path,
            advice="take the dump again with more room",
        )


def _vmcoreinfo(data: Positioned, sub: bytes, layout: _Layout, order: str) -> bytes | None:
    offset, size = struct.unpack_from(order + layout.vmcoreinfo_size, sub, layout.vmcoreinfo_at)
    if not size:
        return None
    if size > _MOST_VMCOREINFO:
        raise _damaged(f"VMCOREINFO of {size:,} bytes", data.path, PAGE_SIZE + layout.vmcoreinfo_at)
    return read_part(data, offset, size, "VMCOREINFO")


def _damaged(what: str, path: str, offset: int) -> DamagedImageError:
    return DamagedImageError(
        f"its header speaks of {what}", path=path, offset=offset, advice="copy or take the dump again"
    )

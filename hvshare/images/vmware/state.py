"""State files of VMware, ``.vmss`` and ``.vmsn``: groups of tags, one of which tells where memory is.

Source: the reader that VMware gave to crash (``vmware_vmss.h`` and ``vmware_vmss.c``: header, groups, tags,
blocks, and the tags ``regionsCount``, ``regionPPN``, ``regionPageNum``, ``regionSize`` and ``Memory`` of the
group ``memory``), and for files with 32-bit block sizes volatility's VMware layer. Little-endian; regions are
counted in pages of 4,096 bytes.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Final, NamedTuple

from hvshare.errors import DamagedImageError, TruncatedImageError, UnsupportedImageError
from hvshare.images.segments import Segment, check_address
from hvshare.images.source import read_part
from hvshare.units import PAGE_SIZE, format_size

if TYPE_CHECKING:
    from collections.abc import Iterator

    from hvshare.images.source import Positioned

MAGICS: Final = (
    b"\xd0\xbe\xd0\xbe",
    b"\xd0\xbe\xd2\xbe",
    b"\xd1\xba\xd1\xba",
    b"\xd2\xba\xd2\xba",
    b"\xd2\xbe\xd2\xbe",
    b"\xd3\xbe\xd3\xbe",
)
_32_BIT: Final = MAGICS[:2]
_HEADER: Final = struct.Struct("<4sII")
_GROUP: Final = struct.Struct("<64sQQ")
_BLOCK: Final = 63
_COMPRESSED_BLOCK: Final = 62
_MOST_GROUPS: Final = 4096
_MOST_TAGS: Final = 1 << 16
_WINDOW: Final = 1 << 16
_AGAIN: Final = "copy it again, or take the snapshot again"
_REGION_TAGS: Final = ("regionPPN", "regionPageNum", "regionSize")


class Region(NamedTuple):
    """Pages that follow each other in the guest and in the file.

    Attributes
    ----------
    first_gfn : int
        Guest frame number of the first page.
    first_page : int
        Its place in the file, counted in pages.
    pages : int
        How many there are.
    told_at : int
        Byte of the state file that says so.
    """

    first_gfn: int
    first_page: int
    pages: int
    told_at: int


class MemoryState(NamedTuple):
    """What a state file tells about memory.

    Attributes
    ----------
    path : str
        Of the state file.
    regions : tuple of Region
        Empty if memory starts at address 0 and has no hole.
    block : tuple of int or None
        Offset and bytes of the memory within the state file, if it is there.
    """

    path: str
    regions: tuple[Region, ...]
    block: tuple[int, int] | None

    @property
    def size(self) -> int:
        """Bytes in all regions."""
        return sum(each.pages for each in self.regions) * PAGE_SIZE

    def segments(self, offset: int, size: int, holder: str) -> list[Segment]:
        """Place memory of so many bytes that starts at an offset of a file.

        Raises
        ------
        DamagedImageError
            If it is not what the regions describe; `holder` is named as what has so many bytes.
        """
        if not self.regions:
            return [Segment(0, size - size % PAGE_SIZE, offset)]
        if self.size != size:
            raise DamagedImageError(
                f"it describes {self.size:,} bytes ({format_size(self.size)}) of memory, and {holder} has "
                f"{size:,}: the state is of another VM or snapshot, or the memory is not whole",
                path=self.path,
                offset=self.regions[0].told_at,
                advice="put the state file that was written with the memory beside it, or use --image-format "
                "raw to take addresses as linear",
            )
        return [
            Segment(
                each.first_gfn * PAGE_SIZE,
                each.pages * PAGE_SIZE,
                offset + each.first_page * PAGE_SIZE,
                told_at=each.told_at,
            )
            for each in self.regions
        ]


class _Tag(NamedTuple):
    name: str
    indices: tuple[int, ...]
    value: int
    block: tuple[int, int] | None
    told_at: int


class _Cursor:
    """Bytes of a file one after another, read a window at a time."""

    def __init__(self, data: Positioned, at: int) -> None:
        self._data = data
        self._window = b""
        self._start = 0
        self.at = at

    def take(self, size: int, what: str) -> bytes:
        low = self.at - self._start
        if not 0 <= low <= low + size <= len(self._window):
            rest = max(min(self._data.end - self.at, _WINDOW), size)
            self._start, low = self.at, 0
            self._window = read_part(self._data, self.at, rest, what)
        self.at += size
        return self._window[low : low + size]


def read_state(data: Positioned) -> MemoryState:
    """Read what a state file tells about memory.

    Raises
    ------
    DamagedImageError
        If it contradicts itself or ends too early.
    UnsupportedImageError
        If it holds no memory, or holds it compressed.
    """
    magic, _, count = _HEADER.unpack(read_part(data, 0, _HEADER.size, "the header of a VMware state file"))
    if magic not in MAGICS:
        raise DamagedImageError(
            "it does not start like a state file of VMware", path=data.path, offset=0, advice=_AGAIN
        )
    if count > _MOST_GROUPS:
        raise DamagedImageError(
            f"it should have {count:,} groups of tags, more than any state file has",
            path=data.path,
            offset=8,
            advice=_AGAIN,
        )
    table = read_part(data, _HEADER.size, count * _GROUP.size, "the table of groups of tags")
    starts = [
        position
        for name, position, _ in _GROUP.iter_unpack(table)
        if name.split(b"\0", 1)[0].lower() == b"memory"
    ]
    if not starts:
        raise UnsupportedImageError(
            "this state file tells nothing about memory (no group of that name)",
            path=data.path,
            advice="take a snapshot with the memory of the VM, or suspend it",
        )
    if len(starts) > 1:
        raise DamagedImageError("it has two groups named memory", path=data.path, offset=0, advice=_AGAIN)
    tags = list(_tags(data, starts[0], wide=magic not in _32_BIT))
    if not tags:
        raise DamagedImageError(
            "its group named memory is empty", path=data.path, offset=starts[0], advice=_AGAIN
        )
    return MemoryState(data.path, _regions(tags, data.path), _block(tags, data.path))


def _tags(data: Positioned, start: int, *, wide: bool) -> Iterator[_Tag]:
    cursor = _Cursor(data, start)
    sizes = struct.Struct("<QQH" if wide else "<IIH")
    for _ in range(_MOST_TAGS):
        told_at = cursor.at
        flags, name_size = cursor.take(2, "a tag")
        if not flags and not name_size:
            return
        name = cursor.take(name_size, "the name of a tag").decode("latin-1")
        if not (name and name.isascii() and name.isprintable()):
            raise DamagedImageError(
                "a tag should be here, and is not", path=data.path, offset=told_at, advice=_AGAIN
            )
        depth, kind = flags >> 6, flags & 0x3F
        indices = struct.unpack(f"<{depth}I", cursor.take(4 * depth, "the indices of a tag"))
        if kind not in (_BLOCK, _COMPRESSED_BLOCK):
            yield _Tag(name, indices, int.from_bytes(cursor.take(kind, "a value"), "little"), None, told_at)
            continue
        size, unpacked, padding = sizes.unpack(cursor.take(sizes.size, "the size of a block"))
        block = (cursor.at + padding, size)
        if sum(block) > data.end:
            raise TruncatedImageError(
                f"a block of {size:,} bytes should follow, and the file ends at byte {data.end:,}",
                path=data.path,
                offset=told_at,
                advice=_AGAIN,
            )
        if name == "Memory" and kind == _COMPRESSED_BLOCK:
            raise UnsupportedImageError(
                "the memory in this state file is compressed",
                path=data.path,
                offset=told_at,
                advice="take a snapshot that keeps memory in a .vmem file",
            )
        if name == "Memory" and size != unpacked:
            raise DamagedImageError(
                f"the memory takes {size:,} bytes in the file and {unpacked:,} in the VM, although it is not "
                "compressed",
                path=data.path,
                offset=told_at,
                advice=_AGAIN,
            )
        yield _Tag(name, indices, 0, block, told_at)
        cursor.at = sum(block)
    raise DamagedImageError(
        "its group named memory has more tags than any state file",
        path=data.path,
        offset=start,
        advice=_AGAIN,
    )


def _block(tags: list[_Tag], path: str) -> tuple[int, int] | None:
    blocks = [tag for tag in tags if tag.name == "Memory" and tag.block and tag.block[1]]
    if len(blocks) > 1:
        raise UnsupportedImageError(
            f"its memory lies in {len(blocks)} blocks, and this reader knows one",
            path=path,
            offset=blocks[1].told_at,
            advice="take a snapshot that keeps memory in a .vmem file",
        )
    return blocks[0].block if blocks else None


def _regions(tags: list[_Tag], path: str) -> tuple[Region, ...]:
    counts = [tag for tag in tags if tag.name == "regionsCount"]
    values: dict[tuple[str, tuple[int, ...]], _Tag] = {}
    for tag in tags:
        if tag.name in _REGION_TAGS and values.setdefault((tag.name, tag.indices), tag) is not tag:
            raise DamagedImageError(
                f"it has two tags {tag.name}{list(tag.indices)}", path=path, offset=tag.told_at, advice=_AGAIN
            )
    count = counts[0].value if counts else 0
    if len(counts) > 1 or count * len(_REGION_TAGS) != len(values):
        raise DamagedImageError(
            f"it should describe {count:,} regions of memory, which takes three tags each, and there are "
            f"{len(values)} such tags",
            path=path,
            offset=(counts or list(values.values()))[0].told_at,
            advice=_AGAIN,
        )
    regions = []
    for index in range(count):
        parts = [values.get((name, (index,))) for name in _REGION_TAGS]
        if None in parts:
            raise DamagedImageError(
                f"a tag of region {index} is missing", path=path, offset=counts[0].told_at, advice=_AGAIN
            )
        first_gfn, first_page, pages = (part.value for part in parts if part)
        regions.append(Region(first_gfn, first_page, pages, parts[0].told_at if parts[0] else 0))
    _check(regions, path)
    return tuple(each for each in regions if each.pages)


def _check(regions: list[Region], path: str) -> None:
    """Make sure that regions overlap neither in the guest nor in the file, where they leave nothing out."""
    end = 0
    for each in sorted(regions, key=lambda each: (each.first_page, each.pages)):
        check_address(each.first_gfn * PAGE_SIZE, each.pages * PAGE_SIZE, path, each.told_at)
        if each.first_page != end:
            raise DamagedImageError(
                f"a region of memory starts at page {each.first_page:,} of the file, and the one before it "
                f"ends at page {end:,}",
                path=path,
                offset=each.told_at,
                advice=_AGAIN,
            )
        end += each.pages
    end = 0
    for each in sorted(regions):
        if each.first_gfn < end:
            raise DamagedImageError(
                f"the region of memory at {each.first_gfn * PAGE_SIZE:#x} overlaps the one before it, which "
                f"ends at {end * PAGE_SIZE:#x}",
                path=path,
                offset=each.told_at,
                advice=_AGAIN,
            )
        end = each.first_gfn + each.pages

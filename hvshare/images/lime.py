"""LiME dumps: ranges of memory, each behind a header of 32 bytes.

Source: LiME, ``src/lime.h`` and ``doc/README.md``: magic 0x4C694D45, version 1, first address, last address
(inclusive), 8 reserved bytes; little-endian. AVML writes the same where it does not compress
(``src/image.rs``), and may leave out blocks that are all zero.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Final

from hvshare.errors import DamagedImageError, UnsupportedImageError
from hvshare.images.segments import MOST_SEGMENTS, Segment, lay_out
from hvshare.images.source import read_part
from hvshare.images.stored import StoredImage
from hvshare.images.streamed import StreamedRange, StreamedRanges
from hvshare.images.streams import LimitedStream, read_stream_part
from hvshare.images.zero_blocks import ZeroBlocks

if TYPE_CHECKING:
    from collections.abc import Iterator

    from hvshare.caveats import Caveat
    from hvshare.images.image import GuestImage
    from hvshare.images.opening import Opening
    from hvshare.images.source import Source
    from hvshare.images.streams import ByteStream

RANGE_HEADER: Final = struct.Struct("<4sIQQ8x")
_MAGIC: Final = b"EMiL"
_LAYOUT: Final = "ranges of memory, each behind its header"


def read(opening: Opening) -> GuestImage:
    """Make an image of a LiME dump; see `hvshare.images.formats.Format.read`."""
    image: GuestImage
    if opening.is_positioned:
        source, left_out = opening.source, ZeroBlocks(by_avml=False)
        segments = list(_segments(source, left_out))
        layout = lay_out([*segments, *left_out.between(segments)], source)
        image = StoredImage(opening.name, source, layout.runs, layout.extents)
        image.caveats += layout.caveats(opening.name) + left_out.caveats(opening.name)
    else:
        image = _StreamedLime(opening)
    image.format, image.layout = "lime", _LAYOUT
    return image


def _segments(source: Source, left_out: ZeroBlocks) -> Iterator[Segment]:
    at = count = 0
    while at < source.end:
        header = read_part(source, at, RANGE_HEADER.size, "the header of a range of memory")
        address, size = parse_header(header, _MAGIC, 1, source.path, at)
        count += 1
        if count > MOST_SEGMENTS:
            raise DamagedImageError(
                "it has more ranges of memory than any guest", path=source.path, offset=at
            )
        left_out.see(size)
        yield Segment(address, size, at + RANGE_HEADER.size, told_at=at)
        at += RANGE_HEADER.size + size


class _StreamedLime(StreamedRanges):
    """A LiME dump that comes as a stream."""

    def __init__(self, opening: Opening) -> None:
        super().__init__(opening, self._read)
        self._left_out = ZeroBlocks(by_avml=False)

    def _read(self, stream: ByteStream, path: str) -> Iterator[StreamedRange]:
        self._left_out = ZeroBlocks(by_avml=False)
        return _ranges(stream, path, self._left_out)

    def finish(self) -> list[Caveat]:
        """Tell also what was inferred of zero blocks; see `GuestImage.finish`."""
        return super().finish() + self._left_out.caveats(self.name)


def _ranges(stream: ByteStream, path: str, left_out: ZeroBlocks) -> Iterator[StreamedRange]:
    at = 0
    while header := read_stream_part(stream, RANGE_HEADER.size, "the header of a range of memory", path, at):
        address, size = parse_header(header, _MAGIC, 1, path, at)
        left_out.see(size)
        if gap := left_out.gap_before(address, size):
            yield StreamedRange(address - gap, gap, None, at)
        yield StreamedRange(address, size, LimitedStream(stream, size), at)
        at += RANGE_HEADER.size + size


def parse_header(header: bytes, magic: bytes, version: int, path: str, at: int) -> tuple[int, int]:
    """Read the header of a range of memory.

    Parameters
    ----------
    header : bytes
        32 of them.
    magic, version : bytes and int
        What it has to have.
    path, at : str and int
        Where it is, for errors.

    Returns
    -------
    tuple of int
        First address, and bytes of the range.

    Raises
    ------
    DamagedImageError
        If it is no such header, or its range ends before it starts.
    UnsupportedImageError
        If it is of another version.
    """
    found, its_version, first, last = RANGE_HEADER.unpack(header)
    if found != magic:
        raise DamagedImageError(
            "the header of a range of memory should be here, and is not",
            path=path,
            offset=at,
            advice="take the dump again; padded and raw dumps of LiME are read as raw",
        )
    if its_version != version:
        raise UnsupportedImageError(
            f"the range of memory is of version {its_version}, and this reader knows version {version}",
            path=path,
            offset=at,
            advice="convert the dump to raw",
        )
    if last < first:
        raise DamagedImageError(
            f"a range of memory from {first:#x} to {last:#x} ends before it starts",
            path=path,
            offset=at,
            advice="take the dump again",
        )
    return first, last - first + 1

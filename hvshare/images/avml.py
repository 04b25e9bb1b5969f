"""AVML dumps of version 2, ``avml acquire --compress``: blocks of memory, each a framed Snappy stream.

Source: microsoft/avml, ``src/image.rs`` and ``src/io/snappy.rs``. A block is the header of 32 bytes that LiME
has, with the magic ``AVML`` and version 2, a stream in Snappy's framing format, and the length of that stream
in 8 bytes; little-endian. AVML without ``--compress`` writes LiME.

Blocks that are all zero are left out, header and all: `hvshare.images.zero_blocks` says what can be known of
them. Some versions (issue 760) leave out the data of such blocks but not their headers. The first versions
wrote each range of memory as one block, of any size, and left nothing out.

Versions that take the last address of a range in ``/proc/iomem`` as the one behind it leave out the last byte
of each range, so that its last page is ABSENT.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Final

from hvshare.caveats import Caveat
from hvshare.errors import DamagedImageError, TruncatedImageError
from hvshare.images import zero_blocks
from hvshare.images.lime import RANGE_HEADER, parse_header
from hvshare.images.runs import RunKind
from hvshare.images.segments import MOST_SEGMENTS, Segment, lay_out
from hvshare.images.snappy_frames import SnappyChunks, SnappyStream
from hvshare.images.source import read_part
from hvshare.images.stored import StoredImage
from hvshare.images.streamed import StreamedRange, StreamedRanges
from hvshare.images.streams import HeadedStream, fill, read_stream_part
from hvshare.images.zero_blocks import ZeroBlocks
from hvshare.units import PAGE_SIZE, format_size

if TYPE_CHECKING:
    from collections.abc import Iterator

    from hvshare.images.image import GuestImage
    from hvshare.images.opening import Opening
    from hvshare.images.source import Source
    from hvshare.images.streams import ByteStream

_MAGIC: Final = b"AVML"
_LENGTH: Final = struct.Struct("<Q")
_HEADER: Final = "the header of a block"
_LAYOUT: Final = "blocks of memory, each compressed behind its header"


def read(opening: Opening) -> GuestImage:
    """Make an image of an AVML dump; see `hvshare.images.formats.Format.read`."""
    image: GuestImage
    if opening.is_positioned:
        source, found = opening.source, _Blocks(opening.path)
        data = SnappyChunks(source)
        blocks = list(_segments(source, data, found))
        layout = lay_out([*blocks, *found.left_out.between(blocks)], data)
        image = StoredImage(opening.name, source, layout.runs, layout.extents, data)
        image.caveats += layout.caveats(opening.name) + found.caveats(opening.name)
        image.details["blocks"] = f"{len(blocks):,}"
    else:
        image = _StreamedAvml(opening)
    image.format, image.layout = "avml", _LAYOUT
    image.page_compression = "snappy"
    image.tool = "AVML"
    return image


class _Blocks:
    """What the blocks so far say of all-zero ones, which have no data."""

    def __init__(self, path: str) -> None:
        self._path = path
        self.left_out = ZeroBlocks(by_avml=True)
        self._empty = self._empty_bytes = 0
        self._empty_end = False

    def header(self, header: bytes, at: int) -> tuple[int, int]:
        """Read where the block is that a header announces: its address and size."""
        address, size = parse_header(header, _MAGIC, 2, self._path, at)
        if any(header[24:]):
            raise DamagedImageError(
                "the last 8 bytes of the header of a block should be zero",
                path=self._path,
                offset=at,
                advice="take the dump again",
            )
        self.left_out.see(size)
        return address, size

    def add_empty(self, size: int, at: int, *, at_end: bool) -> None:
        """Take in that a block has no data."""
        if size > zero_blocks.BLOCK_BYTES or (at_end and not self._empty):
            error = TruncatedImageError if at_end else DamagedImageError
            raise error(
                "the data of a block should be behind its header, and is not",
                path=self._path,
                offset=at,
                advice="copy or take the dump again",
            )
        # Where headers of all-zero blocks were written, a gap is no such block.
        self.left_out.possible = False
        self._empty += 1
        self._empty_bytes += size
        self._empty_end = at_end

    def caveats(self, name: str) -> list[Caveat]:
        """Say what was inferred."""
        caveats = self.left_out.caveats(name)
        if self._empty:
            caveats.append(
                Caveat(
                    "empty-blocks",
                    f"{self._empty:,} blocks of {format_size(self._empty_bytes)} in all have a header and no "
                    "data, as some versions of AVML write blocks that are all zero, and count as zero pages",
                    "take the dump with a version of AVML that mends its issue 760, to be sure",
                    name,
                )
            )
        if self._empty_end:
            caveats.append(
                Caveat(
                    "last-block-empty",
                    "the last block has no data: it is all zero, or the file was cut short just there",
                    "compare the length of the file with that of the original",
                    name,
                )
            )
        return caveats


def _segments(source: Source, data: SnappyChunks, found: _Blocks) -> Iterator[Segment]:
    at = count = 0
    while at < source.end:
        address, size = found.header(read_part(source, at, RANGE_HEADER.size, _HEADER), at)
        count += 1
        if count > MOST_SEGMENTS:
            raise DamagedImageError("it has more blocks than any guest", path=source.path, offset=at)
        start = at + RANGE_HEADER.size
        if start == source.end or read_part(source, start, 1, "a block")[:1] == _MAGIC[:1]:
            found.add_empty(size, at, at_end=start == source.end)
            yield Segment(address, size, 0, RunKind.ZERO, at)
            at = start
            continue
        position = data.end
        end = data.add_stream(start, size)
        _check_length(
            read_part(source, end, _LENGTH.size, "the length of a block"), end - start, source.path, end
        )
        yield Segment(address, size, position, told_at=at)
        at = end + _LENGTH.size


def _check_length(field: bytes, length: int, path: str, at: int) -> None:
    (told,) = _LENGTH.unpack(field)
    if told != length:
        raise DamagedImageError(
            f"the block before has {length:,} compressed bytes, and should have {told:,}",
            path=path,
            offset=at,
            advice="copy or take the dump again",
        )


class _StreamedAvml(StreamedRanges):
    """An AVML dump that comes as a stream."""

    def __init__(self, opening: Opening) -> None:
        super().__init__(opening, self._read)
        self._found = _Blocks(opening.path)

    def _read(self, stream: ByteStream, path: str) -> Iterator[StreamedRange]:
        self._found = _Blocks(path)
        return _whole_pages(_ranges(stream, path, self._found), stream)

    def finish(self) -> list[Caveat]:
        """Tell also what was inferred of zero blocks; see `GuestImage.finish`."""
        return super().finish() + self._found.caveats(self.name)


def _ranges(stream: ByteStream, path: str, found: _Blocks) -> Iterator[StreamedRange]:
    """List blocks, and gaps that are all zero, as they come."""
    at, ahead = 0, b""
    while True:
        header = ahead + read_stream_part(stream, RANGE_HEADER.size - len(ahead), _HEADER, path, at)
        if not header:
            return
        if len(header) < RANGE_HEADER.size:
            raise TruncatedImageError(
                f"the stream ends within {_HEADER}",
                path=path,
                offset=at,
                advice="copy or take the dump again",
            )
        address, size = found.header(header, at)
        start = at + RANGE_HEADER.size
        ahead = read_stream_part(stream, 1, "a block", path, start)
        empty = not ahead or ahead == _MAGIC[:1]
        if empty:
            found.add_empty(size, at, at_end=not ahead)
        if gap := found.left_out.gap_before(address, size):
            yield StreamedRange(address - gap, gap, None, at)
        if empty:
            yield StreamedRange(address, size, None, at)
            at = start
            continue
        content = SnappyStream(HeadedStream(stream, ahead), size, path, start)
        ahead = b""
        yield StreamedRange(address, size, content, at)
        end = start + content.stored
        field = read_stream_part(stream, _LENGTH.size, "the length of a block", path, end)
        if not field:
            raise TruncatedImageError(
                "the stream ends before the length of a block",
                path=path,
                offset=end,
                advice="copy or take the dump again",
            )
        _check_length(field, content.stored, path, end)
        at = end + _LENGTH.size


def _whole_pages(ranges: Iterator[StreamedRange], stream: ByteStream) -> Iterator[StreamedRange]:
    """Give a page that two blocks hold together with the second of them.

    Ranges of memory need not start with a page, and then no block but the last ends with one.
    """
    tail, tail_end, told_at = b"", 0, 0
    for each in ranges:
        if tail and (each.content is None or each.address != tail_end):
            yield StreamedRange(tail_end - len(tail), len(tail), HeadedStream(stream, tail), told_at)
            tail = b""
        if each.content is None:
            yield each
            continue
        start, end = each.address - len(tail), each.address + each.size
        content = HeadedStream(each.content, tail)
        behind = end - end % PAGE_SIZE
        if behind > start:
            yield StreamedRange(start, behind - start, content, each.told_at)
        rest = bytearray(end - max(behind, start))
        fill(content, memoryview(rest))
        tail, tail_end, told_at = bytes(rest), end, each.told_at
    if tail:
        yield StreamedRange(tail_end - len(tail), len(tail), HeadedStream(stream, tail), told_at)

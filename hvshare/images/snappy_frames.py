"""Snappy's framing format: chunks of at most 64 KiB, each with a checksum, readable at any position.

Source: Snappy, ``framing_format.txt`` (2013-10-25): a chunk is its kind (1 byte), its length (3 bytes,
little-endian) and so many bytes. Kinds are 0xff stream identifier, 0x00 compressed data, 0x01 data as it is,
0xfe padding, 0x80 to 0xfd to be skipped and 0x02 to 0x7f never to be skipped. Data starts with its masked
CRC-32C, compressed data goes on with how long it decodes to, as a varint of Snappy's own format.
"""

from __future__ import annotations

from array import array
from bisect import bisect_right
from typing import TYPE_CHECKING, Final, NoReturn

from cramjam import DecompressionError, snappy

from hvshare.errors import DamagedImageError, TruncatedImageError
from hvshare.images.streams import fill
from hvshare.units import PAGE_SIZE

if TYPE_CHECKING:
    from collections.abc import Sequence

    from hvshare.images.source import Source
    from hvshare.images.streams import ByteStream

STREAM_IDENTIFIER: Final = b"\xff\x06\x00\x00sNaPpY"

_COMPRESSED, _PLAIN, _SKIPPABLE, _IDENTIFIER = 0x00, 0x01, 0x80, 0xFF
_HEADER: Final = 4
_CHECKSUM: Final = 4
_MOST_DECODED: Final = 1 << 16
# Snappy never makes more than 32 + n + n / 6 bytes of n.
_MOST_STORED: Final = _CHECKSUM + 32 + _MOST_DECODED + _MOST_DECODED // 6
_MOST_EXPANSION: Final = 22  # Snappy takes at least 3 bytes for 64
_PREAMBLE: Final = 3  # as a varint, 65,536 takes three bytes
_START: Final = _CHECKSUM + _PREAMBLE


class SnappyChunks:
    """What the framed streams of a file decode to, one behind the other, as bytes at any position.

    A chunk takes 20 bytes; contents are decoded when they are asked for, and the last chunk of which only a
    part was wanted is kept.

    Parameters
    ----------
    source : Source
        The file that the streams are in.
    """

    def __init__(self, source: Source) -> None:
        self.path = source.path
        self._source = source
        self._offsets = array("q")
        self._lengths = array("i")
        self._positions = array("q", [0])
        self._room = memoryview(bytearray(STREAM_IDENTIFIER) + bytes(_HEADER + _MOST_STORED))
        self._kept = memoryview(bytearray(_MOST_DECODED))
        self._kept_chunk = -1

    @property
    def end(self) -> int:
        """How many bytes all streams so far decode to."""
        return self._positions[-1]

    def add_stream(self, offset: int, size: int) -> int:
        """Look up where the chunks of one more stream are.

        Parameters
        ----------
        offset : int
            Byte of the file at which the stream starts.
        size : int
            Bytes that it has to decode to. That many are then at the end of these.

        Returns
        -------
        int
            The byte of the file just behind its last chunk.

        Raises
        ------
        DamagedImageError
            If it is no such stream, decodes to more, or has more chunks than pages.
        TruncatedImageError
            If the file ends within it.
        """
        start, end = offset, self._source.end
        head = memoryview(bytearray(_HEADER + _START))
        # What the rest of the file cannot hold takes no time, whatever size a header tells.
        steps = _Steps(size, self.path, most=_MOST_EXPANSION * (end - start))
        while steps.left or offset == start:
            if offset == end:
                _truncated(self.path, offset)
            count = min(len(head), end - offset)
            self._source.pread(head[:count], offset)
            length = steps.length(head[:count], offset)
            if offset + _HEADER + length > end:
                _truncated(self.path, offset)
            if decoded := steps.decoded(head[0], length, head[_HEADER:], offset):
                self._offsets.append(offset)
                self._lengths.append(_HEADER + length)
                self._positions.append(self._positions[-1] + decoded)
            offset += _HEADER + length
        return offset

    def pread(self, buffer: memoryview, offset: int) -> None:
        """Fill a buffer from a position.

        Raises
        ------
        DamagedImageError
            If a chunk cannot be decoded or does not have the checksum that it should have.
        """
        chunk = bisect_right(self._positions, offset) - 1
        while len(buffer):
            start, behind = self._positions[chunk], self._positions[chunk + 1]
            size = min(behind - offset, len(buffer))
            if size == behind - start:
                self._decode(chunk, buffer[:size])
            else:
                if chunk != self._kept_chunk:
                    self._kept_chunk = -1
                    self._decode(chunk, self._kept[: behind - start])
                    self._kept_chunk = chunk
                buffer[:size] = self._kept[offset - start : offset - start + size]
            buffer = buffer[size:]
            offset += size
            chunk += 1

    def preadv(self, buffers: Sequence[memoryview], offset: int) -> None:
        """Fill buffers one after another from a position; see `pread` for what is raised."""
        for buffer in buffers:
            self.pread(buffer, offset)
            offset += len(buffer)

    def _decode(self, chunk: int, buffer: memoryview) -> None:
        stored = self._room[: len(STREAM_IDENTIFIER) + self._lengths[chunk]]
        self._source.pread(stored[len(STREAM_IDENTIFIER) :], self._offsets[chunk])
        _decode(stored, buffer, self.path, self._offsets[chunk])


class SnappyStream:
    """What one framed stream within a stream decodes to.

    Parameters
    ----------
    stream : ByteStream
        Stands at the first byte of the framed stream; once `size` bytes were read from this one, it stands
        behind the last chunk.
    size : int
        Bytes that it has to decode to.
    path, offset : str and int
        Where it starts, for errors.

    Attributes
    ----------
    stored : int
        Bytes of the framed stream that were read so far.
    """

    def __init__(self, stream: ByteStream, size: int, path: str, offset: int) -> None:
        self.stored = 0
        self._stream = stream
        self._path = path
        self._offset = offset
        self._steps = _Steps(size, path)
        self._room = memoryview(bytearray(STREAM_IDENTIFIER) + bytes(_HEADER + _MOST_STORED))
        self._kept = memoryview(bytearray(_MOST_DECODED))
        self._waiting = self._kept[:0]

    @property
    def source_bytes(self) -> int:
        """Bytes taken from the file so far."""
        return self._stream.source_bytes

    def readinto(self, buffer: memoryview) -> int:
        """Fill at least one byte of the buffer; 0 at the end.

        Raises
        ------
        DamagedImageError
            If it is no such stream, decodes to more than it may, or a checksum is wrong.
        TruncatedImageError
            If the stream ends within it.
        """
        while not self._waiting:
            if not self._steps.left:
                return 0
            if size := self._next_chunk(buffer):
                return size
        size = min(len(self._waiting), len(buffer))
        buffer[:size] = self._waiting[:size]
        self._waiting = self._waiting[size:]
        return size

    def _next_chunk(self, buffer: memoryview) -> int:
        """Decode a chunk into the buffer, or where it is too short, keep it waiting and return 0."""
        at = self._offset + self.stored
        chunk = self._room[len(STREAM_IDENTIFIER) :]
        self._read(chunk[:_HEADER])
        length = self._steps.length(chunk[:_HEADER], at)
        skipped = max(length - _MOST_STORED, 0)
        length -= skipped
        self._read(chunk[_HEADER : _HEADER + length])
        size = self._steps.decoded(chunk[0], length, chunk[_HEADER : _HEADER + length], at)
        if size:
            stored = self._room[: len(STREAM_IDENTIFIER) + _HEADER + length]
            if size <= len(buffer):
                _decode(stored, buffer[:size], self._path, at)
                return size
            self._waiting = self._kept[:size]
            _decode(stored, self._waiting, self._path, at)
        while skipped:
            count = min(skipped, len(chunk))
            self._read(chunk[:count])
            skipped -= count
        return 0

    def _read(self, part: memoryview) -> None:
        count = fill(self._stream, part)
        self.stored += count
        if count < len(part):
            _truncated(self._path, self._offset + self.stored)


class _Steps:
    """Checks the chunks of one stream, one after another."""

    def __init__(self, size: int, path: str, most: int | None = None) -> None:
        self.left = size
        self._path = path
        self._chunks = 0
        # Writers fill their chunks. Chunks of a few bytes would take more memory here than the file has.
        self._most_chunks = (size if most is None else min(size, most)) // PAGE_SIZE + 16

    def length(self, head: memoryview, offset: int) -> int:
        """Bytes of the chunk behind its header."""
        if len(head) < _HEADER:
            _truncated(self._path, offset)
        kind, length = head[0], int.from_bytes(head[1:_HEADER], "little")
        if not self._chunks and bytes(head[:_HEADER]) != STREAM_IDENTIFIER[:_HEADER]:
            self._damaged("a Snappy stream should start here, and does not", offset)
        self._chunks += 1
        if self._chunks > self._most_chunks:
            self._damaged("it is cut into more chunks than it has pages", offset)
        if kind <= _PLAIN and not _CHECKSUM <= length <= _MOST_STORED:
            self._damaged(f"a Snappy chunk cannot have {length:,} bytes", offset)
        if _PLAIN < kind < _SKIPPABLE:
            self._damaged(f"a Snappy chunk is of the unknown kind {kind:#04x}", offset)
        if kind == _IDENTIFIER and length != len(STREAM_IDENTIFIER) - _HEADER:
            self._damaged("a Snappy stream should start here, and does not", offset)
        return length

    def decoded(self, kind: int, length: int, start: memoryview, offset: int) -> int:
        """Bytes that the chunk decodes to; `start` is what is behind its header."""
        if kind == _IDENTIFIER and bytes(start[:length]) != STREAM_IDENTIFIER[_HEADER:]:
            self._damaged("a Snappy stream should start here, and does not", offset)
        size = 0
        if kind == _PLAIN:
            size = length - _CHECKSUM
        elif kind == _COMPRESSED:
            size = _varint(start[_CHECKSUM : min(length, _START)])
        if not 0 <= size <= _MOST_DECODED:
            self._damaged("a Snappy chunk should decode to at most 64 KiB", offset)
        if size > self.left:
            self._damaged("a Snappy stream decodes to more than the memory that it is for", offset)
        self.left -= size
        return size

    def _damaged(self, problem: str, offset: int) -> NoReturn:
        raise DamagedImageError(problem, path=self._path, offset=offset, advice="copy or take the dump again")


def _varint(head: memoryview) -> int:
    """Read how long compressed data decodes to; -1 if it is not said, or is too much."""
    size = 0
    for place, byte in enumerate(head):
        size |= (byte & 0x7F) << 7 * place
        if byte < 0x80:
            return size
    return -1


def _decode(stored: memoryview, buffer: memoryview, path: str, offset: int) -> None:
    """Decode a chunk, with a stream identifier before it; its checksum is verified."""
    try:
        size = snappy.decompress_into(stored, buffer)
        problem = "" if size == len(buffer) else f"it decodes to {size:,} bytes, not {len(buffer):,}"
    except DecompressionError as error:
        problem = str(error)
    if problem:
        raise DamagedImageError(
            f"a Snappy chunk cannot be decoded ({problem})",
            path=path,
            offset=offset,
            advice="copy or take the dump again",
        )


def _truncated(path: str, offset: int) -> NoReturn:
    raise TruncatedImageError(
        "a Snappy chunk should be here, and the file ends within it",
        path=path,
        offset=offset,
        advice="copy or take the dump again",
    )

"""Bytes that come one after another, and what is read of them."""

from __future__ import annotations

from typing import Protocol

from hvshare.errors import TruncatedImageError


class ByteStream(Protocol):
    """Bytes that come one after another."""

    @property
    def source_bytes(self) -> int:
        """Bytes taken from the file so far."""

    def readinto(self, buffer: memoryview) -> int:
        """Fill at least one byte of the buffer; 0 at the end."""


class HeadedStream:
    """A stream of which something was already read to recognise it."""

    def __init__(self, stream: ByteStream, head: bytes) -> None:
        self._stream = stream
        self._head = head

    @property
    def source_bytes(self) -> int:
        """Bytes taken from the file so far."""
        return self._stream.source_bytes

    def readinto(self, buffer: memoryview) -> int:
        """Fill at least one byte of the buffer; 0 at the end."""
        if not self._head:
            return self._stream.readinto(buffer)
        count = min(len(self._head), len(buffer))
        buffer[:count] = self._head[:count]
        self._head = self._head[count:]
        return count


class LimitedStream:
    """So many of the next bytes of a stream, which then goes on behind them."""

    def __init__(self, stream: ByteStream, size: int) -> None:
        self._stream = stream
        self._left = size

    @property
    def source_bytes(self) -> int:
        """Bytes taken from the file so far."""
        return self._stream.source_bytes

    def readinto(self, buffer: memoryview) -> int:
        """Fill at least one byte of the buffer; 0 at the end."""
        count = self._stream.readinto(buffer[: self._left]) if self._left else 0
        self._left -= count
        return count


def fill(stream: ByteStream, buffer: memoryview) -> int:
    """Fill a buffer from a stream and return how many bytes there were, fewer only at the end."""
    filled = 0
    while filled < len(buffer) and (count := stream.readinto(buffer[filled:])):
        filled += count
    return filled


def read_stream_part(stream: ByteStream, size: int, what: str, path: str, at: int) -> bytes:
    """Read a header of a format from a stream; see `read_part`.

    Returns
    -------
    bytes
        Empty if the stream ends before its first byte.

    Raises
    ------
    TruncatedImageError
        If it ends later.
    """
    part = bytearray(size)
    filled = fill(stream, memoryview(part))
    if 0 < filled < size:
        raise TruncatedImageError(
            f"{what} of {size:,} bytes should be here, and the stream ends after {filled:,}",
            path=path,
            offset=at,
            advice="copy or take the dump again",
        )
    return bytes(part[:filled])

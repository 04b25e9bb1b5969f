"""Compressed streams around an image: gzip, bzip2, xz, zstd and lz4, read without unpacking to disk.

Recognised by the magic numbers of RFC 1952 (gzip), the bzip2 source (``BZ_HDR_h``, block magic
0x314159265359), the .xz file format 1.2.0, RFC 8878 (zstd, skippable frames) and the LZ4 frame format 1.6.
"""

from __future__ import annotations

import struct
import sys
import zlib
from typing import TYPE_CHECKING, Final, NamedTuple, Protocol

from hvshare.errors import DamagedImageError, TruncatedImageError, UnsupportedImageError

if TYPE_CHECKING:
    from collections.abc import Callable

    from hvshare.images.streams import ByteStream

_CHUNK: Final = 256 << 10
_XZ_MEMORY_LIMIT: Final = 512 << 20


class Decoder(Protocol):
    """One member of a compressed stream, as `bz2.BZ2Decompressor` reads it."""

    @property
    def eof(self) -> bool:
        """Whether the member is complete."""

    @property
    def needs_input(self) -> bool:
        """Whether there is nothing to hand out without more input."""

    @property
    def unused_data(self) -> bytes:
        """Input behind the end of the member."""

    def decompress(self, data: bytes, max_length: int) -> bytes:
        """Unpack at most so many bytes."""


class _GzipDecoder:
    """`zlib.decompressobj` with the interface of the other decoders."""

    def __init__(self) -> None:
        self._decoder = zlib.decompressobj(wbits=31)
        self._filled = False

    @property
    def eof(self) -> bool:
        return self._decoder.eof

    @property
    def needs_input(self) -> bool:
        # zlib may hold output back when it filled the last buffer, even with all input taken.
        return not (self._filled or self._decoder.unconsumed_tail)

    @property
    def unused_data(self) -> bytes:
        return self._decoder.unused_data

    def decompress(self, data: bytes, max_length: int) -> bytes:
        unpacked = self._decoder.decompress(self._decoder.unconsumed_tail + data, max_length)
        self._filled = len(unpacked) == max_length
        return unpacked


def _bzip2() -> Decoder:
    import bz2

    return bz2.BZ2Decompressor()


def _xz() -> Decoder:
    import lzma

    # The header alone decides how much memory a stream takes, up to 4 GiB.
    return lzma.LZMADecompressor(lzma.FORMAT_XZ, memlimit=_XZ_MEMORY_LIMIT)


def _zstd() -> Decoder:
    if sys.version_info >= (3, 14):
        from compression import zstd
    else:
        from backports import zstd

    return zstd.ZstdDecompressor()


def _lz4() -> Decoder:
    from lz4.frame import LZ4FrameDecompressor

    decoder: Decoder = LZ4FrameDecompressor()
    return decoder


class Compression(NamedTuple):
    """A compression that can be read."""

    name: str
    magics: tuple[bytes, ...]
    decoder: Callable[[], Decoder]


_BZIP2_LEVELS: Final = tuple(b"BZh%d" % level for level in range(1, 10))
_BZIP2_BLOCKS: Final = (b"\x31\x41\x59\x26\x53\x59", b"\x17\x72\x45\x38\x50\x90")

COMPRESSIONS: Final = (
    Compression("gzip", (b"\x1f\x8b\x08",), _GzipDecoder),
    Compression("bzip2", tuple(level + block for level in _BZIP2_LEVELS for block in _BZIP2_BLOCKS), _bzip2),
    Compression("xz", (b"\xfd7zXZ\x00",), _xz),
    Compression("zstd", (b"\x28\xb5\x2f\xfd",), _zstd),
    Compression("lz4", (b"\x04\x22\x4d\x18",), _lz4),
)


def recognise_compression(head: bytes) -> Compression | None:
    """Name the compression that the first bytes of a file belong to.

    Examples
    --------
    >>> recognise_compression(bytes.fromhex("28b52ffd00")).name
    'zstd'
    >>> recognise_compression(bytes(64)) is None
    True
    """
    at = 0
    # Parallel compressors put skippable frames in front: 0x184D2A50 to 0x184D2A5F, then the length.
    while (frame := head[at : at + 8])[1:4] == b"\x2a\x4d\x18" and frame[0] >> 4 == 5 and len(frame) == 8:
        at += 8 + struct.unpack_from("<I", frame, 4)[0]
    return next((each for each in COMPRESSIONS if head.startswith(each.magics, at)), None)


class DecompressedStream:
    """What a compressed stream unpacks to, over all its members, in bounded memory.

    Parameters
    ----------
    stream : ByteStream
        The compressed bytes.
    compression : Compression
        How they are compressed.
    path : str
        Named in errors.
    """

    def __init__(self, stream: ByteStream, compression: Compression, path: str) -> None:
        self._stream = stream
        self._compression = compression
        self._path = path
        self._decoder = compression.decoder()
        self._room = bytearray(_CHUNK)

    @property
    def source_bytes(self) -> int:
        """Compressed bytes taken from the file so far."""
        return self._stream.source_bytes

    def readinto(self, buffer: memoryview) -> int:
        """Fill at least one byte of the buffer; 0 at the end.

        Raises
        ------
        TruncatedImageError
            If the stream ends within a member.
        DamagedImageError
            If the stream cannot be unpacked.
        UnsupportedImageError
            If unpacking takes more memory than any ordinary stream does.
        """
        while True:
            data = b""
            if self._decoder.eof:
                data = self._next_member()
                if not data:
                    return 0
                self._decoder = self._compression.decoder()
            elif self._decoder.needs_input:
                data = self._read()
                if not data:
                    raise TruncatedImageError(
                        f"the {self._compression.name} stream ends too early",
                        path=self._path,
                        offset=self.source_bytes,
                        advice="copy or compress the dump again",
                    )
            unpacked = self._unpack(data, len(buffer))
            if unpacked:
                buffer[: len(unpacked)] = unpacked
                return len(unpacked)

    def _read(self) -> bytes:
        with memoryview(self._room) as room:
            return bytes(room[: self._stream.readinto(room)])

    def _next_member(self) -> bytes:
        """Skip the zeros that may stand behind a member, and return the start of the next one."""
        data = (self._decoder.unused_data or b"").lstrip(b"\0")
        while not data and (more := self._read()):
            data = more.lstrip(b"\0")
        return data

    def _unpack(self, data: bytes, most: int) -> bytes:
        try:
            return self._decoder.decompress(data, most)
        except MemoryError:
            raise
        except Exception as error:
            # Five libraries, each with an exception of its own; none of them reads files here.
            text = str(error)
            if "memory" in text.lower():
                raise UnsupportedImageError(
                    f"the {self._compression.name} stream needs more memory to unpack than is allowed here",
                    path=self._path,
                    offset=self.source_bytes,
                    advice=f"unpack it with {self._compression.name} -d first",
                ) from error
            raise DamagedImageError(
                f"the {self._compression.name} stream is damaged ({text})",
                path=self._path,
                offset=self.source_bytes,
                advice="copy or compress the dump again",
            ) from error

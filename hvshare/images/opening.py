"""An input while its format is found out and its reader is made."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hvshare.caveats import Caveat
from hvshare.errors import UnsupportedImageError
from hvshare.images.compression import Compression, DecompressedStream, recognise_compression
from hvshare.images.source import HEAD_BYTES, Source
from hvshare.images.streams import ByteStream, HeadedStream, fill
from hvshare.units import format_size

if TYPE_CHECKING:
    from hvshare.images.options import ReadingOptions


class Opening:
    """What a reader is given: the bytes of an image, in whichever way it needs them.

    Parameters
    ----------
    name : str
        How reports call the image.
    path : str
        As the user named it.
    options : ReadingOptions
        How it is read.

    Attributes
    ----------
    source : Source
        The opened file or pipe, before any compression is peeled off; later, what it was spooled to.
    head : bytes
        The first bytes of the image itself, up to `HEAD_BYTES`.
    compression : Compression or None
        Of the stream around the image.
    caveats : list of Caveat
        What was odd so far; they become the image's.

    Raises
    ------
    ImageError
        If the input cannot be opened, is empty, or is compressed twice.
    """

    def __init__(self, name: str, path: str, options: ReadingOptions) -> None:
        self.name = name
        self.path = path
        self.options = options
        self.caveats: list[Caveat] = []
        self.source = Source(path)
        try:
            self.head = self.source.head
            self.compression = recognise_compression(self.head)
            self._started: ByteStream | None = None
            if self.compression is not None:
                self._peel(self.compression)
        except BaseException:
            self.close()
            raise

    def _peel(self, compression: Compression) -> None:
        stream = DecompressedStream(self.source.stream(), compression, self.path)
        head = bytearray(HEAD_BYTES)
        del head[fill(stream, memoryview(head)) :]
        self.head = bytes(head)
        if nested := recognise_compression(self.head):
            raise UnsupportedImageError(
                f"it is a {nested.name} stream within a {compression.name} stream",
                path=self.path,
                advice="unpack the outer one first",
            )
        self._started = HeadedStream(stream, self.head)

    @property
    def is_positioned(self) -> bool:
        """Whether the image can be read at any position as it is."""
        return self.compression is None and self.source.size is not None

    @property
    def can_reread(self) -> bool:
        """Whether `stream` can be called again."""
        return self.source.size is not None

    def stream(self) -> ByteStream:
        """Give the bytes of the image from its front; more than once only if `can_reread`."""
        if self._started is not None:
            stream, self._started = self._started, None
            return stream
        if self.compression is None:
            return self.source.stream()
        return DecompressedStream(self.source.stream(), self.compression, self.path)

    def positioned(self) -> Source:
        """Give the image as a file that can be read at any position, spooled if it is a stream.

        Raises
        ------
        UnsupportedImageError
            If it is longer than the user allows.
        """
        return self.source if self.is_positioned else self.spool(self.stream())

    def spool(self, stream: ByteStream) -> Source:
        """Copy a stream to a temporary file, which takes the place of `source`; see `positioned`."""
        from hvshare.images.spool import SpooledSource

        self.source = spooled = SpooledSource(self.source, stream, self.options)
        self.caveats.append(
            Caveat(
                "spooled",
                f"its format has to be read at any position, so the stream was copied to a temporary file of "
                f"{format_size(spooled.end)}",
                "name an uncompressed file to save that time and room",
                self.name,
            )
        )
        return spooled

    def close(self) -> None:
        """Let go of the file."""
        self.source.close()

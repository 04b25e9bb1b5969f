"""Streams copied to a temporary file, for formats that have to be read at any position."""

from __future__ import annotations

import os
import tempfile
from typing import TYPE_CHECKING, Final

from hvshare.errors import EmptyImageError, ResourceError, UnsupportedImageError
from hvshare.images.source import HEAD_BYTES, Source
from hvshare.units import format_size

if TYPE_CHECKING:
    from hvshare.caveats import Caveat
    from hvshare.images.options import ReadingOptions
    from hvshare.images.streams import ByteStream

_CHUNK: Final = 1 << 20


class SpooledSource(Source):
    """A temporary file without a name, which holds what a stream gave.

    Parameters
    ----------
    origin : Source
        Where the stream comes from: what is told of a file, such as its identity, is told of that. It is
        closed with this one.
    stream : ByteStream
        Read to its end.
    options : ReadingOptions
        The most bytes that it may have, and who is told of the progress.

    Raises
    ------
    UnsupportedImageError
        If the stream is longer.
    ResourceError
        If there is no room for it.
    EmptyImageError
        If it has no byte.
    """

    def __init__(self, origin: Source, stream: ByteStream, options: ReadingOptions) -> None:
        self._origin = origin
        self.stat = origin.stat
        self.path = origin.path
        with tempfile.TemporaryFile(prefix="hvshare-") as file:
            self.fd = os.dup(file.fileno())
        try:
            self.size = self._copy(stream, options)
            self.head = os.pread(self.fd, HEAD_BYTES, 0)
        except BaseException:
            os.close(self.fd)  # the origin stays with whoever opened it
            raise

    def _copy(self, stream: ByteStream, options: ReadingOptions) -> int:
        size, limit = 0, options.spool_limit
        with memoryview(bytearray(_CHUNK)) as room:
            while count := stream.readinto(room):
                size += count
                if size > limit:
                    raise UnsupportedImageError(
                        f"as a stream of more than {format_size(limit)} it goes beyond the spool limit, and "
                        "its format has to be read at any position",
                        path=self.path,
                        advice="unpack it to a file, or raise --spool-limit",
                    )
                self._write(room[:count])
                if options.on_spool:
                    options.on_spool(count)
        if not size:
            raise EmptyImageError("it is empty", path=self.path, advice="check how the dump was made")
        return size

    def _write(self, unwritten: memoryview) -> None:
        try:
            while unwritten:
                unwritten = unwritten[os.write(self.fd, unwritten) :]
        except OSError as error:
            raise ResourceError(
                f"the stream could not be copied to {tempfile.gettempdir()} ({error.strerror or error})",
                path=self.path,
                advice="set TMPDIR to a folder with enough room, or unpack it to a file",
            ) from error

    @property
    def allocated_bytes(self) -> int | None:
        """Of the origin; see `Source.allocated_bytes`."""
        return self._origin.allocated_bytes

    @property
    def identity(self) -> tuple[int, int] | None:
        """Of the origin; see `Source.identity`."""
        return self._origin.identity

    @property
    def file_bytes(self) -> int | None:
        """Of the origin; see `Source.file_bytes`."""
        return self._origin.file_bytes

    def check_unchanged(self, name: str) -> list[Caveat]:
        """Compare the origin with what it was; see `Source.check_unchanged`."""
        return self._origin.check_unchanged(name)

    def close(self) -> None:
        """Close the temporary file, which removes it, and the origin."""
        super().close()
        self._origin.close()

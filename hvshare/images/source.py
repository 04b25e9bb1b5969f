"""Files, pipes and standard input as bytes: by position, or one after another."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import stat
from typing import TYPE_CHECKING, Final, Protocol

from hvshare.caveats import Caveat
from hvshare.errors import (
    EmptyImageError,
    HvshareError,
    ImageChangedError,
    ResourceError,
    TruncatedImageError,
    UnreadableImageError,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from hvshare.images.streams import ByteStream

_PIPE_BYTES: Final = 1 << 20

HEAD_BYTES: Final = 4096
"""How much of a file is looked at to recognise it."""

MOST_BUFFERS: Final = 1024
"""Buffers that one system call fills (IOV_MAX of Linux)."""


class Positioned(Protocol):
    """Bytes that can be read at any position: of a file, or what a format makes of them."""

    path: str

    @property
    def end(self) -> int:
        """How many bytes there are."""

    def pread(self, buffer: memoryview, offset: int) -> None:
        """Fill a buffer from a position."""

    def preadv(self, buffers: Sequence[memoryview], offset: int) -> None:
        """Fill buffers one after another from a position; at most `MOST_BUFFERS` of them."""


class Source:
    """An opened input: a regular file, a block device, or a pipe.

    Parameters
    ----------
    path : str
        As the user named it; ``-`` is standard input.

    Attributes
    ----------
    size : int or None
        Bytes, or None for what can only be read once from front to back.
    head : bytes
        The first bytes, up to `HEAD_BYTES`.
    stat : os.stat_result
        What the file was when it was opened.

    Raises
    ------
    UnreadableImageError
        If it cannot be opened or is nothing that holds an image.
    EmptyImageError
        If it holds no byte.
    """

    def __init__(self, path: str) -> None:
        self.path = path
        self.fd = -1
        try:
            self.fd = os.dup(0) if path == "-" else os.open(path, os.O_RDONLY | getattr(os, "O_BINARY", 0))
            self.stat = os.fstat(self.fd)
            self.size = self._seekable_size()
            self.head = self._read_head()
        except OSError as error:
            self.close()
            raise _unreadable(error, path) from error
        except ValueError as error:
            self.close()
            raise UnreadableImageError(
                f"no file can be named so ({error})", path=path, advice="check the name"
            ) from error
        except BaseException:
            self.close()
            raise
        if not self.head:
            self.close()
            raise EmptyImageError("it is empty", path=path, advice="check how the dump was made")

    def _seekable_size(self) -> int | None:
        mode = self.stat.st_mode
        if stat.S_ISDIR(mode):
            raise UnreadableImageError(
                "it is a directory", path=self.path, advice="name the image files in it"
            )
        if stat.S_ISCHR(mode):
            if os.isatty(self.fd):
                raise UnreadableImageError(
                    "it is a terminal", path=self.path, advice="pipe an image into the command"
                )
            raise UnreadableImageError(
                "it is a character device, which has no end",
                path=self.path,
                advice="copy what you need of it to a file first",
            )
        if stat.S_ISFIFO(mode) and hasattr(fcntl, "F_SETPIPE_SZ"):
            # Fewer and larger turns between the writer and this reader; the limit may be lower.
            with contextlib.suppress(OSError):
                fcntl.fcntl(self.fd, fcntl.F_SETPIPE_SZ, _PIPE_BYTES)
        if stat.S_ISBLK(mode):
            return os.lseek(self.fd, 0, os.SEEK_END)
        # A shell may hand over a file of which something was already read: then the rest is meant.
        if stat.S_ISREG(mode) and os.lseek(self.fd, 0, os.SEEK_CUR) == 0:
            return self.stat.st_size
        return None

    def _read_head(self) -> bytes:
        if self.size is not None:
            return os.pread(self.fd, HEAD_BYTES, 0)
        head = b""
        while len(head) < HEAD_BYTES and (more := os.read(self.fd, HEAD_BYTES - len(head))):
            head += more
        return head

    @property
    def file_bytes(self) -> int | None:
        """Length of the file that the user named, or None for what is no file."""
        return self.size

    @property
    def identity(self) -> tuple[int, int] | None:
        """Device and inode, or None for what is no file."""
        return (self.stat.st_dev, self.stat.st_ino) if self.size is not None else None

    @property
    def allocated_bytes(self) -> int | None:
        """Bytes that the file takes on its disk, or None for what is no regular file."""
        return self.stat.st_blocks * 512 if stat.S_ISREG(self.stat.st_mode) and self.size else None

    @property
    def end(self) -> int:
        """Bytes of the file.

        Raises
        ------
        ValueError
            If it is a stream, which has no known end.
        """
        if self.size is None:
            raise ValueError("a stream has no positions")
        return self.size

    def pread(self, buffer: memoryview, offset: int) -> None:
        """Fill a buffer from a position of the file.

        Raises
        ------
        ImageChangedError
            If the file ends before the buffer is full.
        UnreadableImageError
            If the operating system reports an error.
        """
        filled = self.pread_some(buffer, offset)
        while filled < len(buffer):
            count = self.pread_some(buffer[filled:], offset + filled)
            if not count:
                raise self._changed(offset + filled)
            filled += count

    def preadv(self, buffers: Sequence[memoryview], offset: int) -> None:
        """Fill buffers one after another from a position of the file; see `pread` for what is raised."""
        try:
            filled = os.preadv(self.fd, buffers, offset)
        except OSError as error:
            raise _unreadable(error, self.path, offset) from error
        if filled == sum(map(len, buffers)):
            return
        for buffer in buffers:
            self.pread(buffer[max(filled, 0) :], offset + max(filled, 0))
            offset += len(buffer)
            filled -= len(buffer)

    def pread_some(self, buffer: memoryview, offset: int) -> int:
        """Read into a buffer from a position; 0 at the end of the file."""
        try:
            return os.preadv(self.fd, [buffer], offset)
        except OSError as error:
            raise _unreadable(error, self.path, offset) from error

    def read_some(self, buffer: memoryview, offset: int) -> int:
        """Read on into a buffer; 0 at the end. The offset is for errors."""
        try:
            return os.readv(self.fd, [buffer])
        except OSError as error:
            raise _unreadable(error, self.path, offset) from error

    def check_unchanged(self, name: str) -> list[Caveat]:
        """Compare the file with what it was when it was opened.

        Raises
        ------
        ImageChangedError
            If its size differs.
        """
        if self.size is None:
            return []
        try:
            now = os.fstat(self.fd)
        except OSError as error:
            raise _unreadable(error, self.path) from error
        if stat.S_ISREG(now.st_mode) and now.st_size != self.size:
            raise self._changed(min(now.st_size, self.size))
        if now.st_mtime_ns == self.stat.st_mtime_ns:
            return []
        return [
            Caveat(
                "written-while-read",
                "the file was written to while it was read: the figures mix two states of the guest",
                "pause the guest, or take a dump of it, and measure again",
                name,
            )
        ]

    def _changed(self, offset: int) -> ImageChangedError:
        return ImageChangedError(
            f"the file had {self.size:,} bytes when it was opened and changed its size while it was read",
            path=self.path,
            offset=offset,
            advice="wait until the dump is complete and try again",
        )

    def stream(self) -> ByteStream:
        """All bytes from front to back; more than once only where `size` is known."""
        return SourceStream(self)

    def close(self) -> None:
        """Close the file."""
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1


class SourceStream:
    """The bytes of a source from front to back."""

    def __init__(self, source: Source) -> None:
        self._source = source
        self._head = source.head if source.size is None else b""
        self.source_bytes = 0

    def readinto(self, buffer: memoryview) -> int:
        """Fill at least one byte of the buffer; 0 at the end."""
        source, offset = self._source, self.source_bytes
        if self._head:
            count = min(len(self._head), len(buffer))
            buffer[:count] = self._head[:count]
            self._head = self._head[count:]
        elif source.size is None:
            count = source.read_some(buffer, offset)
        else:
            count = source.pread_some(buffer, offset)
        self.source_bytes += count
        return count


def read_part(data: Positioned, offset: int, size: int, what: str) -> bytes:
    """Read a header or table of a format.

    Parameters
    ----------
    data : Positioned
        Where from.
    offset, size : int
        Bytes, as a header said: not to be trusted.
    what : str
        What is there, for the error.

    Raises
    ------
    TruncatedImageError
        If it does not lie within the data. Nothing is allocated then.
    """
    if not 0 <= offset <= offset + size <= data.end:
        raise TruncatedImageError(
            f"{what} of {size:,} bytes should be at byte {offset:,}, and the file ends at byte {data.end:,}",
            path=data.path,
            offset=offset if offset >= 0 else None,
            advice="copy or take the dump again",
        )
    part = bytearray(size)
    data.pread(memoryview(part), offset)
    return bytes(part)


def _unreadable(error: OSError, path: str, offset: int | None = None) -> HvshareError:
    if error.errno in {errno.EMFILE, errno.ENFILE}:
        return ResourceError(
            "too many files are open", path=path, advice="raise the limit (ulimit -n) or name fewer images"
        )
    advice = {
        FileNotFoundError: "check the name",
        PermissionError: "ask for the right to read it, or run as the user who owns it",
    }.get(type(error), "check the file and the disk that it is on")
    problem = {FileNotFoundError: "there is no such file", PermissionError: "no permission to read it"}.get(
        type(error), error.strerror or str(error)
    )
    return UnreadableImageError(problem, path=path, offset=offset, advice=advice)

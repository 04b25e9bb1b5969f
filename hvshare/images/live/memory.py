"""The memory of a running process: where each page of it can be read, and reading it."""

from __future__ import annotations

import errno
import os
from bisect import bisect_right
from typing import TYPE_CHECKING, Final, NamedTuple, Self

from hvshare.errors import EmptyImageError, ImageChangedError, UnreadableImageError
from hvshare.images.extents import Extents
from hvshare.images.live.backing_files import open_backing
from hvshare.images.live.pagemap import HOST_PAGE, Pagemap, PageState
from hvshare.images.live.process_memory import WORTH_IT, can_read_fast, read_fast
from hvshare.images.runs import RunKind, Runs
from hvshare.images.source import Source
from hvshare.units import PAGE_SIZE

if TYPE_CHECKING:
    from collections.abc import Sequence

    from hvshare.caveats import Caveat
    from hvshare.images.live.backing_files import BackingFile
    from hvshare.images.live.maps import Mapping
    from hvshare.images.live.process import Process
    from hvshare.images.options import ReadingOptions

_ADDRESSES: Final = 1 << 57
"""Behind all virtual addresses of processes; offsets from here on are those of files."""


class MappedFile(NamedTuple):
    """A file that a process maps, and the offset in a `LiveSource` that its first byte has."""

    file: BackingFile
    start: int


class LiveSource(Source):
    """The memory of a process, followed by the files that it maps.

    Parameters
    ----------
    process : Process
        It is closed with this object.

    Raises
    ------
    UnreadableImageError
        If this process has not the rights for it.
    EmptyImageError
        If it is a thread of the kernel, which has none.
    """

    def __init__(self, process: Process) -> None:
        self.path = process.path
        self.process = process
        self.stat = process.stat
        self.size = None
        self.head = b""
        self.fd = self._open_memory(process)
        self._files: dict[tuple[int, str], MappedFile | None] = {}
        self._fast = can_read_fast()
        self._pid = int(process.pid)
        self._fds = [self.fd]
        self._starts = [0]
        self._end = _ADDRESSES

    @staticmethod
    def _open_memory(process: Process) -> int:
        try:
            return process.open("mem")
        except ImageChangedError as error:
            process.check_alive()
            raise no_memory(process.path) from error

    def file(self, mapping: Mapping) -> MappedFile | None:
        """Open the file behind a mapping, or give the one that was opened; see `open_backing`."""
        key = mapping.inode, mapping.name
        if key not in self._files:
            file = open_backing(self.process, mapping)
            self._files[key] = None if file is None else self._add(file)
        return self._files[key]

    def _add(self, file: BackingFile) -> MappedFile:
        start = self._end
        self._fds.append(file.fd)
        self._starts.append(start)
        # Nothing lies right behind a file, or pages of two files would be read as one part.
        self._end += file.size + -file.size % HOST_PAGE + HOST_PAGE
        return MappedFile(file, start)

    @property
    def identity(self) -> tuple[int, int]:
        """The process; see `Source.identity`."""
        return self.stat.st_dev, self._pid

    def shows(self, address: int) -> bool:
        """Whether the kernel lets a page of the process be read that the process itself may not read."""
        try:
            return bool(os.pread(self.fd, 1, address))
        except OSError:
            return False

    def pread(self, buffer: memoryview, offset: int) -> None:
        """Fill a buffer from a virtual address, or from a file.

        Raises
        ------
        ImageChangedError
            If the process has ended, or has given the memory back.
        UnreadableImageError
            If the operating system reports another error.
        """
        part = bisect_right(self._starts, offset) - 1
        fd, at = self._fds[part], offset - self._starts[part]
        filled = 0
        if not part and len(buffer) >= WORTH_IT and self._fast:
            filled = read_fast(self._pid, buffer, at)
        while filled < len(buffer):
            try:
                count = os.preadv(fd, [buffer[filled:]], at + filled)
            except OSError as error:
                raise self._gone(error, at + filled) from error
            if not count:
                raise self._gone(None, at + filled)
            filled += count

    def preadv(self, buffers: Sequence[memoryview], offset: int) -> None:
        """Fill buffers one after another; see `pread`."""
        for buffer in buffers:
            self.pread(buffer, offset)
            offset += len(buffer)

    def _gone(self, error: OSError | None, at: int) -> ImageChangedError | UnreadableImageError:
        self.process.check_alive()
        if error is not None and error.errno not in {errno.EIO, errno.EFAULT}:
            return UnreadableImageError(
                error.strerror or str(error), path=self.path, offset=at, advice="see the log of the kernel"
            )
        return ImageChangedError(
            "the memory there went away while it was read",
            path=self.path,
            offset=at,
            advice="pause the guest and measure again",
        )

    def check_unchanged(self, name: str) -> list[Caveat]:  # noqa: ARG002  # as Source has it
        """Make sure that the process is still the same.

        Raises
        ------
        ImageChangedError
            If it has ended.
        """
        self.process.check_alive()
        return []

    def close(self) -> None:
        """Let go of the process and of its files."""
        for each in self._files.values():
            if each is not None:
                each.file.close()
        self._files.clear()
        super().close()
        self.process.close()


def no_memory(path: str) -> EmptyImageError:
    """Say that a process has nothing to read."""
    return EmptyImageError(
        "the process has no private memory",
        path=path,
        advice="check the number; threads of the kernel have none",
    )


class LivePages:
    """The pages of an image, found mapping by mapping.

    Parameters
    ----------
    source : LiveSource
        Where they are.
    options : ReadingOptions
        Whether swapped pages are read.

    Attributes
    ----------
    runs, extents : Runs and Extents
        For `StoredImage`.
    swapped : int
        Pages that are ABSENT for that.
    unseen : int
        Pages that are ABSENT because the file that has them could not be opened.
    forbidden : int
        Pages that are ABSENT because not even the process may read them, and the kernel makes no exception.
    """

    def __init__(self, source: LiveSource, options: ReadingOptions) -> None:
        self._source = source
        self._pagemap = Pagemap(source.process)
        self._read_swapped = options.read_swapped
        self.runs = Runs()
        self.extents = Extents()
        self.swapped = 0
        self.unseen = 0
        self.forbidden = 0

    def add(self, mapping: Mapping, start: int, end: int, address: int) -> None:
        """Add the memory of a guest.

        Parameters
        ----------
        mapping : Mapping
            That it is in.
        start, end : int
            Virtual addresses.
        address : int
            Guest physical address of the first byte. It is behind all that was added before.
        """
        file = self._source.file(mapping) if mapping.inode else None
        if mapping.is_shared and file is not None:
            self._add_file(file, mapping, start, end, address)
            return
        for low, high, state in self._pagemap.ranges(start, end):
            at = address + low - start
            match state:
                case PageState.OWN | PageState.FILE:
                    self._append(at, high - low, RunKind.PRESENT, low)
                case PageState.SWAPPED:
                    self._append_swapped(at, high - low, low)
                case PageState.NOTHING if not mapping.inode:
                    self._append(at, high - low, RunKind.ZERO)
                case PageState.NOTHING if file is not None:
                    self._add_file(file, mapping, low, high, at)
                case PageState.NOTHING:
                    self.unseen += (high - low) // PAGE_SIZE
                    self._append(at, high - low, RunKind.ABSENT)

    def add_own(self, mapping: Mapping) -> None:
        """Add what a process has for itself alone in a mapping, by its virtual addresses.

        That is anonymous memory and, in private mappings of files, the pages that it has written to. What is
        shared, pages of files, and address space that is only reserved are in no run.
        """
        if mapping.is_shared or not (mapping.inode or mapping.is_anonymous):
            return
        for low, high, state in self._pagemap.ranges(mapping.start, mapping.end):
            match state:
                case PageState.OWN if mapping.is_readable or self._source.shows(low):
                    self._append(low, high - low, RunKind.PRESENT, low)
                case PageState.OWN:
                    self.forbidden += (high - low) // PAGE_SIZE
                    self._append(low, high - low, RunKind.ABSENT)
                case PageState.SWAPPED:
                    self._append_swapped(low, high - low, low)
                case PageState.NOTHING if mapping.is_anonymous and not mapping.is_reserved:
                    self._append(low, high - low, RunKind.ZERO)

    def _add_file(self, file: MappedFile, mapping: Mapping, start: int, end: int, address: int) -> None:
        shift = mapping.offset - mapping.start
        for part in file.file.parts(start + shift, end + shift):
            at = address + part.start - shift - start
            if part.swapped:
                self._append_swapped(at, part.end - part.start, file.start + part.start)
            else:
                self._append(at, part.end - part.start, part.kind, file.start + part.start)

    def _append_swapped(self, address: int, size: int, offset: int) -> None:
        if self._read_swapped:
            self._append(address, size, RunKind.PRESENT, offset)
        else:
            self.swapped += size // PAGE_SIZE
            self._append(address, size, RunKind.ABSENT)

    def _append(self, address: int, size: int, kind: RunKind, offset: int = 0) -> None:
        self.runs.append(address // PAGE_SIZE, size // PAGE_SIZE, kind)
        if kind == RunKind.PRESENT:
            self.extents.append(offset, size // PAGE_SIZE)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._pagemap.close()

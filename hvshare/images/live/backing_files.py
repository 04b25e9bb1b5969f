"""Files that are mapped as memory: what they hold, without a page of the process being touched.

Where guest memory is shared, the page table of one process does not tell what is in the file: another process
may have filled it, and the host takes pages out of a page table that stay in the file. So the file is asked.

Source: Linux, ``Documentation/admin-guide/mm/pagemap.rst`` ("Exceptions for Shared Memory"), lseek(2),
mincore(2), statfs(2), ``include/uapi/linux/magic.h``. Reading a hole of such a file by pread(2) gives zeros
and allocates nothing.
"""

from __future__ import annotations

import contextlib
import ctypes
import mmap
import os
import stat
from array import array
from bisect import bisect_right
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple

import numpy as np

from hvshare.images.live.pagemap import HOST_PAGE
from hvshare.images.runs import RunKind
from hvshare.images.sparse import data_extents

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from hvshare.images.live.maps import Mapping
    from hvshare.images.live.process import Process

_TMPFS: Final = 0x01021994
_HUGETLBFS: Final = 0x958458F6
_STATFS_BYTES: Final = 256
_WINDOW: Final = 1 << 30


class FilePart(NamedTuple):
    """Bytes of a file that are alike.

    Attributes
    ----------
    start, end : int
        Offsets.
    kind : RunKind
        PRESENT where it has data, ZERO in a hole, ABSENT behind its end.
    swapped : bool
        Whether the host has swapped the data out. Only for files in memory.
    """

    start: int
    end: int
    kind: RunKind
    swapped: bool = False


class BackingFile:
    """An opened file that a process maps.

    Parameters
    ----------
    fd : int
        Opened for reading; it is closed with this object.

    Attributes
    ----------
    size : int
        Bytes, when it was opened.
    """

    def __init__(self, fd: int) -> None:
        self.fd = fd
        found = os.fstat(fd)
        self.size = found.st_size
        kind = _file_system(fd)
        self._may_be_swapped = kind == _TMPFS and _host_swaps()
        self._starts, self._ends = array("q"), array("q")
        if kind == _HUGETLBFS and not found.st_blocks:
            return  # it tells no holes apart, but that there is nothing at all
        for first, behind in data_extents(fd, self.size):
            start, end = first - first % HOST_PAGE, behind + -behind % HOST_PAGE
            if self._ends and start <= self._ends[-1]:
                self._ends[-1] = end
            else:
                self._starts.append(start)
                self._ends.append(end)

    def parts(self, start: int, end: int) -> Iterator[FilePart]:
        """Tell what the file holds.

        Parameters
        ----------
        start, end : int
            Offsets of host pages.

        Yields
        ------
        FilePart
            Ascending; together they cover everything.
        """
        behind = max(min(end, self.size + -self.size % HOST_PAGE), start)
        at = start
        number = max(bisect_right(self._starts, start) - 1, 0)
        while number < len(self._starts) and self._starts[number] < behind:
            low, high = max(self._starts[number], at), min(self._ends[number], behind)
            if low < high:
                if at < low:
                    yield FilePart(at, low, RunKind.ZERO)
                yield from self._data(low, high)
                at = high
            number += 1
        if at < behind:
            yield FilePart(at, behind, RunKind.ZERO)
        if behind < end:
            yield FilePart(behind, end, RunKind.ABSENT)

    def _data(self, start: int, end: int) -> Iterator[FilePart]:
        if not self._may_be_swapped:
            yield FilePart(start, end, RunKind.PRESENT)
            return
        for at in range(start, end, _WINDOW):
            resident = _resident(self.fd, at, min(_WINDOW, end - at, self.size - at))
            edges = [0, *(np.flatnonzero(np.diff(resident)) + 1).tolist(), len(resident)]
            for first, behind in pairwise(edges):
                low, high = at + first * HOST_PAGE, at + behind * HOST_PAGE
                yield FilePart(low, high, RunKind.PRESENT, swapped=not resident[first])

    def close(self) -> None:
        """Close the file."""
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1


def open_backing(process: Process, mapping: Mapping) -> BackingFile | None:
    """Open the file behind a mapping.

    Parameters
    ----------
    process : Process
        That has the mapping.
    mapping : Mapping
        As the kernel lists it.

    Returns
    -------
    BackingFile or None
        None if it is no regular file, or this process has not the rights for it: `map_files` takes
        CAP_CHECKPOINT_RESTORE or CAP_SYS_ADMIN, and the files that a process has open take those of a tracer.
    """
    for name in (f"map_files/{mapping.start:x}-{mapping.end:x}", *process.open_files()):
        with contextlib.suppress(OSError):
            if process.link(name) == mapping.name and _is_file(process.status(name), mapping):
                return _opened(process, name)
    return None


def _is_file(status: os.stat_result, mapping: Mapping) -> bool:
    return stat.S_ISREG(status.st_mode) and status.st_ino == mapping.inode


def _opened(process: Process, name: str) -> BackingFile:
    fd = process.try_open(name)
    try:
        return BackingFile(fd)
    except BaseException:
        os.close(fd)
        raise


def _library() -> ctypes.CDLL:
    return ctypes.CDLL(None, use_errno=True)


def _file_system(fd: int) -> int:
    """Give the magic number of the file system that a file is on; 0 if it is not known."""
    found = ctypes.create_string_buffer(_STATFS_BYTES)
    return 0 if _library().fstatfs(fd, found) else ctypes.c_uint32.from_buffer(found).value


def _host_swaps() -> bool:
    try:
        return len(Path("/proc/swaps").read_text().splitlines()) > 1
    except OSError:
        return True


def _resident(fd: int, start: int, size: int) -> NDArray[np.bool_]:
    """Tell which pages of a file are in memory, by a mapping of it that is never touched.

    Where the host does not tell, which takes the right to write to the file, all of them are taken to be.
    """
    pages = -(-size // HOST_PAGE)
    found = np.ones(pages, np.uint8)
    with mmap.mmap(fd, size, mmap.MAP_SHARED, mmap.PROT_READ, offset=start) as window:
        view = np.frombuffer(window, np.uint8)
        address = ctypes.c_void_p(view.ctypes.data)
        failed = _library().mincore(address, ctypes.c_size_t(size), ctypes.c_void_p(found.ctypes.data))
        del view
    return np.ones(pages, np.bool_) if failed else (found & 1).astype(np.bool_)

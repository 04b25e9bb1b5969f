"""Where a sparse file holds data, asked of the file system (lseek(2), SEEK_DATA and SEEK_HOLE)."""

from __future__ import annotations

import errno
import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator


def lies_in_hole(fd: int, offset: int, size: int) -> bool:
    """Whether a part of a file is nothing but hole. The offset of the file moves."""
    if not hasattr(os, "SEEK_DATA"):
        return False
    try:
        return os.lseek(fd, offset, os.SEEK_DATA) >= offset + size
    except OSError as error:
        return error.errno == errno.ENXIO


def data_extents(fd: int, size: int, start: int = 0) -> Iterator[tuple[int, int]]:
    """List the parts of a file that are no holes, without reading it.

    Parameters
    ----------
    fd : int
        A file that can be seeked. Its offset moves.
    size : int
        Bytes of the file.
    start : int
        Where to begin.

    Yields
    ------
    tuple of int
        First byte of an extent and the one behind it, ascending. Where the file system knows no holes,
        the whole file is one extent.
    """
    if not hasattr(os, "SEEK_DATA"):
        yield start, size
        return
    at = start
    while at < size:
        try:
            start = os.lseek(fd, at, os.SEEK_DATA)
            end = os.lseek(fd, start, os.SEEK_HOLE)
        except OSError as error:
            if error.errno != errno.ENXIO:  # ENXIO: nothing but hole up to the end
                yield at, size
            return
        if start >= size:
            return
        yield start, min(end, size)
        at = end

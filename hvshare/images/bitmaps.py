"""Bitmaps of pages in files, and what is known of each page, turned into runs without a loop over pages."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np

from hvshare.errors import TruncatedImageError
from hvshare.images.runs import RunKind, Runs
from hvshare.images.source import Source
from hvshare.images.sparse import lies_in_hole

if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import TypeAlias

    from numpy.typing import NDArray

    Window: TypeAlias = NDArray[np.bool_] | int
    """Bits of a bitmap; a number is so many that are not set, in a hole of the file."""

    Flags: TypeAlias = NDArray[np.int8] | tuple[int, int]
    """What is known of each page; a flag and a number are so many pages of which the same is known."""

    from hvshare.images.source import Positioned

NO_MEMORY: Final = -1
"""The flag of a page that is no memory of the guest; the other flags are the values of `RunKind`."""

WINDOW_BITS: Final = 1 << 21
"""Bits that `read_bits` yields at a time: 256 KiB of a bitmap, which stand for 8 GiB of a guest."""


def read_bits(data: Positioned, offset: int, bits: int, what: str) -> Iterator[Window]:
    """Read a bitmap in windows; the lowest bit of a byte is the first, as in kdump and Windows dumps.

    Parameters
    ----------
    data : Positioned
        Where it is.
    offset, bits : int
        Its first byte and how many bits it has, as a header said: not to be trusted. The unused bits of the
        last byte are not looked at.
    what : str
        What it is, for the error.

    Returns
    -------
    iterator of ndarray or int
        Of dtype bool and shape (`WINDOW_BITS`,), the last one of what is left; none if there are no bits. A
        window stays as it is when the next one is read. One that is a hole of the file is its number of
        bits, since a sparse file may have any number of them.

    Raises
    ------
    TruncatedImageError
        If it does not lie within the data. That is told by the call, before anything is read or allocated.

    Examples
    --------
    >>> class Bytes:
    ...     path, end = "a.dump", 2
    ...
    ...     def pread(self, buffer, offset):
    ...         buffer[:] = bytes([0b101, 0b1])[offset : offset + len(buffer)]
    >>> [window.astype(int).tolist() for window in read_bits(Bytes(), 0, 9, "the bitmap")]
    [[1, 0, 1, 0, 0, 0, 0, 0, 1]]
    >>> read_bits(Bytes(), 0, 17, "the bitmap")  # doctest: +ELLIPSIS
    Traceback (most recent call last):
    ...
    hvshare.errors.TruncatedImageError: a.dump: at byte 0: the bitmap of 3 bytes should be here, and the ...
    """
    size = -(-bits // 8)
    if bits < 0 or not 0 <= offset <= offset + size <= data.end:
        raise TruncatedImageError(
            f"{what} of {size:,} bytes should be here, and the file ends at byte {data.end:,}",
            path=data.path,
            offset=offset,
            advice="copy or take the dump again",
        )
    return _windows(data, offset, bits)


def _windows(data: Positioned, offset: int, bits: int) -> Iterator[Window]:
    room = np.empty(min(WINDOW_BITS, bits) // 8 + 1, np.uint8)
    for first in range(0, bits, WINDOW_BITS):
        count = min(WINDOW_BITS, bits - first)
        part = room[: -(-count // 8)]
        if isinstance(data, Source) and lies_in_hole(data.fd, offset + first // 8, len(part)):
            yield count
            continue
        data.pread(part.data, offset + first // 8)
        yield np.unpackbits(part, count=count, bitorder="little").view(np.bool_)


def as_bits(window: Window) -> NDArray[np.bool_]:
    """Give the bits of a window, also of one in a hole."""
    return np.zeros(window, np.bool_) if isinstance(window, int) else window


def count_bits(data: Positioned, offset: int, bits: int, what: str) -> int:
    """Count the bits that are set in a bitmap; see `read_bits` for the parameters and what is raised."""
    return sum(int(np.count_nonzero(as_bits(window))) for window in read_bits(data, offset, bits, what))


def runs_from_flags(chunks: Iterator[Flags]) -> Runs:
    """Turn what is known of each page into runs.

    Parameters
    ----------
    chunks : iterator of ndarray or tuple of int
        Of dtype int8: for each page from guest frame number 0 on, the value of its `RunKind` or `NO_MEMORY`;
        or one such value and how many pages have it.
        Chunks may be of any length and follow each other. Each is let go of before the next is asked for, so
        a generator may fill one array again and again.

    Returns
    -------
    Runs
        Memory is 25 bytes a run, and some 30 bytes a page of one chunk where every page is a run of its own.

    Raises
    ------
    ValueError
        If there is another flag.

    Examples
    --------
    >>> flags = np.array([0, 0, 1, -1], np.int8), np.array([-1, 2, 0], np.int8)
    >>> [tuple(map(int, run)) for run in runs_from_flags(iter(flags))]
    [(0, 2, 0), (2, 1, 1), (5, 1, 2), (6, 1, 0)]
    """
    runs = Runs()
    base = 0
    for flags in chunks:
        if isinstance(flags, tuple):
            flag, pages = flags
            if flag != NO_MEMORY:
                runs.append(base, pages, RunKind(flag))
            base += pages
            continue
        if not len(flags):
            continue
        if flags.min() < NO_MEMORY or flags.max() > max(RunKind):
            raise ValueError(f"a flag of a page is none of {[NO_MEMORY, *map(int, RunKind)]}")
        starts = np.flatnonzero(flags[1:] != flags[:-1]) + 1
        starts = np.concatenate((np.zeros(1, np.int64), starts))
        kinds = flags[starts]
        lengths = np.diff(starts, append=len(flags))
        if (memory := kinds != NO_MEMORY).all():
            runs.extend(starts + base, lengths, kinds)
        else:
            runs.extend(starts[memory] + base, lengths[memory], kinds[memory])
        base += len(flags)
    return runs

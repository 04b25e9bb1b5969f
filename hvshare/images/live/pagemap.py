"""What the host holds of each page of a process, asked without touching the page.

Source: Linux, ``Documentation/admin-guide/mm/pagemap.rst`` and ``fs/proc/task_mmu.c``: ``/proc/PID/pagemap``
has 64 bits a page, of which bit 63 says present, 62 swapped, 61 page of a file or of shared memory, and 58
(from Linux 6.15 on) guard page. Pages that move within the host's memory look swapped for that moment.
"""

from __future__ import annotations

import enum
import os
import time
from typing import TYPE_CHECKING, Final, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from hvshare.images.live.process import Process

HOST_PAGE: Final = os.sysconf("SC_PAGE_SIZE")
"""Bytes of what one entry is about."""

_WORD_BYTES: Final = 8
_WINDOW_PAGES: Final = 1 << 16
_PRESENT: Final = np.uint64(1 << 63)
_SWAPPED: Final = np.uint64(1 << 62)
_FILE: Final = np.uint64(1 << 61)
_GUARD: Final = np.uint64(1 << 58)
_MOVE_SECONDS: Final = 0.001


class PageState(enum.IntEnum):
    """What the page table of a process has for a page.

    Attributes
    ----------
    NOTHING
        No page: it was never touched or was given back, or is one of a file that is not mapped right now.
    OWN
        A page of the process alone, or the host's zero page.
    FILE
        A page of a file or of shared memory.
    SWAPPED
        A page of the process alone, which the host has swapped out.
    GUARD
        A mark that nobody may touch it.
    """

    NOTHING = 0
    OWN = 1
    FILE = 2
    SWAPPED = 3
    GUARD = 4


class PageRange(NamedTuple):
    """Pages of one state that follow each other."""

    start: int
    end: int
    state: PageState


_STATES: Final = tuple(PageState)


def decode(words: NDArray[np.uint64]) -> NDArray[np.uint8]:
    """Tell the states of pages.

    Parameters
    ----------
    words : array of uint64
        Of ``/proc/PID/pagemap``.

    Returns
    -------
    array of uint8
        A `PageState` for each.

    Examples
    --------
    >>> decode(np.array([0, 1 << 63 | 5, 1 << 62, 5 << 61], np.uint64)).tolist()
    [0, 1, 3, 2]
    """
    states = np.zeros(len(words), np.uint8)
    present = (words & _PRESENT) != 0
    states[(words & _SWAPPED) != 0] = PageState.SWAPPED
    states[(words & _GUARD) != 0] = PageState.GUARD
    states[present] = PageState.OWN
    states[present & ((words & _FILE) != 0)] = PageState.FILE
    return states


class Pagemap:
    """The pagemap of a process.

    Parameters
    ----------
    process : Process
        Which may be read.
    """

    def __init__(self, process: Process) -> None:
        self._process = process
        self._fd = process.open("pagemap")
        self._words = np.empty(_WINDOW_PAGES, np.uint64)

    def ranges(self, start: int, end: int) -> Iterator[PageRange]:
        """Tell the states of all pages between two addresses.

        Parameters
        ----------
        start, end : int
            Virtual addresses of host pages.

        Yields
        ------
        PageRange
            Ascending; together they cover everything. Neighbours may be of one state.

        Raises
        ------
        ImageChangedError
            If the process has ended.
        """
        window = _WINDOW_PAGES * HOST_PAGE
        for at in range(start, end, window):
            states = self._states(at, min(at + window, end))
            if states is None:
                yield PageRange(at, min(at + window, end), PageState.NOTHING)
                continue
            edges = np.flatnonzero(np.diff(states)) + 1
            firsts = [0, *edges.tolist()]
            for first, behind in zip(firsts, [*firsts[1:], len(states)], strict=True):
                state = _STATES[states[first]]
                yield PageRange(at + first * HOST_PAGE, at + behind * HOST_PAGE, state)

    def _states(self, start: int, end: int) -> NDArray[np.uint8] | None:
        """Read and decode a window; None if no page of it is anything."""
        words = self._read(start, end)
        if not words.any():
            return None
        states = decode(words)
        if PageState.SWAPPED in states:
            time.sleep(_MOVE_SECONDS)
            swapped = states == PageState.SWAPPED
            states[swapped] = decode(self._read(start, end))[swapped]
        return states

    def _read(self, start: int, end: int) -> NDArray[np.uint64]:
        words = self._words[: (end - start) // HOST_PAGE]
        room = memoryview(words.view(np.uint8).data)
        offset = start // HOST_PAGE * _WORD_BYTES
        filled = 0
        while filled < len(room):
            count = os.preadv(self._fd, [room[filled:]], offset + filled)
            if not count:
                raise self._process.ended()
            filled += count
        return words

    def close(self) -> None:
        """Close the file."""
        os.close(self._fd)

"""Made guests and their disks, written to files."""

from __future__ import annotations

import fcntl
import os
import stat
from dataclasses import dataclass
from functools import partial
from typing import IO, TYPE_CHECKING, Final

import numpy as np

from hvshare.errors import OutputError
from hvshare.fingerprint.pages import BlockBuffer
from hvshare.sharing.range_pool import add_up
from hvshare.synth.truth import Truth
from hvshare.units import PAGE_SIZE

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from hvshare.synth.guest import GuestPlan
    from hvshare.synth.template import Template

_BLOCK_PAGES: Final = 2048
_TASK_PAGES: Final = 4 * _BLOCK_PAGES


@dataclass(frozen=True)
class _Found:
    """Truth of some spans of pages, by their first gfn."""

    spans: tuple[tuple[int, Truth], ...] = ()

    def __add__(self, other: _Found) -> _Found:
        return _Found(self.spans + other.spans)


def write_guest(
    plan: GuestPlan,
    file: IO[bytes],
    *,
    jobs: int = 1,
    truth: bool = False,
    on_pages: Callable[[int], None] | None = None,
    name: str = "",
) -> Truth | None:
    """Write the memory of a guest as a raw image: byte N is guest-physical address N.

    Parameters
    ----------
    plan : GuestPlan
        The guest.
    file : file object
        Opened to write bytes; nothing is buffered in it. A regular file is written at several places at once.
    jobs : int
        Processes at the most.
    truth : bool
        Whether to find out what is true of each page, which takes as long again.
    on_pages : callable, optional
        Receives how many more pages are written.
    name : str
        What errors call the file.

    Returns
    -------
    Truth or None

    Raises
    ------
    OutputError
        If there is no room for it.
    WorkerError
        If a process ends without having done its work.
    """
    found = _write(file, len(plan), plan.make, jobs, plan if truth else None, on_pages, name)
    if not truth:
        return None
    spans = [each for _, each in sorted(found.spans, key=lambda span: span[0])]
    return Truth(
        plan.owners,
        np.concatenate([each.aslr for each in spans]),
        np.concatenate([each.contents for each in spans]),
    )


def write_disk(
    template: Template,
    file: IO[bytes],
    *,
    jobs: int = 1,
    on_pages: Callable[[int], None] | None = None,
    name: str = "",
) -> None:
    """Write the disk of a template as a raw image; see `write_guest`."""
    _write(file, len(template.disk), template.make_disk_pages, jobs, None, on_pages, name)


def _write(
    file: IO[bytes],
    pages: int,
    make: Callable[[NDArray[np.uint64], int], None],
    jobs: int,
    plan: GuestPlan | None,
    on_pages: Callable[[int], None] | None,
    name: str,
) -> _Found:
    if not pages:
        return _Found()  # a disk may have none, and there is no room of no bytes to be had
    base = _reserve(file, pages * PAGE_SIZE, name)
    tasks = [
        partial(_write_span, file, start, min(start + _TASK_PAGES, pages), make, plan, base)
        for start in range(0, pages, _TASK_PAGES)
    ]
    left = pages

    def on_done(tasks: int) -> None:
        nonlocal left
        done = min(tasks * _TASK_PAGES, left)  # the last task may be a short one
        left -= done
        if on_pages is not None:
            on_pages(done)

    found = add_up([tasks], 1 if base is None else jobs, on_done)
    if base is not None:
        # Where whoever has the file open, too, writes on.
        os.lseek(file.fileno(), base + pages * PAGE_SIZE, os.SEEK_SET)
    return found


def _reserve(file: IO[bytes], size: int, name: str) -> int | None:
    """Make room for some bytes where a file stands; gives that place, or None if it takes them in order only.

    A file that is opened to be appended to puts at its end what is written anywhere.
    """
    descriptor = file.fileno()
    if not stat.S_ISREG(os.fstat(descriptor).st_mode) or fcntl.fcntl(descriptor, fcntl.F_GETFL) & os.O_APPEND:
        return None
    base = os.lseek(descriptor, 0, os.SEEK_CUR)
    try:
        if hasattr(os, "posix_fallocate"):
            os.posix_fallocate(descriptor, base, size)
    except OSError as error:
        raise OutputError(
            f"the result could not be written ({error.strerror or error})",
            path=name,
            advice="check the free space there",
        ) from error
    return base


def _write_span(
    file: IO[bytes],
    start: int,
    end: int,
    make: Callable[[NDArray[np.uint64], int], None],
    plan: GuestPlan | None,
    base: int | None,
) -> _Found:
    """Make and write a span of pages, and find out what is true of them if a plan says so."""
    out = np.empty((_BLOCK_PAGES, PAGE_SIZE // 8), np.uint64)
    room = out.data.cast("B")
    moved, contents = [], []
    without = BlockBuffer(_BLOCK_PAGES) if plan is not None else None
    for first in range(start, end, _BLOCK_PAGES):
        count = min(_BLOCK_PAGES, end - first)
        make(out[:count], first)
        view = room[: count * PAGE_SIZE]
        if base is None:
            file.write(view)
        else:
            _write_at(file.fileno(), view, base + first * PAGE_SIZE)
        if plan is not None and without is not None:
            fixed = np.frombuffer(without.room, np.uint64).reshape(_BLOCK_PAGES, -1)[:count]
            plan.make(fixed, first, fixed=True)
            moved.append((fixed != out[:count]).any(axis=1))
            contents.append(np.array(without.digests(count), np.uint64))
    if plan is None:
        return _Found()
    return _Found(((start, Truth(plan.owners[start:end], np.concatenate(moved), np.concatenate(contents))),))


def _write_at(descriptor: int, view: memoryview, offset: int) -> None:
    while view:
        written = os.pwrite(descriptor, view, offset)
        view, offset = view[written:], offset + written

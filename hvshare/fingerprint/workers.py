"""Images to digests on all cores: tasks, the processes that do them, and a clean end.

Processes are forked, so they start in milliseconds and inherit opened pipes. They are forked before numpy
is imported, because they do not need it. Where there is no safe fork (any system but Linux, or a caller
that is a daemonic process itself) everything is done in the calling process.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
from array import array
from multiprocessing.connection import wait
from typing import TYPE_CHECKING, Final, NamedTuple, cast

from hvshare.errors import HvshareError, UnreadableImageError, WorkerError
from hvshare.fingerprint.pages import BlockBuffer, digest_pages
from hvshare.images.runs import RunKind

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from multiprocessing.connection import Connection
    from multiprocessing.process import BaseProcess

    from hvshare.caveats import Caveat
    from hvshare.images.image import GuestImage

_EXTENT_PAGES: Final = 4096
_MOST_TASKS: Final = 8192  # 4 bytes each: they fit in the buffer of a pipe
_WORTH_FORKING: Final = 16384  # pages; below 64 MiB a process takes longer to start than to work


class Task(NamedTuple):
    """A part of an image for one worker.

    Attributes
    ----------
    image : int
        Index of the image.
    span : tuple of int or None
        Guest frame numbers, or None for an image that can only be read whole.
    position : int
        PRESENT pages of the image before the span.
    pages : int
        PRESENT pages of the span, as far as known.
    """

    image: int
    span: tuple[int, int] | None
    position: int
    pages: int


class Extent(NamedTuple):
    """Digests of pages that follow each other in an image.

    Attributes
    ----------
    image : int
        Index of the image.
    position : int
        PRESENT pages of the image before these.
    first_gfn : int
        Guest frame number of the first page.
    digests : bytes
        8 bytes a page, in the byte order of the machine.
    source_bytes : int
        Bytes of the file that were read for it.
    """

    image: int
    position: int
    first_gfn: int
    digests: bytes
    source_bytes: int


class StreamEnd(NamedTuple):
    """An image that could only be read whole has been."""

    image: int
    caveats: list[Caveat]


class Failure(NamedTuple):
    """An image, or a part of it, cannot be used."""

    image: int
    error: HvshareError


Message = Extent | StreamEnd | Failure


def default_jobs() -> int:
    """Processors that this process may run on."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def plan(images: Sequence[GuestImage]) -> list[Task]:
    """Cut images into tasks, those that cannot be cut first, since they take longest."""
    present = [image.runs.pages_of(RunKind.PRESENT) if image.runs is not None else 0 for image in images]
    tasks = [Task(index, None, 0, 0) for index, image in enumerate(images) if image.runs is None]
    task_pages = max(_EXTENT_PAGES, -(-sum(present) // _MOST_TASKS))
    for index, image in enumerate(images):
        if image.runs is None:
            continue
        position = 0
        for span in image.runs.spans(task_pages):
            pages = min(task_pages, present[index] - position)
            tasks.append(Task(index, span, position, pages))
            position += pages
    return tasks


def perform(task: Task, images: Sequence[GuestImage], buffer: BlockBuffer) -> Iterator[Message]:
    """Read and digest the pages of one task.

    Yields
    ------
    Extent
        At least one for every 16 MiB of contents.
    StreamEnd
        At the end of an image that is read whole.
    Failure
        Instead of anything further, if the image cannot be used.
    """
    image = images[task.image]
    digests = array("Q")
    position, first_gfn, source_bytes = task.position, 0, 0
    try:
        for block in image.blocks(buffer.room, task.span):
            if digests and (block.first_gfn != first_gfn + len(digests) or len(digests) >= _EXTENT_PAGES):
                yield Extent(task.image, position, first_gfn, digests.tobytes(), source_bytes)
                position += len(digests)
                digests, source_bytes = array("Q"), 0
            if not digests:
                first_gfn = block.first_gfn
            digests += digest_pages(buffer.views[: block.pages])
            source_bytes += block.source_bytes
        if digests:
            yield Extent(task.image, position, first_gfn, digests.tobytes(), source_bytes)
        if task.span is None:
            yield StreamEnd(task.image, image.finish())
    except HvshareError as error:
        yield Failure(task.image, error)
    except OSError as error:
        yield Failure(task.image, UnreadableImageError(error.strerror or str(error), path=image.path))


class Workers:
    """The messages of all tasks, as they come, from as many processes as it takes.

    Parameters
    ----------
    images : sequence of GuestImage
        Opened images.
    jobs : int, optional
        Processes at the most; `default_jobs` by default.

    Notes
    -----
    Work starts when the object is made. A context manager: on leaving it, whatever is still running is
    stopped.

    Raises
    ------
    WorkerError
        While iterating, if a process ends without having done its work.
    """

    def __init__(self, images: Sequence[GuestImage], jobs: int | None = None) -> None:
        self._images = images
        self._tasks = plan(images)
        self._processes: list[BaseProcess] = []
        self._receivers: list[Connection] = []
        streams = sum(task.span is None for task in self._tasks)
        pages = sum(task.pages for task in self._tasks)
        count = min(jobs or default_jobs(), len(self._tasks))
        if count > 1 and (streams or pages >= _WORTH_FORKING) and _can_fork():
            self._start(count)

    def _start(self, count: int) -> None:
        # Whoever reads four bytes from this pipe has the task of that number; its end is the end of work.
        read_end, write_end = os.pipe()
        os.write(write_end, array("I", range(len(self._tasks))).tobytes())
        os.close(write_end)
        context = multiprocessing.get_context("fork")
        # A worker must not see Ctrl-C before it ignores it: the terminal sends it to the whole group.
        blocked = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
        try:
            for _ in range(count):
                receiver, sender = context.Pipe(duplex=False)
                self._receivers.append(receiver)
                process = context.Process(target=self._work, args=(read_end, sender), daemon=True)
                process.start()
                self._processes.append(process)
                sender.close()
        except OSError as error:
            self.stop()
            raise WorkerError(
                f"worker processes cannot be started ({error.strerror})", advice="try fewer --jobs"
            ) from error
        except BaseException:
            self.stop()
            raise
        finally:
            os.close(read_end)
            signal.pthread_sigmask(signal.SIG_SETMASK, blocked)

    def _work(self, read_end: int, sender: Connection) -> None:
        """Do tasks in a process of its own until there are no more."""
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
        # With these copies open, a worker would not notice that the main process is gone.
        for receiver in self._receivers:
            receiver.close()
        buffer = BlockBuffer()
        task = Task(0, None, 0, 0)
        try:
            while number := os.read(read_end, 4):
                task = self._tasks[int.from_bytes(number, sys.byteorder)]
                for message in perform(task, self._images, buffer):
                    sender.send(message)
        except BrokenPipeError:
            return
        except Exception as error:  # noqa: BLE001  # a defect: told by the main process, not by a traceback
            sender.send(Failure(task.image, WorkerError(f"{type(error).__name__}: {error}")))

    def __iter__(self) -> Iterator[Message]:
        if not self._processes:
            buffer = BlockBuffer()
            for task in self._tasks:
                yield from perform(task, self._images, buffer)
            return
        open_receivers = dict(zip(self._receivers, self._processes, strict=True))
        while open_receivers:
            for receiver in wait(list(open_receivers)):
                connection = cast("Connection", receiver)
                try:
                    yield connection.recv()
                except EOFError:
                    _check_ended_well(open_receivers.pop(connection))

    def stop(self) -> None:
        """End all processes, whatever they are doing."""
        for process in self._processes:
            process.kill()
        for process in self._processes:
            process.join()
        for receiver in self._receivers:
            receiver.close()

    def __enter__(self) -> Workers:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()


def _can_fork() -> bool:
    return sys.platform == "linux" and not multiprocessing.current_process().daemon


def _check_ended_well(process: BaseProcess) -> None:
    process.join()
    if process.exitcode:
        ended = f"signal {-process.exitcode}" if process.exitcode < 0 else f"status {process.exitcode}"
        advice = "see the kernel log for why" if process.exitcode < 0 else "try --jobs 1"
        raise WorkerError(f"a worker process ended with {ended} before its work was done", advice=advice)

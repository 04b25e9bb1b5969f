"""Images to digests on all cores: tasks, the processes that do them, and a clean end.

Processes are forked, so they start in a millisecond and inherit opened pipes. They are forked before numpy
is imported, because they do not need it, and by `os.fork`, because importing `multiprocessing` alone takes
as long as hashing 64 MiB. On other systems than Linux, where a fork may break libraries of the system,
everything is done in the calling process.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import pickle
import selectors
import signal
import struct
import sys
from array import array
from typing import TYPE_CHECKING, Final, NamedTuple

from hvshare.errors import HvshareError, UnreadableImageError, WorkerError
from hvshare.fingerprint.pages import BlockBuffer
from hvshare.fingerprint.processes import starting_processes
from hvshare.images.runs import RunKind

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from hvshare.caveats import Caveat
    from hvshare.images.image import GuestImage
    from hvshare.images.runs import Runs

_BATCH_PAGES: Final = 8192
_PIPE_BYTES: Final = 1 << 20
_LENGTH: Final = struct.Struct("=Q")
_MOST_TASKS: Final = 512  # 4 bytes each: they fit in the smallest pipe
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


class DigestBatch(NamedTuple):
    """Digests of pages that follow each other among the PRESENT pages of an image.

    Attributes
    ----------
    image : int
        Index of the image.
    position : int
        PRESENT pages of the image before these.
    digests : bytes
        8 bytes a page, in the byte order of the machine.
    source_bytes : int
        Bytes of the file that were read for it.
    """

    image: int
    position: int
    digests: bytes
    source_bytes: int


class StreamEnd(NamedTuple):
    """An image that could only be read whole has been."""

    image: int
    runs: Runs
    caveats: list[Caveat]


class Failure(NamedTuple):
    """An image, or a part of it, cannot be used."""

    image: int
    error: HvshareError


Message = DigestBatch | StreamEnd | Failure


def default_jobs() -> int:
    """Processors that this process may run on."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def plan(images: Sequence[GuestImage]) -> list[Task]:
    """Cut images into tasks, those that cannot be cut first, since they take longest."""
    present = [image.runs.pages_of(RunKind.PRESENT) if image.runs is not None else 0 for image in images]
    tasks = [Task(index, None, 0, 0) for index, image in enumerate(images) if image.runs is None]
    task_pages = max(_BATCH_PAGES, -(-sum(present) // _MOST_TASKS))
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
    DigestBatch
        At least one for every 32 MiB of contents.
    StreamEnd
        At the end of an image that is read whole.
    Failure
        Instead of anything further, if the image cannot be used.
    """
    image = images[task.image]
    digests = array("Q")
    position, source_bytes = task.position, 0
    try:
        for block in image.blocks(buffer.room, task.span):
            # The position says where digests belong, whatever lies between the pages.
            if len(digests) >= _BATCH_PAGES:
                yield DigestBatch(task.image, position, digests.tobytes(), source_bytes)
                position += len(digests)
                digests, source_bytes = array("Q"), 0
            digests += buffer.digests(block.pages)
            source_bytes += block.source_bytes
        if digests:
            yield DigestBatch(task.image, position, digests.tobytes(), source_bytes)
        if task.span is None:
            if image.streamed_runs is None:
                raise ValueError("an image without runs has them once it was read")
            yield StreamEnd(task.image, image.streamed_runs, image.finish())
    except HvshareError as error:
        yield Failure(task.image, error)
    except OSError as error:
        yield Failure(task.image, UnreadableImageError(error.strerror or str(error), path=image.path))


class _Worker:
    """The process of a worker, as the main process sees it: what it is called and what it has to say."""

    def __init__(self, pid: int, receiver: int) -> None:
        self.pid = pid
        self.receiver = receiver
        self._received = bytearray()

    def messages(self) -> Iterator[Message]:
        """Take what the worker has sent; an end of it raises EOFError."""
        received = os.read(self.receiver, _PIPE_BYTES)
        if not received:
            raise EOFError
        self._received += received
        while len(self._received) >= _LENGTH.size:
            end = _LENGTH.size + _LENGTH.unpack_from(self._received)[0]
            if len(self._received) < end:
                return
            message: Message = pickle.loads(self._received[_LENGTH.size : end])  # noqa: S301  # of our own
            del self._received[:end]
            yield message

    def check_ended_well(self) -> None:
        """Raise unless the process has done all it could."""
        status = os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])
        self.pid = 0
        if status:
            ended = f"signal {-status}" if status < 0 else f"status {status}"
            raise WorkerError(
                f"a worker process ended with {ended} before its work was done",
                advice="see the kernel log for why, and try --jobs 1",
            )

    def stop(self) -> None:
        """End the process, whatever it is doing."""
        os.close(self.receiver)
        if self.pid:
            os.kill(self.pid, signal.SIGKILL)
            os.waitpid(self.pid, 0)
            self.pid = 0


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
        self._workers: list[_Worker] = []
        streams = sum(task.span is None for task in self._tasks)
        pages = sum(task.pages for task in self._tasks)
        count = min(jobs or default_jobs(), len(self._tasks))
        if count > 1 and (streams or pages >= _WORTH_FORKING) and sys.platform == "linux":
            self._start(count)

    def _start(self, count: int) -> None:
        # Whoever reads four bytes from this pipe has the task of that number; its end is the end of work.
        numbers, write_end = os.pipe()
        os.write(write_end, array("I", range(len(self._tasks))).tobytes())
        os.close(write_end)
        try:
            with starting_processes(self.stop):
                for _ in range(count):
                    self._workers.append(self._fork(numbers))
        finally:
            os.close(numbers)

    def _fork(self, numbers: int) -> _Worker:
        receiver, sender = os.pipe()
        # Room for the digests of 512 MiB, so that workers go on while the main process is busy.
        with contextlib.suppress(OSError):
            fcntl.fcntl(sender, fcntl.F_SETPIPE_SZ, _PIPE_BYTES)
        pid = os.fork()
        if pid:
            os.close(sender)
            return _Worker(pid, receiver)
        status = 1
        try:
            signal.signal(signal.SIGINT, signal.SIG_IGN)
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
            signal.pthread_sigmask(signal.SIG_SETMASK, set())
            # With copies of these open, a worker would not notice that the main process is gone.
            for each in (receiver, *(worker.receiver for worker in self._workers)):
                os.close(each)
            self._work(numbers, sender)
            status = 0
        finally:
            # What the main process has buffered and registered for its end is not this process's to do.
            os._exit(status)

    def _work(self, numbers: int, sender: int) -> None:
        """Do tasks in a process of its own until there are no more."""
        buffer = BlockBuffer()
        task = Task(0, None, 0, 0)
        try:
            while number := os.read(numbers, 4):
                task = self._tasks[int.from_bytes(number, sys.byteorder)]
                for message in perform(task, self._images, buffer):
                    _send(sender, message)
        except BrokenPipeError:
            return
        except Exception as error:  # noqa: BLE001  # a defect: told by the main process, not by a traceback
            _send(sender, Failure(task.image, WorkerError(f"{type(error).__name__}: {error}")))

    def __iter__(self) -> Iterator[Message]:
        if not self._workers:
            buffer = BlockBuffer()
            for task in self._tasks:
                yield from perform(task, self._images, buffer)
            return
        with selectors.DefaultSelector() as selector:
            for worker in self._workers:
                selector.register(worker.receiver, selectors.EVENT_READ, worker)
            while selector.get_map():
                for key, _ in selector.select():
                    try:
                        yield from key.data.messages()
                    except EOFError:
                        selector.unregister(key.fd)
                        key.data.check_ended_well()

    def stop(self) -> None:
        """End all processes, whatever they are doing."""
        while self._workers:
            self._workers.pop().stop()

    def __enter__(self) -> Workers:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()


def _send(sender: int, message: Message) -> None:
    content = pickle.dumps(message, pickle.HIGHEST_PROTOCOL)
    unsent = memoryview(_LENGTH.pack(len(content)) + content)
    while unsent:
        unsent = unsent[os.write(sender, unsent) :]

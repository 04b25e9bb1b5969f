"""Tasks in several processes, step by step, and a clean end whatever happens.

Processes are forked, so they have the digests at once and share the memory that these take. Each adds up
what its tasks count and sends one sum at its end. `hvshare.fingerprint.workers` says why by `os.fork` and why
on Linux only.
"""

from __future__ import annotations

import functools
import operator
import os
import pickle
import selectors
import signal
import sys
import warnings
from array import array
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Final, NamedTuple, Protocol, TypeVar

from hvshare.errors import WorkerError
from hvshare.fingerprint.processes import starting_processes

if TYPE_CHECKING:
    from collections.abc import Iterator


class Sum(Protocol):
    """What tasks find, and what adds up."""

    def __add__(self, other: Any, /) -> Any:  # noqa: ANN401  # of its own type, which Self cannot say here
        """Put together what two tasks have found."""


S = TypeVar("S", bound=Sum)

Task = Callable[[], S | None]
"""Counts something, or prepares what tasks of the next step count, in memory that processes share."""

_SENT_AT_ONCE: Final = 1 << 12  # numbers of 4 bytes: they fit in the smallest pipe, and so do as many answers


class _Worker(NamedTuple):
    pid: int
    receiver: int


def add_up(steps: Sequence[Sequence[Task[S]]], jobs: int, on_done: Callable[[int], None] | None = None) -> S:
    """Do the tasks of each step, once those of the step before are done, and add up what they count.

    Parameters
    ----------
    steps : sequence of sequence of callable
        The tasks; one at least counts something.
    jobs : int
        Processes at the most; with one, everything is done in the calling process.
    on_done : callable, optional
        Receives how many more tasks are done.

    Returns
    -------
    Sum
        Over all tasks; where addition does not depend on order, the same however many processes there are.

    Raises
    ------
    WorkerError
        If processes cannot be started, or one ends without having done its work.
    """
    jobs = min(jobs, max(map(len, steps)))
    if jobs <= 1 or sys.platform != "linux":
        counts = (_done(task, on_done) for step in steps for task in step)
        return functools.reduce(operator.add, (each for each in counts if each is not None))
    with _Workers([task for step in steps for task in step], jobs, on_done) as workers:
        first = 0
        for step in steps:
            for start in range(first, first + len(step), _SENT_AT_ONCE):
                workers.do(range(start, min(start + _SENT_AT_ONCE, first + len(step))))
            first += len(step)
        total: S = functools.reduce(operator.add, workers.sums())
        return total


def _done(task: Task[S], on_done: Callable[[int], None] | None) -> S | None:
    counts = task()
    if on_done:
        on_done(1)
    return counts


class _Workers:
    """Processes that do tasks by their numbers; whoever reads one has that task."""

    def __init__(self, tasks: Sequence[Task[Any]], jobs: int, on_done: Callable[[int], None] | None) -> None:
        self._tasks = tasks
        self._on_done = on_done
        self._workers: list[_Worker] = []
        self._pipes = [*os.pipe(), *os.pipe()]
        with starting_processes(self.stop):
            for _ in range(jobs):
                self._workers.append(self._fork())

    def _fork(self) -> _Worker:
        receiver, sender = os.pipe()
        parent = os.getpid()
        try:
            with warnings.catch_warnings():
                # It warns of threads of a library of linear algebra, which takes care of forks itself.
                warnings.simplefilter("ignore", DeprecationWarning)
                pid = os.fork()
        except OSError:
            os.close(receiver)
            os.close(sender)
            raise
        if pid:
            os.close(sender)
            return _Worker(pid, receiver)
        status = 1
        try:
            signal.signal(signal.SIGINT, signal.SIG_IGN)
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
            signal.pthread_sigmask(signal.SIG_SETMASK, set())
            numbers, write_end, read_end, answers = self._pipes
            # With copies of these open, a worker would not notice that the main process is gone.
            for each in (receiver, write_end, read_end, *(worker.receiver for worker in self._workers)):
                os.close(each)
            result = self._work(numbers, answers, parent)
            with open(sender, "wb") as pipe:
                pickle.dump(result, pipe, pickle.HIGHEST_PROTOCOL)
            status = 0
        finally:
            # What the main process has buffered and registered for its end is not this process's to do.
            os._exit(status)

    def _work(self, numbers: int, answers: int, parent: int) -> object:
        """Do tasks in a process of its own until there are no more; gives their sum, or an error."""
        total: Any = None
        try:
            while (number := os.read(numbers, 4)) and os.getppid() == parent:
                counts = self._tasks[int.from_bytes(number, sys.byteorder)]()
                if counts is not None:
                    total = counts if total is None else total + counts
                os.write(answers, b".")
        except MemoryError:
            return WorkerError("a worker process has run out of memory", advice="try fewer --jobs")
        except Exception as error:  # noqa: BLE001  # a defect: told by the main process, not by a traceback
            return WorkerError(f"{type(error).__name__}: {error}")
        return total

    def do(self, numbers: range) -> None:
        """Have some tasks done, and wait for them all."""
        os.write(self._pipes[1], array("I", numbers).tobytes())
        waiting = len(numbers)
        with selectors.DefaultSelector() as selector:
            selector.register(self._pipes[2], selectors.EVENT_READ, None)
            for worker in self._workers:
                selector.register(worker.receiver, selectors.EVENT_READ, worker)
            while waiting:
                for key, _ in selector.select():
                    if key.data is None:
                        done = len(os.read(self._pipes[2], _SENT_AT_ONCE))
                        waiting -= done
                        if self._on_done:
                            self._on_done(done)
                    else:
                        self._result(key.data)
                        raise WorkerError("a worker process ended before its work was done")

    def sums(self) -> Iterator[Any]:
        """Tell workers that there are no more tasks, and give what each has counted."""
        os.close(self._pipes[1])
        self._pipes[1] = -1
        while self._workers:
            total = self._result(self._workers[0])
            if total is not None:
                yield total

    def _result(self, worker: _Worker) -> object:
        """Wait for the end of a worker, which is then none any more."""
        with open(worker.receiver, "rb", closefd=False) as pipe:
            content = pipe.read()
        status = os.waitstatus_to_exitcode(os.waitpid(worker.pid, 0)[1])
        self._workers.remove(worker)
        os.close(worker.receiver)
        if status:
            ended = f"signal {-status}" if status < 0 else f"status {status}"
            raise WorkerError(
                f"a worker process ended with {ended} before its work was done",
                advice="see the kernel log for why, and try --jobs 1",
            )
        result = pickle.loads(content)  # noqa: S301  # of our own
        if isinstance(result, WorkerError):
            raise result
        return result

    def stop(self) -> None:
        """End all processes, whatever they are doing."""
        while self._workers:
            worker = self._workers.pop()
            os.close(worker.receiver)
            os.kill(worker.pid, signal.SIGKILL)
            os.waitpid(worker.pid, 0)
        while self._pipes:
            if (pipe := self._pipes.pop()) >= 0:
                os.close(pipe)

    def __enter__(self) -> _Workers:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

"""Seconds and memory of whole commands, those of competitors measured in turn with them."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Final

_RESIDENT_SECONDS: Final = 0.005
_PROPORTIONAL_SECONDS: Final = 0.01
_PROC: Final = Path("/proc")
_RESOURCE_PAGE: Final = os.sysconf("SC_PAGE_SIZE")


class CommandError(Exception):
    """A command could not be started, or ended with a failure."""


@dataclass(frozen=True)
class Contestant:
    """A command that is measured.

    Attributes
    ----------
    name : str
        What the table calls it.
    command : tuple of str
        Program and arguments.
    size : int
        Bytes of the file that it is given, 0 without one.
    data_bytes : int
        Bytes of guest memory in that file, without holes.
    advice : str
        What to do if it is not installed.
    """

    name: str
    command: tuple[str, ...]
    size: int = 0
    data_bytes: int = 0
    advice: str = ""


@dataclass(frozen=True)
class Measurement:
    """What one command took.

    Attributes
    ----------
    contestant : Contestant
        The command.
    seconds : float
        Median over the rounds.
    peak_bytes : int
        See `peak_memory`.
    """

    contestant: Contestant
    seconds: float
    peak_bytes: int


@dataclass(frozen=True)
class Cost:
    """What one kind of work took, in processes that share much memory.

    Attributes
    ----------
    seconds : float
        Median over the rounds.
    peak_bytes : int
        See `peak_proportional`.
    """

    seconds: float
    peak_bytes: int


@dataclass(frozen=True)
class Race:
    """What a command and its competitors took.

    Attributes
    ----------
    leader : Measurement
        The command that the others are compared with.
    competitors : tuple of Measurement
        Those that could be run.
    failures : mapping of Contestant to str
        Why the others could not.
    """

    leader: Measurement
    competitors: tuple[Measurement, ...]
    failures: dict[Contestant, str]

    def competitor(self, name: str) -> Measurement | None:
        """Give what a competitor took, if that could be run."""
        return next((each for each in self.competitors if each.contestant.name == name), None)

    def ratio(self, name: str) -> float | None:
        """Seconds of the leader over those of a competitor, if that could be run."""
        competitor = self.competitor(name)
        return self.leader.seconds / competitor.seconds if competitor else None


def race(contestants: Sequence[Contestant], rounds: int) -> Race:
    """Measure commands side by side.

    Memory comes first and in runs of its own: sampling would cost time, and these runs warm the page cache
    and show who can run at all. In each round everyone then runs once, so that noise hits all alike.

    Parameters
    ----------
    contestants : sequence of Contestant
        The leader first.
    rounds : int
        How often each is timed.

    Returns
    -------
    Race

    Raises
    ------
    CommandError
        If the leader fails; a competitor may.
    """
    leader, *_ = contestants
    peaks: dict[Contestant, int] = {}
    failures: dict[Contestant, str] = {}
    for contestant in contestants:
        try:
            peaks[contestant] = peak_memory(contestant.command)
        except CommandError as error:
            if contestant is leader:
                raise
            failures[contestant] = f"{error}; {contestant.advice}" if contestant.advice else str(error)
    seconds: dict[Contestant, list[float]] = {contestant: [] for contestant in peaks}
    for _ in range(rounds):
        for contestant, times in seconds.items():
            times.append(elapsed_seconds(contestant.command))
    first, *others = (Measurement(each, median(seconds[each]), peak) for each, peak in peaks.items())
    return Race(first, tuple(others), failures)


def elapsed_seconds(command: Sequence[str]) -> float:
    """Run a command and tell how long it took, from before its start until it has ended."""
    started = time.perf_counter()
    with _running(command) as process:
        process.wait()
        return time.perf_counter() - started


def peak_memory(command: Sequence[str]) -> int:
    """Run a command and tell the most memory that all its processes had at one time.

    Returns
    -------
    int
        Bytes: the largest sum of resident sets among samples 5 ms apart. Pages that forked processes share
        are in the resident set of each, so the memory really taken is less.

    Raises
    ------
    CommandError
        If it cannot be started, or ends with a failure.
    """
    return _peak(command, _resident_bytes, _RESIDENT_SECONDS)


def peak_proportional(command: Sequence[str]) -> int:
    """Run a command and tell the most memory that its processes had at one time, shared pages counted once.

    Returns
    -------
    int
        Bytes: the largest sum of proportional set sizes (PSS) among samples 10 ms apart. Of a page that
        several processes share, each has its part. The kernel takes a while to tell, so samples are rarer
        than those of `peak_memory`.

    Raises
    ------
    CommandError
        If it cannot be started, or ends with a failure.
    """
    return _peak(command, _proportional_bytes, _PROPORTIONAL_SECONDS)


def _peak(command: Sequence[str], bytes_of: Callable[[Path], int], interval: float) -> int:
    """Give the largest sum over all processes of a command that samples show.

    A command is given a session of its own, which its descendants stay in even when their parent has ended.
    """
    peak = 0
    with _running(command) as process:
        while process.poll() is None:
            peak = max(peak, sum(_of_session(process.pid, bytes_of)))
            time.sleep(interval)
    return peak


def _of_session(session: int, bytes_of: Callable[[Path], int]) -> Iterator[int]:
    for name in os.listdir(_PROC):  # noqa: PTH208  # a tenth of the time, hundreds of times a second
        # A process may end between being listed and being looked at.
        with contextlib.suppress(OSError):
            if name.isdecimal() and os.getsid(int(name)) == session:
                yield bytes_of(_PROC / name)


def _resident_bytes(process: Path) -> int:
    return int((process / "statm").read_text().split()[1]) * _RESOURCE_PAGE


def _proportional_bytes(process: Path) -> int:
    for line in (process / "smaps_rollup").read_text().splitlines():
        if line.startswith("Pss:"):
            return int(line.split()[1]) << 10
    return 0


@contextlib.contextmanager
def _running(command: Sequence[str]) -> Iterator[subprocess.Popen[bytes]]:
    """Start a command; whoever uses it waits for its end, or all its processes are killed."""
    with tempfile.TemporaryFile() as errors:
        try:
            process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=errors,
                start_new_session=True,
            )
        except FileNotFoundError:
            raise CommandError(f"{command[0]} is not installed") from None
        try:
            yield process
        finally:
            # In its own session, a command does not hear the Ctrl-C that interrupts the benchmark.
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
        if process.returncode:
            errors.seek(0)
            last_line = errors.read().decode(errors="replace").strip().rpartition("\n")[2]
            raise CommandError(f"{command[0]} ended with {process.returncode}: {last_line}")

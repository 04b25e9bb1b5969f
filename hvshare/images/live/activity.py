"""Whether a guest stands still while its memory is read, as far as the host can tell.

A guest whose virtual processors take no time on a processor of the host has not changed its memory meanwhile,
be it paused or idle. There is no other sign of a pause that can be seen from outside.

Source: QEMU, ``accel/*/*-accel-ops*.c`` (threads called ``CPU 0/KVM``, if QEMU names its threads).
"""

from __future__ import annotations

import re
import time
from typing import TYPE_CHECKING, Final, NamedTuple

from hvshare.caveats import Caveat

if TYPE_CHECKING:
    from collections.abc import Mapping

    from hvshare.images.live.process import Process, Thread

_SAMPLES: Final = 3
_SAMPLE_SECONDS: Final = 0.02
_PROCESSOR: Final = re.compile(r"CPU \d+/")
_STOPPED: Final = frozenset("Tt")


class Activity:
    """What the threads of a process do from some moment on.

    Parameters
    ----------
    process : Process
        To be watched.
    is_guest : bool
        Whether it is a QEMU, which may do other things while its guest is paused.
    pause : str
        The command that pauses it.
    """

    def __init__(self, process: Process, pause: str, *, is_guest: bool) -> None:
        self._process = process
        self._is_guest = is_guest
        self._pause = pause
        self._told = False
        self._before = process.threads()
        if is_guest:
            self._settle()

    def _settle(self) -> None:
        """Wait for a moment in which nothing runs, since QEMU has something to do when it pauses a guest."""
        for _ in range(_SAMPLES):
            time.sleep(_SAMPLE_SECONDS)
            now = self._process.threads()
            if running_guest(self._before, now) is None:
                return
            self._before = now

    def caveats(self, name: str) -> list[Caveat]:
        """Tell whether it moved so far, unless that was told before.

        Parameters
        ----------
        name : str
            Of the image.
        """
        if self._told:
            return []
        now = self._process.threads()
        return self._tell(running_guest(self._before, now) if self._is_guest else running_process(now), name)

    def _tell(self, found: Finding | None, name: str) -> list[Caveat]:
        if found is None:
            return []
        self._told = True
        advice = f"pause it and measure again: {self._pause}"
        return [Caveat(found.code, found.message, advice, name)]


class Finding(NamedTuple):
    """Code and message of a caveat."""

    code: str
    message: str


def running_process(threads: Mapping[str, Thread]) -> Finding | None:
    """Tell whether any thread of a process may run now."""
    if all(each.state in _STOPPED for each in threads.values()):
        return None
    return Finding("not-paused", "the process is not stopped, so its memory may change while it is read")


def running_guest(before: Mapping[str, Thread], after: Mapping[str, Thread]) -> Finding | None:
    """Tell whether the virtual processors of a guest took any time between two looks at its threads.

    Without names of threads all of them are watched, which QEMU itself keeps busy now and then.
    """
    processors = {number for number, each in after.items() if _PROCESSOR.match(each.name)}
    watched = processors or set(after)
    states = {each[number].state for each in (before, after) for number in watched & set(each)}
    if states <= _STOPPED:
        return None
    times = [
        (each.cpu_time, before[number].cpu_time)
        for number, each in after.items()
        if number in watched and number in before
    ]
    spent = sum(now - then for now, then in times if now is not None and then is not None)
    runs = spent > 0 or any(after[number].state == "R" for number in watched)
    if processors and runs:
        return Finding(
            "not-paused",
            f"the guest runs: its virtual processors took {spent / 1e6:,.1f} ms of time while it was "
            "watched, and its memory changes while it is read",
        )
    if runs or len(times) < len(watched) or any(None in each for each in times):
        return Finding(
            "pause-unknown",
            "the guest is not known to be paused, since QEMU does not name its threads (debug-threads=on) or "
            "the host does not count their time; if it runs, its memory changes while it is read",
        )
    return None

"""The settings of KSM, and a guardian that puts them back whatever happens.

Source: Linux, ``mm/ksm.c`` (the attributes under ``/sys/kernel/mm/ksm``, and what the kernel refuses).
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import signal
import time
from pathlib import Path
from typing import TYPE_CHECKING, Final, Self

from hvshare.errors import ResourceError

if TYPE_CHECKING:
    from collections.abc import Mapping

KSM_FOLDER: Final = Path("/sys/kernel/mm/ksm")

# In an order in which all of them can be put back: the advisor refuses pages_to_scan, the limits refuse while
# anything is merged, and ksmd has to stop last where it did not run.
_SETTINGS: Final = (
    "max_page_sharing",
    "merge_across_nodes",
    "use_zero_pages",
    "smart_scan",
    "pages_to_scan",
    "sleep_millisecs",
    "advisor_mode",
    "run",
)
ACCOUNT: Final = ("pages_shared", "pages_sharing", "pages_unshared", "pages_volatile")
"""Counters of pages that ksmd keeps account of."""

_DRAIN_SECONDS: Final = 60
_DRAIN_SCANS: Final = 3
_SIGNALS: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT, signal.SIGPIPE)
_READY: Final = b"\n"
_ANSWERED: Final = b"done\n"


class KsmFolder:
    """``/sys/kernel/mm/ksm``.

    Parameters
    ----------
    path : Path
        Where it is; tests have one of their own.
    """

    def __init__(self, path: Path = KSM_FOLDER) -> None:
        self.path = path

    def has(self, name: str) -> bool:
        """Whether this kernel has an attribute."""
        return (self.path / name).exists()

    def text(self, name: str) -> str:
        """Read an attribute; of several choices in a line, the one in brackets."""
        text = (self.path / name).read_text(encoding="ascii").strip()
        return text[text.index("[") + 1 : text.index("]")] if "[" in text else text

    def number(self, name: str) -> int | None:
        """Read a number, or None if this kernel does not have it."""
        return int(self.text(name)) if self.has(name) else None

    def count(self, name: str) -> int:
        """Read a number, or 0 if this kernel does not have it."""
        return self.number(name) or 0

    def write(self, name: str, value: str | int) -> None:
        """Write a setting.

        Raises
        ------
        ResourceError
            If the kernel refuses it.
        """
        try:
            (self.path / name).write_text(f"{value}\n", encoding="ascii")
        except OSError as error:
            raise ResourceError(
                f"the kernel does not accept {value} for {name}: {error.strerror}",
                path=str(self.path / name),
                advice="run as root, where /sys can be written to, and while nothing else uses KSM",
            ) from None

    def settings(self) -> dict[str, str]:
        """Read all settings that a check changes, as far as this kernel has them."""
        return {name: self.text(name) for name in _SETTINGS if self.has(name)}

    def lock(self) -> int:
        """Keep other checks away for as long as the returned descriptor, or a copy of it, is open.

        Raises
        ------
        ResourceError
            If another check is at work.
        """
        descriptor = os.open(self.path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(descriptor)
            raise ResourceError(
                "another check of KSM is at work", path=str(self.path), advice="wait until it has ended"
            ) from None
        return descriptor


def put_back(folder: KsmFolder, found: Mapping[str, str]) -> list[str]:
    """Let ksmd forget memory that is gone, and put settings back.

    Parameters
    ----------
    folder : KsmFolder
        The settings.
    found : mapping of str to str
        What they were.

    Returns
    -------
    list of str
        What could not be put back, as sentences.
    """
    failures = []
    with contextlib.suppress(OSError, ResourceError):  # settings go back whatever happens
        _drain(folder)
    for name in _SETTINGS:
        if name not in found:
            continue
        try:
            if folder.text(name) != found[name]:
                folder.write(name, found[name])
        except (OSError, ResourceError) as error:
            failures.append(f"{name} was {found[name]}: {error}")
    return failures


def _drain(folder: KsmFolder) -> None:
    """Run ksmd until it has no account of the memory that was merged.

    A process that unmaps merged memory, or ends, leaves that to ksmd, and without it KSM would look as if it
    were in use.
    """
    until = time.monotonic() + _DRAIN_SECONDS
    first = folder.count("full_scans")
    while any(map(folder.count, ACCOUNT)) and time.monotonic() < until:
        if folder.count("run") != 1:
            folder.write("run", 1)
        if folder.count("full_scans") > first + _DRAIN_SCANS:
            return  # the rest belongs to others
        time.sleep(0.01)
    if folder.text("run") != "0":
        folder.write("run", 0)
    clear_chains(folder)


def clear_chains(folder: KsmFolder) -> None:
    """Have the kernel forget nodes of pages that are gone, which it counts until it looks them up.

    It does so when `max_page_sharing` changes, and refuses if anything is merged.
    """
    if folder.count("stable_node_chains") and not folder.count("pages_shared"):
        limit = folder.count("max_page_sharing")
        with contextlib.suppress(ResourceError):
            folder.write("max_page_sharing", limit + 1)
            folder.write("max_page_sharing", limit)


class SettingsGuardian:
    """A process that puts the settings of KSM back when the block is left, or when the command dies.

    Parameters
    ----------
    folder : KsmFolder
        The settings.
    keep : tuple of int
        Descriptors to keep open until they are put back, such as that of the lock.

    Notes
    -----
    It waits at the end of a pipe, which the kernel closes when the command has ended in whatever way. It is
    no part of the terminal's group of processes, so Ctrl-C does not reach it. Should it be killed itself, the
    command puts the settings back.
    """

    def __init__(self, folder: KsmFolder, keep: tuple[int, ...] = ()) -> None:
        self._folder = folder
        self.found = folder.settings()
        ends, self._alive = os.pipe()
        self._answer, answers = os.pipe()
        before = signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)
        self._pid = os.fork()
        if not self._pid:
            self._guard(ends, answers, keep)
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
        os.close(ends)
        os.close(answers)
        # Until it is out of the reach of signals to the terminal's processes, nothing may be changed.
        if not os.read(self._answer, 1):
            raise ResourceError("the process that would put settings back did not start", advice="try again")

    def _guard(self, ends: int, answers: int, keep: tuple[int, ...]) -> None:
        """Wait in the other process until the command is done."""
        try:
            for each in _SIGNALS:
                signal.signal(each, signal.SIG_IGN)
            os.setsid()
            null = os.open(os.devnull, os.O_RDWR)
            for standard in range(3):
                os.dup2(null, standard)
            # Nobody must wait for this process at the end of a pipe that the command was to write to.
            last = 3
            for descriptor in sorted({ends, answers, *keep}):
                os.closerange(last, descriptor)
                last = descriptor + 1
            os.closerange(last, os.sysconf("SC_OPEN_MAX"))
            os.write(answers, _READY)
            os.read(ends, 1)
            failures = put_back(self._folder, self.found)
            os.write(answers, "\n".join(failures).encode() or _ANSWERED)
        finally:
            os._exit(0)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        """Have the settings put back.

        Raises
        ------
        ResourceError
            If one of them could not be.
        """
        os.close(self._alive)
        answer = b""
        while part := os.read(self._answer, 4096):
            answer += part
        os.close(self._answer)
        os.waitpid(self._pid, 0)
        failures = answer.decode().splitlines()
        if not answer:
            failures = put_back(self._folder, self.found)
        elif answer == _ANSWERED:
            failures = []
        if failures:
            raise ResourceError(
                f"settings of KSM could not be put back: {'; '.join(failures)}",
                path=str(self._folder.path),
                advice="put them back by hand; echo 2 > run ends all merging, by whomever",
            )

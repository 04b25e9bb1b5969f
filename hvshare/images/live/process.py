"""A process of this host: what it is, what it may be asked, and whether it still is the same.

Source: Linux, ``Documentation/filesystems/proc.rst`` and ``Documentation/scheduler/sched-stats.rst``.
"""

from __future__ import annotations

import contextlib
import errno
import os
from typing import TYPE_CHECKING, Final, NamedTuple

from hvshare.errors import ImageChangedError, ImageError, ResourceError, UnreadableImageError
from hvshare.images.live.maps import parse_maps
from hvshare.images.live.rights import missing_right

if TYPE_CHECKING:
    from hvshare.images.live.maps import Mapping

_CHUNK: Final = 1 << 16
_ENDED: Final = frozenset("ZXx")
_STATE_FIELD: Final = 0
_START_TIME_FIELD: Final = 19
"""Of the fields of ``stat`` behind the name of the program, which may have spaces and brackets in it."""


class Thread(NamedTuple):
    """What a thread has done so far.

    Attributes
    ----------
    name : str
        Such as ``CPU 0/KVM``.
    state : str
        One letter: R runs or waits for a processor, T is stopped, t is stopped by a tracer.
    cpu_time : int or None
        Nanoseconds on a processor; None if the kernel does not count them.
    """

    name: str
    state: str
    cpu_time: int | None


class Process:
    """A process, held so that no later one with its number takes its place.

    Parameters
    ----------
    pid : str
        Its number.
    path : str
        What the user called it, for errors.

    Attributes
    ----------
    uid : int
        The user whom it belongs to.

    Raises
    ------
    UnreadableImageError
        If there is no such process.
    ImageChangedError
        If it has ended and waits for its parent.
    """

    def __init__(self, pid: str, path: str) -> None:
        self.pid = pid
        self.path = path
        try:
            self._directory = os.open(f"/proc/{pid}", os.O_RDONLY | os.O_DIRECTORY)
        except FileNotFoundError as error:
            raise UnreadableImageError(
                "there is no such process",
                path=path,
                advice="check the number, such as with pgrep -a qemu; other users' may be hidden (hidepid)",
            ) from error
        except OSError as error:
            raise self.error(error, "its directory in /proc") from error
        try:
            self.stat = os.fstat(self._directory)
            self.uid = self.stat.st_uid
            self._started = self._fields()[_START_TIME_FIELD]
            self.check_alive()
        except BaseException:
            self.close()
            raise

    def _fields(self) -> list[str]:
        return self.read("stat").rpartition(b")")[2].decode().split()

    def open(self, name: str) -> int:
        """Open a file of the process.

        Raises
        ------
        UnreadableImageError
            If this process has not the rights for it.
        ImageChangedError
            If the process has ended.
        """
        try:
            return self.try_open(name)
        except OSError as error:
            raise self.error(error, f"/proc/{self.pid}/{name}") from error

    def try_open(self, name: str) -> int:
        """Open a file of the process, or raise OSError."""
        return os.open(name, os.O_RDONLY | os.O_CLOEXEC, dir_fd=self._directory)

    def read(self, name: str) -> bytes:
        """Read a file of the process; see `open`."""
        fd = self.open(name)
        parts = []
        try:
            while part := os.read(fd, _CHUNK):
                parts.append(part)
        except OSError as error:
            raise self.error(error, f"/proc/{self.pid}/{name}") from error
        finally:
            os.close(fd)
        return b"".join(parts)

    def link(self, name: str) -> str:
        """Follow a link of the process; empty if that is not allowed."""
        try:
            return os.readlink(name, dir_fd=self._directory)
        except OSError:
            return ""

    def status(self, name: str) -> os.stat_result:
        """Tell what a link of the process leads to, without opening it, or raise OSError."""
        return os.stat(name, dir_fd=self._directory)

    def open_files(self) -> list[str]:
        """List the links to the files that it has open; empty if that is not allowed."""
        try:
            fd = self.try_open("fd")
        except OSError:
            return []
        try:
            return [f"fd/{each}" for each in os.listdir(fd)]  # noqa: PTH208  # of a descriptor
        finally:
            os.close(fd)

    def mappings(self) -> list[Mapping]:
        """List its mappings; see `open`."""
        return parse_maps(self.read("maps"))

    def threads(self) -> dict[str, Thread]:
        """Tell what its threads have done so far, by their numbers."""
        fd = self.open("task")
        try:
            numbers = os.listdir(fd)  # noqa: PTH208
        except OSError as error:
            raise self.error(error, f"/proc/{self.pid}/task") from error
        finally:
            os.close(fd)
        found = {}
        for each in numbers:
            with contextlib.suppress(ImageChangedError):  # a thread may end at any time
                found[each] = self._thread(f"task/{each}")
        return found

    def _thread(self, directory: str) -> Thread:
        head, _, rest = self.read(f"{directory}/stat").rpartition(b")")
        cpu_time = None
        with contextlib.suppress(ImageError, ValueError, IndexError):
            # A kernel that was built without the counter shows zeros; no thread has got here in no time.
            cpu_time = int(self.read(f"{directory}/schedstat").split()[0]) or None
        return Thread(os.fsdecode(head.partition(b"(")[2]), rest.split()[_STATE_FIELD].decode(), cpu_time)

    def check_alive(self) -> None:
        """Make sure that the process is still there and still the same.

        Raises
        ------
        ImageChangedError
            If not.
        """
        if not self._is_alive():
            raise self.ended()

    def _is_alive(self) -> bool:
        fields = self._fields()
        return fields[_STATE_FIELD] not in _ENDED and fields[_START_TIME_FIELD] == self._started

    def ended(self) -> ImageChangedError:
        """Say that the process is gone."""
        return ImageChangedError(
            "the process has ended",
            path=self.path,
            advice="check that the guest still runs, and measure again",
        )

    def error(self, error: OSError, what: str) -> UnreadableImageError | ImageChangedError | ResourceError:
        """Tell what an error of the operating system means for what was asked."""
        match error:
            case FileNotFoundError() | ProcessLookupError():
                return self.ended()
            case PermissionError():
                return UnreadableImageError(
                    f"no permission to read {what}", path=self.path, advice=missing_right(self.uid)
                )
        if error.errno in {errno.EMFILE, errno.ENFILE}:
            return ResourceError(
                "too many files are open",
                path=self.path,
                advice="raise the limit (ulimit -n) or name fewer images",
            )
        return UnreadableImageError(
            f"{what} cannot be read ({error.strerror or error})",
            path=self.path,
            advice="check that the guest still runs",
        )

    def close(self) -> None:
        """Let go of the process."""
        if self._directory >= 0:
            os.close(self._directory)
            self._directory = -1

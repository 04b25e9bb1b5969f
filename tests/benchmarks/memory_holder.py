"""A process with the contents of a file in private anonymous memory, as a guest has its RAM in its QEMU.

Run as a program it takes the memory, says so, and keeps it until its standard input ends.
"""

from __future__ import annotations

import contextlib
import ctypes
import mmap
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

_READY = b"ready\n"
_PR_SET_PTRACER = 0x59616D61
_PR_SET_PTRACER_ANY = -1


class HolderError(Exception):
    """The process could not take the memory."""


@contextlib.contextmanager
def holding(path: Path) -> Iterator[int]:
    """Let a process hold the contents of a file.

    Parameters
    ----------
    path : Path
        The file.

    Yields
    ------
    int
        Number of the process. It ends when the context is left.

    Raises
    ------
    HolderError
        If it has not got the memory.
    """
    command = (sys.executable, "-I", __file__, str(path))
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        try:
            if process.stdout.readline() != _READY:
                raise HolderError(f"no process could be given the {path.stat().st_size:,} bytes of {path}")
            yield process.pid
        finally:
            process.kill()


def main() -> None:
    """Take the memory and wait."""
    with open(sys.argv[1], "rb", buffering=0) as file:
        size = os.fstat(file.fileno()).st_size
        memory = mmap.mmap(-1, size, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        room, filled = memoryview(memory), 0
        while filled < size:
            filled += file.readinto(room[filled:])
    # With Yama's ptrace_scope at 1, only ancestors may read a process that does not allow it.
    ctypes.CDLL(None).prctl(_PR_SET_PTRACER, ctypes.c_ulong(_PR_SET_PTRACER_ANY), 0, 0, 0)
    os.write(1, _READY)
    os.read(0, 1)


if __name__ == "__main__":
    main()

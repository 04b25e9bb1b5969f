"""Reading much memory of another process at once, which ``/proc/PID/mem`` copies twice and page by page.

Source: process_vm_readv(2). It names a process by its number, takes the same rights as ``/proc/PID/mem`` each
time, and does not read what the process itself may not read.
"""

from __future__ import annotations

import ctypes
import os
from functools import cache
from pathlib import Path
from typing import Final

WORTH_IT: Final = 1 << 16
"""Bytes below which a call through ctypes takes longer than it saves."""


class _Vector(ctypes.Structure):
    """An ``iovec``."""

    _fields_ = (("base", ctypes.c_void_p), ("length", ctypes.c_size_t))


@cache
def can_read_fast() -> bool:
    """Whether processes have the same numbers for that call as in ``/proc``, which may be that of a host."""
    try:
        same = str(Path("/proc/self").readlink()) == str(os.getpid())
    except OSError:
        return False
    return same and hasattr(_library(), "process_vm_readv")


def read_fast(pid: int, buffer: memoryview, address: int) -> int:
    """Read memory of a process.

    Parameters
    ----------
    pid : int
        The process. The caller makes sure later that it has been the same all the time.
    buffer : memoryview
        Writable bytes, which are filled from their start.
    address : int
        Virtual address of the first byte.

    Returns
    -------
    int
        Bytes that were read; 0 if that did not work, for whatever reason.

    Examples
    --------
    >>> if can_read_fast():
    ...     data = ctypes.create_string_buffer(b"abc")
    ...     room = bytearray(3)
    ...     assert read_fast(os.getpid(), memoryview(room), ctypes.addressof(data)) == 3
    ...     assert room == b"abc"
    """
    start = ctypes.c_char.from_buffer(buffer)
    here = _Vector(ctypes.addressof(start), len(buffer))
    there = _Vector(address, len(buffer))
    count: int = _library().process_vm_readv(
        ctypes.c_int(pid), ctypes.byref(here), ctypes.c_ulong(1), ctypes.byref(there), ctypes.c_ulong(1),
        ctypes.c_ulong(0)
    )  # fmt: skip
    return max(count, 0)


@cache
def _library() -> ctypes.CDLL:
    library = ctypes.CDLL(None, use_errno=True)
    if hasattr(library, "process_vm_readv"):
        library.process_vm_readv.restype = ctypes.c_ssize_t
    return library

"""Why this process may not read the memory of another one.

Source: ptrace(2), "Ptrace access mode checking"; Linux, ``Documentation/admin-guide/LSM/Yama.rst`` and
``include/uapi/linux/capability.h``.
"""

from __future__ import annotations

import os
import pwd
import re
from pathlib import Path
from typing import Final

_CAP_SYS_PTRACE: Final = 19
_YAMA: Final = Path("/proc/sys/kernel/yama/ptrace_scope")
_NOBODY_MAY: Final = 3


def missing_right(uid: int) -> str:
    """Say what to do about it that the memory of a process of some user may not be read.

    Parameters
    ----------
    uid : int
        The user whom it belongs to.

    Returns
    -------
    str
        Advice, which names the capability or the setting of the kernel.
    """
    return advise(uid, os.geteuid(), capable=has_capability(_CAP_SYS_PTRACE), ptrace_scope=_ptrace_scope())


def advise(uid: int, own_uid: int, *, capable: bool, ptrace_scope: int) -> str:
    """Say what is missing; see `missing_right`.

    Examples
    --------
    >>> advise(1000, 1000, capable=False, ptrace_scope=1)
    'kernel.yama.ptrace_scope is 1, which takes CAP_SYS_PTRACE: run as root, or set it to 0'
    """
    if ptrace_scope >= _NOBODY_MAY:
        return (
            f"kernel.yama.ptrace_scope is {ptrace_scope}, which forbids it to everybody until the host "
            "starts with another setting: take a dump instead"
        )
    if capable:
        return (
            "this process has CAP_SYS_PTRACE, so a user namespace (container) or a security module (SELinux, "
            "AppArmor) is in the way: run on the host itself, and see its audit log"
        )
    if uid != own_uid:
        return (
            f"it belongs to user {_user(uid)} and this is run as {_user(own_uid)}: run as root, or with "
            "CAP_SYS_PTRACE"
        )
    if ptrace_scope:
        return (
            f"kernel.yama.ptrace_scope is {ptrace_scope}, which takes CAP_SYS_PTRACE: run as root, "
            "or set it to 0"
        )
    return (
        "the process does not let itself be read (prctl PR_SET_DUMPABLE): run as root, or with CAP_SYS_PTRACE"
    )


def has_capability(number: int) -> bool:
    """Whether this process has a capability in effect."""
    try:
        status = Path("/proc/thread-self/status").read_text()
    except OSError:
        return False
    effective = re.search(r"^CapEff:\s*([0-9a-f]+)", status, re.MULTILINE)
    return effective is not None and bool(int(effective[1], 16) >> number & 1)


def _ptrace_scope() -> int:
    try:
        return int(_YAMA.read_text())
    except (OSError, ValueError):  # a kernel without Yama
        return 0


def _user(uid: int) -> str:
    try:
        return f"{pwd.getpwuid(uid).pw_name} ({uid})"
    except KeyError:
        return str(uid)

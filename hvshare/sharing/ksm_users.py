"""Who uses KSM on this machine, and how much memory there is for a check.

Source: Linux, ``Documentation/filesystems/proc.rst`` (``ksm_stat``, since 6.1; ``ksm_merging_pages``, since
5.19; ``VmFlags`` in ``smaps``; ``MemAvailable``) and ``Documentation/admin-guide/cgroup-v2.rst``.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple

from hvshare.errors import ResourceError
from hvshare.sharing.ksm import RMAP_ITEM_BYTES
from hvshare.units import PAGE_SIZE, format_size

if TYPE_CHECKING:
    from collections.abc import Iterator

    from hvshare.sharing.ksm_settings import KsmFolder

_PROC: Final = Path("/proc")
_SHOWN: Final = 5
_HEADROOM: Final = 256 << 20
_LIMITS: Final = ("memory.max", "memory.current")
_LIMITS_OF_V1: Final = ("memory.limit_in_bytes", "memory.usage_in_bytes")
# For each page: itself, its entry in the page table, what KSM keeps of it, and, of every second page at the
# most, the node of a tree.
_BYTES_OF_A_PAGE: Final = PAGE_SIZE + 8 + RMAP_ITEM_BYTES + RMAP_ITEM_BYTES // 2


class KsmUser(NamedTuple):
    """A process whose memory KSM may merge.

    Attributes
    ----------
    pid : int
        Its number.
    name : str
        Its name, as the kernel has it.
    merging_pages : int or None
        Its pages that are merged, where the kernel tells.
    """

    pid: int
    name: str
    merging_pages: int | None


def ksm_stat(pid: int | str = "self") -> dict[str, str]:
    """Read what KSM knows of a process; nothing where the kernel does not tell.

    Returns
    -------
    dict
        ``ksm_rmap_items``, ``ksm_zero_pages``, ``ksm_merging_pages``, ``ksm_process_profit``,
        ``ksm_merge_any`` and ``ksm_mergeable``, as far as this kernel has them.
    """
    try:
        text = (_PROC / str(pid) / "ksm_stat").read_text(encoding="ascii")
    except OSError:
        return {}
    fields = (line.replace(":", " ").split() for line in text.splitlines())
    return {field[0]: field[1] for field in fields if len(field) == 2}


def ksm_users() -> list[KsmUser]:
    """List the processes that have let KSM merge their memory, whether or not ksmd runs."""
    return list(_users())


def _users() -> Iterator[KsmUser]:
    for entry in os.scandir(_PROC):
        if not entry.name.isdigit():
            continue
        stat = ksm_stat(entry.name)
        if _is_user(Path(entry.path), stat):
            merging = stat.get("ksm_merging_pages")
            name = _text(Path(entry.path, "comm")).strip()
            yield KsmUser(int(entry.name), name, None if merging is None else int(merging))


def _is_user(process: Path, stat: dict[str, str]) -> bool:
    if any(int(stat.get(name, 0)) for name in ("ksm_rmap_items", "ksm_merging_pages", "ksm_zero_pages")):
        return True
    if "ksm_mergeable" in stat:
        return "yes" in (stat["ksm_mergeable"], stat.get("ksm_merge_any"))
    if int(_text(process / "ksm_merging_pages") or 0):
        return True
    return any(
        line.startswith("VmFlags:") and " mg" in line for line in _text(process / "smaps").splitlines()
    )


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:  # the process has ended, or it is a thread of the kernel
        return ""


def check_unused(folder: KsmFolder) -> None:
    """Make sure that nobody else uses KSM.

    Raises
    ------
    ResourceError
        If ksmd runs, pages are merged, or processes have let KSM merge their memory; it names them.
    """
    users = ksm_users()
    merged = folder.count("pages_shared") + folder.count("pages_sharing") + folder.count("ksm_zero_pages")
    run = folder.number("run")
    facts = []
    if run:
        facts.append(f"ksmd is told to run (run is {run})")
    if merged:
        facts.append(f"{merged:,} pages are merged")
    if users:
        facts.append(f"KSM may merge memory of {_listed(users)}")
    elif facts:
        facts.append("no process that runs now has let it merge memory")
    if facts:
        raise ResourceError(
            f"KSM is in use: {'; '.join(facts)}",
            path=str(folder.path),
            advice="check where no guests run; echo 2 > run frees what ended processes have left",
        )


def _listed(users: list[KsmUser]) -> str:
    listed = [
        f"{each.name} (process {each.pid}"
        + (f", {each.merging_pages:,} pages)" if each.merging_pages is not None else ")")
        for each in sorted(users, key=lambda user: -(user.merging_pages or 0))[:_SHOWN]
    ]
    more = len(users) - len(listed)
    return ", ".join(listed) + (f" and {more} more" if more > 0 else "")


def check_memory(pages: int) -> None:
    """Make sure that there is memory for a check.

    Parameters
    ----------
    pages : int
        Pages that are still to be mapped.

    Raises
    ------
    ResourceError
        If memory would run short.
    """
    needed = pages * _BYTES_OF_A_PAGE + _HEADROOM
    available = min(_available(), _left_in_group())
    if needed > available:
        raise ResourceError(
            f"memory would run short: {pages:,} pages, all mapped before any are merged, need "
            f"{format_size(needed)} with what KSM keeps of them and some headroom, and "
            f"{format_size(max(available, 0))} are available",
            advice="check fewer or smaller images, or on a machine with more memory",
        )


def _available() -> int:
    for line in _text(_PROC / "meminfo").splitlines():
        if line.startswith("MemAvailable:"):
            return int(line.split()[1]) << 10
    return 0


def _left_in_group() -> int:
    """Bytes that the control groups of this process leave to it."""
    least = 1 << 62
    for line in _text(_PROC / "self" / "cgroup").splitlines():
        _, controllers, path = line.split(":", 2)
        if controllers not in {"", "memory"}:
            continue
        root = Path("/sys/fs/cgroup", controllers)
        names = _LIMITS_OF_V1 if controllers else _LIMITS
        group = root / path.strip("/")
        for folder in (group, *group.parents):
            limit, used = (_text(folder / name).strip() for name in names)
            if limit.isdigit() and used.isdigit():
                least = min(least, int(limit) - int(used) + _reclaimable(folder))
            if folder == root:
                break
    return least


def _reclaimable(group: Path) -> int:
    """Bytes of a control group that the kernel frees when they are wanted."""
    for line in _text(group / "memory.stat").splitlines():
        name, _, value = line.partition(" ")
        if name in {"inactive_file", "total_inactive_file"} and value.isdigit():
            return int(value)
    return 0

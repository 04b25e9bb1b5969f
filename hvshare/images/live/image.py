"""A guest that is running now: ``qemu:PID``, the RAM that a QEMU gives it, and ``pid:PID``, any process.

No page is touched that the guest has not touched: the kernel is asked first what each page is (`pagemap` and
`backing_files` in this package), and only those that have contents are read, from the process or from the
file that is mapped. Pages that were never touched are zero, by the definition of anonymous memory and of
holes.

Source: Linux, ``Documentation/filesystems/proc.rst`` and ``Documentation/admin-guide/mm/pagemap.rst``.
"""

from __future__ import annotations

import os
import re
import shlex
import sys
from typing import TYPE_CHECKING, Final

from hvshare.errors import UnsupportedImageError
from hvshare.images.live.caveats import page_caveats
from hvshare.images.stored import StoredImage
from hvshare.units import PAGE_SIZE, format_size

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from hvshare.caveats import Caveat
    from hvshare.images.image import GuestImage
    from hvshare.images.live.activity import Activity
    from hvshare.images.live.maps import Mapping
    from hvshare.images.live.memory import LivePages, LiveSource
    from hvshare.images.live.qemu_command import QemuCommand
    from hvshare.images.live.qemu_ram import RamBlock
    from hvshare.images.options import ReadingOptions

_LIVE: Final = re.compile(r"(qemu|pid):(\d{1,10})", re.ASCII)


def is_live(path: str) -> bool:
    """Whether a name is that of a running process, and not of a file.

    Examples
    --------
    >>> is_live("qemu:1234"), is_live("pid:1"), is_live("./qemu:1234"), is_live("qemu:web")
    (True, True, False, False)
    """
    return _LIVE.fullmatch(path) is not None


def open_live(name: str, path: str, options: ReadingOptions) -> GuestImage:
    """Open the memory of a running process.

    Parameters
    ----------
    name : str
        How reports call it.
    path : str
        ``qemu:PID`` or ``pid:PID``.
    options : ReadingOptions
        How it is read.

    Returns
    -------
    GuestImage
        Opened; the caller closes it.

    Raises
    ------
    UnreadableImageError
        If there is no such process, or this one has not the rights to read its memory.
    UnsupportedImageError
        If it is no QEMU, or its RAM is not found; on other systems than Linux.
    EmptyImageError
        If the process has no memory of its own.
    ImageChangedError
        If it ends meanwhile.
    """
    if sys.platform != "linux":
        raise UnsupportedImageError(
            "running guests are read on Linux only", path=path, advice="take a dump of the guest"
        )
    from hvshare.images.live.memory import LiveSource
    from hvshare.images.live.process import Process

    kind, _, pid = path.partition(":")
    process = Process(pid, path)
    try:
        source = LiveSource(process)
    except BaseException:
        process.close()
        raise
    try:
        return (_open_qemu if kind == "qemu" else _open_process)(name, source, options)
    except BaseException:
        source.close()
        raise


class LiveImage(StoredImage):
    """The memory of a running process.

    Parameters
    ----------
    name : str
        How reports call it.
    source : LiveSource
        The process.
    pages : LivePages
        What is in it.
    activity : Activity
        Whether it stands still.
    """

    def __init__(self, name: str, source: LiveSource, pages: LivePages, activity: Activity) -> None:
        super().__init__(name, source, pages.runs, pages.extents)
        self._activity = activity
        self.identity = source.identity
        self.caveats += activity.caveats(name)
        self.caveats += page_caveats(pages, name)
        self.details["process"] = source.process.pid
        if pages.swapped:
            self.details["swapped out"] = format_size(pages.swapped * PAGE_SIZE)

    def finish(self) -> list[Caveat]:
        """Tell whether the guest ran while it was read; see `GuestImage.finish`.

        Raises
        ------
        ImageChangedError
            If the process has ended.
        """
        return super().finish() + self._activity.caveats(self.name)


def _open_process(name: str, source: LiveSource, options: ReadingOptions) -> GuestImage:
    from hvshare.images.live.activity import Activity
    from hvshare.images.live.memory import LivePages, no_memory

    process = source.process
    pause = f"kill -STOP {process.pid}, and kill -CONT {process.pid} later"
    activity = Activity(process, pause, is_guest=False)
    with LivePages(source, options) as pages:
        for each in process.mappings():
            pages.add_own(each)
    if not pages.runs:
        raise no_memory(source.path)
    image = LiveImage(name, source, pages, activity)
    image.format, image.layout = "process", "page N is virtual page N of the process"
    if program := process.link("exe"):
        image.details["program"] = program
    return image


def _open_qemu(name: str, source: LiveSource, options: ReadingOptions) -> GuestImage:
    from hvshare.images.live.activity import Activity
    from hvshare.images.live.caveats import qemu_caveats
    from hvshare.images.live.memory import LivePages
    from hvshare.images.live.qemu_command import parse_command
    from hvshare.images.live.qemu_ram import find_ram
    from hvshare.images.qemu.machine import place_ram

    process = source.process
    arguments = [os.fsdecode(each) for each in process.read("cmdline").split(b"\0")[:-1]]
    command = parse_command(process.link("exe"), arguments, source.path)
    activity = Activity(process, _pause_command(command), is_guest=True)
    ram = find_ram(command.backends, process.mappings(), source.path)
    placement = place_ram(command.machine, command.ram_bytes, command.program)
    with LivePages(source, options) as pages:
        for address, size, offset in placement.segments:
            for mapping, start, end in _pieces(ram.blocks, offset, size):
                pages.add(mapping, start, end, address)
                address += end - start  # noqa: PLW2901  # it goes on behind the piece
    image = LiveImage(name, source, pages, activity)
    image.format, image.layout = "qemu", "RAM of the guest in the memory of its QEMU"
    image.caveats += qemu_caveats(command, placement, ram, name)
    image.details |= _qemu_details(command) | {"program": process.link("exe") or command.program}
    return image


def _pause_command(command: QemuCommand) -> str:
    if command.by_libvirt and command.guest:
        guest = shlex.quote(command.guest)
        return f"virsh suspend {guest}, and virsh resume {guest} later"
    return "the command stop in QEMU's monitor (QMP or HMP), and cont later"


def _pieces(blocks: Iterable[RamBlock], offset: int, size: int) -> Iterator[tuple[Mapping, int, int]]:
    """Find a part of the RAM: the mappings that it lies in, and its virtual addresses in each."""
    end = offset + size
    behind = 0
    for block in blocks:
        before, behind = behind, behind + block.size
        if before >= end or behind <= offset:
            continue
        low = block.start + max(offset - before, 0)
        high = block.start + min(end - before, block.size)
        for mapping in block.mappings:
            start, stop = max(low, mapping.start), min(high, mapping.end)
            if start < stop:
                yield mapping, start, stop


def _qemu_details(command: QemuCommand) -> dict[str, str]:
    return {
        **({"guest": command.guest} if command.guest else {}),
        "machine type": command.machine or "not told",
        "RAM backing": "; ".join(dict.fromkeys(each.description for each in command.backends)),
    }

"""What to know before trusting figures of a guest that is running."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from hvshare.caveats import Caveat
from hvshare.images.runs import RunKind
from hvshare.units import PAGE_SIZE, format_size

if TYPE_CHECKING:
    from hvshare.images.live.memory import LivePages
    from hvshare.images.live.qemu_command import QemuCommand
    from hvshare.images.live.qemu_ram import FoundRam
    from hvshare.images.qemu.machine import RamPlacement

_CERTAIN_END: Final = 0xF0 << 32
"""Guests that end below it need no regard to the hole below 1 TiB that AMD processors have."""


def page_caveats(pages: LivePages, name: str) -> list[Caveat]:
    """Tell what pages of a process count as, where that is not their contents."""
    caveats = []
    if untouched := pages.runs.pages_of(RunKind.ZERO):
        caveats.append(
            Caveat(
                "untouched-pages",
                f"{format_size(untouched * PAGE_SIZE)} were never touched and count as zero pages, while "
                "they take no memory of the host yet",
                "take them off what sharing zero pages would free on this host today",
                name,
            )
        )
    if pages.swapped:
        caveats.append(
            Caveat(
                "swapped-pages",
                f"{pages.swapped:,} pages are swapped out by the host and count as absent",
                "--read-swapped reads them, which brings them back into the host's memory",
                name,
            )
        )
    if pages.forbidden:
        caveats.append(
            Caveat(
                "forbidden-pages",
                f"{pages.forbidden:,} pages may not be read by the process itself, and this kernel makes no "
                "exception for others, so they count as absent",
                "start the host with proc_mem.force_override=always if they matter",
                name,
            )
        )
    if pages.unseen:
        caveats.append(
            Caveat(
                "unseen-pages",
                f"{pages.unseen:,} pages are not mapped right now, and whether the file behind them holds "
                "something is not known, so they count as absent",
                "run as root, or with CAP_CHECKPOINT_RESTORE, for that file to be opened",
                name,
            )
        )
    return caveats


def _is_inferred(command: QemuCommand, placement: RamPlacement) -> bool:
    """Whether the command line leaves open where RAM is: it tells what an image does not."""
    from hvshare.images.qemu.machine import place_ram

    address, size, _ = placement.segments[-1]
    known = not place_ram(command.machine, PAGE_SIZE, command.program).inferred
    return bool(placement.inferred and (not known or address + size > _CERTAIN_END)) or bool(command.low_ram)


def qemu_caveats(command: QemuCommand, placement: RamPlacement, ram: FoundRam, name: str) -> list[Caveat]:
    """Tell what of the RAM of a guest is inferred or left out."""
    caveats = []
    if _is_inferred(command, placement):
        low = (
            f", and max-ram-below-4g={command.low_ram}, which is passed over here" if command.low_ram else ""
        )
        caveats.append(
            Caveat(
                "addresses-inferred",
                f"where RAM is in guest-physical memory is inferred: {placement.why}{low}",
                "counts of 4 KB pages do not depend on it; take an ELF dump (dump-guest-memory) if those of "
                "larger frames matter",
                name,
            )
        )
    if ram.order_inferred:
        caveats.append(
            Caveat(
                "block-order-inferred",
                "parts of the RAM are of one size, and which of them comes first is inferred from the order "
                "in which QEMU maps them",
                "counts do not depend on it, addresses do",
                name,
            )
        )
    if command.device_bytes:
        caveats.append(
            Caveat(
                "memory-devices-left-out",
                f"{format_size(command.device_bytes)} of memory are in DIMMs or other devices, and are left "
                "out",
                "take a dump for all memory of the guest",
                name,
            )
        )
    return caveats

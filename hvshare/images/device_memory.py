"""Which memory in a dump of a PC is no RAM: the BIOS ROM under 4 GiB and video memory.

Dumps made from outside a guest hold whatever the hypervisor has mapped as memory. Source for where that is:
QEMU ``hw/i386/pc_sysfw.c`` (the ROM ends at 4 GiB), ``hw/display/vga.c`` (the window at 0xA0000), and the PCI
specification 3.0, 6.2.5.1 (the size of a BAR is a power of two, to which it is aligned).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from hvshare.images.image import LeftOut
from hvshare.images.runs import RunKind

if TYPE_CHECKING:
    from collections.abc import Sequence

    from hvshare.images.segments import Segment

_4_GIB: Final = 4 << 30
_LARGEST_ROM: Final = 16 << 20
_VGA_WINDOW: Final = (0xA0000, 0xC0000)
_LOWEST_BAR: Final = 0x40000000
_MOST_DEVICES: Final = 64  # more than fit on the bus of a PC: what looks like so many is RAM with gaps


def split_device_memory(segments: Sequence[Segment]) -> tuple[list[Segment], list[LeftOut]]:
    """Tell the RAM of a PC from its ROM and video memory.

    Parameters
    ----------
    segments : sequence of Segment
        Of an x86 guest, in any order.

    Returns
    -------
    tuple of list of Segment and list of LeftOut
        The RAM, and the rest with what it is taken for.

    Examples
    --------
    >>> from hvshare.images.segments import Segment
    >>> parts = [Segment(0, 1 << 30, 0), Segment(0xFD000000, 1 << 24, 0), Segment(0xFFFC0000, 1 << 18, 0)]
    >>> ram, others = split_device_memory(parts)
    >>> [each.size for each in ram], [each.what for each in others]
    ([1073741824], ['video memory', 'BIOS ROM'])
    """
    ram: list[Segment] = []
    others: list[LeftOut] = []
    end = 0
    for each in sorted(segments):
        if what := _device(each, end):
            # What is not stored anyway is no news to anybody.
            if each.kind == RunKind.PRESENT:
                others.append(LeftOut(each.address, each.size, what))
            continue
        ram.append(each)
        end = each.end
    if len(others) > _MOST_DEVICES:
        return sorted(segments), []
    return ram, others


def _device(segment: Segment, ram_end: int) -> str:
    if segment.end == _4_GIB and segment.size <= _LARGEST_ROM and segment.address > ram_end:
        return "BIOS ROM"
    if _VGA_WINDOW[0] <= segment.address and segment.end <= _VGA_WINDOW[1]:
        return "video memory"
    below_4_gib = segment.address >= _LOWEST_BAR and segment.end <= _4_GIB
    like_a_bar = not segment.size & (segment.size - 1) and not segment.address % segment.size
    if below_4_gib and like_a_bar and segment.address > ram_end:
        return "video memory"
    return ""

"""The blocks of memory of a QEMU guest: which are RAM, and where each is in guest-physical memory.

A migration stream names blocks and gives their sizes, and no address. Source of the names:
``default_ram_id`` of QEMU's machine types; ``hw/core/numa.c`` (blocks of nodes follow each other);
``hw/core/loader.c`` (blocks of ROM start with ``/rom@``); ``hw/i386/pc_piix.c`` (option ROMs are blocks up to
machine type 1.7, whose streams do not tell it); ``qdev`` paths before the names of what belongs to a device;
libvirt, ``src/qemu/qemu_command.c`` and ``qemu_alias.c`` (``ram-node0``, ``memdimm0``).
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final, NamedTuple

from hvshare.caveats import Caveat
from hvshare.images.qemu.machine import FOUR_GIB, GIB, place_ram
from hvshare.units import format_size

if TYPE_CHECKING:
    from collections.abc import Sequence

_MAIN: Final = frozenset(
    {
        "pc.ram",
        "microvm.ram",
        "mach-virt.ram",
        "riscv_virt_board.ram",
        "loongarch.ram",
        "ppc_spapr.ram",
        "s390.ram",
        "ram",
    }
)
_NODE: Final = re.compile(r"ram-node(\d+)")
_DEVICE: Final = re.compile(
    r"/|bios|rom\b|flash|vram|video|vga|fifo|framebuffer|ramfb|tpm|shm|sram|secure-ram|tag-ram|cache|fw_cfg|dtb|fdt",
    re.IGNORECASE,
)
_OLD_ROM: Final = "/rom@genroms/"
_OLD_MACHINE: Final = "pc-i440fx-1.7"
_OBJECTS: Final = "/objects/"
_SMALLEST_RAM: Final = 1 << 20
_DIMM_ALIGNMENT: Final = 2 << 20


class RamBlock(NamedTuple):
    """A block of memory as the stream lists it.

    Attributes
    ----------
    name : str
        QEMU's name of it.
    size : int
        Bytes, whole pages.
    first : int
        Number of its first page, when the pages of all blocks are counted one after another.
    """

    name: str
    size: int
    first: int


class PlacedRam(NamedTuple):
    """RAM at its address.

    Attributes
    ----------
    address, size : int
        First guest physical address, and bytes.
    block : RamBlock
        What it is a part of.
    offset : int
        Bytes from the start of the block.
    """

    address: int
    size: int
    block: RamBlock
    offset: int


class BlockPlacement(NamedTuple):
    """Where all blocks are.

    Attributes
    ----------
    ram : tuple of PlacedRam
        Ascending.
    devices : tuple of RamBlock
        Memory of devices, which has no address here.
    inferred : tuple of str
        What the addresses rest on that nothing in the stream confirms, as clauses.
    """

    ram: tuple[PlacedRam, ...]
    devices: tuple[RamBlock, ...]
    inferred: tuple[str, ...]

    def caveats(self, name: str, *, device_memory: bool) -> list[Caveat]:
        """Say what is inferred, and what was left out although it was asked for."""
        caveats = []
        if self.inferred:
            caveats.append(
                Caveat(
                    "addresses-inferred",
                    f"the stream does not tell addresses; inferred from: {'; '.join(self.inferred)}",
                    "counts of 4 KB pages hold in any case; check the memory map of the guest before you "
                    "trust addresses",
                    name,
                )
            )
        if device_memory and self.devices:
            size = sum(each.size for each in self.devices)
            caveats.append(
                Caveat(
                    "device-memory-not-placed",
                    f"{format_size(size)} of ROM and device memory ({_listed(self.devices)}) stay left out: "
                    "the stream does not tell their addresses",
                    "take an ELF core with dump-guest-memory to count them",
                    name,
                )
            )
        return caveats


def place_blocks(machine: str | None, blocks: Sequence[RamBlock]) -> BlockPlacement:
    """Tell RAM from memory of devices, and give it addresses.

    Parameters
    ----------
    machine : str or None
        Machine type, if it is known.
    blocks : sequence of RamBlock
        In the order of the stream, which is by size, largest first.

    Returns
    -------
    BlockPlacement

    Examples
    --------
    >>> blocks = [RamBlock("pc.ram", 1 << 30, 0), RamBlock("vga.vram", 4096, 1 << 18)]
    >>> placement = place_blocks("pc-i440fx-7.2", blocks)
    >>> [(each.address, each.size, each.block.name) for each in placement.ram]
    [(0, 1073741824, 'pc.ram')]
    >>> [each.name for each in placement.devices], placement.inferred
    (['vga.vram'], ())
    """
    main, extra, certain = _main_blocks(blocks)
    taken = {each.name for each in (*main, *extra)}
    devices = tuple(each for each in blocks if each.name not in taken and each.size)
    inferred = []
    if machine is None and any(each.name.startswith(_OLD_ROM) for each in blocks):
        machine = _OLD_MACHINE
        inferred.append("ROM in blocks as up to machine type 1.7")
    placement = place_ram(machine, sum(each.size for each in main), _plain(main[0].name) if main else "")
    if placement.inferred:
        inferred.append(placement.why)
    if not certain:
        inferred.append(f"{_listed(main)} being all RAM that the machine was started with, in this order")
    ram = []
    for address, size, offset in placement.segments:
        ram += _cut(main, address, size, offset)
    if extra:
        inferred.append(f"{_listed(extra)} being memory that was plugged in, behind the RAM that was there")
        end = max((each.address + each.size for each in ram), default=0)
        at = -(-max(end, FOUR_GIB if (machine or "pc").startswith(("pc", "q35")) else 0) // GIB) * GIB
        for block in extra:
            at = -(-at // _DIMM_ALIGNMENT) * _DIMM_ALIGNMENT
            ram.append(PlacedRam(at, block.size, block, 0))
            at += block.size
    return BlockPlacement(tuple(ram), devices, tuple(inferred))


def _main_blocks(blocks: Sequence[RamBlock]) -> tuple[list[RamBlock], list[RamBlock], bool]:
    """Find the RAM of the start, what was plugged in, and whether their names leave no doubt."""
    likely = [each for each in blocks if each.size and not _DEVICE.search(_plain(each.name))]
    main = [each for each in likely if _plain(each.name) in _MAIN][:1]
    nodes = {each.name: int(match[1]) for each in likely if (match := _NODE.fullmatch(_plain(each.name)))}
    if not main and nodes:
        main = sorted((each for each in likely if each.name in nodes), key=lambda each: nodes[each.name])
    large = [each for each in likely if each not in main and each.size >= _SMALLEST_RAM]
    if main:
        return main, sorted(large, key=lambda each: _natural(each.name)), True
    # Backends of other names: they may be the nodes of a guest, or what was plugged into it.
    main = large or likely
    if main:
        return main, [], len(main) == 1
    return [each for each in blocks if each.size >= _SMALLEST_RAM][:1], [], False


def _cut(main: Sequence[RamBlock], address: int, size: int, offset: int) -> list[PlacedRam]:
    """Cut a part of RAM into its blocks, which follow each other."""
    parts = []
    start = 0
    for block in main:
        low, high = max(offset, start), min(offset + size, start + block.size)
        if low < high:
            parts.append(PlacedRam(address + low - offset, high - low, block, low - start))
        start += block.size
    return parts


def _plain(name: str) -> str:
    return name.removeprefix(_OBJECTS)


def _natural(name: str) -> tuple[str, int]:
    digits = re.search(r"(\d{1,9})$", name)
    return (name[: digits.start()], int(digits[1])) if digits else (name, -1)


def _listed(blocks: Sequence[RamBlock], most: int = 8) -> str:
    names = [f"{each.name} {format_size(each.size)}" for each in blocks[:most]]
    return ", ".join(names) + (f" and {len(blocks) - most:,} more" if len(blocks) > most else "")


def describe_blocks(blocks: Sequence[RamBlock]) -> str:
    """Name blocks and their sizes for people, a few of them.

    Examples
    --------
    >>> describe_blocks([RamBlock("pc.bios", 262144, 0)])
    'pc.bios 256.0 KiB'
    """
    return _listed(blocks)

"""Where QEMU puts the RAM of a guest in guest-physical memory, by machine type.

Source: QEMU, ``hw/i386/pc_piix.c`` and ``hw/i386/pc_q35.c`` (size of RAM below the 32-bit hole; aligned to a
gigabyte from version 2.0 on), ``hw/i386/microvm.c``, ``hw/i386/pc.c`` (the hole below 1 TiB of guests with an
AMD processor, from version 7.1 on), ``hw/arm/virt.c``, ``hw/riscv/virt.c``, ``hw/loongarch/virt.c``,
``hw/ppc/spapr.c``, ``hw/s390x/s390-virtio-ccw.c``. Neither a migration stream nor the memory of QEMU tells
whether ``max-ram-below-4g`` was set, nor the vendor of the processor in a place that is easy to find.
"""

from __future__ import annotations

import re
from typing import Final, NamedTuple

from hvshare.units import format_size

GIB: Final = 1 << 30
FOUR_GIB: Final = 4 * GIB
"""Where RAM goes on that has no room below the 32-bit hole."""

_AMD_HOLE: Final = 0xFD << 32
"""Start of what an AMD IOMMU cannot map, up to 1 TiB."""


class RamPlacement(NamedTuple):
    """Where the RAM of a guest is.

    Attributes
    ----------
    segments : tuple of (int, int, int)
        Guest physical address, bytes, and offset into the RAM of each part, ascending.
    inferred : bool
        Whether that rests on what nothing in an image confirms.
    why : str
        What it rests on, as a clause for a caveat.
    """

    segments: tuple[tuple[int, int, int], ...]
    inferred: bool
    why: str


class _Board(NamedTuple):
    """How a family of machine types places RAM.

    Attributes
    ----------
    pattern : str
        Of the names of its machine types.
    hints : tuple of str
        What names of RAM blocks and of QEMU's programs have in them, for those without a version.
    what : str
        How people call it.
    base : int
        Address of the first byte.
    most : int or None
        RAM of so many bytes at least is split; None if it never is.
    low : int
        Bytes of split RAM that stay at the base.
    high : int
        Address of the rest.
    pci_hole : int or None
        Bytes of the 64-bit PCI hole behind RAM, where that may collide with the hole below 1 TiB.
    """

    pattern: str
    hints: tuple[str, ...]
    what: str
    base: int = 0
    most: int | None = None
    low: int = 0
    high: int = FOUR_GIB
    pci_hole: int | None = None


_OLD_PC: Final = _Board(
    r"pc-i440fx-1\.\d.*|pc-[01]\.\d+|rhel6\..*|isapc", (), "old PC", most=0xE000_0000, low=0xE000_0000
)
_PC: Final = _Board(
    r"pc|pc-i440fx-.*",
    (),
    "i440FX",
    most=0xE000_0000,
    low=0xC000_0000,
    pci_hole=2 * GIB,
)
_OLD_Q35: Final = _Board(r"pc-q35-1\.\d", (), "old Q35", most=0xB000_0000, low=0xB000_0000)
_Q35: Final = _Board(r"q35|pc-q35-.*", (), "Q35", most=0xB000_0000, low=0x8000_0000, pci_hole=32 * GIB)
_MICROVM: Final = _Board("microvm", (), "microvm", most=0xC000_0001, low=0xC000_0000)
_ARM: Final = _Board("virt|virt-.*", ("mach-virt", "aarch64", "system-arm"), "Arm virt", base=0x4000_0000)
_RISCV: Final = _Board("virt", ("riscv",), "RISC-V virt", base=0x8000_0000)
_LOONGARCH: Final = _Board(
    "virt",
    ("loongarch",),
    "LoongArch virt",
    most=0x1000_0001,
    low=0x1000_0000,
    high=0x8000_0000,
)
_LINEAR: Final = _Board(r"pseries(-.*)?|powernv\d*|s390-ccw-virtio(-.*)?|s390-ccw-.*", (), "pseries or s390")

_BOARDS: Final = (_OLD_PC, _PC, _OLD_Q35, _Q35, _MICROVM, _RISCV, _LOONGARCH, _ARM, _LINEAR)
_SMALLEST_SPLIT: Final = 0xB000_0000


def place_ram(machine: str | None, ram_bytes: int, hint: str = "") -> RamPlacement:
    """Find out where a QEMU machine has its RAM.

    Parameters
    ----------
    machine : str or None
        Name of the machine type, such as ``pc-q35-8.2``; None if it is not known.
    ram_bytes : int
        Bytes of RAM that it was started with.
    hint : str
        Name of the block of RAM, or of QEMU's program: tells machine types apart that are all ``virt``.

    Returns
    -------
    RamPlacement
        Covers all of the RAM; no segment is empty.

    Examples
    --------
    >>> place_ram("pc-i440fx-7.2", 1 << 30)
    RamPlacement(segments=((0, 1073741824, 0),), inferred=False, why='machine type pc-i440fx-7.2')
    >>> [(hex(at), hex(size)) for at, size, _ in place_ram("pc-q35-8.2", 4 << 30).segments]
    [('0x0', '0x80000000'), ('0x100000000', '0x80000000')]
    """
    board = _board(machine or "", hint)
    if board is None:
        return _unknown(machine, ram_bytes)
    segments = _split(board, ram_bytes)
    why = f"machine type {machine}"
    if board.base or board.most is None:
        certain = machine != "virt" or any(each in hint for each in board.hints)
        return RamPlacement(segments, not certain, why if certain else f"{why}, taken for {board.what}")
    if len(segments) < 2:
        return RamPlacement(segments, False, why)
    why = (
        f"{why}, which has {format_size(board.low)} below the 32-bit hole and the rest from {board.high:#x} "
        "on unless max-ram-below-4g is set"
    )
    end = sum(segments[-1][:2])
    if (
        board.pci_hole is not None
        and -(-end // GIB) * GIB + board.pci_hole > _AMD_HOLE
        and _minds_amd(machine)
    ):
        why += ", or from 1 TiB on with an AMD processor"
    return RamPlacement(segments, True, why)


def _board(machine: str, hint: str) -> _Board | None:
    fitting = [each for each in _BOARDS if re.fullmatch(each.pattern, machine)]
    hinted = [each for each in fitting if any(word in hint for word in each.hints)]
    # "virt" without a version or another hint is likeliest to be that of Arm.
    return next(iter(hinted or [each for each in fitting if each not in (_RISCV, _LOONGARCH)]), None)


def _split(board: _Board, ram_bytes: int) -> tuple[tuple[int, int, int], ...]:
    if board.most is None or ram_bytes < board.most or ram_bytes <= board.low:
        return ((board.base, ram_bytes, 0),) if ram_bytes else ()
    return (board.base, board.low, 0), (board.high, ram_bytes - board.low, board.low)


def _minds_amd(machine: str | None) -> bool:
    version = re.fullmatch(r"pc-(?:i440fx|q35)-(\d+)\.(\d+)", machine or "")
    return version is None or (int(version[1]), int(version[2])) >= (7, 1)


def _unknown(machine: str | None, ram_bytes: int) -> RamPlacement:
    named = f"machine type {machine} is not known here" if machine else "the machine type is not known"
    if ram_bytes < _SMALLEST_SPLIT:
        return RamPlacement(_split(_LINEAR, ram_bytes), True, f"{named}; RAM is taken to start at address 0")
    return RamPlacement(
        _split(_PC, ram_bytes),
        True,
        f"{named}; RAM is taken to be as in machine type pc: split at a 32-bit hole",
    )

from __future__ import annotations

import re
import shutil
import subprocess

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hvshare.images.qemu.machine import place_ram

MIB, GIB = 1 << 20, 1 << 30
QEMU = shutil.which("qemu-system-x86_64")
NAMES = [
    *("pc", "q35", "microvm", "isapc", "pc-1.3", "pc-i440fx-1.7", "pc-i440fx-2.0", "pc-i440fx-trusty"),
    *("pc-q35-1.7", "pc-q35-9.1", "virt", "virt-8.2", "pseries-7.2", "s390-ccw-virtio-9.0", "raspi3b", None),
]


@given(machine=st.sampled_from(NAMES), ram_bytes=st.integers(0, 3 << 40))
def test_every_byte_has_one_place(machine: str | None, ram_bytes: int) -> None:
    placement = place_ram(machine, ram_bytes)
    end = offset = 0
    for address, size, into in placement.segments:
        assert size > 0
        assert address >= end
        assert into == offset
        end, offset = address + size, into + size
    assert offset == ram_bytes
    assert placement.why


@pytest.mark.parametrize(
    ("machine", "ram_bytes", "split_at"),
    [
        ("pc", 0xE000_0000 - MIB, None),
        ("pc", 0xE000_0000, 3 * GIB),
        ("pc-i440fx-2.0", 5 * GIB, 3 * GIB),
        ("pc-i440fx-1.7", 0xE000_0000 - MIB, None),
        ("pc-i440fx-1.7", 5 * GIB, 0xE000_0000),
        ("pc-1.2", 5 * GIB, 0xE000_0000),
        ("pc-i440fx-rhel7.6.0", 5 * GIB, 3 * GIB),
        ("q35", 0xB000_0000 - MIB, None),
        ("pc-q35-8.2", 0xB000_0000, 2 * GIB),
        ("pc-q35-1.6", 5 * GIB, 0xB000_0000),
        ("microvm", 3 * GIB, None),
        ("microvm", 4 * GIB, 3 * GIB),
        ("isapc", 4 * GIB, 0xE000_0000),
    ],
)
def test_the_32_bit_hole(machine: str, ram_bytes: int, split_at: int | None) -> None:
    placement = place_ram(machine, ram_bytes)
    if split_at is None:
        assert placement.segments == ((0, ram_bytes, 0),)
        assert not placement.inferred
    else:
        assert placement.segments == ((0, split_at, 0), (4 * GIB, ram_bytes - split_at, split_at))
        assert placement.inferred
        assert "max-ram-below-4g" in placement.why


@pytest.mark.parametrize(
    ("machine", "hint", "address", "inferred"),
    [
        ("virt-8.2", "", 0x4000_0000, False),
        ("virt", "mach-virt.ram", 0x4000_0000, False),
        ("virt", "", 0x4000_0000, True),
        ("virt", "riscv_virt_board.ram", 0x8000_0000, False),
        ("virt", "qemu-system-riscv64", 0x8000_0000, False),
        ("virt-8.2", "qemu-system-aarch64", 0x4000_0000, False),
        ("pseries-7.2", "", 0, False),
        ("s390-ccw-virtio-9.0", "", 0, False),
    ],
)
def test_boards_without_a_hole(machine: str, hint: str, address: int, inferred: bool) -> None:
    placement = place_ram(machine, 300 * GIB, hint)
    assert placement.segments == ((address, 300 * GIB, 0),)
    assert placement.inferred == inferred


def test_loongarch_splits_at_256_mib() -> None:
    segments = place_ram("virt", GIB, "loongarch.ram").segments
    assert segments == ((0, 256 * MIB, 0), (0x8000_0000, GIB - 256 * MIB, 256 * MIB))


@pytest.mark.parametrize("machine", [None, "raspi3b"])
def test_an_unknown_machine_is_said_to_be_inferred(machine: str | None) -> None:
    small, large = place_ram(machine, 2 * GIB), place_ram(machine, 8 * GIB)
    assert small.segments == ((0, 2 * GIB, 0),)
    assert large.segments == ((0, 3 * GIB, 0), (4 * GIB, 5 * GIB, 3 * GIB))
    assert small.inferred
    assert large.inferred


def test_the_hole_below_1_tib_of_amd_is_told() -> None:
    def told(machine: str, gib: int) -> bool:
        return "AMD" in place_ram(machine, gib * GIB).why

    # Where QEMU 7.2 starts to relocate RAM for -cpu EPYC.
    assert [told("pc", gib) for gib in (1009, 1010)] == [False, True]
    assert [told("q35", gib) for gib in (978, 979)] == [False, True]
    assert not told("pc-i440fx-7.0", 1100)
    assert not told("microvm", 1100)


@pytest.mark.skipif(QEMU is None, reason="needs qemu-system-x86_64")
@pytest.mark.parametrize("machine", ["pc", "pc-i440fx-1.7", "q35", "microvm", "isapc"])
@pytest.mark.parametrize("mib", [64, 2815, 2816, 3584, 5120])
def test_as_qemu_does(machine: str, mib: int) -> None:
    assert QEMU is not None
    command = [QEMU, "-nodefaults", "-display", "none", "-S", "-accel", "tcg", "-monitor", "stdio"]
    memory = ["-object", f"memory-backend-ram,id=ram0,size={mib}M,reserve=off", "-m", f"{mib}M"]
    run = subprocess.run(
        [*command, *memory, "-machine", f"{machine},memory-backend=ram0,mem-merge=off"],
        input="info mtree -f\nquit\n",
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    if run.returncode:
        pytest.skip(f"this QEMU does not start {machine}: {run.stderr.strip()}")
    found = {
        (int(first, 16), int(last, 16), int(offset or "0", 16))
        for first, last, offset in re.findall(
            r"([0-9a-f]{16})-([0-9a-f]{16}) \(prio 0, ram\): ram0(?: @([0-9a-f]+))?", run.stdout
        )
    }
    segments = place_ram(machine, mib * MIB).segments
    assert found
    for first, last, offset in found:
        assert any(
            at <= first and last < at + size and first - at == offset - into for at, size, into in segments
        )
    # QEMU shows video memory and ROM over parts of low RAM.
    assert {at + size - 1 for at, size, _ in segments} == {last for _, last, _ in found if last >= MIB}

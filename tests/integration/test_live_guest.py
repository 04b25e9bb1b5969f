"""Guests that run in QEMU: what is read of them live, against what QEMU itself saves of them."""

from __future__ import annotations

import json
import os
import platform
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path

import pytest

import hvshare
from hvshare.errors import ImageChangedError, UnsupportedImageError
from hvshare.images.image import GuestImage
from hvshare.images.live.process import Process
from hvshare.images.runs import RunKind
from tests.guests import content
from tests.integration.running import hvshare as command
from tests.oracle import PAGE

QEMU = shutil.which("qemu-system-x86_64")
MIB = 1 << 20
SIZE = 64 * MIB

pytestmark = [
    pytest.mark.skipif(sys.platform != "linux", reason="needs /proc of Linux"),
    pytest.mark.skipif(QEMU is None, reason="qemu-system-x86_64 is not installed"),
    pytest.mark.skipif(
        sys.platform == "linux" and os.geteuid() != 0, reason="needs root, to read another process"
    ),
]


class Guest:
    """A guest that runs its BIOS and nothing else, on no more than an emulated processor."""

    def __init__(self, folder: Path, *options: str, names_threads: bool = True) -> None:
        self._saved = folder / "saved"
        naming = ("-name", "guest=web,debug-threads=on") if names_threads else ()
        arguments = [QEMU or "", "-accel", "tcg", "-nodefaults", "-display", "none", "-qmp", "stdio", *naming]
        # Not offered to KSM, which test_ksm_check must not find at work.
        given = [
            f"{each},mem-merge=off" if before == "-machine" else each
            for before, each in pairwise(("", *options))
        ]
        self._process = subprocess.Popen(
            [*arguments, *given], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        self.pid = self._process.pid
        self.path = f"qemu:{self.pid}"
        self._answer("QMP")
        self.ask("qmp_capabilities")
        # Until the BIOS has found nothing to start from, or at least has written to memory.
        time.sleep(0.3)

    def _answer(self, key: str) -> object:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            answer = json.loads(line)
            assert "error" not in answer, answer
            if key in answer:
                return answer[key]
        raise AssertionError("QEMU has ended")

    def ask(self, name: str, **arguments: object) -> object:
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps({"execute": name, "arguments": arguments}) + "\n")
        self._process.stdin.flush()
        return self._answer("return")

    def saved(self, address: int, size: int) -> bytes:
        """Have QEMU write a part of guest-physical memory to a file."""
        self.ask("pmemsave", val=address, size=size, filename=str(self._saved))
        return self._saved.read_bytes()

    def resident_kib(self) -> dict[str, int]:
        lines = Path(f"/proc/{self.pid}/status").read_text().splitlines()
        return {
            line.split(":")[0]: int(line.split()[1]) for line in lines if line.startswith(("VmRSS", "Rss"))
        }

    def kill(self) -> None:
        self._process.kill()
        self._process.wait()

    def close(self) -> None:
        self._process.kill()
        self._process.communicate()


Start = Callable[..., Guest]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    guests: list[Guest] = []

    def started(*options: str, names_threads: bool = True) -> Guest:
        guests.append(Guest(tmp_path, *options, names_threads=names_threads))
        return guests[-1]

    yield started
    for guest in guests:
        guest.close()


def told(image: GuestImage) -> list[str]:
    """Codes of caveats, but for that on untouched memory, which all these guests have."""
    return [each.code for each in image.caveats if each.code != "untouched-pages"]


def _differences(image: GuestImage, guest: Guest, most_zero: int = SIZE) -> list[tuple[int, str]]:
    """Read an image to its end, check that nothing was touched by that, and compare with what QEMU saves."""
    before = guest.resident_kib()
    buffer = memoryview(bytearray(2 * MIB))
    present = b"".join(bytes(buffer[: block.pages * PAGE]) for block in image.blocks(buffer))
    assert image.finish() == []
    after = guest.resident_kib()
    for kind, size in before.items():
        assert after[kind] <= size * 1.01, (kind, before, after)
    assert image.runs is not None
    wrong, at = [], 0
    for run in image.runs:
        size = run.pages * PAGE
        if run.kind == RunKind.PRESENT:
            held = present[at : at + size]
            at += size
        else:
            size = min(size, most_zero)  # to save untouched memory is to touch it
            held = bytes(size)
        if run.kind == RunKind.ABSENT or held != guest.saved(run.first_gfn * PAGE, size):
            wrong.append((run.first_gfn, run.kind.name))
    assert at == len(present)
    return wrong


def _object(kind: str, further: str = "") -> tuple[str, ...]:
    backend = f"memory-backend-{kind},id=ram,size=64M{further}"
    return ("-machine", "q35,memory-backend=ram", "-m", "64", "-object", backend)


@pytest.mark.parametrize(
    ("options", "backing"),
    [
        (("-machine", "pc", "-m", "64"), "private anonymous memory"),
        (_object("memfd", ",share=on"), "shared memfd"),
        (_object("memfd", ",share=off"), "private memfd"),
        (_object("ram", ",share=on"), "shared anonymous memory"),
        (
            (
                *("-machine", "q35,memory-backend=ram", "-m", "size=64M,slots=2,maxmem=128M", "-object"),
                '{"qom-type":"memory-backend-ram","id":"ram","size":67108864}',
            ),
            "private anonymous memory",
        ),
    ],
)
def test_live_equals_saved(start: Start, options: tuple[str, ...], backing: str) -> None:
    guest = start(*options)
    guest.ask("stop")
    with hvshare.open_image(guest.path) as image:
        assert told(image) == []
        assert (image.format, image.details["RAM backing"], image.details["guest"]) == (
            "qemu",
            backing,
            "web",
        )
        assert image.details["machine type"] in {"pc", "q35"}
        assert Path(image.details["program"]).name == "qemu-system-x86_64"
        assert image.runs is not None
        assert image.runs.pages == SIZE // PAGE
        assert 0 < image.runs.pages_of(RunKind.PRESENT) < SIZE // PAGE // 2
        assert image.runs.pages_of(RunKind.ABSENT) == 0
        assert _differences(image, guest) == []


@pytest.mark.parametrize("share", ["on", "off"])
def test_memory_that_another_program_has_filled(start: Start, tmp_path: Path, share: str) -> None:
    """Its pages are in the file and not in QEMU's page table, until the guest touches them."""
    path = tmp_path / "memory"
    with path.open("wb") as file:
        file.truncate(SIZE)
        for number in range(0, 900, 3):
            os.pwrite(file.fileno(), content(number % 250), 32 * MIB + number * PAGE)
    guest = start(*_object("file", f",mem-path={path},share={share}"))
    guest.ask("stop")
    allocated = path.stat().st_blocks
    with hvshare.open_image(guest.path) as image:
        assert told(image) == []
        assert image.details["RAM backing"].endswith(f"mapping of {path}")
        assert image.runs is not None
        assert image.runs.pages_of(RunKind.PRESENT) > 300
        assert image.runs.pages_of(RunKind.ZERO) > SIZE // PAGE // 2
        buffer = memoryview(bytearray(2 * MIB))
        for _ in image.blocks(buffer):
            pass
        assert path.stat().st_blocks == allocated
        assert _differences(image, guest) == []


def test_file_among_those_that_qemu_has_open(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    """As it is opened by those who own the guest and have no further rights."""
    link = Process.link
    monkeypatch.setattr(Process, "link", lambda self, name: "" if "map_files" in name else link(self, name))
    guest = start(*_object("memfd"))
    guest.ask("stop")
    with hvshare.open_image(guest.path) as image:
        assert told(image) == []
        assert _differences(image, guest) == []
    monkeypatch.setattr(Process, "link", lambda *_: "")
    with hvshare.open_image(guest.path) as image:
        # QEMU has touched all of it meanwhile, to save it.
        assert told(image) == []
        assert image.details["program"] == "qemu-system-x86_64"
        assert _differences(image, guest) == []


def test_nodes_of_memory(start: Start) -> None:
    """RAM in two blocks of one size, in an order that differs from the one in which they were made."""
    objects = [f"memory-backend-memfd,id={name},size=96M" for name in ("second", "first")]
    guest = start(
        *("-machine", "pc", "-m", "192", "-object", objects[0], "-object", objects[1]),
        *("-numa", "node,nodeid=1,memdev=second", "-numa", "node,nodeid=0,memdev=first"),
    )
    guest.ask("stop")
    with hvshare.open_image(guest.path) as image:
        assert told(image) == ["block-order-inferred"]
        assert image.runs is not None
        assert image.runs.pages == 192 * MIB // PAGE
        assert _differences(image, guest) == []


def test_ram_on_both_sides_of_the_hole(start: Start) -> None:
    guest = start("-machine", "q35", "-m", "4G")
    guest.ask("stop")
    with hvshare.open_image(guest.path) as image:
        assert told(image) == []
        assert image.runs is not None
        assert image.runs.pages == 4096 * MIB // PAGE
        assert image.runs.end_gfn * PAGE == 6144 * MIB
        assert list(image.runs.within(2048 * MIB // PAGE, 4096 * MIB // PAGE)) == []
        assert _differences(image, guest, 2 * MIB) == []


def test_ram_in_huge_pages(start: Start, tmp_path: Path) -> None:
    """Both ways of mapping it; QEMU makes a file without a name."""
    free = Path("/sys/kernel/mm/hugepages/hugepages-2048kB/free_hugepages")
    if not free.exists() or int(free.read_text()) < 2 * SIZE // (2 * MIB):
        pytest.skip("the host has set no huge pages of 2 MB aside (vm.nr_hugepages)")
    folder = tmp_path / "huge"
    folder.mkdir()
    if subprocess.run(
        ["mount", "-t", "hugetlbfs", "-o", "pagesize=2M", "none", folder], check=False
    ).returncode:
        pytest.skip("hugetlbfs cannot be mounted here")
    try:
        for share in ("on", "off"):
            guest = start(*_object("file", f",mem-path={folder},share={share}"))
            guest.ask("stop")
            before = int(free.read_text())
            with hvshare.open_image(guest.path) as image:
                assert told(image) == []
                assert image.runs is not None
                assert image.runs.pages == SIZE // PAGE
                buffer = memoryview(bytearray(2 * MIB))
                for _ in image.blocks(buffer):
                    pass
                assert int(free.read_text()) == before
                assert _differences(image, guest) == []
            guest.kill()
    finally:
        subprocess.run(["umount", folder], check=True)


def test_a_guest_that_runs(start: Start) -> None:
    guest = start("-machine", "pc", "-m", "64")
    os.kill(guest.pid, signal.SIGSTOP)
    with hvshare.open_image(guest.path) as image:
        assert told(image) == []
        os.kill(guest.pid, signal.SIGCONT)
        guest.ask("system_reset")
        time.sleep(0.05)
        (caveat,) = image.finish()
        assert caveat.code == "not-paused"
        assert "the guest runs" in caveat.message
        assert "stop in QEMU's monitor" in caveat.advice
        assert image.finish() == []


def test_a_guest_whose_threads_have_no_names(start: Start) -> None:
    guest = start("-machine", "pc", "-m", "64", names_threads=False)
    with hvshare.open_image(guest.path) as image:
        guest.ask("system_reset")
        assert [*told(image), *(each.code for each in image.finish())] == ["pause-unknown"]
    guest.ask("stop")
    with hvshare.open_image(guest.path) as image:
        assert _differences(image, guest) == []


def test_a_guest_that_ends_while_it_is_read(start: Start) -> None:
    for options in (("-machine", "pc", "-m", "64"), _object("memfd")):
        guest = start(*options)
        guest.ask("stop")
        with hvshare.open_image(guest.path) as image:
            blocks = image.blocks(memoryview(bytearray(PAGE)))
            next(blocks)
            guest.kill()
            with pytest.raises(ImageChangedError, match="the process has ended"):
                _read_and_finish(image, blocks)


def _read_and_finish(image: GuestImage, blocks: Iterator[object]) -> None:
    """What is in a file can be read to its end; that the guest is gone is told then."""
    for _ in blocks:
        pass
    image.finish()


def test_ram_that_cannot_be_told_from_other_memory(start: Start) -> None:
    """Video memory of 16 MiB beside RAM of that size."""
    guest = start("-machine", "pc", "-m", "16", "-device", "VGA,vgamem_mb=16")
    with pytest.raises(UnsupportedImageError, match="2 mappings of the process could be that") as caught:
        hvshare.open_image(guest.path)
    assert f"pid:{guest.pid}" in caught.value.advice


@pytest.mark.skipif(platform.machine() != "x86_64", reason="page counts are those of a host with 4 KB pages")
def test_commands(start: Start) -> None:
    guest = start("-machine", "pc", "-m", "64")
    guest.ask("stop")
    inspected = json.loads(command("inspect", "--json", guest.path).stdout)["images"][0]
    assert (inspected["name"], inspected["format"], inspected["size_bytes"]) == (guest.path, "qemu", SIZE)
    run = command("analyze", "--json", "-j", "2", guest.path)
    assert run.returncode == 0, run.stderr
    (analyzed,) = json.loads(run.stdout)["images"]
    assert analyzed["size_bytes"] == SIZE
    assert command("analyze", f"pid:{guest.pid}").returncode == 0
    guest.kill()
    gone = command("analyze", guest.path)
    assert (gone.returncode, "no such process" in gone.stderr) == (1, True)

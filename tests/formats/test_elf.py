from __future__ import annotations

import gzip
import io
import os
import shutil
import signal
import struct
import subprocess
import sys
import tracemalloc
from pathlib import Path

import pytest
from elftools.elf.elffile import ELFFile
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import hvshare
from hvshare.errors import DamagedImageError, ImageError, TruncatedImageError, UnsupportedImageError
from hvshare.images.image import LeftOut
from hvshare.images.options import ReadingOptions
from hvshare.images.runs import RunKind
from tests.formats.elf_writer import EM_386, EM_AARCH64, PT_LOAD, PT_NOTE, Load, elf_core, note
from tests.formats.harness import (
    check_cut_anywhere,
    check_flipped,
    counted_reads,
    memories,
    read_back,
    stretches,
)
from tests.guests import ZERO, content
from tests.oracle import PAGE

MIB, GIB = 1 << 20, 1 << 30
VMCOREINFO = b"OSRELEASE=6.1.0-50-amd64\nPAGESIZE=4096\nKERNELOFFSET=23600000\n"
QEMU_NOTES = note("CORE", 1, bytes(336)) + note("QEMU", 0, bytes(440)) + note("VMCOREINFO", 0, VMCOREINFO)


def write(path: Path, data: bytes) -> Path:
    path.write_bytes(data)
    return path


def pages(*numbers: int) -> bytes:
    return b"".join(map(content, numbers))


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    memory=memories(absent=True),
    bits=st.sampled_from([32, 64]),
    order=st.sampled_from("<>"),
    headers_last=st.booleans(),
    extended_count=st.booleans(),
)
def test_what_is_written_is_read(
    tmp_path: Path,
    memory: dict[int, bytes | None],
    bits: int,
    order: str,
    headers_last: bool,
    extended_count: bool,
) -> None:
    stored = {gfn: page for gfn, page in memory.items() if page is not None}
    loads = [Load(gfn * PAGE, data) for gfn, data in stretches(stored)]
    loads += [Load(gfn * PAGE, b"", PAGE) for gfn, page in memory.items() if page is None]
    data = elf_core(
        loads,
        QEMU_NOTES if order == "<" else b"",
        bits=bits,
        order=order,
        headers_last=headers_last,
        extended_count=extended_count,
    )
    found = read_back(write(tmp_path / "a.elf", data))
    assert found.memory == memory
    assert found.caveats <= {"filtered-dump"}
    # A second opinion on what the writer wrote.
    seen = ELFFile(io.BytesIO(data))
    segments = [each for each in seen.iter_segments() if each["p_type"] == "PT_LOAD"]
    assert {each["p_paddr"] // PAGE: each.data()[:PAGE] for each in segments if each["p_filesz"]} == {
        gfn: data[:PAGE] for gfn, data in stretches(stored)
    }


def test_memory_that_the_file_does_not_hold_is_absent(tmp_path: Path) -> None:
    path = write(tmp_path / "a.elf", elf_core([Load(0, pages(1, 2), 5 * PAGE)]))
    found = read_back(path)
    assert found.memory == {0: content(1), 1: content(2), 2: None, 3: None, 4: None}
    assert found.caveats == {"filtered-dump"}


def test_what_wrote_it_is_told(tmp_path: Path) -> None:
    with hvshare.open_image(str(write(tmp_path / "q", elf_core([Load(0, pages(1))], QEMU_NOTES)))) as image:
        assert (image.format, image.tool, image.vmcoreinfo) == ("elf", "QEMU", True)
        assert image.details == {
            "machine": "x86-64", "kernel": "6.1.0-50-amd64", "KASLR offset": "0x23600000",
        }  # fmt: skip
    notes = note("VBCORE", 0xB00, bytes(24))
    loads = [Load(0, pages(1)), Load(0xF0000000, b"", 16 * MIB)]
    with hvshare.open_image(str(write(tmp_path / "v", elf_core(loads, notes)))) as image:
        assert (image.tool, image.vmcoreinfo) == ("VirtualBox", False)
        # VirtualBox describes device memory by entries without contents.
        assert image.runs is not None
        assert image.runs.pages == 1


def test_rom_and_video_memory_are_left_out(tmp_path: Path) -> None:
    rom, video = 4 * GIB - 2 * PAGE, 0xFD000000
    loads = [
        Load(0, pages(1, 2)),
        Load(0xA0000, pages(3)),
        Load(video, pages(4, 5)),
        Load(rom, pages(6, 7)),
        Load(4 * GIB, pages(8)),
    ]
    path = write(tmp_path / "a.elf", elf_core(loads, QEMU_NOTES))
    assert read_back(path).memory == {0: content(1), 1: content(2), 4 * GIB // PAGE: content(8)}
    with hvshare.open_image(str(path)) as image:
        assert image.left_out == [
            LeftOut(0xA0000, PAGE, "video memory"),
            LeftOut(video, 2 * PAGE, "video memory"),
            LeftOut(rom, 2 * PAGE, "BIOS ROM"),
        ]
    every = read_back(path, ReadingOptions(device_memory=True))
    assert [page for _, page in sorted(every.memory.items())] == [content(n) for n in range(1, 9)]
    # Other machines have RAM at such addresses.
    other = write(tmp_path / "b.elf", elf_core(loads, machine=EM_AARCH64))
    assert len(read_back(other).memory) == 8


def test_what_adjoins_ram_is_ram(tmp_path: Path) -> None:
    low = 0x40000000
    loads = [Load(low - PAGE, pages(1)), Load(low, pages(2), 2 * PAGE)]
    found = read_back(write(tmp_path / "a.elf", elf_core(loads, machine=EM_386, bits=32)))
    assert [page for _, page in sorted(found.memory.items())] == [content(1), content(2), None]


def test_kernel_text_that_is_there_twice(tmp_path: Path) -> None:
    # As in /proc/vmcore: the kernel's text at its own virtual address, then all memory at the direct mapping.
    direct = 0xFFFF888000000000
    text = Load(PAGE, pages(2, 3), vaddr=0xFFFFFFFF81000000)
    memory = Load(0, pages(1, 2, 3, 4), vaddr=direct)
    path = write(tmp_path / "a.elf", elf_core([text, memory], note("VMCOREINFO", 0, VMCOREINFO)))
    found = read_back(path)
    assert found.memory == {gfn: content(gfn + 1) for gfn in range(4)}
    with hvshare.open_image(str(path)) as image:
        assert image.tool == "Linux kdump"


def test_pages_described_once_for_each_virtual_address(tmp_path: Path) -> None:
    # As QEMU does if asked for paging: other addresses, the same bytes of the file.
    first = elf_core([Load(0, pages(1, 2, 3))])
    at = len(first) - 3 * PAGE + 2 * 56
    loads = [
        Load(0, pages(1, 2, 3), vaddr=0x400000),
        Load(PAGE, bytes(PAGE), vaddr=0x7F0000000000, offset=at + PAGE),
        Load(2 * PAGE, bytes(PAGE), vaddr=0x7F0000001000, offset=at + 2 * PAGE),
    ]
    found = read_back(write(tmp_path / "a.elf", elf_core(loads)))
    assert found.memory == {gfn: content(gfn + 1) for gfn in range(3)}


def test_overlaps_are_an_error(tmp_path: Path) -> None:
    path = write(tmp_path / "a.elf", elf_core([Load(0, pages(1, 2)), Load(PAGE, pages(3))]))
    with pytest.raises(DamagedImageError, match=r"overlaps") as caught:
        read_back(path)
    assert caught.value.offset is not None


@pytest.mark.parametrize(
    ("load", "error", "words"),
    [
        (Load(0, pages(1), PAGE - 1), DamagedImageError, "bytes in the file and"),
        (Load((1 << 52) - PAGE, pages(1, 2)), DamagedImageError, "where addresses end"),
        (Load((1 << 64) - PAGE, pages(1)), DamagedImageError, "where addresses end"),
        (Load(0, pages(1), offset=1 << 40), TruncatedImageError, "file ends at byte"),
        (Load(0, pages(1), offset=(1 << 64) - PAGE), TruncatedImageError, "file ends at byte"),
        (Load(0x800, b"x" * 100), ImageError, "no whole page"),
    ],
)
def test_what_cannot_be(tmp_path: Path, load: Load, error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words):
        read_back(write(tmp_path / "a.elf", elf_core([load])))


def test_programs_are_no_cores(tmp_path: Path) -> None:
    with pytest.raises(UnsupportedImageError, match="program, library"):
        hvshare.open_image(sys.executable)
    with pytest.raises(UnsupportedImageError, match="program, library"):
        read_back(write(tmp_path / "a.elf", elf_core([])))


@pytest.mark.parametrize("as_gzip", [False, True])
def test_streams_are_spooled_up_to_a_limit(tmp_path: Path, as_gzip: bool) -> None:
    data = elf_core([Load(0, pages(1, 2))], QEMU_NOTES)
    path = write(tmp_path / "a.elf", gzip.compress(data) if as_gzip else data)
    found = read_back(path, as_stream=True)
    assert found.memory == {0: content(1), 1: content(2)}
    assert found.caveats == {"spooled"}
    exact = ReadingOptions(spool_limit=len(data))
    assert read_back(path, exact, as_stream=True).memory == found.memory
    with pytest.raises(UnsupportedImageError, match="--spool-limit"):
        read_back(path, ReadingOptions(spool_limit=len(data) - 1), as_stream=True)
    if as_gzip:
        assert read_back(path).caveats == {"spooled"}


def test_cut_anywhere(tmp_path: Path) -> None:
    data = elf_core([Load(0, pages(1)), Load(8 * PAGE, content(3) + b"x", 3 * PAGE)], QEMU_NOTES)
    check_cut_anywhere(write(tmp_path / "a.elf", data))
    last = elf_core([Load(0, pages(1)), Load(8 * PAGE, pages(2))], headers_last=True, extended_count=True)
    check_cut_anywhere(write(tmp_path / "b.elf", last))


@pytest.mark.parametrize("extended_count", [False, True])
def test_flipped_headers(tmp_path: Path, extended_count: bool) -> None:
    loads = [Load(0, pages(1, 2)), Load(8 * PAGE, pages(3), 2 * PAGE)]
    notes = note("VMCOREINFO", 0, b"OSRELEASE=6\n")
    data = elf_core(loads, notes, extended_count=extended_count)
    table = 64 + 64 * extended_count

    def moves(offset: int) -> bool:
        # The type of an entry, the offset of its contents, its addresses and its sizes stand there once, and
        # nothing in the file contradicts another value within the file; nor the number of entries, or where
        # the table of them starts.
        return offset >= table or offset in (*range(32, 40), *range(54, 58), *range(64 + 44, 64 + 48))

    end = table + 3 * 56 + len(notes)
    check_flipped(write(tmp_path / "a.elf", data), range(end), moves=moves)


def test_hostile_counts_take_no_memory(tmp_path: Path) -> None:
    data = bytearray(elf_core([Load(0, pages(1))], extended_count=True))
    data[64 + 44 : 64 + 48] = b"\xff\xff\xff\x7f"
    with pytest.raises(DamagedImageError, match="2,147,483,647 program headers"):
        read_back(write(tmp_path / "a.elf", bytes(data)))


@pytest.mark.skipif(shutil.which("gcore") is None, reason="gdb's gcore is not installed")
def test_core_of_a_process(tmp_path: Path) -> None:
    program = (
        "import mmap, sys; m = mmap.mmap(-1, 64 * 4096, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS);"
        "m[:] = b''.join(bytes([n + 1]) * 4096 for n in range(64));"
        "print('ready', flush=True); sys.stdin.read()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        process.stdout.readline()
        subprocess.run(["gcore", "-o", tmp_path / "core", str(process.pid)], check=True, capture_output=True)
        process.kill()
    path = tmp_path / f"core.{process.pid}"
    with hvshare.open_image(str(path)) as image:
        assert image.format == "elf-process"
        assert "python" in image.details["program"]
    found = read_back(path, block_pages=512)
    for number in range(64):
        assert found.contents[bytes([number + 1]) * PAGE] >= 1
    assert "virtual-addresses" in found.caveats
    # What the kernel's own reader of ELF says: each PT_LOAD, page by page.
    with path.open("rb") as file:
        for segment in ELFFile(file).iter_segments("PT_LOAD"):
            gfn, stored = segment["p_vaddr"] // PAGE, segment["p_filesz"] // PAGE
            held = segment.data()
            for page in range(stored):
                assert found.memory[gfn + page] == held[page * PAGE : (page + 1) * PAGE]
            for page in range(stored, segment["p_memsz"] // PAGE):
                assert found.kinds[gfn + page] == RunKind.ABSENT


def test_core_that_a_kernel_wrote(tmp_path: Path) -> None:
    pattern = Path("/proc/sys/kernel/core_pattern")
    if not pattern.exists() or pattern.read_text().startswith("|") or os.geteuid():
        pytest.skip("core dumps go to a program here, or the tests do not run as root")
    program = (
        "import os, resource as r; r.setrlimit(r.RLIMIT_CORE, (-1, -1));x = b'\\xa5' * (64 << 12); os.abort()"
    )
    process = subprocess.run([sys.executable, "-c", program], cwd=tmp_path, check=False, capture_output=True)
    assert process.returncode == -signal.SIGABRT
    cores = list(tmp_path.glob("core*"))
    if not cores:
        pytest.skip("no core was written to the working directory")
    found = read_back(cores[0], block_pages=512)
    assert found.contents[b"\xa5" * PAGE] >= 62
    assert set(found.kinds.values()) <= {RunKind.PRESENT, RunKind.ABSENT}


def test_kdumpling_writes_what_is_read(tmp_path: Path) -> None:
    kdumpling = pytest.importorskip("kdumpling")
    builder = kdumpling.KdumpBuilder(arch="x86_64")
    builder.set_vmcoreinfo("OSRELEASE=6.1.0-x\nPAGESIZE=4096\n")
    memory = {gfn: content(gfn + 1) for gfn in range(16)} | dict.fromkeys(range(64, 70), ZERO)
    builder.add_memory_segment(0, b"".join(memory[gfn] for gfn in range(16)))
    builder.add_memory_segment(64 * PAGE, bytes(6 * PAGE))
    builder.write(str(tmp_path / "a.elf"))
    assert read_back(tmp_path / "a.elf").memory == memory


def test_notes_that_claim_too_much(tmp_path: Path) -> None:
    # A name of 4 GiB, in a sparse file that has room for it.
    notes = struct.pack("<III", 0xFFFFFFF0, 0, 1).ljust(64, b"\0")
    path = write(tmp_path / "a.elf", elf_core([Load(0, pages(1))], notes))
    os.truncate(path, 1 << 40)
    tracemalloc.start()
    with pytest.raises(DamagedImageError, match="a note of 0 bytes goes beyond the notes"):
        read_back(path)
    assert tracemalloc.get_traced_memory()[1] < 8 << 20
    tracemalloc.stop()


def test_names_of_sections_that_never_end(tmp_path: Path) -> None:
    sections, strings = 3000, b"x" * (4 << 20)
    core = bytearray(elf_core([Load(0, pages(1))]))
    header = bytes(core[:40]) + struct.pack("<Q", len(core)) + bytes(core[48:58])
    header += struct.pack("<HHH", 64, sections, 0)
    entry = struct.pack("<IIQQQQIIQQ", 1, 3, 0, 0, len(core) + 64 * sections, len(strings), 0, 0, 0, 0)
    path = write(tmp_path / "a.elf", header + bytes(core[64:]) + entry * sections + strings)
    with counted_reads() as counts:
        assert read_back(path).memory == {0: content(1)}
    # Names that were read to their end would be 12 GB.
    assert sum(counts) < 8 << 20


def core_with_entries(entries: bytes, before: bytes = b"") -> bytes:
    """Write a core whose table of program headers is given, behind contents at byte 64."""
    core = bytearray(elf_core([], shift=0)) + before
    struct.pack_into("<Q", core, 32, len(core))
    struct.pack_into("<H", core, 56, len(entries) // 56)
    return bytes(core) + entries


def entry(kind: int, offset: int, vaddr: int, paddr: int, filesz: int, memsz: int) -> bytes:
    return struct.pack("<IIQQQQQQ", kind, 7, offset, vaddr, paddr, filesz, memsz, 0)


def test_notes_that_are_described_again_and_again(tmp_path: Path) -> None:
    notes = note("X", 5, b"y" * 1000) * 2000
    entries = entry(PT_NOTE, 64, 0, 0, len(notes), len(notes)) * 5000
    entries += entry(PT_LOAD, 64, 0, 0, PAGE, PAGE)
    path = write(tmp_path / "a.elf", core_with_entries(entries, notes))
    with counted_reads() as counts:
        assert read_back(path).memory == {0: notes[:PAGE]}
    # All ten million notes would be 10 GB.
    assert sum(counts) < 128 << 20


def test_many_entries_for_text_of_the_kernel(tmp_path: Path) -> None:
    text = (entry(PT_LOAD, 0, 0xFFFFFFFF81000000, gfn * PAGE, 0, PAGE) for gfn in range(1000, 21_000))
    memory = (entry(PT_LOAD, 0, 0, gfn * PAGE, 0, PAGE) for gfn in range(11_000, 31_000))
    last = entry(PT_LOAD, 64, 0, 31_000 * PAGE, PAGE, PAGE)
    path = write(tmp_path / "a.elf", core_with_entries(b"".join([*text, *memory, last]), content(3)))
    found = read_back(path)
    assert found.memory[31_000] == content(3)
    # Each page is there once, not twice.
    assert found.unlisted[RunKind.ABSENT] == 30_000


def test_memory_that_shares_its_bytes(tmp_path: Path) -> None:
    # A file of 1 MB that stands for 1 GiB would take as long as that to read.
    contents = pages(*range(256))
    entries = (entry(PT_LOAD, 64, 0, number << 20, MIB, MIB) for number in range(1024))
    path = write(tmp_path / "a.elf", core_with_entries(b"".join(entries), contents))
    with pytest.raises(DamagedImageError, match="some share their bytes"):
        read_back(path)


def test_long_values_of_vmcoreinfo_are_cut(tmp_path: Path) -> None:
    notes = note("VMCOREINFO", 0, b"OSRELEASE=" + b"6" * (4 << 20))
    with hvshare.open_image(str(write(tmp_path / "a.elf", elf_core([Load(0, pages(1))], notes)))) as image:
        assert image.details["kernel"] == "6" * 128

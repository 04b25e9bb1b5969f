from __future__ import annotations

import gzip
import os
import shutil
import struct
import subprocess
import sys
import tracemalloc
import zlib
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from lzallright import LZOCompressor

import hvshare
from hvshare.errors import DamagedImageError, TruncatedImageError, UnsupportedImageError
from hvshare.images.image import LeftOut
from hvshare.images.options import ReadingOptions
from tests.formats.elf_writer import Load, elf_core
from tests.formats.harness import check_cut_anywhere, check_flipped, memories, read_back
from tests.formats.kdump_writer import COMPRESSIONS, INCOMPLETE, flattened, kdump
from tests.guests import ZERO, content, supports_holes, write_sparse
from tests.oracle import PAGE

GIB = 1 << 30
SMALL: dict[int, bytes | None] = {
    0: content(1),
    1: ZERO,
    2: None,
    5: content(2),
    6: ZERO,
    9: os.urandom(PAGE),
}
SUB, BITMAPS, DESCRIPTORS = PAGE, 2 * PAGE, 4 * PAGE


def write(path: Path, data: bytes) -> Path:
    path.write_bytes(data)
    return path


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    memory=memories(absent=True),
    compression=st.sampled_from([None, *COMPRESSIONS]),
    bits=st.sampled_from([32, 64]),
    order=st.sampled_from("<>"),
    version=st.integers(1, 6),
    shares_zeros=st.booleans(),
    block_pages=st.integers(1, 9),
)
def test_what_is_written_is_read(
    tmp_path: Path,
    memory: dict[int, bytes | None],
    compression: str | None,
    bits: int,
    order: str,
    version: int,
    shares_zeros: bool,
    block_pages: int,
) -> None:
    data = kdump(
        memory, compression, bits=bits, order=order, version=version, shares_zeros=shares_zeros,
        machine=b"s390x" if order == ">" else b"i686" if bits == 32 else b"x86_64",
    )  # fmt: skip
    found = read_back(write(tmp_path / "a", data), block_pages=block_pages)
    assert found.memory == memory
    assert found.caveats == frozenset()


@pytest.mark.parametrize("compression", [None, *COMPRESSIONS])
def test_pages_that_do_not_get_smaller_are_stored_as_they_are(
    tmp_path: Path, compression: str | None
) -> None:
    memory = {gfn: os.urandom(PAGE) for gfn in range(4)}
    path = write(tmp_path / "a", kdump(memory, compression))
    assert read_back(path).memory == memory
    with hvshare.open_image(str(path)) as image:
        assert (image.page_compression, image.tool, image.vmcoreinfo) == (compression, "QEMU", False)


def test_what_was_filtered_out_is_told(tmp_path: Path) -> None:
    data = kdump(SMALL, "lzo", sysname=b"Linux", dump_level=31, vmcoreinfo=b"OSRELEASE=6.1.0-x\n")
    path = write(tmp_path / "a", data)
    found = read_back(path)
    assert found.memory == SMALL
    assert found.caveats == {"filtered-dump"}
    with hvshare.open_image(str(path)) as image:
        (caveat,) = image.caveats
        assert "1 of 6 pages (16.7 %)" in caveat.message
        assert "page cache" in caveat.message
        assert (image.tool, image.vmcoreinfo) == ("makedumpfile", True)
        assert image.details == {
            "machine": "x86_64", "host name": "guest", "kernel": "6.1.0-x", "dump level": "31",
        }  # fmt: skip


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=30)
@given(memory=memories(absent=True), cuts=st.lists(st.integers(1, 40 * PAGE), max_size=6), data=st.data())
def test_flattened(
    tmp_path: Path, memory: dict[int, bytes | None], cuts: list[int], data: st.DataObject
) -> None:
    dump = kdump(memory)
    bounds = sorted({0, len(dump), *(cut for cut in cuts if cut < len(dump))})
    pieces = [(low, high - low) for low, high in pairwise(bounds)]
    order = data.draw(st.permutations(pieces))
    # As makedumpfile does: the header first, and again when all is known.
    rubbish = flattened(bytes(dump[:PAGE][::-1]), [(0, PAGE)], ends=False)
    found = read_back(write(tmp_path / "a", rubbish + flattened(dump, order)[4096:]))
    assert found.memory == memory


def test_records_that_overlap(tmp_path: Path) -> None:
    dump = kdump(SMALL)
    wrong = bytes(255 - byte for byte in dump)
    first = flattened(wrong, [(100, 5000), (PAGE, 3000), (2 * PAGE, 1)], ends=False)
    path = write(tmp_path / "a", first + flattened(dump, [(0, 3000), (2000, len(dump) - 2000)])[4096:])
    assert read_back(path).memory == SMALL
    with hvshare.open_image(str(path)) as image:
        assert image.layout.endswith("flattened")


def test_rom_and_video_memory_are_left_out(tmp_path: Path) -> None:
    # The bitmaps go beyond 4 GiB, as those of QEMU do for its ROM.
    rom, video, high = 4 * GIB // PAGE - 2, 0xFD000000 // PAGE, 4 * GIB // PAGE
    memory = {0: content(1), video: content(4), rom: content(5), rom + 1: content(6), high + 7: content(7)}
    path = write(tmp_path / "a", kdump(memory))
    assert read_back(path).memory == {0: content(1), high + 7: content(7)}
    for block_pages in (1, 2, 9):
        every = read_back(path, ReadingOptions(device_memory=True), block_pages=block_pages)
        assert every.memory == memory
    with hvshare.open_image(str(path)) as image:
        assert image.left_out == [
            LeftOut(video * PAGE, PAGE, "video memory"),
            LeftOut(rom * PAGE, 2 * PAGE, "BIOS ROM"),
        ]
    assert len(read_back(write(path, kdump(memory, machine=b"aarch64"))).memory) == 5


@pytest.mark.parametrize("as_gzip", [False, True])
def test_streams_are_spooled(tmp_path: Path, as_gzip: bool) -> None:
    dump = kdump(SMALL)
    data = flattened(dump, [(0, len(dump))])
    path = write(tmp_path / "a", gzip.compress(data) if as_gzip else data)
    found = read_back(path, as_stream=True)
    assert found.memory == SMALL
    assert found.caveats == {"spooled"}


def test_what_is_refused_by_name(tmp_path: Path) -> None:
    for data, words in (
        (kdump(SMALL, split=1), "one part of a split dump; join the parts with: makedumpfile --reassemble"),
        (kdump(SMALL, status=INCOMPLETE), "marked it as incomplete"),
        (kdump(SMALL, block_size=65536), "65,536 bytes"),
        (flattened(b"x" * 9000, [(0, 9000)]), "neither a kdump-compressed dump nor an ELF core"),
        (flattened(kdump(SMALL), [(0, 9000)]).replace(struct.pack(">qq", 1, 1), bytes(16), 1), "type 0"),
    ):
        with pytest.raises(UnsupportedImageError, match=words):
            read_back(write(tmp_path / "a", data))


def patched(data: bytes, offset: int, value: bytes) -> bytes:
    return data[:offset] + value + data[offset + len(value) :]


def test_what_cannot_be(tmp_path: Path) -> None:
    good = kdump(SMALL)
    first = struct.unpack_from("<qII", good, DESCRIPTORS)
    bomb = zlib.compress(bytes(1 << 20))
    for data, error, words in (
        (patched(good, SUB + 96, struct.pack("<Q", 1 << 40)), DamagedImageError, "pages in bitmaps of"),
        (patched(good, 436, struct.pack("<i", 1 << 30)), TruncatedImageError, "bitmaps of"),
        (patched(good, 428, bytes(4)), DamagedImageError, "makes no sense"),
        (patched(good, DESCRIPTORS, struct.pack("<q", 1 << 50)), TruncatedImageError, "a page should be at"),
        (patched(good, DESCRIPTORS, struct.pack("<q", -8)), TruncatedImageError, "a page should be at"),
        (patched(good, DESCRIPTORS + 8, struct.pack("<I", 5000)), DamagedImageError, "size 5,000"),
        (patched(good, DESCRIPTORS + 12, struct.pack("<I", 3)), DamagedImageError, "flags 0x3"),
        (patched(good, DESCRIPTORS + 12, struct.pack("<I", 0)), DamagedImageError, "flags 0x0"),
        (patched(good, first[0], b"\xff\xff"), DamagedImageError, "cannot be unpacked"),
        (
            patched(good + bomb, DESCRIPTORS, struct.pack("<qI", len(good), len(bomb))),
            DamagedImageError,
            r"unpacks to 4,097 bytes or more|cannot be unpacked",
        ),
    ):
        with pytest.raises(error, match=words):
            read_back(write(tmp_path / "a", data))


@pytest.mark.parametrize("name", COMPRESSIONS)
def test_a_page_unpacks_to_one_page(tmp_path: Path, name: str) -> None:
    flag, compress = COMPRESSIONS[name]
    good = kdump({0: content(8)}, name)
    tracemalloc.start()
    for size in (PAGE - 1, PAGE + 1, 500_000):
        packed = compress(bytes(size))
        entry = struct.pack("<qII", len(good), len(packed), flag)
        path = write(tmp_path / "a", patched(good, DESCRIPTORS, entry) + packed)
        tracemalloc.reset_peak()
        # Compressed, it may be no longer than a page, and unpacked neither shorter nor longer.
        with pytest.raises(DamagedImageError, match=r"a page (descriptor|unpacks|cannot be unpacked)"):
            read_back(path)
        assert tracemalloc.get_traced_memory()[1] < 8 << 20
    tracemalloc.stop()


def test_cut_anywhere(tmp_path: Path) -> None:
    data = kdump(SMALL, vmcoreinfo=b"OSRELEASE=6.1.0-x\n")
    check_cut_anywhere(write(tmp_path / "a", data))
    record = flattened(data, [(0, 6000), (6000, len(data) - 6000)])
    check_cut_anywhere(write(tmp_path / "b", record))


def test_flipped_headers(tmp_path: Path) -> None:
    data = kdump(SMALL, vmcoreinfo=b"OSRELEASE=6.1.0-x\n")

    def moves(offset: int) -> bool:
        # The bitmaps alone say which pages there are, and max_mapnr how far they go. A descriptor alone says
        # where its page is: it may name another one that unpacks as well.
        in_tables = BITMAPS <= offset < DESCRIPTORS + 24 * 5
        return in_tables or offset in (*range(8, 12), *range(440, 444), *range(SUB + 96, SUB + 104))

    check_flipped(write(tmp_path / "a", data), [*range(464), *range(SUB, SUB + 104)], moves=moves)
    tables = [*range(BITMAPS, BITMAPS + 3), *range(BITMAPS + PAGE, BITMAPS + PAGE + 3)]
    check_flipped(tmp_path / "a", [*tables, *range(DESCRIPTORS, DESCRIPTORS + 24 * 5)], moves=moves)
    flat = flattened(data, [(0, 6000), (6000, len(data) - 6000)])
    records = [*range(40), *range(4096, 4112), *range(4096 + 6016, 4096 + 6032)]
    # Where a record goes is said nowhere else, nor how long it is, if the next one is found all the same.
    check_flipped(write(tmp_path / "b", flat), records, moves=lambda offset: offset >= 4096)


def test_hostile_counts_take_no_memory(tmp_path: Path) -> None:
    # A record claims a dump of an exabyte, in which any table would fit.
    head = kdump(SMALL)
    head = patched(patched(head, 436, struct.pack("<i", 0x7FFFFFFE)), SUB + 96, struct.pack("<Q", 1 << 44))
    data = flattened(head, [(0, len(head))], ends=False) + struct.pack(">qq", 1 << 59, 1) + b"x"
    path = write(tmp_path / "a", data + struct.pack(">qq", -1, -1))
    tracemalloc.start()
    with pytest.raises((DamagedImageError, TruncatedImageError), match="bitmaps of"):
        read_back(path)
    assert tracemalloc.get_traced_memory()[1] < 64 << 20
    tracemalloc.stop()


SYSTEM_PYTHON = "/usr/bin/python3"
READS_BY_LIBKDUMPFILE = """
import sys
from kdumpfile import KDUMP_MACHPHYSADDR, kdumpfile
dump = kdumpfile(sys.argv[1])
for gfn in map(int, sys.argv[2:]):
    sys.stdout.buffer.write(dump.read(KDUMP_MACHPHYSADDR, gfn * 4096, 4096))
"""


def has_libkdumpfile() -> bool:
    if not shutil.which(SYSTEM_PYTHON):
        return False
    return not subprocess.run(
        [SYSTEM_PYTHON, "-c", "import kdumpfile"], capture_output=True, check=False
    ).returncode


@pytest.mark.skipif(not has_libkdumpfile(), reason="Debian's python3-libkdumpfile is not installed")
@pytest.mark.parametrize("compression", [None, "zlib", "lzo", "snappy"])
def test_libkdumpfile_reads_the_same(tmp_path: Path, compression: str | None) -> None:
    path = write(tmp_path / "a", kdump(SMALL, compression, sysname=b"Linux"))
    found = read_back(path).memory
    stored = {gfn: page for gfn, page in found.items() if page is not None}
    command = [SYSTEM_PYTHON, "-c", READS_BY_LIBKDUMPFILE, str(path), *map(str, stored)]
    run = subprocess.run(command, capture_output=True, check=False)
    assert run.returncode == 0, run.stderr
    assert run.stdout == b"".join(stored.values())


@pytest.mark.skipif(shutil.which("makedumpfile") is None, reason="makedumpfile is not installed")
def test_makedumpfile_reassembles_to_the_same(tmp_path: Path) -> None:
    dump = kdump(SMALL)
    data = flattened(dump, [(0, 6000), (6000, len(dump) - 6000), (0, PAGE)])
    path = write(tmp_path / "a", data)
    with path.open("rb") as file:
        command = ["makedumpfile", "-R", str(tmp_path / "b")]
        run = subprocess.run(command, stdin=file, capture_output=True, check=False, cwd=tmp_path)
    assert run.returncode == 0, run.stdout
    assert (tmp_path / "b").read_bytes().rstrip(b"\0") == dump.rstrip(b"\0")
    assert read_back(tmp_path / "b").memory == read_back(path).memory == SMALL


@pytest.mark.skipif(sys.platform != "linux", reason="workers are forked on Linux only")
def test_processes_give_what_one_process_gives(tmp_path: Path) -> None:
    memory: dict[int, bytes | None] = {gfn: content(gfn % 250) for gfn in range(40_000)}
    memory |= dict.fromkeys(range(7, 40_000, 97))
    path = write(tmp_path / "a", kdump(memory))
    with hvshare.open_image(str(path)) as image:
        alone = hvshare.fingerprint_images([image], jobs=1)[0]
        together = hvshare.fingerprint_images([image], jobs=3)[0]
    assert alone.digests.tolist() == together.digests.tolist()
    assert alone.absent_bytes == PAGE * len(range(7, 40_000, 97))


def test_memory_in_pieces_below_4_gib_is_no_device(tmp_path: Path) -> None:
    # Each page apart is aligned to its size, like a PCI BAR; a PC has a few of these, not thousands.
    memory: dict[int, bytes | None] = {gfn: content(3) for gfn in range(0x80000, 0x88000, 2)}
    memory[0] = content(1)
    path = write(tmp_path / "a", kdump(memory))
    assert read_back(path, block_pages=512).memory == memory
    with hvshare.open_image(str(path)) as image:
        assert image.left_out == []


def test_zlib_without_libdeflate(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "deflate", None)
    path = write(tmp_path / "a", kdump(SMALL))
    assert read_back(path).memory == SMALL
    bomb = zlib.compress(bytes(1 << 20))
    entry = struct.pack("<qI", path.stat().st_size, len(bomb))
    write(path, patched(path.read_bytes() + bomb, DESCRIPTORS, entry))
    with pytest.raises(DamagedImageError, match="unpacks to 4,097 bytes or more"):
        read_back(path)


def test_rom_below_memory_above_4_gib(tmp_path: Path) -> None:
    # Bits of a bitmap tell no border between the ROM and memory that starts behind it.
    first = 4 * GIB // PAGE
    memory: dict[int, bytes | None] = {0: content(1), first: content(2), first + 1: content(3)}
    rom: dict[int, bytes | None] = {first - 2: content(4), first - 1: content(5)}
    path = write(tmp_path / "a", kdump(memory | rom))
    assert read_back(path).memory == memory
    with hvshare.open_image(str(path)) as image:
        assert image.left_out == [LeftOut(4 * GIB - 2 * PAGE, 2 * PAGE, "BIOS ROM")]
    assert read_back(path, ReadingOptions(device_memory=True)).memory == memory | rom


def test_bitmaps_that_are_holes(tmp_path: Path) -> None:
    if not supports_holes(tmp_path):
        pytest.skip("the file system under the temporary folder tells no holes")
    # 16 TiB of file for the bitmaps of 4 PiB of memory would take more than an hour to go through.
    pages = 1 << 40
    bitmap_bytes = pages // 8
    head = kdump({0: content(1)}, None)[:BITMAPS]
    head = patched(head, 436, struct.pack("<I", 2 * bitmap_bytes // PAGE))
    head = patched(head, SUB + 96, struct.pack("<Q", pages))
    descriptors = BITMAPS + 2 * bitmap_bytes
    last = b"\x80"  # the bit of the last page
    parts = {
        0: head,
        BITMAPS + bitmap_bytes - 1: last,
        descriptors - 1: last + struct.pack("<qIIQ", descriptors + PAGE, PAGE, 0, 0),
        descriptors + PAGE: content(7),
    }
    path = write_sparse(tmp_path / "a", descriptors + 2 * PAGE, parts)
    assert read_back(path).memory == {pages - 1: content(7)}


def test_flattened_core_that_stands_for_more_than_it_has(tmp_path: Path) -> None:
    # A record far away makes the file that it stands for long; what lies between was never written.
    core = elf_core([Load(0, content(1))])
    core = patched(core, 64 + 32, struct.pack("<QQ", 1 << 50, 1 << 50))
    data = flattened(core, [(0, len(core))], ends=False)
    data += struct.pack(">qqcqq", 1 << 51, 1, b"x", -1, -1)
    with pytest.raises(DamagedImageError, match="stands for 1,125,899,906,842,624 bytes of memory"):
        read_back(write(tmp_path / "a", data))


def test_small_records_take_bounded_memory(tmp_path: Path) -> None:
    dump = kdump(dict.fromkeys(range(1000), ZERO))
    size = len(dump)
    for pieces in ([(at, 1) for at in range(size)], [(at, 2) for at in range(size - 1)]):
        path = write(tmp_path / "a", flattened(dump, pieces))
        tracemalloc.start()
        try:
            with hvshare.open_image(str(path)) as image:
                assert image.runs is not None
                assert image.runs.pages == 1000
            # 17 or 18 bytes of file a record; numbers of Python's own take 200.
            assert tracemalloc.get_traced_memory()[1] < 110 * size + (8 << 20)
        finally:
            tracemalloc.stop()


def test_errors_do_not_show_what_was_unpacked(tmp_path: Path) -> None:
    packed = LZOCompressor().compress(ZERO) + b"\0" * 8
    path = write(tmp_path / "a", kdump({0: content(1), 1: ZERO}, "lzo"))
    entry = struct.pack("<qI", path.stat().st_size, len(packed))
    write(path, patched(path.read_bytes() + packed, DESCRIPTORS, entry))
    with pytest.raises(DamagedImageError, match="cannot be unpacked") as caught:
        read_back(path)
    assert len(str(caught.value)) < 300

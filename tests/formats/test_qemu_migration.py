from __future__ import annotations

import gzip
import shutil
import struct
import subprocess
import tracemalloc
from collections.abc import Sequence
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import hvshare
from hvshare.errors import DamagedImageError, EmptyImageError, TruncatedImageError, UnsupportedImageError
from hvshare.images.image import LeftOut
from hvshare.images.options import ReadingOptions
from hvshare.images.qemu import cursor as qemu_cursor
from hvshare.images.qemu import records as qemu_records
from hvshare.images.runs import RunKind
from tests.formats.harness import check_cut_anywhere, check_flipped, counted_reads, read_back
from tests.formats.qemu_migration_writer import (
    COMMON,
    END_OF_SECTION,
    Record,
    block_list,
    capabilities,
    configuration,
    flag,
    mapped,
    migration,
    name,
    records,
    section,
    subsection,
)
from tests.guests import ZERO, content, supports_holes, write_sparse
from tests.oracle import PAGE

GIB = 1 << 18  # in pages
PAGES = 24
BLOCKS = {"pc.ram": PAGES, **COMMON}
HEADER = struct.pack(">II", 0x5145564D, 3)
PRESENT, IS_ZERO, ABSENT = RunKind.PRESENT, RunKind.ZERO, RunKind.ABSENT
QEMU = shutil.which("qemu-system-x86_64")

contents = st.one_of(st.integers(0, 6).map(content), st.just(0), st.integers(0, 255))
sent_pages = st.lists(
    st.one_of(
        st.tuples(st.just("pc.ram"), st.integers(0, PAGES - 1), contents),
        st.tuples(st.just("pc.bios"), st.just(0), contents),
    ),
    min_size=1,
    max_size=60,
).filter(lambda sent: any(block == "pc.ram" for block, _, _ in sent))


def expected(sent: Sequence[Record]) -> tuple[dict[int, bytes | None], dict[int, RunKind]]:
    """Let the last record of a page count."""
    memory: dict[int, bytes | None] = dict.fromkeys(range(PAGES))
    kinds = dict.fromkeys(range(PAGES), ABSENT)
    for block, page, what in sent:
        if block == "pc.ram":
            memory[page] = bytes([what]) * PAGE if isinstance(what, int) else what
            kinds[page] = IS_ZERO if what == 0 else PRESENT
    return memory, kinds


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    sent=sent_pages,
    cuts=st.lists(st.integers(0, 60), max_size=3),
    window=st.sampled_from([5000, 9000, 1 << 20]),
)
def test_what_is_written_is_read(
    tmp_path: Path, sent: list[Record], cuts: list[int], window: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a.migrate"
    path.write_bytes(migration(BLOCKS, sent, cuts=[min(cut, len(sent)) for cut in cuts]))
    with monkeypatch.context() as patch:
        patch.setattr(qemu_cursor, "_WINDOW", window)
        found = read_back(path)
    memory, kinds = expected(sent)
    assert found.memory == memory
    assert found.kinds == kinds
    assert found.caveats == ({"pages-never-sent"} if None in memory.values() else set())


@given(
    ranges=st.lists(
        st.tuples(st.integers(0, 60), st.integers(1, 8), st.sampled_from([-1, -9, 0, 1000])), max_size=60
    )
)
def test_the_last_record_counts(ranges: list[tuple[int, int, int]]) -> None:
    with pytest.MonkeyPatch.context() as patch:
        for limit, value in (("_PIECE", 16), ("MOST_PAGES", 8), ("_FIRST_COMPACTION", 10)):
            patch.setattr(qemu_records, limit, value)
        kept = qemu_records.PageRecords(10)
        where = dict.fromkeys(range(70), qemu_records.NEVER)
        for number, (first, pages, kind) in enumerate(ranges):
            offset = kind if kind < 0 else kind + 80 * number
            kept.append(first, pages, offset)
            where |= {first + page: offset + page * 10 if offset >= 0 else offset for page in range(pages)}
        found = {
            first + page: offset + page * 10 if offset >= 0 else offset
            for first, pages, offset in kept.within(3, 66)
            for page in range(pages)
        }
    assert found == {page: where[page] for page in range(3, 66)}


def test_long_runs_reach_over_windows(tmp_path: Path) -> None:
    path = tmp_path / "a.migrate"
    zeros, pages = 130_000, 700
    page_contents = [struct.pack("<Q", 1 + page) * 512 for page in range(pages)]
    sent: list[Record] = [("pc.ram", page, 0) for page in range(zeros)]
    sent += [("pc.ram", zeros + page, each) for page, each in enumerate(page_contents)]
    path.write_bytes(migration({"pc.ram": zeros + pages}, sent))
    with hvshare.open_image(str(path)) as image:
        assert image.runs is not None
        assert list(map(tuple, image.runs)) == [(0, zeros, IS_ZERO), (zeros, pages, PRESENT)]
        buffer = memoryview(bytearray(512 * PAGE))
        assert b"".join(bytes(buffer[: block.pages * PAGE]) for block in image.blocks(buffer)) == b"".join(
            page_contents
        )


def every_page(pages: int = PAGES) -> list[Record]:
    return [("pc.ram", page, content(page) if page % 4 else 0) for page in range(pages)]


@pytest.mark.parametrize("machine", ["pc-i440fx-2.3", None])
def test_streams_without_footers_and_configuration(tmp_path: Path, machine: str | None) -> None:
    path = tmp_path / "a.migrate"
    path.write_bytes(migration(BLOCKS, every_page(), machine=machine, footers=False))
    found = read_back(path)
    assert found.memory == expected(every_page())[0]
    assert found.caveats == (set() if machine else {"addresses-inferred"})


def test_through_a_pipe_and_compressed(tmp_path: Path) -> None:
    path = tmp_path / "a.migrate"
    data = migration(BLOCKS, every_page(), cuts=[5])
    path.write_bytes(data)
    found = read_back(path, as_stream=True)
    assert found.memory == expected(every_page())[0]
    assert found.caveats == {"spooled"}
    path.write_bytes(gzip.compress(data))
    assert read_back(path).memory == found.memory
    with pytest.raises(UnsupportedImageError, match="spool limit"):
        read_back(path, ReadingOptions(spool_limit=PAGE))


def test_what_a_person_would_check(tmp_path: Path) -> None:
    path = tmp_path / "a.migrate"
    uuid = subsection("uuid", bytes(range(16)))
    bits = subsection("target-page-bits", struct.pack(">I", 12))
    path.write_bytes(migration(BLOCKS, [*every_page(), *every_page(9)], subsections=[bits, uuid]))
    with hvshare.open_image(str(path), options=ReadingOptions(device_memory=True)) as image:
        assert (image.format, image.tool) == ("qemu-migration", "QEMU")
        assert image.details == {
            "machine type": "pc-i440fx-7.2",
            "guest UUID": bytes(range(16)).hex(),
            "blocks of RAM": "pc.ram 96.0 KiB",
            "pages sent again": "6, since the guest ran meanwhile",
        }
        assert image.left_out == [
            LeftOut(None, 2 * PAGE, "/rom@etc/acpi/tables (device memory)"),
            LeftOut(None, PAGE, "pc.bios (device memory)"),
        ]
        assert [each.code for each in image.caveats] == ["device-memory-not-placed"]


INFERRED = {"addresses-inferred"}


@pytest.mark.parametrize(
    ("machine", "blocks", "sent", "gfns", "codes"),
    [
        # A hole below 4 GiB, and what is right before and behind it.
        (
            "pc",
            {"pc.ram": 4 * GIB},
            [("pc.ram", 3 * GIB - 1), ("pc.ram", 3 * GIB)],
            [3 * GIB - 1, 4 * GIB],
            INFERRED,
        ),
        (
            "q35",
            {"pc.ram": 4 * GIB},
            [("pc.ram", 2 * GIB - 1), ("pc.ram", 2 * GIB)],
            [2 * GIB - 1, 4 * GIB],
            INFERRED,
        ),
        # Nodes follow each other by number, and may reach over the hole.
        ("q35", {"/objects/ram-node1": 3, "/objects/ram-node0": 2}, [("/objects/ram-node1", 0)], [2], set()),
        (
            "q35",
            {"ram-node0": 3 * GIB, "ram-node1": GIB},
            [("ram-node0", 2 * GIB), ("ram-node1", 0)],
            [4 * GIB, 5 * GIB],
            INFERRED,
        ),
        # What was plugged in comes behind, from a border of a gigabyte on.
        (
            "q35",
            {"pc.ram": 600, "memdimm0": 512},
            [("pc.ram", 599), ("memdimm0", 0)],
            [599, 4 * GIB],
            INFERRED,
        ),
        ("q35", {"pc.ram": 5 * GIB + 1, "memdimm0": 512}, [("memdimm0", 0)], [8 * GIB], INFERRED),
        # Backends of any name, alone and not.
        ("q35", {"mem1": 600, "0000:00:02.0/vga.vram": 512}, [("mem1", 599)], [599], set()),
        ("q35", {"mem1": 600, "mem0": 512}, [("mem1", 599), ("mem0", 511)], [599, 1111], INFERRED),
        ("q35", {"vga-cache": 600, "pc.bios": 64}, [("vga-cache", 599)], [599], INFERRED),
        ("virt-8.2", {"mach-virt.ram": 9, "virt.flash0": 1}, [("mach-virt.ram", 8)], [GIB + 8], set()),
        ("virt", {"riscv_virt_board.ram": 9}, [("riscv_virt_board.ram", 8)], [2 * GIB + 8], set()),
        (None, {"pc.ram": 600}, [("pc.ram", 599)], [599], INFERRED),
    ],
)
def test_where_blocks_are(
    tmp_path: Path,
    machine: str | None,
    blocks: dict[str, int],
    sent: list[tuple[str, int]],
    gfns: list[int],
    codes: set[str],
) -> None:
    path = tmp_path / "a.migrate"
    path.write_bytes(migration(blocks, [(*each, content(7)) for each in sent], machine=machine))
    with hvshare.open_image(str(path)) as image:
        assert image.runs is not None
        present = [
            gfn for run in image.runs if run.kind == PRESENT for gfn in range(run.first_gfn, run.end_gfn)
        ]
        assert present == gfns
        ram = sum(pages for block, pages in blocks.items() if not block.endswith(("vram", "flash0", "bios")))
        assert image.runs.pages == ram
        assert {each.code for each in image.caveats} == {*codes, "pages-never-sent"}


def test_an_old_machine_is_told_by_its_rom(tmp_path: Path) -> None:
    path = tmp_path / "a.migrate"
    split = 0xE000_0000 // PAGE
    sent: list[Record] = [("pc.ram", split - 1, content(1)), ("pc.ram", split, content(2))]
    blocks = {"pc.ram": 4 * GIB, "/rom@genroms/kvmvapic.bin": 3}
    path.write_bytes(migration(blocks, sent, machine=None))
    with hvshare.open_image(str(path)) as image:
        assert image.runs is not None
        assert [run.first_gfn for run in image.runs if run.kind == PRESENT] == [split - 1, 4 * GIB]
        assert "machine type 1.7" in image.caveats[0].message


def test_ways_that_are_refused_by_name(tmp_path: Path) -> None:
    path = tmp_path / "a.migrate"

    def check(data: bytes, words: str) -> None:
        path.write_bytes(data)
        with pytest.raises(UnsupportedImageError, match=words):
            read_back(path)

    page = records([("pc.ram", 0, content(1))])

    def with_record(record: bytes) -> bytes:
        start = HEADER + configuration() + section(1, block_list(BLOCKS) + END_OF_SECTION)
        return start + section(3, page + record + END_OF_SECTION)

    check(with_record(flag(0x60, PAGE) + b"\1\0\4abcd"), "XBZRLE")
    check(with_record(flag(0x120, PAGE) + struct.pack(">I", 4) + b"abcd"), "compress capability")
    check(
        with_record(flag(0x100, PAGE) + name("pc.ram") + struct.pack(">I", 4) + b"abcd"),
        "compress capability",
    )
    check(with_record(flag(0x80)), "RDMA")
    check(with_record(flag(0x200)), "multifd")
    check(migration(BLOCKS, every_page(), subsections=[capabilities("x-ignore-shared")]), "ignore-shared")
    check(migration(BLOCKS, every_page(), subsections=[capabilities("x-new")]), "capability x-new")
    check(migration(BLOCKS, every_page(), subsections=[subsection("new", b"")]), "configuration/new")
    check(
        migration(BLOCKS, every_page(), subsections=[subsection("target-page-bits", struct.pack(">I", 14))]),
        r"2\^14 bytes",
    )
    for command, what in ((3, "postcopy"), (8, "COLO"), (99, "command 99")):
        check(migration(BLOCKS, every_page(), between=struct.pack(">BHH", 8, command, 0)), what)
    virtio_mem = struct.pack(">BI", 4, 1) + name("virtio-mem-device-early") + struct.pack(">II", 0, 1) + b"?"
    check(HEADER + configuration() + virtio_mem, "virtio-mem-device-early")
    check(struct.pack(">II", 0x5145564D, 2), "version 2")
    check(migration(BLOCKS, [("pc.bios", 0, content(1))]), "none of 96.0 KiB")


def test_commands_that_do_not_matter(tmp_path: Path) -> None:
    path = tmp_path / "a.migrate"
    ping = struct.pack(">BHHI", 8, 2, 4, 1)
    switchover_start = struct.pack(">BHH", 8, 11, 0)
    path.write_bytes(migration(BLOCKS, every_page(), between=ping + switchover_start))
    assert read_back(path).memory == expected(every_page())[0]


def test_what_cannot_be(tmp_path: Path) -> None:
    path = tmp_path / "a.migrate"

    def check(data: bytes, words: str, error: type[Exception] = DamagedImageError) -> None:
        path.write_bytes(data)
        with pytest.raises(error, match=words):
            read_back(path)

    start = HEADER + configuration()
    first = section(1, block_list(BLOCKS) + END_OF_SECTION)
    last = section(3, records(every_page()) + END_OF_SECTION)
    check(start + first + b"\0", "ends before all RAM")
    check(start + first + b"\x42", "type is 0x42")
    check(start + last, "section 2 comes here")
    check(start + first + first + last, "starts a second time")
    check(
        start + first + section(2, block_list(BLOCKS) + END_OF_SECTION) + last,
        "list of blocks comes a second",
    )
    check(start + first + section(3, END_OF_SECTION, footer=9), "the footer names 9")
    check(start + first + section(2, b"", number=7), "section 7")
    check(start + first + section(3, flag(0x01)), "flags are 0x1")
    check(start + first + section(3, flag(0x28) + ZERO), "comes first")
    check(start + first + section(3, records([("vga.vram", 0, 0)])), "vga.vram.*does not list")
    check(start + first + section(3, records([("pc.ram", PAGES, 0)])), "behind the end of its block pc.ram")
    behind: list[Record] = [("pc.ram", page, 0) for page in range(PAGES + 3)]
    check(start + first + section(3, records(behind)), "behind the end of its block pc.ram")
    check(start + section(1, block_list(BLOCKS, total=PAGES + 1)), "does not fit into the list")
    check(start + section(1, flag(4, PAGE) + name("pc.ram") + struct.pack(">Q", 100)), "does not fit")
    check(
        start + section(1, block_list({f"b{number}": 1 for number in range(4097)})), "'b4096'.*does not fit"
    )
    check(start + section(1, flag(4, 1 << 53)), "more than addresses can tell")
    check(start + section(1, block_list({"": 1})), "no text")
    check(HEADER + b"\x07" + struct.pack(">I", 1 << 31), "name of the machine type")
    check(HEADER + b"\x07" + struct.pack(">I", 200), "name of the machine type", TruncatedImageError)
    check(
        start + section(1, block_list({}) + END_OF_SECTION) + section(3, END_OF_SECTION),
        "no RAM",
        EmptyImageError,
    )


def test_sizes_of_a_hostile_header_take_no_memory(tmp_path: Path) -> None:
    path = tmp_path / "a.migrate"
    pages = 1 << 39
    path.write_bytes(migration({"pc.ram": pages}, [("pc.ram", 0, 0), ("pc.ram", pages - 1, content(1))]))
    tracemalloc.start()
    try:
        with hvshare.open_image(str(path)) as image:
            assert image.runs is not None
            assert image.runs.pages == pages
        assert tracemalloc.get_traced_memory()[1] < 8 << 20
    finally:
        tracemalloc.stop()


def test_cut_anywhere(tmp_path: Path) -> None:
    path = tmp_path / "a.migrate"
    path.write_bytes(migration(BLOCKS, every_page(5), cuts=[2]))
    size = path.stat().st_size
    check_cut_anywhere(path, [*range(0, size, 7), *range(320), *range(size - 120, size)])


def test_flipped_headers(tmp_path: Path) -> None:
    path = tmp_path / "a.migrate"
    sent: list[Record] = [("pc.ram", page, content(page + 1)) for page in range(4)]
    sent += [("pc.ram", page, 0) for page in range(4, 8)]
    data = migration({"pc.ram": 8}, sent, cuts=[2])
    path.write_bytes(data)
    pages = {data.index(content(page + 1)) for page in range(4)}
    headers = [at for at in range(len(data)) if not any(page <= at < page + PAGE for page in pages)]
    # The byte that a page repeats is content.
    fills = {data.index(flag(0x22, page * PAGE)) + 8 for page in range(4, 8)}
    check_flipped(path, headers, moves=lambda at: at in fills)


stored_pages = st.dictionaries(st.integers(0, 199), st.integers(1, 9).map(content), min_size=1, max_size=20)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=20)
@given(stored=stored_pages)
def test_mapped_ram(tmp_path: Path, stored: dict[int, bytes]) -> None:
    path = tmp_path / "a.migrate"
    path.write_bytes(mapped({"pc.ram": (200, stored), "pc.bios": (2, {0: content(3)})}))
    found = read_back(path)
    assert found.memory == {gfn: stored.get(gfn, ZERO) for gfn in range(200)}
    assert {gfn for gfn, kind in found.kinds.items() if kind == PRESENT} == stored.keys()
    assert found.caveats == frozenset()


def test_mapped_ram_that_cannot_be(tmp_path: Path) -> None:
    path = tmp_path / "a.migrate"
    data = mapped({"pc.ram": (9, {4: content(1)})})
    path.write_bytes(data)
    sizes = [len(data) - 1, len(data) - 20, len(data) - 40, 1 << 20, 300, 150, 100]
    for size in sizes:
        path.write_bytes(data[:size])
        if size == len(data) - 1:
            with pytest.raises(TruncatedImageError):
                read_back(path)
        else:
            with pytest.raises(DamagedImageError):
                read_back(path)
    path.write_bytes(mapped({"pc.ram": (9, {4: content(1)})}, page_size=65536))
    with pytest.raises(UnsupportedImageError, match="65,536 bytes"):
        read_back(path)
    path.write_bytes(data)
    header = data.index(struct.pack(">IQ", 1, PAGE))
    # Nothing contradicts the bitmap, nor where it is as long as it lies in the file.
    bitmap = range(header + 28, header + 36)
    check_flipped(
        path, [*range(header + 36)], moves=lambda at: at in bitmap or header + 12 <= at < header + 28
    )


@pytest.mark.skipif(QEMU is None, reason="needs qemu-system-x86_64")
def test_as_qemu_writes_it(tmp_path: Path) -> None:
    assert QEMU is not None
    command = [QEMU, "-nodefaults", "-display", "none", "-accel", "tcg", "-monitor", "stdio"]
    monitor = f'migrate "exec:cat > {tmp_path}/a.migrate"\npmemsave 0 0x1000000 "{tmp_path}/a.raw"\nquit\n'
    run = subprocess.run(
        [*command, "-machine", "pc,mem-merge=off", "-m", "16M", "-vga", "std"],
        input=monitor,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    if run.returncode:
        pytest.skip(f"this QEMU does not start: {run.stderr.strip()}")
    found = read_back(tmp_path / "a.migrate", block_pages=64)
    raw = (tmp_path / "a.raw").read_bytes()
    assert found.caveats == frozenset()
    assert found.memory.keys() == set(range(len(raw) // PAGE))
    # From 640 KiB to 1 MiB the processor sees video memory and ROM in front of RAM.
    for gfn, page in found.memory.items():
        assert 0xA0 <= gfn < 0x100 or page == raw[gfn * PAGE : (gfn + 1) * PAGE], gfn


def test_a_block_of_terabytes_in_a_hole(tmp_path: Path) -> None:
    if not supports_holes(tmp_path):
        pytest.skip("the file system under the temporary folder tells no holes")
    # The bitmap and the pages lie in a hole of the file, but for the last page.
    pages = 1 << 30
    whole = mapped({"pc.ram": (8, {})})
    size_at = whole.index(struct.pack(">Q", 8 * PAGE), whole.index(b"pc.ram"))
    total = struct.pack(">Q", 8 * PAGE | 4), struct.pack(">Q", pages * PAGE | 4)
    head = whole[:size_at].replace(*total) + struct.pack(">Q", pages * PAGE)
    bitmap_at = size_at + 8 + 28
    pages_at = -(-(bitmap_at + pages // 8) // PAGE) * PAGE
    head += struct.pack(">IQQQ", 1, PAGE, bitmap_at, pages_at)
    tail = END_OF_SECTION + struct.pack(">BI", 0x7E, 2) + section(3, END_OF_SECTION)
    parts = {0: head, bitmap_at + pages // 8 - 1: b"\x80", pages_at + (pages - 1) * PAGE: content(1) + tail}
    size = pages_at + pages * PAGE + len(tail)
    path = write_sparse(tmp_path / "a", size, parts)
    with counted_reads() as counts, hvshare.open_image(str(path)) as image:
        assert image.runs is not None
        assert image.runs.pages == pages
        assert image.runs.pages_of(RunKind.PRESENT) == 1
    # The bitmap alone would be 128 MiB.
    assert sum(counts) < 4 << 20

from __future__ import annotations

import gzip
import struct
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import hvshare
from hvshare.errors import DamagedImageError, EmptyImageError, TruncatedImageError, UnsupportedImageError
from hvshare.images.runs import RunKind
from tests.formats import windows_dump_writer as writer
from tests.formats.harness import check_cut_anywhere, check_flipped, memories, read_back, telling_lengths
from tests.formats.windows_dump_writer import complete, header, with_bitmap, with_ranges
from tests.guests import content, supports_holes, write_sparse
from tests.oracle import PAGE

Write = Callable[..., bytes]

HEADER = writer.HEADER
FIELDS = [
    *range(8, 0x10),
    *range(0x30, 0x3C),
    *range(0x88, 0xB8),
    *range(0xF98, 0xFB4),
    *range(0x1050, 0x1054),
]
"""Bytes of the header that mean something here, without the magic: a file that has another one is raw."""

any_memory = pytest.mark.parametrize("known", [True, False], ids=["described", "undescribed"])
bitmaps = pytest.mark.parametrize("dump_type", [writer.BITMAP, writer.KERNEL_BITMAP, writer.AUTOMATIC])
ranges = pytest.mark.parametrize("dump_type", [writer.KERNEL_RANGES, writer.USER_RANGES, writer.ALL_RANGES])


def stored(memory: dict[int, bytes | None]) -> dict[int, bytes | None]:
    return {gfn: page for gfn, page in memory.items() if page is not None}


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(memory=memories(), data=st.data())
def test_complete_dump(tmp_path: Path, memory: dict[int, bytes], data: st.DataObject) -> None:
    path = tmp_path / "a.dmp"
    runs = data.draw(st.permutations(writer.as_runs(memory)))
    path.write_bytes(complete(memory, runs))
    found = read_back(path)
    assert found.memory == memory
    assert set(found.kinds.values()) == {RunKind.PRESENT}
    assert found.caveats == frozenset()


@any_memory
@bitmaps
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=40)
@given(memory=memories(absent=True))
def test_dump_with_a_bitmap(
    tmp_path: Path, dump_type: int, known: bool, memory: dict[int, bytes | None]
) -> None:
    path = tmp_path / "a.dmp"
    path.write_bytes(with_bitmap(memory, dump_type=dump_type, known=known))
    check_pages(path, memory, known)


@any_memory
@ranges
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=40)
@given(memory=memories(absent=True), data=st.data())
def test_dump_with_ranges(
    tmp_path: Path, dump_type: int, known: bool, memory: dict[int, bytes | None], data: st.DataObject
) -> None:
    path = tmp_path / "a.dmp"
    order = data.draw(st.permutations(writer.as_runs(stored(memory))))
    path.write_bytes(with_ranges(memory, dump_type=dump_type, known=known, ranges=order))
    check_pages(path, memory, known)


def check_pages(path: Path, memory: dict[int, bytes | None], known: bool) -> None:
    found = read_back(path)
    assert found.memory == (memory if known else stored(memory))
    assert RunKind.ZERO not in found.kinds.values()
    if not known:
        assert found.caveats == {"memory-size-unknown", "filtered-dump"}
    else:
        assert found.caveats == ({"filtered-dump"} if None in memory.values() else frozenset())


def test_bitmap_over_several_windows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hvshare.images.bitmaps.WINDOW_BITS", 16)
    path = tmp_path / "a.dmp"
    memory = {gfn: content(gfn % 5) if gfn % 7 else None for gfn in [*range(3, 30), *range(45, 70)]}
    path.write_bytes(with_bitmap(memory))
    assert read_back(path).memory == memory


def test_memory_behind_the_bitmap_is_absent(tmp_path: Path) -> None:
    path = tmp_path / "a.dmp"
    memory = {2: content(1), 3: None, 300: None, 301: None}
    path.write_bytes(with_bitmap(memory))
    assert read_back(path).memory == memory


@pytest.mark.parametrize("write", [with_bitmap, with_ranges])
def test_pages_outside_of_the_memory_that_is_described(tmp_path: Path, write: Write) -> None:
    path = tmp_path / "a.dmp"
    data = bytearray(write({2: content(1), 3: content(2), 4: content(4), 9: content(5)}))
    struct.pack_into("<IIQQQ", data, 0x88, 1, 0, 3, 3, 3)  # pages 3 to 5
    path.write_bytes(data)
    found = read_back(path)
    assert found.memory == {2: content(1), 3: content(2), 4: content(4), 5: None, 9: content(5)}
    assert found.caveats == {"filtered-dump", "pages-outside-memory"}
    with hvshare.open_image(str(path)) as image:
        assert any(each.message.startswith("2 pages") for each in image.caveats)


def test_more_runs_than_the_header_has_room_for(tmp_path: Path) -> None:
    path = tmp_path / "a.dmp"
    most = {3 * number: content(number) for number in range(43)}
    path.write_bytes(complete(most))
    assert read_back(path).memory == most
    data = bytearray(with_bitmap(most))
    struct.pack_into("<I", data, 0x88, 44)
    path.write_bytes(data)
    assert read_back(path).caveats == {"memory-size-unknown", "filtered-dump"}
    path.write_bytes(header(writer.COMPLETE, [(0, 1)], number=44) + content(1))
    with pytest.raises(DamagedImageError, match="does not say where"):
        hvshare.open_image(str(path))


def test_what_a_person_would_check(tmp_path: Path) -> None:
    path = tmp_path / "a.dmp"
    path.write_bytes(header(writer.COMPLETE, [(1, 1)], comment=b"Memory\x01 [bold]dump\0\xff") + content(1))
    with hvshare.open_image(str(path)) as image:
        assert (image.format, image.vmcoreinfo) == ("windows-dump", None)
        assert image.details == {
            "dump type": "complete (1)",
            "machine": "x86-64",
            "processors": "2",
            "Windows build": "19041",
            "bug check": "0x161",
            "system time": "2021-01-01 00:00:00+00:00",
            "comment": "Memory [bold]dump",
        }
    unfilled = 0x4547415045474150
    path.write_bytes(header(writer.COMPLETE, [(1, 1)], machine=0xAA64, system_time=unfilled) + content(1))
    with hvshare.open_image(str(path)) as image:
        assert image.details["machine"] == "AArch64"
        assert not {"comment", "system time"} & image.details.keys()


@pytest.mark.parametrize(
    ("data", "error", "words"),
    [
        (header(2, [(0, 1)]), UnsupportedImageError, "Windows 7 or older"),
        (header(3, [(0, 1)]), UnsupportedImageError, "header alone"),
        (header(4, [(0, 1)]), UnsupportedImageError, "minidump"),
        (header(11, [(0, 1)]), UnsupportedImageError, "unknown type 0xb"),
        (header(0x45474150, [(0, 1)]), UnsupportedImageError, "unknown type 0x45474150"),
        (header(1, [(0, 1)], machine=0x200), UnsupportedImageError, "machine type 0x200"),
        (header(1, [(0, 1)], attributes=0x100), UnsupportedImageError, "encrypted.*KernelDumpDecrypt"),
        (header(1, [(0, 1)], pages=2), DamagedImageError, "1 runs of memory of 1 pages in all, and says 2"),
        (header(5, [(0, 1)], pages=2), DamagedImageError, "1 runs of memory of 1 pages in all, and says 2"),
        (header(1, [(0, 2), (1, 1)]), DamagedImageError, "overlaps"),
        (header(1, [(1 << 40, 1)]), DamagedImageError, "where addresses end"),
        (header(1, [((1 << 64) - 1, 1)]), DamagedImageError, "where addresses end"),
        (header(1, [(0, 1 << 39)]), TruncatedImageError, "file ends"),
        (header(1, [(0, 0)]), EmptyImageError, "no whole page"),
        (header(1, None), DamagedImageError, "does not say where"),
        (header(5, [(0, 1)]) + bytes(PAGE), DamagedImageError, "should have a bitmap"),
        (header(9, [(0, 1)]) + bytes(PAGE), DamagedImageError, "should have a list of ranges"),
        (with_bitmap({0: content(1)}, stored=2) + content(1), DamagedImageError, "1 pages, .* says 2"),
        (with_bitmap({0: content(1)}, stored=0), EmptyImageError, "no page"),
        (with_bitmap({0: content(1)}, stored=1 << 63), TruncatedImageError, "file ends"),
        (with_bitmap({0: content(1)}, first_page=0x2038), DamagedImageError, "runs into the pages"),
        (with_ranges({0: content(1)}, ranges=[(0, 1), (0, 1)]), DamagedImageError, "overlap"),
        (
            with_ranges({1: content(1)}, ranges=[(1, 1)], behind=b"\1" + bytes(31)),
            DamagedImageError,
            "is empty",
        ),
        (with_ranges({1: None}, ranges=[]), EmptyImageError, "no page"),
        (with_ranges({1: content(1)}, dump_type=10, total=2), DamagedImageError, "1 pages, .* says 2"),
        (with_ranges({1: content(1)}, dump_type=10, total=0), EmptyImageError, "no page"),
    ],
)
def test_what_cannot_be(tmp_path: Path, data: bytes, error: type[Exception], words: str) -> None:
    path = tmp_path / "a.dmp"
    path.write_bytes(data if len(data) > HEADER else data + content(1))
    with pytest.raises(error, match=words) as caught:
        hvshare.open_image(str(path))
    assert type(caught.value) is error
    assert "a.dmp" in str(caught.value)


@pytest.mark.parametrize("entry", [(1 << 40, 1), (0, 1 << 40), ((1 << 40) - 1, 2), (1, (1 << 64) - 1)])
@ranges
def test_ranges_beyond_the_last_address(tmp_path: Path, dump_type: int, entry: tuple[int, int]) -> None:
    path = tmp_path / "a.dmp"
    data = with_ranges({1: content(1)}, behind=struct.pack("<QQ", *entry), dump_type=dump_type, total=1 << 41)
    path.write_bytes(data)
    with pytest.raises(DamagedImageError, match=r"byte 8,240: a range .* goes beyond the last address"):
        hvshare.open_image(str(path))


def test_what_lies_behind_the_ranges_of_a_complete_dump(tmp_path: Path) -> None:
    path = tmp_path / "a.dmp"
    path.write_bytes(with_ranges({1: content(1)}, dump_type=writer.ALL_RANGES, behind=b"\xff" * 64))
    assert read_back(path).memory == {1: content(1)}


def test_a_list_of_ranges_read_in_parts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hvshare.images.windows.ranges._AT_ONCE", 4)
    path = tmp_path / "a.dmp"
    memory: dict[int, bytes | None] = {2 * number: content(number) for number in range(1, 14)}
    for behind in (b"", bytes(16), bytes(160)):
        path.write_bytes(with_ranges(memory, behind=behind))
        assert read_back(path).memory == memory


@pytest.mark.parametrize(
    "data",
    [
        complete({2: content(1), 3: content(0), 9: content(4)}),
        with_bitmap({2: content(1), 3: None, 9: content(4)}),
        with_ranges({2: content(1), 3: None, 9: content(4)}, dump_type=writer.ALL_RANGES),
        with_ranges({2: content(1), 3: None, 9: content(4)}, dump_type=writer.KERNEL_RANGES),
    ],
    ids=["complete", "bitmap", "all in ranges", "ranges"],
)
def test_cut_anywhere(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "a.dmp"
    path.write_bytes(data)
    # All of what is read of the header lies below these; between them nothing differs.
    near = {edge + step for edge in (0x88, 0xF98, 0x1050) for step in range(-40, 41)}
    check_cut_anywhere(path, near | set(telling_lengths(len(data))))


@pytest.mark.parametrize(
    ("data", "second"),
    [
        (complete({2: content(1), 3: content(2), 9: content(4)}), 0),
        (with_bitmap({2: content(1), 3: None, 9: content(4)}), 0x38 + 2),
        (with_ranges({2: content(1), 3: None, 9: content(4)}, dump_type=writer.ALL_RANGES), 0x60),
        (with_ranges(dict(zip([2, 3, 4, 9], map(content, [1, 2, 4, 5]), strict=True))), 0x60),
    ],
    ids=["complete", "bitmap", "all in ranges", "ranges"],
)
def test_flipped_headers(tmp_path: Path, data: bytes, second: int) -> None:
    path = tmp_path / "a.dmp"
    path.write_bytes(data)
    # Nothing contradicts the address of a run that stays as long and apart from others.
    check_flipped(path, [*FIELDS, *range(HEADER, HEADER + second)])


def test_flipped_headers_before_what_is_no_page(tmp_path: Path) -> None:
    path = tmp_path / "a.dmp"
    memory = {2: content(1), 3: None, 4: content(2), 5: content(4), 9: content(5)}
    path.write_bytes(with_bitmap(memory) + b"secondary data" * 5000)
    # Only the bytes behind the pages leave room for pages that start elsewhere; nothing else says where.
    check_flipped(path, [*FIELDS, *range(HEADER, HEADER + 0x3A)], moves=lambda at: 0x20 <= at - HEADER < 0x28)
    path.write_bytes(with_ranges(memory, dump_type=writer.ALL_RANGES) + b"secondary data" * 5000)
    check_flipped(path, [*FIELDS, *range(HEADER, HEADER + 0x60)])


@pytest.mark.parametrize("value", [(1 << 64) - 1, 1 << 63, 1 << 40, 1 << 32, 1 << 20])
@pytest.mark.parametrize(
    ("write", "offset"),
    [(with_bitmap, at) for at in (0x2020, 0x2028, 0x2030)] + [(with_ranges, at) for at in (0x2010, 0x2018)],
)
def test_no_more_is_allocated_than_the_file_warrants(
    tmp_path: Path, write: Write, offset: int, value: int
) -> None:
    path = tmp_path / "a.dmp"
    data = bytearray(write({2: content(1), 3: None}))
    struct.pack_into("<Q", data, offset, value)
    path.write_bytes(data)
    check_allocation(path)
    if write is with_bitmap:  # so that the bitmap, and not where pages start, is what cannot be
        struct.pack_into("<QQQ", data, 0x2020, 1 << 62, 1, value)
        path.write_bytes(data)
        check_allocation(path)
    else:
        struct.pack_into("<QQ", data, 0x2010, value & ~15, HEADER + 0x20 + value // 16 * 16 % (1 << 63))
        path.write_bytes(data)
        check_allocation(path)


def test_memory_of_a_guest_of_petabytes_is_not_looped_over(tmp_path: Path) -> None:
    path = tmp_path / "a.dmp"
    for data in (with_bitmap({2: content(1)}), with_ranges({2: content(1)})):
        path.write_bytes(header(data[0xF98], [(2, (1 << 40) - 2)]) + data[HEADER:])
        with hvshare.open_image(str(path)) as image:
            assert [tuple(run) for run in image.runs or ()] == [
                (2, 1, RunKind.PRESENT),
                (3, (1 << 40) - 3, RunKind.ABSENT),
            ]


def check_allocation(path: Path) -> None:
    """Read a dump that cannot be, and see that this takes no more than some windows and chunks."""
    tracemalloc.start()
    try:
        with pytest.raises((DamagedImageError, TruncatedImageError)):
            read_back(path)
        assert tracemalloc.get_traced_memory()[1] < 8 << 20
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("compressed", [False, True])
@pytest.mark.parametrize(("write", "spooled"), [(complete, False), (with_bitmap, True), (with_ranges, True)])
def test_streams(tmp_path: Path, write: Write, spooled: bool, compressed: bool) -> None:
    path = tmp_path / "a.dmp"
    memory = {2: content(1), 3: content(0), 9: content(4), 12: content(5)}
    data = write(memory)
    path.write_bytes(gzip.compress(data) if compressed else data)
    found = read_back(path, as_stream=True)
    assert found.memory == memory
    assert found.caveats == ({"spooled"} if spooled else frozenset())
    with hvshare.open_image(str(path)) as image:
        assert image.details["Windows build"] == "19041"


def test_streams_of_complete_dumps_that_cannot_be(tmp_path: Path) -> None:
    path = tmp_path / "a.dmp"
    memory = {2: content(1), 3: content(0), 9: content(4)}
    path.write_bytes(complete(memory, [(9, 1), (2, 2)]))
    with pytest.raises(DamagedImageError, match="name a file instead of a stream"):
        read_back(path, as_stream=True)
    path.write_bytes(header(writer.COMPLETE, [(0, 1)], attributes=0x100) + content(1))
    with pytest.raises(UnsupportedImageError, match="encrypted"):
        read_back(path, as_stream=True)
    data = complete(memory)
    for length in (8, 0xFFF, PAGE, HEADER - 1, HEADER, len(data) - 1):
        path.write_bytes(data[:length])
        with pytest.raises(TruncatedImageError):
            read_back(path, as_stream=True)


@pytest.mark.parametrize(
    "data",
    [
        complete({1: content(1), 2: content(2), 9: content(0)}),
        with_bitmap({1: content(1), 2: None, 3: content(2), 9: content(0), 15: content(7)}),
        with_ranges({1: content(1), 2: None, 3: content(2), 9: content(0)}, dump_type=writer.KERNEL_RANGES),
        with_ranges({1: content(1), 2: None, 3: content(2), 9: content(0)}, dump_type=writer.USER_RANGES),
        with_ranges({1: content(1), 3: content(2), 9: content(0)}, dump_type=writer.ALL_RANGES),
    ],
    ids=["complete", "bitmap", "kernel ranges", "user ranges", "all in ranges"],
)
def test_another_reader_agrees(tmp_path: Path, data: bytes) -> None:
    kdmp_parser = pytest.importorskip("kdmp_parser", reason="kdmp-parser is not installed")
    path = tmp_path / "a.dmp"
    path.write_bytes(data)
    parser = kdmp_parser.KernelDumpParser(str(path))
    pages = {gfn: parser.read_physical_page(gfn * PAGE) for gfn in range(24)}
    theirs = {gfn: bytes(page) for gfn, page in pages.items() if page is not None}
    assert theirs == stored(read_back(path).memory)


@any_memory
def test_bitmap_that_is_a_hole(tmp_path: Path, known: bool) -> None:
    if not supports_holes(tmp_path):
        pytest.skip("the file system under the temporary folder tells no holes")
    # A bitmap of 16 GiB, of which the file holds the last byte.
    bits = 1 << 37
    first = HEADER + PAGE + bits // 8
    second = with_bitmap({0: content(1)}, bits=bits // 4096, first_page=first % PAGE + HEADER + PAGE)[HEADER:]
    second = struct.pack("<4s4s24xQQQ", b"SDMP", b"DUMP", first, 1, bits)
    head = header(writer.BITMAP, [(0, bits)] if known else None)
    parts = {0: head + second, HEADER + 0x38 + bits // 8 - 1: b"\x80", first: content(7)}
    path = write_sparse(tmp_path / "a.dmp", first + PAGE, parts)
    found = read_back(path)
    assert found.memory == {bits - 1: content(7)}
    assert found.unlisted[RunKind.ABSENT] == (bits - 1 if known else 0)

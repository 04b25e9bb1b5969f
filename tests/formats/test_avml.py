from __future__ import annotations

import gzip
import os
import struct
import tracemalloc
from pathlib import Path

import cramjam
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from hvshare.errors import DamagedImageError, TruncatedImageError, UnsupportedImageError
from hvshare.images import zero_blocks
from hvshare.images.runs import RunKind
from hvshare.images.snappy_frames import SnappyChunks
from hvshare.images.source import Source
from tests.formats import avml_writer as writer
from tests.formats.avml_writer import CHUNK, IDENTIFIER, avml, block, block_header, framed, framed_by_hand
from tests.formats.harness import (
    ReadBack,
    check_cut_anywhere,
    check_flipped,
    memories,
    read_back,
    stretches,
    telling_lengths,
)
from tests.formats.lime_writer import lime
from tests.guests import ZERO, content
from tests.oracle import PAGE

HEADER = 32
SMALL = 2 * PAGE
in_one_folder = settings(suppress_health_check=[HealthCheck.function_scoped_fixture])


@pytest.fixture
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have blocks of two pages instead of 16 MiB."""
    monkeypatch.setattr(zero_blocks, "BLOCK_BYTES", SMALL)


def pages_at(gfn: int, *numbers: int) -> tuple[int, bytes]:
    return gfn * PAGE, b"".join(map(content, numbers))


def read_both_ways(path: Path, data: bytes) -> ReadBack:
    """Read a file and the same as a stream, which have to be alike."""
    path.write_bytes(data)
    found = read_back(path)
    assert read_back(path, as_stream=True) == found
    return found


@in_one_folder
@given(memory=memories())
def test_what_is_written_is_read(tmp_path: Path, memory: dict[int, bytes]) -> None:
    ranges = [(gfn * PAGE, data) for gfn, data in stretches(memory)]
    found = read_both_ways(tmp_path / "a", avml(ranges, zero_blocks="written"))
    assert found.memory == memory
    assert set(found.kinds.values()) == {RunKind.PRESENT}
    assert found.caveats == {"zero-blocks-unseen"}


@in_one_folder
@given(memory=memories())
@pytest.mark.usefixtures("small_blocks")
def test_zero_blocks_that_are_left_out(tmp_path: Path, memory: dict[int, bytes]) -> None:
    ranges = [(gfn * PAGE, data) for gfn, data in stretches(memory)]
    data = avml(ranges, block_size=SMALL)
    if not data:
        return
    found = read_both_ways(tmp_path / "a", data)
    # What must be there: everything from the first to the last page of a range that is in a stored block.
    certain = set()
    for start, part in ranges:
        stored = [at for at in range(0, len(part), SMALL) if any(part[at : at + SMALL])]
        if stored:
            first = (start + stored[0]) // PAGE
            certain |= {*range(first, min(start + stored[-1] + SMALL, start + len(part)) // PAGE)}
    for gfn in certain:
        assert found.memory[gfn] == memory[gfn]
    # What else is there was inferred, and is zero; what is not there is zero, too.
    for gfn in found.memory.keys() - certain:
        assert found.kinds[gfn] == RunKind.ZERO
        assert memory.get(gfn, ZERO) == ZERO
    assert all(memory[gfn] == ZERO for gfn in memory.keys() - found.memory.keys())
    inferred = RunKind.ZERO in found.kinds.values()
    assert found.caveats == {"zero-blocks-inferred" if inferred else "zero-blocks-unseen"}


@pytest.mark.usefixtures("small_blocks")
@pytest.mark.parametrize(
    ("ranges", "zero", "unknown"),
    [
        ([pages_at(1, 1, 1, 0, 0, 0, 0, 2)], {3, 4, 5, 6}, set()),
        ([pages_at(1, 1, 1, 0, 0, 0)], set(), {3, 4, 5}),  # at the end
        ([pages_at(1, 0, 0, 1)], set(), {1, 2}),  # at the start
        ([pages_at(0, 1, 1), pages_at(3, 2)], set(), set()),  # out of step
        ([pages_at(0, 1), pages_at(5, 2)], set(), set()),  # behind a block that is not whole
        ([pages_at(0, 1, 1), pages_at(6, 2)], {2, 3, 4, 5}, set()),  # in step by chance: no memory, in truth
    ],
)
def test_what_gaps_mean(
    tmp_path: Path, ranges: list[tuple[int, bytes]], zero: set[int], unknown: set[int]
) -> None:
    found = read_both_ways(tmp_path / "a", avml(ranges, block_size=SMALL))
    assert {gfn for gfn, kind in found.kinds.items() if kind == RunKind.ZERO} == zero
    pages = {start // PAGE + at for start, data in ranges for at in range(len(data) // PAGE)}
    assert found.memory.keys() == pages - unknown | zero


def test_blocks_of_16_mib(tmp_path: Path) -> None:
    memory = bytearray(writer.BLOCK * 5 + 3 * PAGE)
    for at in (0, writer.BLOCK - 1, 3 * writer.BLOCK + 5, len(memory) - 1):
        memory[at] = 7
    path = tmp_path / "a"
    path.write_bytes(avml([(0x1000, b"x" * (PAGE + 1023)), (1 << 20, bytes(memory))]))
    for as_stream in (False, True):
        found = read_back(path, as_stream=as_stream, block_pages=512)
        assert found.memory.pop(1) == b"x" * PAGE
        assert found.memory.pop(2) is None
        assert b"".join(page or b"" for page in found.memory.values()) == memory
        assert list(found.memory) == list(range(256, 256 + len(memory) // PAGE))
        zero = [gfn - 256 for gfn, kind in found.kinds.items() if kind == RunKind.ZERO]
        assert zero == [*range(4096, 3 * 4096), *range(4 * 4096, 5 * 4096)]
        assert found.caveats == {"cut-pages", "zero-blocks-inferred"}


@pytest.mark.usefixtures("small_blocks")
def test_larger_blocks_are_of_versions_that_leave_nothing_out(tmp_path: Path) -> None:
    ranges = [pages_at(0, 1, 1), pages_at(6, 2, 2, 2, 2, 0, 0), pages_at(14, 3)]
    found = read_both_ways(tmp_path / "a", avml(ranges, block_size=1 << 30)[: -len(block(*ranges[2]))])
    assert RunKind.PRESENT in found.kinds.values()
    path = tmp_path / "b"
    path.write_bytes(avml(ranges, block_size=1 << 30))
    found = read_back(path)
    assert found.memory.keys() == {0, 1, *range(6, 12), 14}
    assert set(found.kinds.values()) == {RunKind.PRESENT}
    assert found.caveats == frozenset()


@pytest.mark.usefixtures("small_blocks")
@pytest.mark.parametrize("short", [0, 1, 700])
@pytest.mark.parametrize("start", [0, 1000, 4095])
def test_ranges_that_are_no_whole_pages(tmp_path: Path, start: int, short: int) -> None:
    numbers = (1, 2, 3, 0, 0, 0, 0, 4, 5, 6, 7)
    memory = b"".join(map(content, numbers))[start : len(numbers) * PAGE - short]
    found = read_both_ways(tmp_path / "a", avml([(start, memory)], block_size=SMALL))
    # What each byte is: in a block, in a block that was left out, or nowhere.
    kinds = " " * start
    for at in range(0, len(memory), SMALL):
        part = memory[at : at + SMALL]
        kinds += ("d" if any(part) else "z") * len(part)
    kinds += " " * short
    expected = {"d": RunKind.PRESENT, "z": RunKind.ZERO}
    for gfn, number in enumerate(numbers):
        in_page = {*kinds[gfn * PAGE : (gfn + 1) * PAGE]}
        kind = expected[in_page.pop()] if len(in_page) == 1 else RunKind.ABSENT
        assert found.kinds[gfn] == kind
        assert found.memory[gfn] == (None if kind == RunKind.ABSENT else content(number))
    assert "z" in kinds
    assert len(found.memory) == len(numbers)


@pytest.mark.usefixtures("small_blocks")
def test_headers_of_zero_blocks_without_data(tmp_path: Path) -> None:
    ranges = [pages_at(0, 1, 1, 0, 0, 0, 0, 2), pages_at(8, 0), pages_at(11, 3)]
    found = read_both_ways(tmp_path / "a", avml(ranges, block_size=SMALL, zero_blocks="without data"))
    assert found.memory == dict(enumerate(map(content, (1, 1, 0, 0, 0, 0, 2)))) | {8: ZERO, 11: content(3)}
    assert [gfn for gfn, kind in found.kinds.items() if kind == RunKind.ZERO] == [2, 3, 4, 5, 8]
    assert found.caveats == {"empty-blocks"}
    # The very last block may be zero, or cut off.
    ends = read_both_ways(
        tmp_path / "a", avml([*ranges, pages_at(20, 0, 0)], block_size=SMALL, zero_blocks="without data")
    )
    assert ends.memory == found.memory | {20: ZERO, 21: ZERO}
    assert ends.caveats == {"empty-blocks", "last-block-empty"}


@in_one_folder
@given(
    sizes=st.lists(st.sampled_from([PAGE, 5000, 2 * PAGE + 1, CHUNK]), min_size=1, max_size=3),
    kinds=st.lists(st.sampled_from(["literals", "plain"]), min_size=1, max_size=3),
    between=st.lists(
        st.sampled_from([b"", IDENTIFIER, writer.header(0xFE, bytes(3)), writer.header(0x80, b"skip")])
    ),
    block_pages=st.sampled_from([1, 3, 64]),
)
def test_chunks_of_any_size_and_kind(
    tmp_path: Path, sizes: list[int], kinds: list[str], between: list[bytes], block_pages: int
) -> None:
    pages = [content(number) for number in (1, 2, 3, 250, 0, 7, 8)]
    stuffing = b"".join(between[:2])
    path = tmp_path / "a"
    path.write_bytes(
        avml([(0, b"".join(pages))], compress=lambda data: framed_by_hand(data, sizes, kinds, stuffing))
    )
    for as_stream in (False, True):
        found = read_back(path, as_stream=as_stream, block_pages=block_pages)
        assert list(found.memory.values()) == pages


def test_a_long_chunk_is_skipped(tmp_path: Path) -> None:
    stuffing = writer.header(0x99, bytes(200_000))
    data = avml([pages_at(0, 1, 2)], compress=lambda data: framed_by_hand(data, between=stuffing))
    assert read_both_ways(tmp_path / "a", data).memory == {0: content(1), 1: content(2)}


def test_two_writers_of_streams_agree() -> None:
    data = os.urandom(CHUNK) + b"abc" * 30_000
    assert bytes(cramjam.snappy.decompress(framed_by_hand(data))) == data
    # Known values: RFC 3720, B.4, and the masking of the framing format.
    assert (
        writer.masked_crc32c(bytes(32))
        == (((0x8A9136AA >> 15) | (0x8A9136AA << 17)) + 0xA282EAD8) & 0xFFFFFFFF
    )


def test_bytes_at_any_position(tmp_path: Path) -> None:
    parts = [os.urandom(3 * CHUNK // 2), bytes(2 * CHUNK) + b"x", b"y" * 100]
    path = tmp_path / "a"
    path.write_bytes(b"".join(map(framed, parts)))
    source = Source(str(path))
    chunks = SnappyChunks(source)
    at = 0
    for part in parts:
        at = chunks.add_stream(at, len(part))
    data = b"".join(parts)
    assert (at, chunks.end) == (path.stat().st_size, len(data))
    for low in (0, 1, PAGE, CHUNK - 1, CHUNK, 3 * CHUNK // 2, 2 * CHUNK + 7, len(data) - 101, len(data) - 1):
        for size in (0, 1, 100, CHUNK, len(data)):
            buffer = memoryview(bytearray(min(size, len(data) - low)))
            chunks.pread(buffer, low)
            assert buffer == data[low : low + len(buffer)]
            half = len(buffer) // 2
            buffer[:] = bytes(len(buffer))
            chunks.preadv([buffer[:half], buffer[half:]], low)
            assert buffer == data[low : low + len(buffer)]
    source.close()


def test_compressed_again(tmp_path: Path) -> None:
    data = avml([pages_at(0, 1, 2), pages_at(8, 3)])
    path = tmp_path / "a"
    path.write_bytes(gzip.compress(data))
    assert read_back(path).memory == {0: content(1), 1: content(2), 8: content(3)}


@pytest.mark.parametrize("as_stream", [False, True])
def test_what_cannot_be(tmp_path: Path, as_stream: bool) -> None:
    path = tmp_path / "a"

    def check(data: bytes, error: type[Exception], words: str) -> None:
        path.write_bytes(data)
        with pytest.raises(error, match=words):
            read_back(path, as_stream=as_stream)

    one = block(*pages_at(0, 1))
    check(one + block(*pages_at(0, 2)), DamagedImageError, "overlaps|starts before")
    check(block((1 << 52) - PAGE, bytes(2 * PAGE)), DamagedImageError, "where addresses end")
    check(block_header(0, PAGE, version=3) + one[HEADER:], UnsupportedImageError, "version 3")
    check(block_header(0, PAGE, padding=1) + one[HEADER:], DamagedImageError, "should be zero")
    check(one + lime([pages_at(8, 1)]), DamagedImageError, "should be here, and is not")
    check(one + b"AVM", TruncatedImageError, "header of a block|within")
    check(one + block_header(PAGE, PAGE), TruncatedImageError, "data of a block")
    check(block_header(0, 32 << 20) + one, DamagedImageError, "data of a block")
    # What `avml convert` makes of a file that is compressed already: a header, and pages as they are.
    check(block_header(0, PAGE) + content(1), DamagedImageError, "Snappy stream should start here")
    check(block_header(0, PAGE) + content(65), DamagedImageError, "should be here, and is not")
    check(one[:-8] + struct.pack("<Q", 7), DamagedImageError, "should have 7")
    check(one[:-8] + struct.pack("<Q", 1 << 63), DamagedImageError, "should have 9,223")
    check(one[:-8], TruncatedImageError, "length of a block")


@pytest.mark.parametrize("as_stream", [False, True])
def test_chunks_that_cannot_be(tmp_path: Path, as_stream: bool) -> None:
    path = tmp_path / "a"
    page = content(1)

    def check(
        chunks: bytes, words: str, size: int = PAGE, error: type[Exception] = DamagedImageError
    ) -> None:
        stream = IDENTIFIER + chunks
        path.write_bytes(block_header(0, size) + stream + struct.pack("<Q", len(stream)))
        with pytest.raises(error, match=words):
            read_back(path, as_stream=as_stream)

    good = writer.chunk(page, "literals")
    for kind in ("literals", "plain"):
        other = bytearray(writer.chunk(page, kind))
        other[100] ^= 1
        check(bytes(other), "checksum")
        other = bytearray(writer.chunk(page, kind))
        other[5] ^= 1
        check(bytes(other), "checksum")
    for unknown in (0x02, 0x7F):
        check(writer.header(unknown, b"abc") + good, f"unknown kind {unknown:#04x}")
    check(writer.header(0, b"abc"), "cannot have 3 bytes")
    check(writer.header(0, bytes(1 << 17)), "cannot have 131,072 bytes")
    check(writer.header(0xFF, b"sNaPpX") + good, "Snappy stream should start here")
    check(writer.header(0xFF, b"sNaPp") + good, "Snappy stream should start here")
    # Bombs: a few bytes that decode to more than a chunk may, than the block has, or than they say.
    for claimed in ((1 << 16) + 1, (1 << 32) - 1):
        check(writer.header(0, bytes(4) + writer.varint(claimed) + bytes(40)), "at most 64 KiB", 1 << 30)
    check(writer.header(0, bytes(4) + b"\xff\xff\xff"), "at most 64 KiB")
    check(good + good, "decodes to more than the memory|should have", PAGE + 1)
    check(good + good, r"should have|decodes to more", PAGE)
    check(writer.header(0, bytes(4) + writer.varint(PAGE) + writer.literals(page * 2)), "cannot be decoded")
    check(
        writer.header(0, bytes(4) + writer.varint(2 * PAGE) + writer.literals(page)),
        "cannot be decoded",
        2 * PAGE,
    )
    # Less than the block has: then its length is taken for a chunk.
    check(good, "Snappy chunk", 2 * PAGE)
    # Chunks that are tiny, or nothing.
    check(writer.chunk(b"x", "plain") * 60, "more chunks than it has pages", 60)
    check(writer.header(0xFE, b"") * 100 + good, "more chunks than it has pages")


@pytest.mark.parametrize("as_stream", [False, True])
def test_hostile_sizes_take_no_memory(tmp_path: Path, as_stream: bool) -> None:
    path = tmp_path / "a"
    stream = framed(content(1))
    path.write_bytes(block_header(0, 1 << 50) + stream + struct.pack("<Q", len(stream)))
    tracemalloc.start()
    try:
        with pytest.raises(DamagedImageError):
            read_back(path, as_stream=as_stream)
        assert tracemalloc.get_traced_memory()[1] < 2 << 20
    finally:
        tracemalloc.stop()


def small_file(path: Path) -> list[int]:
    """Write a file of three blocks and tell where each ends."""
    parts = [
        block(*pages_at(0, 1, 4)),
        block(*pages_at(3, 3), lambda data: framed_by_hand(data, [3000, 40, PAGE], ["plain", "literals"])),
        block(8 * PAGE, content(6) + b"x"),
    ]
    path.write_bytes(b"".join(parts))
    return [sum(map(len, parts[: at + 1])) for at in range(len(parts))]


@pytest.mark.parametrize("as_stream", [False, True])
def test_cut_anywhere(tmp_path: Path, as_stream: bool) -> None:
    path = tmp_path / "a"
    ends = small_file(path)
    # AVML has no end mark: what ends between two blocks is a smaller dump, and whole.
    near = {end + step for end in ends for step in range(-40, 41)}
    lengths = sorted((near | set(telling_lengths(ends[-1]))) & set(range(ends[-1])) - set(ends))
    check_cut_anywhere(
        path, lengths[:: 7 if as_stream else 1], lambda path: read_back(path, as_stream=as_stream)
    )


def test_cut_with_empty_blocks(tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.write_bytes(avml([pages_at(0, 1), pages_at(4, 0), pages_at(8, 2)], zero_blocks="without data"))
    between = {len(block(*pages_at(0, 1)))}
    check_cut_anywhere(path, [at for at in range(path.stat().st_size) if at not in between])


def test_flipped_bytes(tmp_path: Path) -> None:
    path = tmp_path / "a"
    ends = small_file(path)
    # Any byte: the address of a block is held twice, by its size, and everything else has a checksum.
    headers = {end + step for end in (0, *ends) for step in range(-20, 60)}
    size = path.stat().st_size
    check_flipped(path, sorted((headers | set(range(0, size, 5))) & set(range(size))))


def test_chunks_of_nothing(tmp_path: Path) -> None:
    # As many as pages, by the header; but so much memory cannot come out of the file.
    stream = IDENTIFIER + writer.header(0xFE, b"") * 100_000
    path = tmp_path / "a"
    path.write_bytes(block_header(0, 1 << 51) + stream)
    with pytest.raises(DamagedImageError, match="more chunks than it has pages") as caught:
        read_back(path)
    assert caught.value.offset is not None
    assert caught.value.offset < 20_000

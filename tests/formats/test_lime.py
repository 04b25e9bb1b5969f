from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings

from hvshare.errors import DamagedImageError, EmptyImageError, TruncatedImageError, UnsupportedImageError
from hvshare.images.runs import RunKind
from tests.formats.harness import (
    check_cut_anywhere,
    check_flipped,
    memories,
    read_back,
    stretches,
)
from tests.formats.lime_writer import lime
from tests.guests import content
from tests.oracle import PAGE

HEADER = 32


def pages_at(gfn: int, *numbers: int) -> tuple[int, bytes]:
    return gfn * PAGE, b"".join(map(content, numbers))


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(memory=memories())
def test_what_is_written_is_read(tmp_path: Path, memory: dict[int, bytes]) -> None:
    path = tmp_path / "a.lime"
    path.write_bytes(lime((gfn * PAGE, data) for gfn, data in stretches(memory)))
    found = read_back(path)
    assert found.memory == memory
    assert set(found.kinds.values()) == {RunKind.PRESENT}
    assert found.caveats == frozenset()


@pytest.mark.parametrize("as_stream", [False, True])
def test_pages_that_are_there_in_part_are_absent(tmp_path: Path, as_stream: bool) -> None:
    path = tmp_path / "a.lime"
    # As on a PC: the last KiB below 640 KiB is kept by the firmware; then a range within one page.
    ranges = [(0x1000, b"a" * (2 * PAGE - 1024)), (0x5400, b"b" * 100), (0x5800, b"c" * (PAGE + 0x800))]
    path.write_bytes(lime(ranges))
    found = read_back(path, as_stream=as_stream)
    assert found.memory == {1: b"a" * PAGE, 2: None, 5: None, 6: b"c" * PAGE}
    assert found.caveats == {"cut-pages"}


def test_ranges_in_any_order(tmp_path: Path) -> None:
    path = tmp_path / "a.lime"
    path.write_bytes(lime([pages_at(8, 1, 2), pages_at(0, 3)]))
    assert read_back(path).memory == {0: content(3), 8: content(1), 9: content(2)}
    with pytest.raises(DamagedImageError, match=r"name a file instead of a stream"):
        read_back(path, as_stream=True)


@pytest.mark.parametrize("as_stream", [False, True])
def test_what_cannot_be(tmp_path: Path, as_stream: bool) -> None:
    def check(data: bytes, error: type[Exception], words: str) -> None:
        (tmp_path / "a.lime").write_bytes(data)
        with pytest.raises(error, match=words):
            read_back(tmp_path / "a.lime", as_stream=as_stream)

    good = lime([pages_at(0, 1, 2)])
    check(lime([pages_at(0, 1, 2), pages_at(1, 3)]), DamagedImageError, "overlaps|starts before")
    check(lime([((1 << 52) - PAGE, bytes(2 * PAGE))]), DamagedImageError, "where addresses end")
    check(lime([pages_at(0, 1)], version=2), UnsupportedImageError, "version 2")
    check(good + b"x" * HEADER, DamagedImageError, f"(?s)byte {len(good):,}.*header")
    check(good + b"EMiL", TruncatedImageError, "header of a range")
    check(lime([(100, b"abc")]), EmptyImageError, "no whole page")


def test_cut_anywhere(tmp_path: Path) -> None:
    path = tmp_path / "a.lime"
    path.write_bytes(lime([pages_at(0, 1, 2), (8 * PAGE, content(3) + b"x")]))
    # LiME has no end mark: what ends between two ranges is a smaller dump, and whole.
    between = HEADER + 2 * PAGE
    check_cut_anywhere(path, [at for at in range(path.stat().st_size) if at != between])


def test_flipped_headers(tmp_path: Path) -> None:
    path = tmp_path / "a.lime"
    data = lime([pages_at(0, 1, 2), pages_at(8, 3)])
    path.write_bytes(data)
    second = HEADER + 2 * PAGE
    # Nothing contradicts the address of a range that stays as long and apart from others.
    check_flipped(path, [*range(HEADER), *range(second, second + HEADER)])


@pytest.mark.parametrize("as_stream", [False, True])
def test_blocks_of_zeros_that_avml_left_out(tmp_path: Path, as_stream: bool) -> None:
    path, block = tmp_path / "a.lime", 16 << 20
    whole = b"a" * block
    path.write_bytes(lime([(0, whole), (3 * block, whole), (4 * block, whole), (5 * block, b"b" * PAGE)]))
    found = read_back(path, as_stream=as_stream, block_pages=512)
    pages = block // PAGE
    assert [found.kinds[gfn] for gfn in (pages - 1, pages, 3 * pages - 1, 3 * pages)] == [
        RunKind.PRESENT, RunKind.ZERO, RunKind.ZERO, RunKind.PRESENT,
    ]  # fmt: skip
    assert found.caveats == {"zero-blocks-inferred"}
    # LiME itself does not cut ranges, and what is between them is no memory.
    path.write_bytes(lime([(0, b"a" * (block + PAGE)), (3 * block + PAGE, whole), (5 * block + PAGE, whole)]))
    found = read_back(path, as_stream=as_stream, block_pages=512)
    assert set(found.kinds.values()) == {RunKind.PRESENT}
    assert found.caveats == frozenset()

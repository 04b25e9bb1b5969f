from __future__ import annotations

import tracemalloc
from array import array
from collections.abc import Iterator, Sequence

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from hvshare.errors import TruncatedImageError
from hvshare.images import bitmaps
from hvshare.images.bitmaps import NO_MEMORY, count_bits, read_bits, runs_from_flags
from hvshare.images.runs import RunKind, Runs


class Bytes:
    """What a file gives at any position."""

    path = "a.dump"

    def __init__(self, data: bytes, end: int | None = None) -> None:
        self._data = data
        self.end = len(data) if end is None else end

    def pread(self, buffer: memoryview, offset: int) -> None:
        buffer[:] = self._data[offset : offset + len(buffer)]

    def preadv(self, buffers: Sequence[memoryview], offset: int) -> None:
        raise NotImplementedError


def one_by_one(flags: Sequence[int]) -> Runs:
    runs = Runs()
    for gfn, flag in enumerate(flags):
        if flag != NO_MEMORY:
            runs.append(gfn, 1, RunKind(flag))
    return runs


def check_same(runs: Runs, expected: Runs) -> None:
    assert runs == expected
    assert [runs.pages_of(kind) for kind in RunKind] == [expected.pages_of(kind) for kind in RunKind]
    positions = range(expected.pages_of(RunKind.PRESENT))
    assert [runs.gfn_of(at) for at in positions] == [expected.gfn_of(at) for at in positions]
    gfns = range(expected.end_gfn + 2)
    assert [runs.present_below(gfn) for gfn in gfns] == [expected.present_below(gfn) for gfn in gfns]


@pytest.fixture(params=[8, 64, bitmaps.WINDOW_BITS])
def window_bits(request: pytest.FixtureRequest) -> Iterator[int]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(bitmaps, "WINDOW_BITS", request.param)
        yield request.param


@pytest.mark.usefixtures("window_bits")
@given(bits=st.lists(st.booleans(), max_size=200), before=st.integers(0, 9), behind=st.integers(0, 9))
def test_bits_are_read_lowest_first(bits: list[bool], before: int, behind: int) -> None:
    number = sum(bit << at for at, bit in enumerate(bits))
    size = -(-len(bits) // 8)
    # Unused bits of the last byte, and all bytes around it, are set and belong to something else.
    data = (number | (1 << 8 * size) - (1 << len(bits))).to_bytes(size, "little")
    source = Bytes(b"\xff" * before + data + b"\xff" * behind)
    windows = [
        window for window in read_bits(source, before, len(bits), "the bitmap") if not isinstance(window, int)
    ]
    assert [bit for window in windows for bit in window.tolist()] == bits
    assert all(window.dtype == np.bool_ for window in windows)
    assert count_bits(source, before, len(bits), "the bitmap") == sum(bits)


@pytest.mark.parametrize(("offset", "bits"), [(0, 33), (4, 1), (5, 0), (-1, 8), (0, -1), (0, 1 << 62)])
def test_bits_that_are_not_there(offset: int, bits: int) -> None:
    tracemalloc.start()
    try:
        with pytest.raises(TruncatedImageError, match=r"a\.dump: .* the bitmap of .* ends at byte 4"):
            read_bits(Bytes(bytes(4)), offset, bits, "the bitmap")
        assert tracemalloc.get_traced_memory()[1] < 1 << 20
    finally:
        tracemalloc.stop()


flags_of_pages = st.lists(st.sampled_from([NO_MEMORY, *map(int, RunKind)]), max_size=60)


@given(chunks=st.lists(flags_of_pages, max_size=4))
def test_runs_from_flags(chunks: list[list[int]]) -> None:
    runs = runs_from_flags(np.array(chunk, np.int8) for chunk in chunks)
    check_same(runs, one_by_one([flag for chunk in chunks for flag in chunk]))


def test_a_chunk_may_be_filled_again() -> None:
    def chunks() -> Iterator[NDArray[np.int8]]:
        flags = np.empty(3, np.int8)
        for each in ([0, 0, 1], [1, 0, -1], [2, 2, 2]):
            flags[:] = each
            yield flags

    assert runs_from_flags(chunks()) == one_by_one([0, 0, 1, 1, 0, -1, 2, 2, 2])


@given(chunks=st.lists(st.tuples(st.sampled_from([NO_MEMORY, *map(int, RunKind)]), st.integers(1, 5))))
def test_pages_of_which_the_same_is_known(chunks: list[tuple[int, int]]) -> None:
    flags = [flag for flag, pages in chunks for _ in range(pages)]
    check_same(runs_from_flags(iter(chunks)), one_by_one(flags))
    # As any mixture of both.
    mixed = (np.full(pages, flag, np.int8) if pages % 2 else (flag, pages) for flag, pages in chunks)
    check_same(runs_from_flags(mixed), one_by_one(flags))


@pytest.mark.parametrize("flag", [-2, 3, 127])
def test_unknown_flags(flag: int) -> None:
    with pytest.raises(ValueError, match="none of"):
        runs_from_flags(iter([np.array([0, flag, 1], np.int8)]))


def test_runs_of_a_fragmented_guest_take_bounded_memory() -> None:
    pages, chunk = 1 << 21, 1 << 18
    flags = np.arange(chunk, dtype=np.int64).__and__(1).astype(np.int8)
    tracemalloc.start()
    try:
        runs = runs_from_flags(flags for _ in range(pages // chunk))
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert (len(runs), runs.pages_of(RunKind.PRESENT)) == (pages, pages // 2)
    # 25 bytes a run, as much again where an array moves to a larger place, and a chunk's.
    assert peak < 25 * pages * 2 + 100 * chunk


separate_runs = st.lists(
    st.tuples(st.integers(0, 5), st.integers(1, 9), st.sampled_from([0, 1, 2])), max_size=30
)


@given(described=separate_runs, cut=st.integers(0, 30), numpy=st.booleans())
def test_runs_from_arrays(described: list[tuple[int, int, int]], cut: int, numpy: bool) -> None:
    expected, first_gfns, lengths, kinds = Runs(), array("q"), array("q"), array("b")
    for gap, pages, kind in described:
        first_gfns.append(expected.end_gfn + gap)
        lengths.append(pages)
        kinds.append(kind)
        expected.append(first_gfns[-1], pages, RunKind(kind))

    def arrays(part: slice) -> tuple[array[int] | NDArray[np.int64], ...]:
        chosen = first_gfns[part], lengths[part], kinds[part]
        return tuple(np.array(each) for each in chosen) if numpy else chosen

    runs = Runs.from_arrays(*arrays(slice(0, cut)))
    runs.extend(*arrays(slice(cut, None)))
    check_same(runs, expected)


@pytest.mark.parametrize(
    ("first_gfns", "lengths", "kinds"),
    [
        ([0], [0], [0]),
        ([0], [-1], [0]),
        ([3], [1], [3]),
        ([3], [1], [-1]),
        ([1], [1], [0]),
        ([4, 5], [2, 1], [0, 0]),
        ([6, 4], [1, 1], [0, 0]),
        ([(1 << 63) - 1], [1], [0]),
        ([4, 5], [1], [0]),
        ([4], [1], [0, 0]),
    ],
)
def test_arrays_that_are_no_runs(first_gfns: list[int], lengths: list[int], kinds: list[int]) -> None:
    runs = Runs.from_arrays(array("q", [0]), array("q", [2]), array("b", [0]))
    with pytest.raises(ValueError, match="runs"):
        runs.extend(array("q", first_gfns), array("q", lengths), array("b", kinds))
    assert [tuple(run) for run in runs] == [(0, 2, RunKind.PRESENT)]

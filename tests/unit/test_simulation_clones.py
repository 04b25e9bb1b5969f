"""Clones that write to their memory, held against plain loops and against the closed form."""

from __future__ import annotations

import math
from fractions import Fraction

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import hvshare
from hvshare.errors import PresetError
from hvshare.simulation.clones import default_points, measure_clones
from hvshare.simulation.snapshot import CLUSTER_PAGES, FRAME_PAGES, PATTERNS, Pattern, Snapshot
from tests.guests import ZERO, MemoryImage, content
from tests.unit.test_simulation_maker import PAGES, Maker, expected, laboratory, page, request

patterns = st.sampled_from(PATTERNS)


def guest(pages: list[bytes | None], *, zero_runs: bool = True, gaps: bool = False) -> hvshare.Fingerprints:
    return hvshare.fingerprint_images([MemoryImage("guest", pages, zero_runs=zero_runs, gaps=gaps)])[0]


def unlike(numbers: int) -> list[bytes | None]:
    return [page("unlike", number) for number in range(numbers)]


def written(snapshot: Snapshot, count: int) -> list[set[int]]:
    """Tell which pages each clone has written, by what differs from what it was cloned from."""
    before = snapshot.clones(0)
    return [
        {at for at, (a, b) in enumerate(zip(old.digests, new.digests, strict=True)) if a != b}
        for old, new in zip(before, snapshot.clones(count), strict=True)
    ]


@given(st.lists(st.integers(0, 9), min_size=1, max_size=200), st.integers(1, 3), patterns, st.data())
@settings(max_examples=40, deadline=None)
def test_so_many_pages_are_written_and_those_of_fewer_are_among_them(
    numbers: list[int], vms: int, pattern: Pattern, data: st.DataObject
) -> None:
    snapshot = Snapshot(guest([content(number) for number in numbers]), vms, 1, pattern)
    more = data.draw(st.integers(0, len(numbers)))
    fewer = data.draw(st.integers(0, more))
    for of_more, of_fewer in zip(written(snapshot, more), written(snapshot, fewer), strict=True):
        assert len(of_more) == more
        assert len(of_fewer) == fewer
        assert of_fewer <= of_more
    digests = [int(d) for clone in snapshot.clones(len(numbers)) for d in clone.digests]
    assert len(set(digests)) == len(digests)


@pytest.mark.parametrize("zero_runs", [False, True])
def test_clones_hold_what_the_guest_held(zero_runs: bool) -> None:
    pages: list[bytes | None] = [content(number % 5) for number in range(700)]
    snapshot = Snapshot(guest(pages, zero_runs=zero_runs), 3, 1)
    plain = guest(pages, zero_runs=False)
    for clone in snapshot.clones(0):
        assert clone.digests.tolist() == plain.digests.tolist()
        assert clone.runs == plain.runs


@pytest.mark.parametrize("gaps", [False, True])
def test_absent_pages_are_not_written(gaps: bool) -> None:
    pages = [None if number % 3 == 2 else content(number) for number in range(100)]
    snapshot = Snapshot(guest(pages, gaps=gaps), 2, 1)
    assert snapshot.pages == 67
    assert [each.runs.pages for each in snapshot.clones(5)] == [67, 67]


def test_seeds_and_clones_write_elsewhere() -> None:
    of_guest = guest(unlike(512))
    places = [frozenset(each) for seed in (1, 2) for each in written(Snapshot(of_guest, 3, seed), 50)]
    assert len(set(places)) == 6


def test_clustered_writes_fill_blocks() -> None:
    for of_clone in written(Snapshot(guest(unlike(2048)), 2, 1, "clustered"), 5 * CLUSTER_PAGES):
        assert len({place // CLUSTER_PAGES for place in of_clone}) == 5


def held_by_another(places: list[set[int]], frames: int) -> int:
    """Count frames of clones that another clone holds at the same place, one by one."""
    touched = [{place // FRAME_PAGES for place in of_clone} for of_clone in places]
    return sum(
        frame not in touched[vm]
        and any(frame not in touched[other] for other in range(len(touched)) if other != vm)
        for vm in range(len(touched))
        for frame in range(frames)
    )


@pytest.mark.parametrize("pattern", PATTERNS)
@pytest.mark.parametrize("vms", [1, 2, 4])
@pytest.mark.parametrize("end", [0, 100])
def test_shared_frames_and_when_they_are_lost(pattern: Pattern, vms: int, end: int) -> None:
    frames = 6
    snapshot = Snapshot(guest(unlike(frames * FRAME_PAGES + end)), vms, 3, pattern)
    losses = snapshot.losses().tolist()
    assert len(losses) == (frames * vms if vms > 1 else 0)
    for count in (0, 1, 2, 3, 5, 8, 13, 40, 400, snapshot.pages):
        shared, of_all = snapshot.shared_frames(snapshot.clones(count))
        assert of_all == frames * vms
        assert shared == held_by_another(written(snapshot, count), frames)
        assert shared == sum(loss > count for loss in losses)


def test_zero_frames_are_told_by_place() -> None:
    snapshot = Snapshot(guest([ZERO] * (3 * FRAME_PAGES)), 2, 1)
    places = written(snapshot, 1)
    assert snapshot.shared_frames(snapshot.clones(1))[0] == held_by_another(places, 3)


def test_the_experiment() -> None:
    maker = Maker()
    asked = request(prefetch="off", vm=1)
    found = measure_clones(laboratory(maker, 4, (1, 2, 3)), asked, scale=Fraction(1, 16))
    assert not maker.open
    assert [(each.template, each.vm) for each in maker.asked] == [(1, 1), (2, 1), (3, 1)]
    assert [point.pages_written for point in found.points] == default_points(PAGES)
    first, last = found.points[0], found.points[-1]
    assert first.shared_frames.mean == first.expected_frames == 1
    assert first.saved_large.lowest >= 3 / 4
    assert (last.saved_small.mean, last.saved_large.mean, last.shared_frames.mean) == (0, 0, 0)
    assert last.expected_frames == 0
    for before, after in zip(found.points, found.points[1:], strict=False):
        assert after.saved_small.mean <= before.saved_small.mean
        assert after.shared_frames.mean <= before.shared_frames.mean
    assert "written-is-unique" in {caveat.code for caveat in found.caveats}
    alone = expected(asked, 1, 1)["saved"]
    assert first.saved_small.mean > float(alone)


def test_the_half_life_is_where_half_is_lost() -> None:
    place = laboratory(Maker(), 3, (1, 2))
    asked = request(prefetch="off", memory_bytes=32 << 20)
    half = measure_clones(place, asked, scale=Fraction(1)).half_life_pages
    assert half is not None
    points = measure_clones(place, asked, scale=Fraction(1), points=[half - 1, half]).points
    assert points[0].shared_frames.mean > 0.5 >= points[1].shared_frames.mean


def test_uniform_writes_follow_the_closed_form() -> None:
    # Each clone of each seed draws its places independently: the standard error is that of the seeds' mean.
    place = laboratory(Maker(), 3, tuple(range(1, 25)))
    found = measure_clones(place, request(memory_bytes=16 << 20), scale=Fraction(1), points=[4, 8, 16])
    for point in found.points:
        assert point.shared_frames.deviation is not None
        assert point.expected_frames is not None
        error = point.shared_frames.deviation / math.sqrt(24)
        assert error > 0
        assert abs(point.shared_frames.mean - point.expected_frames) < 4 * error


def test_clustered_writes_spare_frames_and_have_no_closed_form() -> None:
    place = laboratory(Maker(), 2, (1, 2))
    asked = request(memory_bytes=32 << 20)
    by_pattern = [
        measure_clones(place, asked, scale=Fraction(1), points=[64], pattern=pattern) for pattern in PATTERNS
    ]
    uniform, clustered = by_pattern[0].points[0], by_pattern[1].points[0]
    assert clustered.shared_frames.mean > uniform.shared_frames.mean
    assert clustered.expected_frames is None
    assert clustered.saved_small.mean == pytest.approx(uniform.saved_small.mean, abs=0.02)


def test_one_clone_has_no_half_life() -> None:
    found = measure_clones(laboratory(Maker(), 1, (1,)), request(), scale=Fraction(1), points=[0, 5])
    assert found.half_life_pages is None
    assert [point.shared_frames.mean for point in found.points] == [0, 0]
    assert [point.expected_frames for point in found.points] == [0, 0]


def test_more_than_all_pages_cannot_be_written() -> None:
    with pytest.raises(PresetError, match="1,025 pages cannot be written in a guest that has 1,024"):
        measure_clones(laboratory(Maker()), request(), scale=Fraction(1), points=[PAGES + 1])

"""Large pages held against exhaustive search over raw bytes, which knows neither numpy nor xxhash."""

from __future__ import annotations

import itertools
import random
from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from typing import NamedTuple

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import hvshare
from hvshare.erosion import large_curve, large_links
from hvshare.erosion.large_curve import BreakCurve, break_curve
from hvshare.erosion.large_frames import collect_large_frames
from hvshare.erosion.large_links import Links, link_frames
from hvshare.erosion.large_orders import Order, gains_in_order, greedy_order, peeled_order, static_order
from hvshare.erosion.large_pages import (
    LADDER_SIZES,
    find_knee,
    find_target,
    large_pages_caveats,
    measure_large_pages,
)
from hvshare.erosion.large_pages_result import BreakPoint, LargePages
from hvshare.fingerprint.fingerprints import Fingerprints
from hvshare.fingerprint.pages import ZERO_DIGEST
from hvshare.images.runs import RunKind, Runs
from tests.guests import ZERO, MemoryImage, content, vms_with_gaps
from tests.oracle import PAGE, Vm, count

Frame = tuple[bytes, ...]


class Broken(NamedTuple):
    """Frames of raw pages, and what breaking them saves, by exhaustion."""

    copies: Counter[Frame]
    outside: list[bytes]

    @classmethod
    def of(cls, vms: Sequence[Vm], pages: int) -> Broken:
        copies: Counter[Frame] = Counter()
        outside: list[bytes] = []
        for vm in vms:
            for start in range(0, len(vm), pages):
                known = tuple(page for page in vm[start : start + pages] if page is not None)
                if len(known) == pages:
                    copies[known] += 1
                else:
                    outside += known
        return cls(copies, outside)

    def best(self) -> Iterator[int]:
        """Pages that the best set of k frames saves beyond none, for k from 0 on."""
        for size in range(len(self.copies) + 1):
            yield max(self.saved(frames) for frames in itertools.combinations(self.copies, size))

    def saved(self, frames: Sequence[Frame]) -> int:
        kept = {page for frame in frames for page in frame} - set(self.outside)
        return sum(map(len, frames)) - len(kept)


def curve_of(vms: Sequence[Vm], pages: int, *, gaps: bool = False) -> tuple[BreakCurve, int, int, int]:
    """Give the curve, and in pages what is saved whole, outside pages and what these save."""
    images = [MemoryImage(str(number), vm, zero_runs=gaps, gaps=gaps) for number, vm in enumerate(vms)]
    frames = collect_large_frames(hvshare.fingerprint_images(list(images), jobs=1), PAGE * pages)
    curve = break_curve(link_frames(frames.contents, frames.outside), frames.copies)
    whole = (frames.frames - len(frames.copies)) * pages
    return curve, whole, frames.outside_pages, frames.outside_pages - len(frames.outside)


def oracle_saved(vms: Sequence[Vm], pages: int) -> int:
    counts = count(vms, pages)
    return counts["frames"] - counts["distinct"]


@given(st.lists(vms_with_gaps, min_size=1, max_size=3), st.sampled_from([2, 4, 8]), st.booleans())
@settings(max_examples=60, deadline=None)
def test_curve_starts_at_large_savings_and_ends_at_those_of_pages(
    vms: list[list[bytes | None]], pages: int, gaps: bool
) -> None:
    curve, whole, outside_pages, outside = curve_of(vms, pages, gaps=gaps)
    broken = Broken.of(vms, pages)
    assert whole == oracle_saved(vms, pages) * pages
    assert whole + outside + curve.saved[-1] == oracle_saved(vms, 1)
    assert (outside_pages, outside) == (len(broken.outside), len(broken.outside) - len(set(broken.outside)))
    assert len(curve.saved) == len(broken.copies) + 1
    assert curve.mappings[0] == 0
    assert curve.mappings[-1] == sum(broken.copies.values())
    assert (np.diff(curve.saved) >= 0).all()


few_contents = st.lists(st.integers(0, 9).map(content), min_size=1, max_size=24)


@given(st.lists(few_contents, min_size=1, max_size=2), st.sampled_from([2, 4, 8]))
@settings(max_examples=60, deadline=None)
def test_exhaustive_search_lies_between_the_curve_and_its_bound(vms: list[list[bytes]], pages: int) -> None:
    broken = Broken.of(vms, pages)
    if len(broken.copies) > 9:
        return
    curve, *_ = curve_of(vms, pages)
    for found, best, most in zip(curve.saved, broken.best(), curve.most, strict=True):
        assert found <= best <= most


def small_pools() -> Iterator[tuple[int, list[list[int]], set[int]]]:
    """Give all pools of three frames of two pages and four contents, and others at random."""
    frames = list(itertools.combinations_with_replacement(range(4), 2))
    for chosen in itertools.combinations_with_replacement(frames, 3):
        yield 2, [list(frame) for frame in chosen], set()
    draw = random.Random(5)  # noqa: S311
    for _ in range(250):
        pages, contents = draw.choice([2, 4, 8]), draw.choice([4, 8, 20, 40])
        weights = [draw.random() ** 3 for _ in range(contents)]
        rows = [draw.choices(range(contents), weights, k=pages) for _ in range(draw.randint(1, 7))]
        yield pages, rows, set(draw.sample(range(contents), draw.choice([0, 0, 2])))


def links_of(rows: Sequence[Sequence[int]], outside: Collection[int] = ()) -> Links:
    return link_frames(np.array(rows, np.uint64), np.array(sorted(outside), np.uint64))


def saved_by(rows: Sequence[Sequence[int]], outside: set[int]) -> int:
    return sum(map(len, rows)) - len({content for row in rows for content in row} - outside)


def test_curve_equals_exhaustive_search_on_small_pools() -> None:
    static_is_worse = 0
    for pages, rows, outside in small_pools():
        links = links_of(rows, outside)
        curve = break_curve(links, np.ones(len(rows), np.int64))
        best = [
            max(saved_by(chosen, outside) for chosen in itertools.combinations(rows, size))
            for size in range(len(rows) + 1)
        ]
        assert curve.saved.tolist() == best, (pages, rows, outside)
        assert all(found <= most for found, most in zip(best, curve.most.tolist(), strict=True))
        static_is_worse += np.concatenate(([0], np.cumsum(static_order(links).gains))).tolist() != best
    assert static_is_worse > 100


def test_counting_again_beats_a_static_order() -> None:
    # Frame 0 shares three contents, each with another frame, so it has the best score; and yet nothing is
    # saved before those are broken as well, whereas frames 4 and 5 save three together.
    rows = [
        [1, 2, 3, 4],
        [1, 11, 12, 13],
        [2, 14, 15, 16],
        [3, 17, 18, 19],
        [20, 21, 22, 30],
        [20, 21, 22, 31],
    ]
    links = links_of(rows)
    assert np.cumsum(static_order(links).gains).tolist() == [0, 0, 3, 4, 5, 6]
    assert np.cumsum(greedy_order(links).gains).tolist() == [0, 1, 2, 3, 3, 6]
    assert break_curve(links, np.ones(6, np.int64)).saved.tolist() == [0, 0, 3, 3, 4, 5, 6]


pools = st.integers(1, 6).flatmap(
    lambda pages: st.lists(
        st.lists(st.integers(0, 20), min_size=pages, max_size=pages), min_size=1, max_size=12
    )
)


def exact_gains(rows: Sequence[Sequence[int]], outside: set[int], order: Sequence[int]) -> list[int]:
    kept, gains = set(outside), []
    for frame in order:
        gains.append(len(rows[frame]) - len(set(rows[frame]) - kept))
        kept |= set(rows[frame])
    return gains


@given(pools, st.sets(st.integers(0, 20), max_size=3))
def test_greedy_order_takes_what_saves_most_after_an_exact_recount(
    rows: list[list[int]], outside: set[int]
) -> None:
    order = greedy_order(links_of(rows, outside))
    kept, left = set(outside), set(range(len(rows)))
    for frame, gain in zip(order.frames.tolist(), order.gains.tolist(), strict=True):
        gains = {each: len(rows[each]) - len(set(rows[each]) - kept) for each in left}
        assert gain == gains[frame] == max(gains.values())
        assert frame == min(each for each in left if gains[each] == gain)
        left.remove(frame)
        kept |= set(rows[frame])
    assert not left


@given(pools, st.sets(st.integers(0, 20), max_size=3))
def test_gains_of_every_order_are_exact(rows: list[list[int]], outside: set[int]) -> None:
    links = links_of(rows, outside)
    loads = np.zeros(len(rows), np.int64)
    orders = [peeled_order(links, loads), peeled_order(links, loads), static_order(links)]
    orders.append(greedy_order(links, len(rows) - 1))
    orders.append(Order(np.arange(len(rows)), gains_in_order(links, np.arange(len(rows)))))
    for order in orders:
        assert sorted(order.frames.tolist()) == list(range(len(rows)))
        assert order.gains.tolist() == exact_gains(rows, outside, order.frames.tolist())
    total = np.zeros(len(rows), np.int64)
    for order in orders[:2]:
        total[order.frames] += order.gains
    assert loads.tolist() == total.tolist()


@given(pools, st.sets(st.integers(0, 20), max_size=3))
def test_links_by_range_are_the_same(rows: list[list[int]], outside: set[int]) -> None:
    # Multiplied, so that the digests lie in all ranges.
    spread = [[content * 0x0B5AD4ECEDA1CE2A % 2**64 for content in row] for row in rows]
    apart = {content * 0x0B5AD4ECEDA1CE2A % 2**64 for content in outside}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(large_links, "_RANGE_DIGESTS", 2)
        several = links_of(spread, apart)
    for links in (several, links_of(spread, apart)):
        holders = Counter(content for row in spread for content in set(row) if content not in apart)
        linked = {content for content, frames in holders.items() if frames > 1}
        sizes = np.diff(links.content_starts).tolist()
        assert sorted(sizes) == sorted(holders[content] for content in linked)
        assert links.own_gain.tolist() == [len(row) - len(set(row) - apart) for row in spread]
        for frame, row in enumerate(spread):
            held = links.held_by(frame)
            assert len(held) == len(set(row) & linked)
            assert all(frame in links.holders_of(held[at : at + 1]) for at in range(len(held)))


def test_large_pools_take_fewer_rounds_and_keep_the_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(large_curve, "_STEPS", 1)
    draw = random.Random(3)  # noqa: S311
    rows = [draw.choices(range(60), k=8) for _ in range(40)]
    curve = break_curve(links_of(rows), np.ones(40, np.int64))
    assert (curve.saved <= curve.most).all()
    assert curve.saved[-1] == curve.most[-1] == saved_by(rows, set())


def test_identical_frames_are_broken_together() -> None:
    shared, alone = [content(1), content(1), content(2), content(3)], [content(2), content(4)] * 2
    curve, whole, *_ = curve_of([shared * 3 + [ZERO] * 8, shared + alone], 4)
    assert whole == 4 * 4
    # One zero page stays of a zero frame; two of the four pages of each other frame are left, less content 2.
    assert curve.saved.tolist() == [0, 3, 5, 7]
    assert curve.mappings.tolist() == [0, 2, 3, 7]
    assert curve.most.tolist() == curve.saved.tolist()


def test_knee_and_targets() -> None:
    points = [BreakPoint(k, 2 * k, saved, saved + 1) for k, saved in enumerate([100, 160, 190, 195, 200])]
    knee = find_knee(points)
    assert (knee.broken_frames, knee.broken_mappings, knee.saved_bytes, knee.distance) == (2, 4, 190, 0.4)
    assert find_target(points, 100).broken_frames == 0
    reached = find_target(points, 191)
    assert (reached.broken_frames, reached.broken_mappings, reached.saved_bytes) == (3, 6, 195)
    assert reached.least_broken_frames == 2
    assert (reached.without_breaking_bytes, reached.reachable_bytes) == (100, 200)
    missed = find_target(points, 300)
    assert (missed.broken_frames, missed.saved_bytes, missed.least_broken_frames) == (None, None, None)


def test_a_curve_below_its_chord_has_its_knee_at_the_start() -> None:
    points = [BreakPoint(k, k, saved, saved) for k, saved in enumerate([0, 0, 1, 10])]
    assert (find_knee(points).broken_frames, find_knee(points).distance) == (0, 0.0)
    flat = [BreakPoint(0, 0, 5, 5)]
    assert (find_knee(flat).broken_frames, find_knee(flat).distance) == (0, 0.0)


def digests_of(name: str, parts: Sequence[tuple[int, RunKind, Sequence[int]]]) -> Fingerprints:
    """Make fingerprints out of runs: first page, kind, and a number a page that stands for its digest."""
    runs, digests = Runs(), []
    for first, kind, pages in parts:
        runs.append(first, len(pages), kind)
        digests += list(pages) if kind is RunKind.PRESENT else []
    return Fingerprints(name, f"/{name}", "memory", runs, np.array(digests, np.uint64))


def two_guests() -> list[Fingerprints]:
    zero = [ZERO_DIGEST] * 512
    code, heap = list(range(1, 513)), list(range(1000, 1500)) + [ZERO_DIGEST] * 12
    nearly = list(range(2000, 2010)) + [ZERO_DIGEST] * 502
    return [
        digests_of("web", [(0, RunKind.PRESENT, zero + code + heap), (3 * 512, RunKind.PRESENT, [5] * 100)]),
        digests_of(
            "db",
            [
                (0, RunKind.ZERO, zero * 2),
                (2 * 512, RunKind.PRESENT, code + code[:256] + heap[:256] + nearly),
                (5 * 512, RunKind.ABSENT, [0] * 512),
                (6 * 512 + 7, RunKind.PRESENT, [9000, 9001]),
            ],
        ),
    ]


def section(target: int | None = None) -> LargePages:
    return measure_large_pages(two_guests(), target_bytes=target)


def test_section_of_two_guests() -> None:
    found = section(target=6 << 20)
    assert tuple(found.ladder) == LADDER_SIZES
    pages, large = found.ladder[PAGE], found.ladder[2 << 20]
    assert (found.frames, found.distinct_frames, found.outside_pages) == (8, 5, 102)
    first, second, *_, last = found.curve
    assert first == BreakPoint(0, 0, large.saved_bytes, large.saved_bytes)
    # The 100 pages of content 5 at the end of the first guest save 99 among themselves.
    assert found.outside_saved_bytes == 99 * PAGE
    assert second == BreakPoint(0, 0, first.saved_bytes + 99 * PAGE, first.saved_bytes + 99 * PAGE)
    assert last == BreakPoint(5, 8, pages.saved_bytes, pages.saved_bytes)
    assert found.lost_bytes == pages.saved_bytes - second.saved_bytes
    assert [policy.broken_frames for policy in found.policies][::3] == [0, 5]
    assert found.target is not None
    assert found.target.without_breaking_bytes == second.saved_bytes


def test_zero_frame_in_a_hole_is_one_of_the_distinct_frames() -> None:
    guests = [digests_of("hole", [(0, RunKind.ZERO, [0] * 1024), (1024, RunKind.PRESENT, range(1, 513))])]
    found = measure_large_pages(guests)
    assert (found.frames, found.distinct_frames) == (3, 2)
    assert [point.saved_bytes // PAGE for point in found.curve] == [512, 512 + 511, 512 + 511]
    assert [point.broken_mappings for point in found.curve] == [0, 2, 3]


def test_bloat_counts_frames_by_pages_that_hold_anything() -> None:
    bloat = section().bloat
    # Three frames are zero, one holds ten pages, the heap 500; the code, twice, and a mixed frame are full.
    expected = {0: (3, 3 * 512), 8: (0, 0), 64: (1, 502), 256: (0, 0), 511: (1, 12), 512: (3, 0)}
    assert {each.most: (each.frames, each.zero_bytes // PAGE) for each in bloat.bins} == expected
    assert (bloat.nearly_empty_frames, bloat.nearly_empty_zero_bytes) == (1, 502 * PAGE)
    assert (bloat.frames, bloat.zero_bytes) == (2, 514 * PAGE)


def test_policies_pay_a_table_for_each_mapping() -> None:
    found = section()
    nothing, _, repeats, everything = found.policies
    assert nothing.tables == found.price.before
    assert everything.tables == found.price.after
    assert everything.tables.table_bytes - nothing.tables.table_bytes == 8 * PAGE
    assert everything.tables.small_entries == 8 * 512 + 102
    assert everything.tables.large_entries == 0
    assert everything.net_saved_bytes == everything.saved_bytes - 8 * PAGE
    assert repeats.saved_bytes == everything.saved_bytes


def test_huge_frames_are_counted_where_a_guest_has_one() -> None:
    guest = digests_of(
        "big", [(0, RunKind.PRESENT, range(1, 513)), (512, RunKind.ZERO, range((1 << 19) - 512))]
    )
    found = measure_large_pages([guest])
    assert list(found.ladder) == [*LADDER_SIZES, 1 << 30]
    assert (found.ladder[1 << 30].frames, found.ladder[1 << 30].zero) == (2, 1)


def test_guests_without_whole_large_frames() -> None:
    found = measure_large_pages([digests_of("small", [(3, RunKind.PRESENT, [1, 1, 2])])], target_bytes=PAGE)
    assert found.curve == (BreakPoint(0, 0, 0, 0), BreakPoint(0, 0, PAGE, PAGE))
    assert (found.knee.broken_frames, found.lost_bytes) == (0, 0)
    assert found.target is not None
    assert found.target.broken_frames == 0
    assert large_pages_caveats(found) == ()


def test_what_is_not_proven_is_told() -> None:
    draw = random.Random(8)  # noqa: S311
    pages = draw.choices(range(1, 3000), k=12 * 512)
    found = measure_large_pages([digests_of("mixed", [(0, RunKind.PRESENT, pages)])])
    codes = [caveat.code for caveat in large_pages_caveats(found)]
    unproven = any(point.saved_bytes < point.most_saved_bytes for point in found.curve)
    assert codes == [*(["break-order-bounded"] if unproven else []), "page-tables-modelled"]
    assert unproven


def test_the_last_digest_of_a_range_is_in_it() -> None:
    last = 2**64 - 1
    links = links_of([[1, last], [2, last]], {last})
    assert links.own_gain.tolist() == [1, 1]
    assert links.contents == 0

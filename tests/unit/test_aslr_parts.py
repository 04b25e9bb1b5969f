"""The parts of the search for what ASLR takes away, each against the same done word by word."""

from __future__ import annotations

import itertools
from collections import Counter, defaultdict
from functools import partial
from typing import NamedTuple

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from hvshare.erosion import aslr_moves, aslr_stays, aslr_twins
from hvshare.erosion.aslr_classes import in_company, join_classes
from hvshare.erosion.aslr_constants import list_constants
from hvshare.erosion.aslr_contents import sorted_unique
from hvshare.erosion.aslr_displaced import Displaced, displaced_candidates, overlaps
from hvshare.erosion.aslr_drifts import judge
from hvshare.erosion.aslr_keys import KeySet
from hvshare.erosion.aslr_moves import Moves, find_moves, screen
from hvshare.erosion.aslr_parts import collect
from hvshare.erosion.aslr_remainder import is_page_table
from hvshare.erosion.aslr_sketches import best_of_each, candidates, pairs_in_groups
from hvshare.erosion.aslr_slides import Votes, count_groups, fewer_pages, gather
from hvshare.erosion.aslr_spaces import Areas
from hvshare.erosion.aslr_stays import count_stays
from hvshare.erosion.aslr_twins import Explained, SlideTable, explain
from hvshare.erosion.aslr_words import (
    first_of_each,
    is_canonical,
    is_in,
    mix,
    moved_words,
    opens_group,
    positions,
)
from tests.aslr_guests import array, numbers, stored, to_page, votes_of
from tests.oracle import PAGE

U64 = (1 << 64) - 1
ADDRESS = (1 << 48) - 1
KERNEL = 0xFFFF_8880_0000_0000
TEXT = 0xFFFF_FFFF_8100_0000
USER = 0x7F12_3440_0000

words = st.one_of(
    st.integers(0, U64),
    st.integers(0, 1 << 24),
    st.integers(0, 3).map(lambda page: USER + page * PAGE),
    st.integers(0, 3).map(lambda page: KERNEL + page * PAGE + 16),
    st.sampled_from(
        [
            (1 << 16) - 1,
            1 << 16,
            (1 << 21) - 1,
            1 << 21,
            (1 << 47) - 1,
            1 << 47,
            U64 - (1 << 47),
            U64 - (1 << 47) + 1,
        ]
    ),
)


def pair_numbers(most: int, size: int) -> st.SearchStrategy[list[tuple[int, int]]]:
    return st.lists(st.tuples(st.integers(0, most - 1), st.integers(0, most - 1)), max_size=size)


def canonical(word: int) -> bool:
    return word >= 1 << 21 and (word >> 47 in {0, (1 << 17) - 1})


def moved(word: int, twin: int) -> bool:
    return (
        word != twin
        and (twin - word) % PAGE == 0
        and word >> 48 == twin >> 48
        and (word & ADDRESS) >= (1 << 16)
    )


@given(st.lists(st.tuples(words, words, words), min_size=1, max_size=20))
def test_mix_is_the_same_in_integers_of_any_length(rows: list[tuple[int, int, int]]) -> None:
    expected = []
    for row in rows:
        key = 0
        for each in row:
            key = ((key ^ each) * 0x9E37_79B9_7F4A_7C15) & U64
            key ^= key >> 29
        expected.append(key)
    assert mix(*(array(column) for column in zip(*rows, strict=True))).tolist() == expected
    assert len(set(expected)) == len(set(rows))


@given(st.lists(words, max_size=20), st.lists(words, max_size=20))
def test_keys_are_found_in_sets_of_them(keys: list[int], some: list[int]) -> None:
    expected = [key in set(some) for key in keys]
    ordered = array(sorted(some))
    assert is_in(array(keys), ordered).tolist() == expected
    assert KeySet(ordered).has(array(keys)).tolist() == expected


@given(st.lists(st.integers(0, 63), max_size=60), st.integers(0, 58))
def test_keys_that_crowd_together_are_found_too(some: list[int], shift: int) -> None:
    keys = KeySet(array(sorted(each << shift for each in some)))
    asked = [each << shift for each in range(64)]
    assert keys.has(array(asked)).tolist() == [each >> shift in some for each in asked]


@given(st.lists(st.tuples(words, words), max_size=20))
def test_words_are_told_as_integers_are(pairs: list[tuple[int, int]]) -> None:
    ones, others = array([one for one, _ in pairs]), array([other for _, other in pairs])
    assert is_canonical(ones).tolist() == [canonical(one) for one, _ in pairs]
    assert moved_words(ones, others).tolist() == [moved(one, other) for one, other in pairs]


@given(st.lists(st.lists(st.booleans(), min_size=3, max_size=3), max_size=6))
def test_positions_are_those_of_numpy(table: list[list[bool]]) -> None:
    mask = np.array(table, bool).reshape(-1, 3)
    assert [each.tolist() for each in positions(mask)] == [each.tolist() for each in np.nonzero(mask)]


@given(st.lists(st.integers(0, 5), max_size=20))
def test_groups_open_and_are_counted_once(values: list[int]) -> None:
    ordered = sorted(values)
    opens = [not at or ordered[at] != ordered[at - 1] for at in range(len(ordered))]
    assert opens_group(array(ordered)).tolist() == opens
    assert array(values)[first_of_each(array(values))].tolist() == sorted(set(values))
    assert sorted_unique(numbers(values)).tolist() == sorted(set(values))
    groups, rows = count_groups(array(values))
    assert [values[row] for row in rows.tolist()] == sorted(set(values))
    assert [values[rows[group]] for group in groups.tolist()] == values


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 4), st.integers(0, 4)), max_size=30))
def test_fewer_pages_are_the_smaller_of_two_sets(rows: list[tuple[int, int, int]]) -> None:
    sides: dict[int, tuple[set[int], set[int]]] = defaultdict(lambda: (set(), set()))
    for group, first, second in rows:
        sides[group][0].add(first)
        sides[group][1].add(second)
    count = max((group for group, *_ in rows), default=-1) + 1
    columns = (numbers([row[at] for row in rows]) for at in range(3))
    assert fewer_pages(*columns).tolist() == [min(map(len, sides[group])) for group in range(count)]


class Columns(NamedTuple):
    number: NDArray[np.int64]
    square: NDArray[np.int64]


def some_columns(number: int) -> Columns:
    values = np.arange(number, number + number % 3)
    return Columns(values, values**2)


@pytest.mark.parametrize("tasks", [0, 1, 7, 40])
@pytest.mark.parametrize("jobs", [1, 2, 5])
def test_parts_come_in_the_order_of_tasks(tasks: int, jobs: int) -> None:
    empty = Columns(np.empty(0, np.int64), np.empty(0, np.int64))
    done: list[int] = []
    found = collect([partial(some_columns, each) for each in range(tasks)], empty, jobs, done.append)
    expected = [value for each in range(tasks) for value in range(each, each + each % 3)]
    assert found.number.tolist() == expected
    assert found.square.tolist() == [value**2 for value in expected]
    assert isinstance(found, Columns)
    assert sum(done) >= tasks


class UnionFind:
    def __init__(self, count: int) -> None:
        self.parent = list(range(count))

    def find(self, member: int) -> int:
        while self.parent[member] != member:
            member = self.parent[member]
        return member

    def union(self, one: int, other: int) -> None:
        low, high = sorted((self.find(one), self.find(other)))
        self.parent[high] = low


@given(pair_numbers(60, 60), pair_numbers(60, 20))
def test_joined_classes_are_those_of_a_union_find(
    first: list[tuple[int, int]], second: list[tuple[int, int]]
) -> None:
    plain, classes = UnionFind(60), np.arange(60)
    for pairs in (first, second):
        ones, others = (numbers([pair[side] for pair in pairs]) for side in (0, 1))
        classes = join_classes(classes, ones, others)
        for pair in pairs:
            plain.union(*pair)
        expected = [plain.find(member) for member in range(60)]
        assert classes.tolist() == expected
        assert in_company(classes).tolist() == [expected.count(each) > 1 for each in expected]


def test_a_chain_of_any_length_is_one_class() -> None:
    order = np.random.default_rng(1).permutation(5000)
    assert not join_classes(np.arange(5000), order[1:], order[:-1]).any()


pages = st.one_of(st.none(), st.integers(0, 6).map(lambda number: to_page([number])))
vms_of_few_contents = st.lists(st.lists(pages, min_size=1, max_size=12), min_size=1, max_size=4)


@given(vms_of_few_contents)
def test_contents_are_who_holds_what(vms: list[list[bytes | None]]) -> None:
    with stored(vms) as (_, contents):
        held: dict[bytes, dict[int, list[int]]] = {}
        for vm, guest in enumerate(vms):
            present = [page for page in guest if page is not None]
            for position, page in enumerate(present):
                if any(page):
                    held.setdefault(page, {}).setdefault(vm, []).append(position)
        assert contents.vms == len(vms)
        assert len(contents) == len(held)
        assert contents.first_vm.tolist() == [min(each) for each in held.values()]
        assert contents.last_vm.tolist() == [max(each) for each in held.values()]
        assert contents.first_position.tolist() == [each[min(each)][0] for each in held.values()]
        assert contents.pages.tolist() == [sum(map(len, each.values())) for each in held.values()]
        rows = zip(
            contents.held.tolist(), contents.held_by.tolist(), contents.held_copies.tolist(), strict=True
        )
        assert list(rows) == [
            (number, vm, len(each[vm])) for number, each in enumerate(held.values()) for vm in sorted(each)
        ]


@given(vms_of_few_contents, pair_numbers(6, 6))
def test_pairs_are_compared_within_a_vm_where_that_can_be(
    vms: list[list[bytes | None]], pairs: list[tuple[int, int]]
) -> None:
    with stored(vms) as (_, contents):
        if not len(contents):
            return
        ends = list(zip(contents.first_vm.tolist(), contents.last_vm.tolist(), strict=True))
        ones, others = (numbers([pair[side] % len(contents) for pair in pairs]) for side in (0, 1))
        first, second, spaces = contents.spaces(ones, others)
        for one, other, low, high, space in zip(
            ones.tolist(), others.tolist(), first.tolist(), second.tolist(), spaces.tolist(), strict=True
        ):
            assert {low, high} == {one, other}
            of_low, of_high = divmod(space, len(vms))
            assert of_low <= of_high
            assert of_low in ends[low]
            assert of_high in ends[high]
            assert (of_low == of_high) == bool(set(ends[one]) & set(ends[other]))


@given(st.lists(st.integers(0, 6), max_size=30), st.integers(2, 6), st.integers(0, 12))
def test_pairs_in_groups_are_all_pairs_of_small_groups(values: list[int], most: int, most_pairs: int) -> None:
    ordered = sorted(values)
    taken, expected = 0, set()
    for value, size in sorted(Counter(values).items()):
        if 1 < size <= most:
            taken += size * (size - 1) // 2
            if taken > most_pairs:
                break
            start = ordered.index(value)
            expected |= set(itertools.combinations(range(start, start + size), 2))
    found = [
        pair
        for one, other in pairs_in_groups(array(ordered), most, most_pairs)
        for pair in zip(one.tolist(), other.tolist(), strict=True)
    ]
    assert len(found) == len(set(found))
    assert set(found) == expected


@given(
    st.lists(st.tuples(st.integers(0, 4), st.integers(0, 4), st.integers(0, 3)), max_size=25),
    st.integers(1, 3),
)
def test_best_of_each_are_the_best_on_either_side(rows: list[tuple[int, int, int]], most: int) -> None:
    chosen = set()
    for side in (0, 1):
        for page in range(5):
            of_page = [at for at, row in enumerate(rows) if row[side] == page]
            chosen |= set(sorted(of_page, key=lambda at: -rows[at][2])[:most])
    first, second, scores = (numbers([row[at] for row in rows]) for at in range(3))
    assert np.flatnonzero(best_of_each(first, second, scores, most)).tolist() == sorted(chosen)


def test_candidates_are_alike_but_for_whole_pages() -> None:
    random = np.random.default_rng(2)
    content = random.integers(1, 1 << 64, (30, 512), dtype=np.uint64)
    apart = content + (random.integers(0, 2, content.shape).astype(np.uint64) << np.uint64(12))
    others = random.integers(1, 1 << 64, (30, 512), dtype=np.uint64)
    with stored([[page.tobytes() for page in np.concatenate((content, apart, others))]]) as (store, _):
        one, other = candidates(store, 1)
    assert list(zip(one.tolist(), other.tolist(), strict=True)) == [(page, page + 30) for page in range(30)]


few_words = st.lists(words, min_size=1, max_size=5)


@given(few_words, few_words, st.integers(0, 450), st.integers(0, 500))
@settings(max_examples=60)
def test_screening_counts_words_that_did_not_move_by_pages(
    one: list[int], other: list[int], others: int, at: int
) -> None:
    content = np.arange(512, dtype=np.uint64)
    first, second = content.copy(), content.copy()
    first[: len(one)], second[: len(other)] = one, other
    second[at % 512 :][:others] += np.uint64(1)
    if (first == second).all():
        return
    expected = sum((b - a) % PAGE != 0 for a, b in zip(first.tolist(), second.tolist(), strict=True))
    with stored([[first.tobytes(), second.tobytes()]]) as (store, contents):
        if len(contents) < 2:
            return
        chosen, counts = screen(store, numbers([0]), numbers([1]), 1)
    assert (chosen.tolist(), counts.tolist()) == (([0], [expected]) if expected <= 400 else ([], []))


@pytest.mark.parametrize("seed", range(4))
def test_of_pairs_that_differ_in_much_the_best_of_each_page_are_kept(seed: int) -> None:
    random = np.random.default_rng(seed)
    # Six pages to be paired with six others; the odd ones differ in much.
    changed = random.random((12, 512)) < np.tile([0.01, 0.3], 6)[:, None]
    raised = changed.astype(np.uint64) + np.uint64(1)
    raised[:, 511] = np.arange(12, dtype=np.uint64) * np.uint64(PAGE)
    differ = (changed[:, None, :511] != changed[None, :, :511]).sum(axis=2)
    pairs = list(itertools.product(range(6), range(6, 12)))
    others = [int(differ[pair]) for pair in pairs]
    expected = {at for at, count in enumerate(others) if count <= 32}
    for side, page in itertools.product((0, 1), range(12)):
        far = [at for at, pair in enumerate(pairs) if pair[side] == page and 32 < others[at] <= 400]
        expected |= set(sorted(far, key=others.__getitem__)[:2])
    with stored([[page.tobytes() for page in raised]]) as (store, _):
        first, second = (numbers([pair[side] for pair in pairs]) for side in (0, 1))
        chosen, counts = screen(store, first, second, 1)
    assert 0 < len(expected) < len(pairs)
    assert chosen.tolist() == sorted(expected)
    assert counts.tolist() == [others[at] for at in sorted(expected)]


@given(st.lists(st.tuples(words, words), min_size=1, max_size=12), st.booleans())
@settings(max_examples=150)
def test_moves_are_what_pairs_say_with_one_voice(rows: list[tuple[int, int]], stays: bool) -> None:
    if stays:
        rows = [*rows, (USER + 8 * PAGE, USER + 8 * PAGE)]
    first, second = to_page([1, *(one for one, _ in rows)]), to_page([1, *(other for _, other in rows)])
    if first == second:
        return
    expected, near, stayed = set(), set(), set()
    for one, other in rows:
        if moved(one, other):
            expected.add(((one & ADDRESS) >> 12, ((other - one) & ADDRESS) >> 12))
            near.add((one & ADDRESS) >> 16)
        elif one == other and canonical(one):
            stayed.add((one & ADDRESS) >> 16)
    torn = bool(near & stayed)
    with stored([[first], [second]]) as (store, _):
        found = find_moves(store, numbers([0]), numbers([1]), numbers([3]), 1)
        assert not len(find_moves(store, numbers([0]), numbers([1]), numbers([33]), 1).pairs)
    places = zip(found.places.tolist(), found.distances.tolist(), strict=True)
    assert sorted(places) == ([] if torn else sorted(expected))
    assert found.torn.tolist() == ([0] if torn else [])
    assert not found.pairs.any()


@given(
    st.lists(
        st.tuples(
            st.integers(0, 5), st.sampled_from([0, 1, 511, 512]), st.sampled_from([1, 2, (1 << 36) - 1])
        ),
        max_size=20,
    )
)
def test_votes_are_pages_that_bear_a_distance_out(rows: list[tuple[int, int, int]]) -> None:
    # Pairs of pages: (0, 6), (1, 7) and so on within the VM 0, and between VMs 0 and 1, in turn.
    first, second = np.arange(6), np.array([6, 7, 8, 8, 9, 9])
    spaces = np.array([0, 1, 0, 1, 1, 1])
    rows = sorted(set(rows))
    moves = Moves(
        numbers([pair for pair, *_ in rows]),
        array([USER // PAGE + place for _, place, _ in rows]),
        array([distance for *_, distance in rows]),
        numbers([]),
    )
    spoken = []
    for pair, place, distance in rows:
        at = USER // PAGE + place
        one, other, space = int(first[pair]), int(second[pair]), int(spaces[pair])
        spoken.append((space, at, distance, one, other))
        if space == 0:
            reverse = (1 << 36) - distance
            spoken.append((space, (at + distance) % (1 << 36), reverse, other, one))

    def fewer(rows: list[tuple[int, int, int, int, int]]) -> int:
        return min(len({row[3] for row in rows}), len({row[4] for row in rows}))

    expected = {}
    for space, at, distance, *_ in spoken:
        here = [row for row in spoken if row[:3] == (space, at, distance)]
        there = [row for row in spoken if (row[0], row[1] >> 9, row[2]) == (space, at >> 9, distance)]
        if fewer(there) >= 3:
            expected[space, at, distance] = fewer(here), fewer(there)
    votes = gather(moves, first, second, spaces, 2)
    keys = zip(votes.spaces.tolist(), votes.places.tolist(), votes.distances.tolist(), strict=True)
    counts = zip(votes.twins.tolist(), votes.twins_of_region.tolist(), strict=True)
    found = list(zip(keys, counts, strict=True))
    assert len(found) == len(expected)
    assert dict(found) == expected


few_places = st.lists(st.integers(0, 3), min_size=1, max_size=3)


@given(
    st.lists(st.lists(few_places, min_size=1, max_size=6), min_size=1, max_size=3),
    st.lists(st.integers(0, 3)),
)
@settings(max_examples=60)
def test_stays_are_what_contents_with_copies_point_to(
    vms: list[list[list[int]]], of_interest: list[int]
) -> None:
    base = USER // PAGE
    places = array(sorted({base + place for place in of_interest}))
    raw = [[to_page([USER + place * PAGE + 8 for place in page]) for page in vm] for vm in vms]
    with stored(raw) as (store, contents):
        spaces, stays = count_stays(store, contents, places, 1)
    number: dict[bytes, int] = {}
    pointed: dict[bytes, list[int]] = {}
    for of_raw, of_vm in zip(raw, vms, strict=True):
        for page, targets in zip(of_raw, of_vm, strict=True):
            number.setdefault(page, len(number))
            pointed[page] = targets
    expected = []
    for page, content in number.items():
        hits = [
            content * len(places) + at
            for at, each in enumerate(places.tolist())
            if each - base in pointed[page]
        ]
        copies = [vm.count(page) for vm in raw]
        for one, other in itertools.combinations_with_replacement(range(len(vms)), 2):
            if (one == other and copies[one] > 1) or (one != other and copies[one] and copies[other]):
                expected += [(one * len(vms) + other, hit) for hit in hits]
    assert sorted(zip(spaces.tolist(), stays.tolist(), strict=True)) == sorted(expected)


def test_of_contents_of_many_vms_the_first_ones_speak() -> None:
    page = to_page([USER])
    with stored([[page] for _ in range(12)]) as (store, contents):
        spaces, stays = count_stays(store, contents, array([USER // PAGE]), 1)
    most = aslr_stays._MOST_HOLDERS
    assert len(spaces) == len(set(spaces.tolist())) == most * (most - 1) // 2
    assert not stays.any()


regions = st.lists(st.integers(0, 40), unique=True, max_size=8).map(sorted)


@given(st.lists(regions, min_size=1, max_size=2), st.lists(st.integers(0, 50), max_size=10))
def test_areas_are_regions_with_small_gaps(known: list[list[int]], asked: list[int]) -> None:
    areas = Areas([numbers(each) for each in known], [numbers([]) for _ in known])
    for vm, of_vm in enumerate(known):
        found = areas.numbers(np.full(len(asked), vm), array([(each << 9) + 17 for each in asked]))
        name = {
            region: sum(b - a > 4 for a, b in itertools.pairwise(of_vm[: at + 1]))
            for at, region in enumerate(of_vm)
        }
        for region, area in zip(asked, found.tolist(), strict=True):
            near = sorted((abs(each - region), name[each]) for each in of_vm if abs(each - region) <= 4)
            # Halfway between two areas, either is right.
            assert area in ({each for gap, each in near if gap == near[0][0]} if near else {-1})


def test_areas_hold_what_enough_words_point_into() -> None:
    vms: list[list[bytes]] = []
    for vm in range(2):
        base = USER + (vm << 30)
        often = [base] * 40 + [base + 10 * PAGE] * 24
        seldom = [base + (100 << 21)] * 63
        vms.append([to_page([vm, *often, *seldom]), to_page([TEXT] * 64) if vm else to_page([1])])
    with stored(vms) as (store, contents):
        areas = Areas.of(store, contents, 1)
    place = USER >> 12
    asked = array([place, place + (4 << 9), place + (5 << 9), place + (100 << 9)])
    assert areas.numbers(np.zeros(4, np.int64), asked).tolist() == [0, 0, -1, -1]
    assert areas.numbers(np.ones(4, np.int64), asked).tolist() == [-1] * 4
    assert areas.numbers(np.ones(1, np.int64), asked[:1] + np.uint64(1 << 18)).tolist() == [0]
    assert areas.wide.tolist() == [True, True]


@pytest.mark.parametrize(
    ("by", "aligned"),
    [(5000, True), (5000 + 384, True), (5000 + 385, False), (4700, True), (5000 - 385, False), (6000, True)],
)
def test_distances_align_if_they_bring_an_end_to_an_end(by: int, aligned: bool) -> None:
    # Of 0 and 1 the first ends are 5000 apart, the last ones 6000.
    base = USER >> 12
    ends = [[base, base + 2000], [base + 5000, base + 8000]]
    known = [
        numbers(sorted({region for end in each for region in range(each[0] >> 9, (end >> 9) + 1)}))
        for each in ends
    ]
    areas = Areas(known, [numbers(each) for each in ends])
    vm = np.array([0, 1])
    there = array([base + 1000, base + 1000 + by])
    back = array([by, (1 << 36) - by])
    assert areas.align(vm, there, vm[::-1], back).tolist() == [aligned, aligned]
    # Below 4 GB and outside all areas nothing can be told.
    outside = array([4096, base + (1 << 20)])
    assert areas.align(vm, outside, vm[::-1], back).tolist() == [True, True]


slide_rows = st.lists(
    st.tuples(
        st.integers(0, 1),
        st.sampled_from([USER >> 12, (USER >> 12) + 1, (TEXT & ADDRESS) >> 12, (KERNEL & ADDRESS) >> 12]),
        st.sampled_from([1, 2, (1 << 36) - 1]),
    ),
    max_size=6,
)
asked_words = st.tuples(
    st.integers(0, 1),
    st.sampled_from(
        [USER, USER + PAGE, USER + 2 * PAGE, TEXT, TEXT + 7 * PAGE, TEXT + (1 << 21), KERNEL + PAGE, 5]
    ),
    st.sampled_from([-PAGE, 0, PAGE, 2 * PAGE, 3 * PAGE, PAGE + 8]),
)


@given(slide_rows, st.lists(asked_words, max_size=12))
def test_slides_explain_words_at_places_and_in_regions_of_the_kernel(
    slides: list[tuple[int, int, int]], asked: list[tuple[int, int, int]]
) -> None:
    expected = []
    for space, word, by in asked:
        place, distance = (word & ADDRESS) >> 12, (by & ADDRESS) >> 12
        expected.append(
            by % PAGE == 0
            and by != 0
            and word >= 1 << 16
            and any(
                (space, distance) == (of_slide, far)
                and (place == at or (place >> 35 and at >> 35 and place >> 9 == at >> 9))
                for of_slide, at, far in slides
            )
        )
    ones = array([word for _, word, _ in asked])
    others = array([(word + by) & U64 for _, word, by in asked])
    found = SlideTable(votes_of(slides)).explains(array([space for space, *_ in asked]), ones, others)
    assert found.tolist() == expected


def place_of(address: int) -> int:
    return (address & ADDRESS) >> 12


def explained(first: bytes, second: bytes, slides: Votes) -> Explained:
    with stored([[first], [second]]) as (store, contents):
        assert len(contents) == 2
        one = np.zeros(1, np.int64)
        return explain(store, one, one + 1, one + 1, slides, 1)


USER_SLIDE = 0x1234 * PAGE
SLIDES = votes_of(
    [(1, place_of(USER), 0x1234), (1, place_of(TEXT), 0x200), (1, place_of(TEXT) + (1 << 16), 0x30)]
)


def derived(form: str, address: int) -> int:
    if form == "pointer":
        return address
    if form == "page number":
        return address >> 12
    if form == "safe link":
        return address ^ (address >> 12)
    return (address >> 4) | (address & 15) << 60


@pytest.mark.parametrize("form", ["pointer", "page number", "safe link", "hash"])
@pytest.mark.parametrize("offset", [0x10, 0x7F0, 0xFF0])
def test_each_form_of_an_address_is_a_pointer_that_moved(form: str, offset: int) -> None:
    first, second, wrong = (
        to_page([7, derived(form, base + offset)])
        for base in (USER, USER + USER_SLIDE, USER + USER_SLIDE + PAGE)
    )
    found = explained(first, second, SLIDES)
    assert (found.left.tolist(), found.pointers.tolist(), found.fields.tolist()) == ([0], [1], [0])
    found = explained(first, wrong, SLIDES)
    assert (found.left.tolist(), found.pointers.tolist()) == ([1], [0])


@given(st.integers(0, U64))
def test_a_safe_link_is_undone(address: int) -> None:
    address &= (1 << 48) - 1
    assert int(aslr_twins._safe_link(array([address ^ (address >> 12)]))[0]) == address


@pytest.mark.parametrize("at", [0, 1, 5, 8, 1003, 4080, 4087, 4088])
def test_an_address_at_any_byte_is_explained(at: int) -> None:
    first, second = (bytearray(b"\x11" * PAGE) for _ in range(2))
    for page, base in ((first, USER), (second, USER + USER_SLIDE)):
        page[at : at + 8] = (base + 0x340).to_bytes(8, "little")
    found = explained(bytes(first), bytes(second), SLIDES)
    differ = sum(
        a != b for a, b in zip(np.frombuffer(first, "<u8"), np.frombuffer(second, "<u8"), strict=True)
    )
    assert found.left.tolist() == [0]
    assert found.pointers.tolist() == [differ if at % 8 == 0 else 0]
    assert found.fields.tolist() == [0 if at % 8 == 0 else differ]
    # The same without a slide of the place.
    nothing = explained(bytes(first), bytes(second), votes_of([]))
    assert (nothing.left.tolist(), nothing.pointers.tolist()) == ([differ], [0])


# A field may be cut by either end of the page; what is in the page then is a part of it.
@pytest.mark.parametrize("at", [0, 1, 2, 3, 4, 1001, 4091, 4092, -3, -2, -1, 4093, 4094, 4095])
@pytest.mark.parametrize("pages", [0x200, -0x200, 0x30, 0x200 - 0x30, 0x30 - 0x200, 0x201])
def test_a_field_at_any_byte_is_explained_by_slides_and_their_differences(at: int, pages: int) -> None:
    content = bytearray(b"\x11" * (PAGE + 8))
    first, second = bytearray(content), bytearray(content)
    value = 0x8123_4567
    first[at + 4 : at + 8] = value.to_bytes(4, "little")
    second[at + 4 : at + 8] = ((value + pages * PAGE) % (1 << 32)).to_bytes(4, "little")
    one, other = bytes(first[4:-4]), bytes(second[4:-4])
    if one == other:
        return
    found = explained(one, other, SLIDES)
    known = pages != 0x201
    # Of 0x201 pages, less than two bytes at an end tell no more than those of 0x200 would.
    if known or 0 <= at <= PAGE - 4:
        assert (found.left.tolist() == [0]) == known
    if 0 <= at <= PAGE - 4:
        distances = [pages % (1 << 20)] if known else []
        assert found.field_distances.tolist() == distances
        assert found.field_pairs.tolist() == [0] * len(distances)
    # Slides of few twins are no constants of code.
    few = explained(
        one, other, votes_of([(1, place_of(TEXT), 0x200), (1, place_of(TEXT) + (1 << 16), 0x30)], 4)
    )
    assert few.left.tolist() != [0]
    assert not len(few.field_pairs)


def test_what_no_slide_explains_is_left() -> None:
    first = [USER + 8, TEXT + 16, 5, 1 << 40]
    second = [USER + 8 + USER_SLIDE, TEXT + 16 + 0x200 * PAGE, 6, 1 << 41]
    found = explained(to_page(first), to_page(second), SLIDES)
    assert (found.left.tolist(), found.pointers.tolist(), found.fields.tolist()) == ([2], [2], [0])
    many = np.arange(1 << 40, (1 << 40) + 300, dtype=np.uint64)
    found = explained(to_page(many), to_page(many * np.uint64(3)), SLIDES)
    assert found.left.tolist() == [300]


def test_explained_pairs_come_in_their_order_whatever_the_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(aslr_twins, "_BATCH_PAIRS", 3)
    monkeypatch.setattr(aslr_moves, "_BATCH_PAIRS", 3)
    first = [to_page([USER, 1, number]) for number in range(10)]
    second = [to_page([USER + USER_SLIDE, 1 + number % 2, number]) for number in range(10)]
    with stored([first, second]) as (store, _):
        ones = np.arange(10)
        found = explain(store, ones, ones + 10, ones * 0 + 1, SLIDES, 2)
        moves = find_moves(store, ones, ones + 10, ones * 0, 2)
    assert found.pairs.tolist() == list(range(10))
    assert found.left.tolist() == [number % 2 for number in range(10)]
    assert moves.pairs.tolist() == list(range(10))
    assert moves.distances.tolist() == [0x1234] * 10


@pytest.mark.parametrize("shift", [0, 1, 8, 200, -1, -8])
def test_overlaps_are_the_words_that_both_pages_have(shift: int) -> None:
    random = np.random.default_rng(3)
    content = random.integers(1, 1 << 64, (2, 512), dtype=np.uint64)
    with stored([[page.tobytes() for page in content]]) as (store, _):
        pair = Displaced(numbers([0]), numbers([1]), numbers([shift]))
        ones, others = overlaps(store, pair, numbers([0]))
    first, second = content.tolist()
    expected = [(first[at], second[at + shift]) for at in range(512) if 0 <= at + shift < 512]
    assert list(zip(ones[0].tolist(), others[0].tolist(), strict=True)) == expected


@pytest.mark.parametrize("shift", [0, 1, 8, 200, 256, 300])
def test_displaced_candidates_have_rare_words_further_on(shift: int) -> None:
    random = np.random.default_rng(4)
    content = random.integers(1 << 50, 1 << 63, (20, 512), dtype=np.uint64)
    further = random.integers(1 << 50, 1 << 63, (20, 512), dtype=np.uint64)
    further[:, shift:] = content[:, : 512 - shift]
    further[:, 511] += np.uint64(1)
    vm = [page.tobytes() for page in np.concatenate((content, further))]
    with stored([vm]) as (store, _):
        found = displaced_candidates(store, np.arange(40), np.arange(40), 1)
        joined = np.arange(40) % 20
        assert not len(displaced_candidates(store, np.arange(40), joined, 1).first)
        none = displaced_candidates(store, np.arange(20), np.arange(40), 1)
        assert not len(none.first)
    expected = [(page, page + 20, shift) for page in range(20)] if shift <= 256 else []
    rows = zip(found.first.tolist(), found.second.tolist(), found.words.tolist(), strict=True)
    assert sorted(rows) == expected


def test_nothing_is_judged_where_there_are_no_pairs() -> None:
    none = numbers([])
    with stored([[to_page([1])]]) as (store, _):
        judged = judge(store, Displaced(none, none, none), none, array([]), 1)
    assert not any(map(len, judged))


entries = st.lists(
    st.one_of(
        st.tuples(st.integers(1, 99), st.sampled_from([0x63, 0x8000_0000_0000_0063, 0x60, 0x1])),
        st.tuples(st.just(0), st.sampled_from([0, 0x63])),
    ),
    min_size=1,
    max_size=30,
)


@given(st.lists(entries, min_size=1, max_size=4), st.integers(1, 99))
def test_page_tables_name_frames_of_the_guest(tables: list[list[tuple[int, int]]], end: int) -> None:
    content = [[frame << 12 | bits for frame, bits in table] for table in tables]
    raw = list(dict.fromkeys(to_page(page) for page in content if any(page)))
    if not raw:
        return
    expected = []
    for page in raw:
        used = [word for word in np.frombuffer(page, np.uint64).tolist() if word]
        good = [word for word in used if word & 1 and 0 < (word >> 12) & ((1 << 40) - 1) < end]
        expected.append(10 * len(good) >= 9 * len(used))
    with stored([raw]) as (store, _):
        assert is_page_table(store, np.arange(len(raw)), end).tolist() == expected
        assert not len(is_page_table(store, numbers([]), end))


@pytest.mark.parametrize("distance", [1, 0x7_FFFF, -1, -0x8_0000, -0x200])
def test_constants_tell_sign_and_addresses(distance: int) -> None:
    slides = [
        (1, place_of(TEXT), distance % (1 << 36)),
        (1, place_of(TEXT) + 5, distance % (1 << 36)),
        (1, place_of(USER), distance % (1 << 36)),
        (3, place_of(USER), distance % (1 << 36)),
    ]
    # Ten pairs between VMs 0 and 1, of six first pages; four between VM 1 and itself, which are too few.
    pairs = [*range(10), *range(10, 14)]
    spaces, first = numbers([1] * 10 + [3] * 4), numbers([0, 1, 2, 3, 4, 5, 0, 1, 2, 3, 10, 11, 12, 13])
    places = [place_of(TEXT) + 5 * (pair % 2) for pair in range(10)] + [place_of(USER)] * 4
    moves = Moves(numbers(pairs), array(places), array([distance % (1 << 36)] * 14), numbers([]))
    none = numbers([])
    fields = Explained(none, none, none, none, numbers(pairs), array([distance % (1 << 20)] * 14))
    found = list_constants(moves, votes_of(slides), fields, first, spaces, ["one", "two"])
    wide, narrow = sorted(found, key=lambda each: -each.field_bits)
    assert (wide.first_image, wide.second_image, wide.field_bits) == ("one", "two", 64)
    assert (wide.distance, wide.pages) == (distance * PAGE, 6)
    assert (wide.lowest_address, wide.highest_address) == (TEXT, TEXT + 5 * PAGE)
    assert (narrow.field_bits, narrow.distance, narrow.pages) == (32, distance * PAGE, 6)
    assert (narrow.lowest_address, narrow.highest_address) == (None, None)
    assert (
        list_constants(
            moves,
            votes_of([]),
            fields._replace(field_pairs=none, field_distances=array([])),
            first,
            spaces,
            ["one", "two"],
        )
        == ()
    )


def test_moves_by_what_is_no_slide_are_no_constants() -> None:
    moves = Moves(np.arange(9), np.full(9, place_of(USER), np.uint64), np.full(9, 5, np.uint64), numbers([]))
    none = numbers([])
    fields = Explained(none, none, none, none, none, array([]))
    for slides in ([(0, place_of(USER), 6)], [(0, place_of(USER) + 1, 5)], [(1, place_of(USER), 5)]):
        assert (
            list_constants(moves, votes_of(slides), fields, np.arange(9), np.zeros(9, np.int64), ["a", "b"])
            == ()
        )

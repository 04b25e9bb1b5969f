"""The parts of the search for addresses of 32 bits, each against the same done byte by byte."""

from __future__ import annotations

import struct
from collections import defaultdict

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hvshare.erosion import aslr_search, aslr_slides
from hvshare.erosion.aslr_constants import list_constants
from hvshare.erosion.aslr_moves import Moves, find_moves, screen
from hvshare.erosion.aslr_result import AslrConstant, AslrLayer
from hvshare.erosion.aslr_search import wide_spaces
from hvshare.erosion.aslr_slides import elect, overlapping
from hvshare.erosion.aslr_spaces import Areas
from hvshare.erosion.aslr_stays import count_stays
from hvshare.erosion.aslr_twins import Explained, explain
from hvshare.erosion.aslr_words import across, is_wide
from hvshare.erosion.page_store import NarrowWords, PageStore, PageWords, word_bytes
from tests.aslr_guests import array, numbers, stored, to_page, votes_of
from tests.oracle import PAGE

GB = 1 << 30
KERNEL = 0xFFFF_8880_0000_0000
LIBRARY = 0x7712_0000
HEAP = 0x0041_0000
WITHIN = 1 << 36
SIZES = pytest.mark.parametrize("size", [4, 8])


def pages_of(store: PageStore, size: int) -> PageWords:
    return store if size == 8 else NarrowWords(store)


def read(page: bytes | bytearray, size: int) -> list[int]:
    return list(struct.unpack(f"<{PAGE // size}{'I' if size == 4 else 'Q'}", page))


def random_pages(count: int, seed: int = 1) -> list[bytes]:
    random = np.random.default_rng(seed)
    return [random.bytes(PAGE) for _ in range(count)]


@SIZES
def test_words_are_those_of_the_bytes_of_pages(size: int) -> None:
    raw = random_pages(5)
    with stored([raw]) as (store, _):
        pages = pages_of(store, size)
        assert (pages.pages, pages.columns) == (5, PAGE // size)
        some = pages.rows(numbers([3, 0, 3]))
        assert some.tolist() == [read(raw[number], size) for number in (3, 0, 3)]
        assert pages.slice(1, 4).tolist() == [read(page, size) for page in raw[1:4]]
        assert some.dtype == np.uint64
        assert (word_bytes(some), word_bytes(pages.slice(2, 2))) == (size, size)
        # What is given out is a copy.
        some[:] = 0
        assert pages.rows(numbers([3])).tolist() == [read(raw[3], size)]


@SIZES
@given(
    content=st.binary(min_size=24, max_size=24),
    asked=st.lists(st.tuples(st.integers(0, 1), st.integers(0, 4)), max_size=8),
    data=st.data(),
)
def test_words_across_words_are_those_of_the_bytes(
    size: int, content: bytes, asked: list[tuple[int, int]], data: st.DataObject
) -> None:
    raw = [content.ljust(PAGE, b"\x55"), content.rjust(PAGE, b"\xaa")]
    words = np.array([read(page, size) for page in raw], np.uint64)
    shift = data.draw(st.integers(1, size - 1))
    # From the start of the first page, and from the end of the second.
    cells = [(row, column if row == 0 else PAGE // size - 2 - column) for row, column in asked]
    found = across(words, numbers([row for row, _ in cells]), numbers([each for _, each in cells]), shift)
    assert found.tolist() == [
        int.from_bytes(raw[row][column * size + shift :][:size], "little") for row, column in cells
    ]


@given(
    st.lists(
        st.one_of(
            st.integers(0, (1 << 48) - 1),
            st.tuples(
                st.sampled_from([0x7F0, 0x800, 0x7F00, 0x8000, 0xFF00, 0xFFFF, 0x1_0000]), st.integers(-1, 0)
            ).map(lambda each: (each[0] << 32) + (each[1] << 21)),
        ).filter(lambda address: address < 1 << 48)
    )
)
def test_regions_of_64_bits_are_told_by_what_is_above_the_lower_half(addresses: list[int]) -> None:
    above = [address >> 32 for address in addresses]
    expected = [
        0x7F0 <= each <= 0x7FF or 0x7F00 <= each <= 0x7FFF or 0x8000 <= each < 0xFF00 for each in above
    ]
    assert is_wide(numbers([address >> 21 for address in addresses])).tolist() == expected


def pairs(above: list[int], count: int = 400) -> list[int]:
    """Make words of 32-bit addresses in one region, each with a number behind it."""
    return [above[at % len(above)] << 32 | (HEAP + at * 8) for at in range(count)]


def short_texts(count: int) -> list[int]:
    letters = np.random.default_rng(3).integers(0x20, 0x7F, (count, 8), dtype=np.uint8)
    # Of all lengths, so that what is above the lower half of a word is text, too.
    return [int.from_bytes(bytes(row[: 1 + at % 8]), "little") for at, row in enumerate(letters)]


def everywhere(count: int) -> list[int]:
    return [KERNEL + (1 << 40) + (at << 22) for at in range(count)]


@pytest.mark.parametrize(
    ("words", "wide"),
    [
        pytest.param([KERNEL + at * 8 for at in range(64)], True, id="kernel of Linux"),
        pytest.param([0xFFFF_F800_02A0_0000 + at * 8 for at in range(64)], True, id="kernel of Windows"),
        pytest.param([0x7F12_3440_0000 + at * 8 for at in range(64)], True, id="program of Linux"),
        pytest.param([0x07FE_F100_0000 + at * 8 for at in range(64)], True, id="program of Windows 7"),
        pytest.param([0x7FFB_1200_0000 + at * 8 for at in range(64)], True, id="program of Windows 10"),
        pytest.param([KERNEL + at * 8 for at in range(63)], False, id="too few"),
        pytest.param([HEAP + at * 8 for at in range(400)], False, id="lower 4 GB"),
        pytest.param(pairs([*range(1000)]), False, id="small numbers behind"),
        pytest.param(pairs([HEAP + at for at in range(100)]), False, id="addresses behind"),
        pytest.param(pairs([0xFFFF_FFFF]), False, id="-1 behind"),
        pytest.param(pairs([0xFFFF_FFFE]), False, id="-2 behind"),
        pytest.param(pairs([0xFFFF_FFF4, 0xFFFF_FFEA]), False, id="errors behind"),
        pytest.param(short_texts(4000), False, id="text"),
        pytest.param(np.random.default_rng(4).integers(0, 1 << 64, 50_000, np.uint64), False, id="noise"),
        pytest.param([KERNEL + at * 8 for at in range(64)] + everywhere(64), True, id="half are dense"),
        pytest.param([KERNEL + at * 8 for at in range(64)] + everywhere(65), False, id="fewer are dense"),
        pytest.param(everywhere(400), False, id="scattered"),
    ],
)
def test_vms_are_wide_where_enough_words_point_close_together(words: list[int], wide: bool) -> None:
    content = [to_page(words[start : start + 512]) for start in range(0, len(words), 512)]
    with stored([[to_page([1])], content, [to_page([2])]]) as (store, contents):
        assert Areas.of(store, contents, 1).wide.tolist() == [False, wide, False]


def test_pages_of_several_vms_make_each_of_them_wide() -> None:
    page = to_page([KERNEL + at * 8 for at in range(64)])
    with stored([[page], [to_page([1])], [page]]) as (store, contents):
        assert Areas.of(store, contents, 1).wide.tolist() == [True, False, True]


@given(st.lists(st.booleans(), min_size=1, max_size=4))
def test_a_pair_of_vms_is_wide_where_either_is(wide: list[bool]) -> None:
    found = wide_spaces(np.array(wide, bool))
    assert found.tolist() == [one or other for one in wide for other in wide]


def test_no_areas_tell_nothing_apart() -> None:
    areas = Areas.none(2, np.array([True, False]))
    assert areas.wide.tolist() == [True, False]
    assert areas.numbers(numbers([0, 1]), array([0, 1 << 30])).tolist() == [-1, -1]


low_votes = st.tuples(
    st.sampled_from([0, 1, 3]),
    st.one_of(
        st.integers(0, (1 << 20) + 2),
        st.sampled_from([0xB_FFFF, 0xC_0000, 0xF_FFFF, 1 << 20, WITHIN - 1]),
    ),
    st.one_of(
        st.sampled_from([1, 16, 0x1234, 0x4_0000]).flatmap(lambda by: st.sampled_from([by, WITHIN - by])),
        st.integers(1, WITHIN - 1),
    ),
    st.integers(3, 8),
    st.integers(0, 8),
)


@given(st.lists(low_votes, max_size=20))
def test_slides_overlap_in_the_lower_4_gb(rows: list[tuple[int, int, int, int, int]]) -> None:
    votes = votes_of([row[:3] for row in rows])._replace(twins_of_region=numbers([row[3] for row in rows]))
    large = aslr_slides._in_large_steps(votes).tolist()
    expected = []
    for (space, place, distance, twins, stayed), is_large in zip(rows, large, strict=True):
        addresses = place * PAGE, (place + distance) % WITHIN * PAGE
        one, other = divmod(space, 2)
        of_kernel = {address >= 3 * GB for address in addresses}
        expected.append(
            twins >= 5
            and stayed < twins
            and max(addresses) < 4 * GB
            and len(of_kernel) == 1
            and (one != other or (of_kernel == {False} and is_large))
        )
    assert overlapping(votes, numbers([row[4] for row in rows]), 2).tolist() == expected


@given(st.lists(low_votes, max_size=12))
def test_large_steps_are_multiples_of_64_kb_where_most_are(
    rows: list[tuple[int, int, int, int, int]],
) -> None:
    rows = [(space, place % 1024, distance, twins, 0) for space, place, distance, twins, _ in rows]
    expected = []
    for space, place, distance, *_ in rows:
        here = [row for row in rows if (row[0], row[1] // 512) == (space, place // 512)]
        large = sum(row[3] for row in here if row[2] * PAGE % 0x1_0000 == 0)
        expected.append(distance % 16 == 0 and large >= 0.75 * sum(row[3] for row in here))
    of_rows = votes_of([row[:3] for row in rows])
    votes = of_rows._replace(twins=numbers([row[3] for row in rows]))
    assert aslr_slides._in_large_steps(votes).tolist() == expected


@pytest.mark.parametrize(
    ("place", "distances", "elected"),
    [
        (HEAP >> 12, [0x10, 0x20, -0x10], [0x10, 0x20, -0x10]),
        (HEAP >> 12, [0x11, 0x23, -0x11], [0x23]),
        (0x7F12_3440_0, [0x10, 0x20, -0x10], [0x20]),
    ],
)
def test_one_place_has_several_slides_in_the_lower_4_gb_alone(
    place: int, distances: list[int], elected: list[int]
) -> None:
    votes = votes_of([(1, place, each % WITHIN) for each in distances])
    votes = votes._replace(twins=numbers([7, 9, 8]), twins_of_region=numbers([7, 9, 8]))
    none = numbers([])
    with stored([[to_page([1])], [to_page([2])]]) as (_, contents):
        areas = Areas.none(2, np.array([True, True]))
        found = elect(votes, (none, none), array([place]), contents, areas)
    assert sorted(found.distances.tolist()) == sorted(each % WITHIN for each in elected)


stay_words = st.one_of(
    st.sampled_from([HEAP, HEAP + PAGE, LIBRARY, LIBRARY + PAGE, 0xFFFF_F000, 0xF000]).flatmap(
        lambda base: st.sampled_from([base, base + 4, base + 8, base + 16, base + 2, base + 3])
    ),
    st.sampled_from([1 << 32, 0x7F12_3440_0001, KERNEL + 5, 1 << 48]),
)
STAY_PLACES = sorted(
    {each >> 12 for each in (0xF000, HEAP, HEAP + PAGE, LIBRARY, LIBRARY + PAGE, 0xFFFF_F000)}
    | {1 << 20, 0x7F12_3440_0, KERNEL >> 12 & (1 << 36) - 1}
)


@SIZES
@given(st.lists(st.lists(stay_words, min_size=1, max_size=14), min_size=1, max_size=4))
def test_stays_are_told_by_what_is_likely_to_be_an_address(size: int, contents: list[list[int]]) -> None:
    # Each content twice, so that it says of its VM that nothing moved.
    raw = [to_page([content, *words]) for content, words in enumerate(contents, 1)]
    expected = []
    for content, page in enumerate(raw):
        score: defaultdict[int, int] = defaultdict(int)
        addresses = [word for word in read(page, size) if word >= 1 << 16 and word >> 47 in {0, 0x1FFFF}]
        for word in addresses:
            score[word >> 21] += -3 if word % size else 1
        pointed = {word >> 12 & (1 << 36) - 1 for word in addresses if word >> 32 or score[word >> 21] >= 4}
        expected += [
            content * len(STAY_PLACES) + at for at, place in enumerate(STAY_PLACES) if place in pointed
        ]
    with stored([raw * 2]) as (store, held):
        spaces, stays = count_stays(pages_of(store, size), held, array(STAY_PLACES), 1)
    assert not spaces.any()
    assert sorted(stays.tolist()) == sorted(expected)


def stays_of(page: bytes, place: int, size: int = 4) -> bool:
    with stored([[page], [page]]) as (store, contents):
        return bool(len(count_stays(pages_of(store, size), contents, array([place]), 1)[1]))


def test_code_says_nothing_of_where_it_seems_to_point_to() -> None:
    """Of words that are no addresses a quarter is aligned."""
    said = 0
    for page in random_pages(30, seed=6):
        # A page of code, and one of words into 64 MB alone.
        said += stays_of(page, read(page, 4)[7] >> 12)
        near = (np.frombuffer(page, np.uint32) >> 6) + np.uint32(LIBRARY)
        said += stays_of(near.astype(np.uint32).tobytes(), int(near[7]) >> 12)
    assert said == 0
    data = [0, LIBRARY, 5, LIBRARY + 8, LIBRARY + 0x7C, LIBRARY + 0x1004]
    assert stays_of(struct.pack("<6I", *data).ljust(PAGE, b"\0"), LIBRARY >> 12)
    # With one that is not aligned three more have to be.
    data += [LIBRARY + 2, LIBRARY + 0x20, LIBRARY + 0x24]
    assert not stays_of(struct.pack("<9I", *data).ljust(PAGE, b"\0"), LIBRARY >> 12)
    data.append(LIBRARY + 0x28)
    assert stays_of(struct.pack("<10I", *data).ljust(PAGE, b"\0"), LIBRARY >> 12)


@SIZES
@pytest.mark.parametrize("more", [0, 1])
def test_pairs_vote_in_which_little_differs_otherwise(size: int, more: int) -> None:
    others = (160 if size == 4 else 32) + more
    layout = f"<{others + 2}{'I' if size == 4 else 'Q'}"
    first = struct.pack(layout, LIBRARY, 5, *[8] * others).ljust(PAGE, b"\0")
    second = struct.pack(layout, LIBRARY + PAGE, 5, *[24] * others).ljust(PAGE, b"\0")
    with stored([[first], [second]]) as (store, _):
        pages, one = pages_of(store, size), np.zeros(1, np.int64)
        chosen, counts = screen(pages, one, one + 1, 1)
        found = find_moves(pages, one, one + 1, counts, 1)
    assert (chosen.tolist(), counts.tolist()) == ([0], [others])
    assert found.places.tolist() == ([] if more else [LIBRARY >> 12])


@given(
    st.lists(st.booleans(), min_size=3, max_size=3),
    st.lists(st.tuples(st.integers(0, 5), st.integers(0, 5), st.integers(0, 8)), max_size=12),
)
def test_pairs_are_compared_by_32_bits_where_no_vm_is_wide(
    wide: list[bool], pairs: list[tuple[int, int, int]]
) -> None:
    # Contents 0, 2 and 4 have one page, the others two.
    vm = [each for number in range(6) for each in [to_page([number + 1])] * (1 + number % 2)]
    expected = [
        not wide[space // 3]
        and not wide[space % 3]
        and (space // 3 != space % 3 or one % 2 == 0 or other % 2 == 0)
        for one, other, space in pairs
    ]
    with stored([vm, [to_page([8])], [to_page([9])]]) as (_, contents):
        first, second, spaces = (numbers([pair[at] for pair in pairs]) for at in range(3))
        found = aslr_search._comparable(contents, first, second, spaces, np.array(wide))
    assert found.tolist() == expected


NARROW_SLIDES = [(1, LIBRARY >> 12, 0x1230), (1, HEAP >> 12, 0x20), (1, HEAP >> 12, WITHIN - 0x10)]
moved_addresses = st.tuples(
    st.one_of(st.integers(0, PAGE - 4), st.integers(0, 5), st.integers(PAGE - 9, PAGE - 4)),
    st.sampled_from([LIBRARY, LIBRARY + 0x1_2344, HEAP + 8, LIBRARY + (1 << 21), HEAP - (1 << 21)]),
    st.sampled_from([0x1230, 0x20, -0x10, 0x1231, 3]),
)


def difference(page: bytes, twin: bytes, slides: list[tuple[int, int, int]]) -> tuple[int, int, int]:
    """Count words that nothing explains, pointers, and further words, by going over all bytes."""
    of_regions = {(place >> 9, distance) for _, place, distance in slides}
    aligned, anywhere = set[int](), set[int]()
    for at in range(PAGE - 3):
        one, other = (int.from_bytes(each[at : at + 4], "little") for each in (page, twin))
        by = other - one
        if one >= 1 << 16 and by and by % PAGE == 0 and (one >> 21, by // PAGE % WITHIN) in of_regions:
            anywhere |= {*range(at, at + 4)}
            aligned |= set() if at % 4 else {*range(at, at + 4)}
    apart = [at for at in range(PAGE) if page[at] != twin[at]]
    differ = {at // 4 for at in apart}
    left = {at // 4 for at in apart if at not in anywhere}
    pointers = len(differ) - len({at // 4 for at in apart if at not in aligned})
    return len(left), pointers, len(differ) - len(left) - pointers


def narrow_explained(first: bytes, second: bytes, slides: list[tuple[int, int, int]]) -> Explained:
    with stored([[first], [second]]) as (store, _):
        one = np.zeros(1, np.int64)
        return explain(NarrowWords(store), one, one + 1, one + 1, votes_of(slides), 1)


@given(st.lists(moved_addresses, min_size=1, max_size=12))
def test_addresses_of_32_bits_are_explained_wherever_they_stand(each: list[tuple[int, int, int]]) -> None:
    first, second = bytearray(b"\x11" * PAGE), bytearray(b"\x11" * PAGE)
    taken: set[int] = set()
    for at, address, by in each:
        if taken.isdisjoint(range(at, at + 4)):
            taken |= {*range(at, at + 4)}
            first[at : at + 4] = struct.pack("<I", address)
            second[at : at + 4] = struct.pack("<I", address + by * PAGE)
    found = narrow_explained(bytes(first), bytes(second), NARROW_SLIDES)
    expected = difference(bytes(first), bytes(second), NARROW_SLIDES)
    assert (found.left[0], found.pointers[0], found.fields[0]) == expected
    # Fields in the code of a kernel of 64 bits are another matter.
    assert not len(found.field_pairs)


@pytest.mark.parametrize("at", [0, 1, 2, 3, 1001, 2047, 4085, 4089, 4090, 4091, 4092])
def test_one_address_of_32_bits_at_any_byte(at: int) -> None:
    first, second = (bytearray(random_pages(1, seed=7)[0]) for _ in range(2))
    first[at : at + 4] = struct.pack("<I", LIBRARY + 0x340)
    second[at : at + 4] = struct.pack("<I", LIBRARY + 0x340 + 0x1230 * PAGE)
    differ = sum(one != other for one, other in zip(read(first, 4), read(second, 4), strict=True))
    found = narrow_explained(bytes(first), bytes(second), NARROW_SLIDES)
    assert found.left.tolist() == [0]
    assert found.pointers.tolist() == [0 if at % 4 else differ]
    assert found.fields.tolist() == [differ if at % 4 else 0]
    for slides in ([], NARROW_SLIDES[1:], [(1, LIBRARY >> 12, 0x1231)], [(0, LIBRARY >> 12, 0x1230)]):
        assert narrow_explained(bytes(first), bytes(second), slides).left.tolist() == [differ]


def narrow_constants(
    moved: list[tuple[int, int, int]], *, narrow: bool = True, told: list[bool] | None = None
) -> tuple[AslrConstant, ...]:
    """List constants of moves: the page, the address, and by how many bytes modulo 2**48."""
    moved = sorted(set(moved))
    places, distances = [address >> 12 for _, address, _ in moved], [by >> 12 for *_, by in moved]
    moves = Moves(numbers([page for page, *_ in moved]), array(places), array(distances), numbers([]))
    none = numbers([])
    slides = votes_of([(1, *each) for each in zip(places, distances, strict=True)])
    count = max(page for page, *_ in moved) + 1
    return list_constants(
        moves,
        slides,
        Explained(none, none, none, none, none, array([])),
        np.arange(count),
        np.ones(count, np.int64),
        ["one", "two"],
        told=None if told is None else np.array(told),
        narrow=narrow,
    )


STEPS = [0x20_0000, 0x700_0000, -0x1E0_0000]
"""Distances of kernels, after which the upper bytes of an address moved by whole pages, too."""


def seen_words(address: int, by: int, shift: int, page: int) -> list[tuple[int, int, int]]:
    """List what whole words say of an address that starts some bytes behind the start of one."""
    first, second = (
        struct.pack("<I", each).rjust(4 + shift, b"\x99").ljust(12, b"\x77")
        for each in (address, address + by)
    )
    words = zip(struct.unpack("<3I", first), struct.unpack("<3I", second), strict=True)
    return [
        (page, one, (other - one) % (1 << 48))
        for one, other in words
        if one != other and (other - one) % PAGE == 0 and one >= 1 << 16
    ]


@pytest.mark.parametrize("shift", [1, 2, 3])
@pytest.mark.parametrize("by", [0x3000, 0x3_0000, 0x12_3000, -0x1000, -0x75_0000, 0x1000_0000, *STEPS])
def test_addresses_off_the_start_of_words_bring_no_distance_of_their_own(by: int, shift: int) -> None:
    moved = [each for page in range(9) for each in seen_words(LIBRARY + 0x40 + page * 8, by, 0, page)]
    off = [each for page in range(8) for each in seen_words(LIBRARY + 0x40 + page * 8, by, shift, page)]
    (found,) = narrow_constants([*moved, *off])
    assert (found.field_bits, found.distance, found.pages) == (32, by, 9)
    assert found.lowest_address == found.highest_address == LIBRARY
    # What whole words say looks like any other distance, with as many pages as hold the address.
    others = {distance for *_, distance in off}
    known = narrow_constants([*moved, *off], narrow=False)
    assert {each.distance % (1 << 48) for each in known} == {by % (1 << 48)} | others
    assert [each.pages for each in known] == [9] + [8] * len(others)


@pytest.mark.parametrize("times", [8, 16])
def test_a_distance_that_more_pages_bear_out_is_no_echo(times: int) -> None:
    moved = [(page, LIBRARY, 0x3000) for page in range(7)]
    larger = [(page, LIBRARY, 0x3000 << times) for page in range(7, 15)]
    found = narrow_constants([*moved, *larger])
    assert (found[0].distance, found[0].pages) == (0x3000 << times, 8)
    found = narrow_constants([*moved, *larger[:-1]])
    assert [(each.distance, each.pages) for each in found] == [(0x3000, 7)]


def test_constants_are_told_of_pairs_that_are_asked_for() -> None:
    moved = [(page, LIBRARY, 0x3000) for page in range(10)] + [(page, HEAP, 0x5000) for page in range(4, 12)]
    told = [page >= 4 for page in range(12)]
    found = narrow_constants(moved, narrow=False, told=told)
    assert [(each.field_bits, each.distance, each.pages) for each in found] == [
        (64, 0x5000, 8),
        (64, 0x3000, 6),
    ]
    assert narrow_constants(moved, told=[False] * 12) == ()


def test_layers_of_two_searches_add_up() -> None:
    assert AslrLayer("code", 3, 2) + AslrLayer("code", 5, 4) == AslrLayer("code", 8, 6)

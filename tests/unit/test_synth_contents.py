"""What pages of made guests hold: each follows from its own row, and ASLR moves addresses only."""

from __future__ import annotations

import hashlib
import zlib
from collections import Counter
from collections.abc import Sequence
from typing import Final

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from hvshare.synth.address_spaces import (
    DIRECT_MAP,
    HEAP,
    KERNEL,
    LIBRARIES,
    MODULES,
    PROGRAM,
    STACK,
    AddressSpaces,
)
from hvshare.synth.contents.filling import fill
from hvshare.synth.contents.kinds import Kind, Pages

Words = NDArray[np.uint64]

PAGE: Final = 4096
MB: Final = 1 << 20
MADE: Final = [kind for kind in Kind if kind not in {Kind.ZERO, Kind.MAPPED}]
NARROW: Final = {Kind.POINTERS_I386, Kind.HEAP_I386, Kind.STACK_I386, Kind.KERNEL_DATA_I386}
WIDE: Final = {Kind.POINTERS_X86_64, Kind.HEAP_X86_64, Kind.STACK_X86_64, Kind.KERNEL_DATA_X86_64}
EMBEDDED: Final = {Kind.MOVED_CODE_I386, Kind.KERNEL_CODE_X86_64}
HOME: Final[dict[Kind, int]] = {
    **dict.fromkeys(MADE, LIBRARIES),
    **dict.fromkeys((Kind.HEAP_I386, Kind.HEAP_X86_64), HEAP),
    **dict.fromkeys((Kind.STACK_I386, Kind.STACK_X86_64), STACK),
    Kind.KERNEL_CODE_X86_64: MODULES,
}
SIZES: Final = {
    PROGRAM: MB,
    HEAP: 64 * MB,
    STACK: MB,
    KERNEL: 16 * MB,
    MODULES: 8 * MB,
    DIRECT_MAP: 2048 * MB,
}

# Where regions lie on disk, in one boot and in another; below 4 GB, where addresses have 32 bits.
NARROW_BASES: Final = (0x0040_0000, 0x0900_0000, 0x0800_0000, 0x8100_0000, 0x9000_0000, 0xC000_0000)
WIDE_BASES: Final = (
    *(0x5555_5540_0000, 0x5555_6000_0000, 0x7FFF_F000_0000),
    *(0xFFFF_FFFF_8100_0000, 0xFFFF_FFFF_C000_0000, 0xFFFF_8880_0000_0000),
)
BASES: Final = {
    False: (*NARROW_BASES, 0x7700_0000, 0x7720_0000),
    True: (*WIDE_BASES, 0x7FFF_7700_0000, 0x7FFF_7720_0000),
}
SLIDES: Final = (0x13000, 0x25000, 0x47000, 0xA0_0000, 0xB5000, 0x1000_0000, 0x39_0000, 0x3A_0000)


def wide(kind: Kind) -> bool:
    return kind in WIDE | {Kind.KERNEL_CODE_X86_64, Kind.CODE_X86_64}


def spaces(*, is_wide: bool = True, missing: Sequence[int] = ()) -> AddressSpaces:
    """Make the space of files, one without ASLR, and one in which each region has a slide of its own."""
    usual = np.array(BASES[is_wide], np.uint64)
    bases = np.stack((usual, usual, usual + np.array(SLIDES, np.uint64)))
    sizes = np.full(bases.shape, 2 * MB, np.uint64)
    for region, size in SIZES.items():
        sizes[:, region] = size if is_wide else min(size, 256 * MB)
    sizes[:, list(missing)] = 0
    loaded = np.array([[LIBRARIES, LIBRARIES + 1]] * 3, np.int32)
    return AddressSpaces(bases, sizes, loaded, np.full(3, 2, np.int32))


def plan(kinds: Sequence[int], *, space: int = 1, first_key: int = 1, private: int = 0) -> Pages:
    count = len(kinds)
    regions = [HOME.get(Kind(kind), LIBRARIES) for kind in kinds]
    keys = np.arange(first_key, first_key + count, dtype=np.uint64)
    return Pages(
        np.array(kinds, np.uint8),
        keys,
        np.full(count, private, np.uint64),
        np.full(count, space, np.int32),
        np.array(regions, np.int32),
    )


def make(pages: Pages, where: AddressSpaces | None = None, first_gfn: int = 5000) -> Words:
    out = np.full((len(pages), 512), 0x0123_4567_89AB_CDEF, np.uint64)
    fill(out, pages, where or spaces(), np.arange(first_gfn, first_gfn + len(pages)))
    return out


def of_kind(kind: Kind, count: int = 150, **options: int) -> Words:
    return make(plan([kind] * count, **options), spaces(is_wide=wide(kind)))


@settings(max_examples=40, deadline=None)
@given(
    st.lists(st.sampled_from([int(kind) for kind in Kind if kind != Kind.MAPPED]), min_size=1, max_size=200),
    st.data(),
)
def test_pages_do_not_depend_on_what_is_made_with_them(kinds: list[int], data: st.DataObject) -> None:
    pages = plan(kinds)
    pages.private[::3] = 77
    whole = make(pages)
    order = np.array(data.draw(st.permutations(range(len(kinds)))), np.int64)
    start, end = sorted(data.draw(st.tuples(*[st.integers(0, len(kinds))] * 2)))
    for rows in (order, np.arange(start, end)):
        part = np.empty((len(rows), 1024), np.uint64)[:, ::2]
        fill(part, pages[rows], spaces(), 5000 + rows)
        assert part.tobytes() == whole[rows].tobytes()


@pytest.mark.parametrize("kind", MADE)
def test_pages_do_not_depend_on_where_many_of_them_are_cut(kind: Kind) -> None:
    pages = plan([kind] * 600, private=3)
    where = spaces(is_wide=wide(kind))
    whole = make(pages, where)
    for start in (0, 1, 255, 256, 511):
        for count in (1, 88, 89):
            part = make(pages[start : start + count], where, 5000 + start)
            assert part.tobytes() == whole[start : start + count].tobytes()


@pytest.mark.parametrize("kind", sorted(NARROW | WIDE))
def test_aslr_moves_aligned_addresses_by_the_slide_of_what_they_point_into(kind: Kind) -> None:
    off, on = of_kind(kind), of_kind(kind, space=2)
    width = 4 if kind in NARROW else 8
    bases, sizes = BASES[wide(kind)], spaces(is_wide=wide(kind)).sizes[1].tolist()
    for before, after in zip(off, on, strict=True):
        moved: Counter[int] = Counter()
        one, other = before.tobytes(), after.tobytes()
        for place in range(0, PAGE, width):
            old, new = (int.from_bytes(page[place : place + width], "little") for page in (one, other))
            if old == new:
                continue
            into = [
                r
                for r, (base, size) in enumerate(zip(bases, sizes, strict=True))
                if base <= old < base + size
            ]
            assert [new - old] == [SLIDES[region] for region in into]
            moved[into[0]] += 1
        low, high = {"P": (40, 560), "H": (25, 125), "S": (10, 48), "K": (25, 125)}[kind.name[0]]
        assert low <= moved.total() <= high


@pytest.mark.parametrize("kind", sorted(EMBEDDED))
def test_aslr_moves_fields_in_code_on_any_boundary(kind: Kind) -> None:
    off, on = of_kind(kind, 120), of_kind(kind, 120, space=2)
    own, other = SLIDES[HOME[kind]], SLIDES[KERNEL]
    counts, places = [], set()
    for before, after in zip(off, on, strict=True):
        one, two, found = before.tobytes(), after.tobytes(), 0
        while one != two:
            # The lowest byte of a field never differs, since slides are multiples of 4 KB.
            first = next(place for place in range(PAGE) if one[place] != two[place])
            slides = []
            for start in (first, first - 1, first - 2):
                old, new = (int.from_bytes(page[start : start + 4], "little") for page in (one, two))
                if new - old in ({own, other} if kind == Kind.KERNEL_CODE_X86_64 else {own}):
                    slides.append(start)
            assert slides, (kind, first)
            start = slides[-1]
            one = one[:start] + two[start : start + 4] + one[start + 4 :]
            found += 1
            places.add(start % 8)
        counts.append(found)
    without = counts.count(0) / len(counts)
    assert places == set(range(8))
    if kind == Kind.KERNEL_CODE_X86_64:
        assert 0.15 < without < 0.45
        assert 15 < sum(counts) / len(counts) / (1 - without) < 35
    else:
        assert without == 0
        assert 25 < sum(counts) / len(counts) < 45


@pytest.mark.parametrize("kind", sorted(set(MADE) - NARROW - WIDE - EMBEDDED))
def test_what_holds_no_addresses_is_alike_wherever_things_lie(kind: Kind) -> None:
    assert of_kind(kind).tobytes() == of_kind(kind, space=2).tobytes()


@pytest.mark.parametrize("kind", sorted(NARROW | WIDE | EMBEDDED))
def test_where_nothing_lies_no_address_points(kind: Kind) -> None:
    nowhere = spaces(is_wide=wide(kind), missing=range(LIBRARIES + 2))
    off, on = (make(plan([kind] * 80, space=space), nowhere) for space in (1, 2))
    assert off.tobytes() == on.tobytes()


def test_most_addresses_of_a_heap_stay_in_it() -> None:
    off, on = of_kind(Kind.HEAP_X86_64), of_kind(Kind.HEAP_X86_64, space=2)
    moved = Counter((on - off)[on != off].tolist())
    share = {region: moved[slide] / moved.total() for region, slide in enumerate(SLIDES)}
    assert 0.70 < share[HEAP] < 0.80
    assert 0.11 < share[LIBRARIES] + share[LIBRARIES + 1] < 0.20
    assert 0.03 < share[PROGRAM] < 0.09
    assert 0.01 < share[STACK] < 0.06


@pytest.mark.parametrize("kind", [Kind.KERNEL_DATA_I386, Kind.KERNEL_DATA_X86_64])
def test_what_kernels_allocate_follows_from_where_it_lies(kind: Kind) -> None:
    where = spaces(is_wide=wide(kind))
    pages = plan([kind] * 100)
    one, other, again = (make(pages, where, gfn) for gfn in (5000, 9000, 5000))
    assert one.tobytes() == again.tobytes()
    assert (one != other).any(axis=1).all()
    view = "<u8" if wide(kind) else "<u4"
    for number, page in enumerate(one.view(view)):
        here = BASES[wide(kind)][DIRECT_MAP] + (5000 + number) * PAGE
        assert 5 <= np.count_nonzero(page.astype(np.uint64) // np.uint64(PAGE) == here // PAGE) <= 80


@pytest.mark.parametrize("kind", [Kind.STACK_I386, Kind.STACK_X86_64])
def test_stacks_are_mostly_zero_from_the_start_of_the_page_on(kind: Kind) -> None:
    pages = of_kind(kind)
    assert not pages[:, : 512 * 5 // 8].any()
    assert (pages[:, -64:] != 0).any(axis=1).all()


def test_page_tables_hold_runs_of_gfns() -> None:
    pages = of_kind(Kind.PAGE_TABLE_PAE)
    there = (pages & np.uint64(1)) == 1
    assert (pages[~there] == 0).all()
    assert 0.3 < there.mean() < 0.9
    follows = pages[:, 1:] - pages[:, :-1] == PAGE
    assert follows[there[:, 1:] & there[:, :-1]].mean() > 0.8


RATIOS: Final = {
    **dict.fromkeys((Kind.CODE_I386, Kind.CODE_X86_64, Kind.KERNEL_CODE_X86_64), (2.0, 3.0)),
    Kind.MOVED_CODE_I386: (1.9, 3.0),
    **dict.fromkeys((Kind.POINTERS_I386, Kind.POINTERS_X86_64, Kind.DATA), (2.0, 4.0)),
    Kind.TEXT: (2.5, 4.0),
    Kind.MEDIA: (0.99, 1.0),
    **dict.fromkeys((Kind.HEAP_I386, Kind.HEAP_X86_64), (3.0, 6.0)),
    **dict.fromkeys((Kind.KERNEL_DATA_I386, Kind.KERNEL_DATA_X86_64), (3.0, 6.0)),
    **dict.fromkeys((Kind.STACK_I386, Kind.STACK_X86_64), (5.0, 12.0)),
    Kind.PAGE_TABLE_PAE: (3.0, 12.0),
}


@pytest.mark.parametrize("kind", MADE)
def test_pages_compress_as_those_of_guests_do(kind: Kind) -> None:
    pages = of_kind(kind)
    packed = sum(len(zlib.compress(page.tobytes(), 1)) for page in pages)
    low, high = RATIOS[kind]
    assert low <= pages.nbytes / packed <= high


def repeated_pieces(pages: Words) -> float:
    """Tell which share of pieces of 32 bytes that are not zero some page before has at the same place."""
    pieces = Counter(
        (place, page[place : place + 32])
        for page in (row.tobytes() for row in pages)
        for place in range(0, PAGE, 32)
        if any(page[place : place + 32])
    )
    return sum(times - 1 for times in pieces.values()) / pieces.total()


@pytest.mark.parametrize("kind", MADE)
def test_pages_of_other_keys_have_little_in_common(kind: Kind) -> None:
    pages = of_kind(kind, 1000)
    assert len({page.tobytes() for page in pages}) == len(pages)
    assert repeated_pieces(pages) < 0.01
    # The search for twins joins pages by the lowest 12 bits of words, which in page tables are flags.
    if kind != Kind.PAGE_TABLE_PAE:
        assert repeated_pieces(pages & np.uint64(0xFFF)) < 0.03


@pytest.mark.parametrize("kind", MADE)
def test_private_pages_differ_in_one_to_eight_words(kind: Kind) -> None:
    pages = [of_kind(kind, private=private) for private in (0, 1, 2)]
    for first, second in ((0, 1), (1, 2)):
        differ = (pages[first] != pages[second]).sum(axis=1)
        assert differ.min() >= 1
        assert differ.max() <= 8
        assert len(set(differ.tolist())) > 4
    assert of_kind(kind, private=2).tobytes() == pages[2].tobytes()


@pytest.mark.parametrize("kind", sorted(EMBEDDED | WIDE))
def test_private_words_cut_no_address(kind: Kind) -> None:
    shared = of_kind(kind) != of_kind(kind, space=2)
    own = of_kind(kind, private=5) != of_kind(kind, private=5, space=2)
    assert not (own & ~shared).any()
    if kind in EMBEDDED:
        assert (own == shared).all()


def test_text_is_ascii() -> None:
    for private in (0, 9):
        text = of_kind(Kind.TEXT, private=private).tobytes()
        assert set(text) <= {10, *range(32, 127)}
        assert text.count(b"\n") > len(text) // 400


def test_pages_of_programs_come_from_them() -> None:
    class Programs:
        def fill(self, out: Words, numbers: NDArray[np.int64], bases: Words) -> None:
            out[:] = numbers[:, None].astype(np.uint64) + bases[:, None]

    pages = plan([Kind.MAPPED, Kind.ZERO, Kind.MAPPED], first_key=40)
    out = np.empty((3, 512), np.uint64)
    fill(out, pages, spaces(), np.arange(3), Programs())
    assert [set(row) for row in out.tolist()] == [{0x7FFF_7700_0028}, {0}, {0x7FFF_7700_002A}]
    with pytest.raises(ValueError, match="no programs are given"):
        fill(out, pages, spaces(), np.arange(3))


CHECKSUM: Final = "c38aa0dfe38613f1bca33d19ec8263e46ca2b6cbeae93f0a9136034ae1a1b8ec"


def test_bytes_are_the_same_on_every_machine() -> None:
    kinds = [kind for kind in Kind if kind != Kind.MAPPED] * 20
    pages = plan(kinds, space=2)
    pages.private[::5] = np.arange(len(kinds))[::5]
    digest = hashlib.sha256()
    for is_wide in (False, True):
        digest.update(make(pages, spaces(is_wide=is_wide)).astype("<u8").tobytes())
    assert digest.hexdigest() == CHECKSUM

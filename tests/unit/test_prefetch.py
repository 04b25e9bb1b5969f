from __future__ import annotations

import random
from collections import Counter
from collections.abc import Sequence
from itertools import combinations

import pytest
from hypothesis import given
from hypothesis import strategies as st

import hvshare
from hvshare.erosion import disk_reading, prefetch_axes, prefetch_contents
from hvshare.erosion.prefetch import (
    measure_prefetch,
    prefetch_from_cold,
    prefetch_from_disk,
    prefetch_unaided,
)
from hvshare.erosion.prefetch_result import Basis, Prefetch, Whereabouts
from hvshare.erosion.report import Kind
from hvshare.errors import SizeError, UnsupportedImageError
from hvshare.fingerprint.fingerprints import Fingerprints
from hvshare.sharing.counts import Counts
from tests.guests import ZERO, MemoryImage, page_numbers
from tests.guests import content as small_content
from tests.oracle import PAGE, Vm, count

pages = st.one_of(st.just(ZERO), page_numbers.map(small_content), st.none())
pairs = st.lists(st.tuples(pages, pages), min_size=1, max_size=30).filter(
    lambda pair: any(None not in places for places in pair)
)
"""Pages of a VM before its cache was warm and now, at the same places."""


def content(number: int) -> bytes:
    return number.to_bytes(8, "little") + bytes(PAGE - 8)


def fingerprinted(vms: Sequence[Vm], name: str = "vm") -> list[Fingerprints]:
    """Give fingerprints of VMs, every other one with holes."""
    images = [MemoryImage(f"{name}{index}", vm, zero_runs=index % 2 == 0) for index, vm in enumerate(vms)]
    return hvshare.fingerprint_images(images)


def measured(counts: Counts) -> dict[str, int]:
    return {name: getattr(counts, name) for name in count([[ZERO]], 1)}


def saved(vms: Sequence[Vm]) -> int:
    counts = count(vms, 1)
    return counts["frames"] - counts["distinct"]


def where(wanted: Sequence[bytes], vms: Sequence[Vm], vm: int) -> Whereabouts:
    """Tell where else contents are, page by page."""
    own = Counter(page for page in vms[vm] if page is not None)
    others = {page for index, other in enumerate(vms) if index != vm for page in other}
    between = sum(page in others for page in wanted)
    within = sum(page not in others and own[page] > 1 for page in wanted)
    return Whereabouts(len(wanted), between, within, len(wanted) - between - within)


def cut(vms: Sequence[Sequence[tuple[bytes | None, bytes | None]]], which: int) -> list[list[bytes | None]]:
    """Give the pages of VMs before or now, where both are known."""
    return [[None if None in places else places[which] for places in vm] for vm in vms]


@given(st.lists(pairs, min_size=1, max_size=4))
def test_a_cold_image_for_each_vm_measures_what_an_independent_count_says(
    vms: list[list[tuple[bytes | None, bytes | None]]],
) -> None:
    before = fingerprinted([[places[0] for places in vm] for vm in vms], "cold")
    now = fingerprinted([[places[1] for places in vm] for vm in vms])
    found = prefetch_from_cold(now, before)
    cold, warm = cut(vms, 0), cut(vms, 1)
    assert (found.basis, found.kind) == (Basis.COLD, Kind.MEASURED)
    assert found.lower_frames == found.upper_frames == saved(cold) - saved(warm)
    assert found.cold is not None
    assert found.cold.cold is not None
    assert measured(found.cold.warm) == count(warm, 1)
    assert measured(found.cold.cold) == count(cold, 1)
    assert measured(found.pooled) == count([[places[1] for places in vm] for vm in vms], 1)
    for vm, each in enumerate(found.cold.vms):
        both = [(a, b) for a, b in zip(cold[vm], warm[vm], strict=True) if a is not None and b is not None]
        lost = [b for a, b in both if a == ZERO != b]
        held = {a for a, _ in both} - {ZERO}
        assert each.pages == len(both)
        assert each.cold_zero_pages == sum(a == ZERO for a, _ in both)
        assert each.zero_pages == sum(b == ZERO for _, b in both)
        assert each.lost == where(lost, warm, vm)
        assert each.lost_held_before == sum(page in held for page in lost)
        assert each.gained_pages == sum(b == ZERO != a for a, b in both)
        assert each.same_pages == sum(a == b != ZERO for a, b in both)
        assert each.changed_pages == sum(a != b and ZERO not in {a, b} for a, b in both)
        assert each.contents_in_common == len(held & {b for _, b in both})
        assert each.cold_contents == len(held)
        assert measured(each.cold_alone) == count([cold[vm]], 1)
        assert measured(each.alone) == count([warm[vm]], 1)
    for step in found.balance:
        first = slice(0, step.vms)
        a, b = count(cold[first], 1), count(warm[first], 1)
        assert step.zero_lost == a["saved_zero"] - b["saved_zero"]
        assert step.cache_saved_lower == step.cache_saved_upper
        assert step.net_lower == step.net_upper == saved(cold[first]) - saved(warm[first])
        assert step.net_lower == step.zero_lost - step.cache_saved_lower
    assert [step.vms for step in found.balance] == list(range(1, len(vms) + 1))


cold_numbers = st.lists(st.integers(0, 8), min_size=1, max_size=20)


@given(cold_numbers, st.data())
def test_one_cold_image_for_all_bounds_what_they_had_in_common(
    numbers: list[int], data: st.DataObject
) -> None:
    """VMs that held as much as the cold image, partly of their own, and whose zero pages were filled."""
    cold, warm = [], []
    for vm in range(data.draw(st.integers(2, 4))):
        own = data.draw(st.sets(st.sampled_from(range(1, 9)))) if vm else set()
        placed = data.draw(st.permutations(numbers)) if vm else numbers
        moved = {number: number + 100 * vm for number in own}
        before = [content(moved.get(number, number)) if number else ZERO for number in placed]
        fill = data.draw(st.lists(st.integers(0, 12), min_size=len(before), max_size=len(before)))
        filled = [content(200 + number) if number else ZERO for number in fill]
        cold.append(before)
        warm.append([new if page == ZERO else page for page, new in zip(before, filled, strict=True)])
    found = prefetch_from_cold(fingerprinted(warm), fingerprinted(cold[:1], "cold"))
    assert found.kind is Kind.BOUNDED
    assert found.cold is not None
    assert found.cold.cold is None
    truth = count(cold, 1)
    assert found.cold.cold_saved_zero == truth["saved_zero"]
    assert found.cold.cold_saved_self == truth["saved_self"]
    bounds = found.cold.cold_saved_inter_lower, found.cold.cold_saved_inter_upper
    assert bounds[0] <= truth["saved_inter"] <= bounds[1]
    for step in found.balance:
        first = slice(0, step.vms)
        net = saved(cold[first]) - saved(warm[first])
        assert step.net_lower <= net <= step.net_upper
        assert step.zero_lost - step.cache_saved_upper == step.net_lower
        assert step.zero_lost - step.cache_saved_lower == step.net_upper
    assert (found.lower_frames, found.upper_frames) == (
        found.balance[-1].net_lower,
        found.balance[-1].net_upper,
    )


def test_one_cold_image_bounds_by_itself_and_by_what_is_in_common_now() -> None:
    cold = fingerprinted([[content(1), content(2), content(3), ZERO]], "cold")
    own = [content(number) for number in (7, 8, 9)]
    alike: list[Vm] = [[*map(content, (1, 2, 3, 4))], [*map(content, (1, 2, 3, 4))], [content(1), *own]]
    found = prefetch_from_cold(fingerprinted(alike), cold)
    assert found.cold is not None
    # The second has four contents in common with the first, of which the cold image had room for three.
    assert found.cold.cold_saved_inter_upper == 3 + 1
    assert (found.balance[1].net_lower, found.balance[1].net_upper) == (1 - 4, 1 - 4 + 3)


small_vms = st.lists(
    st.lists(st.sampled_from([ZERO, *map(content, range(1, 6)), None]), min_size=1, max_size=6).filter(any),
    min_size=1,
    max_size=3,
)
blocks = st.lists(st.sampled_from([ZERO, *map(content, range(1, 9))]), min_size=1, max_size=12)


def extremes(vms: Sequence[Vm], wanted: set[bytes]) -> tuple[int, int]:
    """Drop every choice of pages that hold some contents, and give the least and the most saved more."""
    places = [(vm, at) for vm, held in enumerate(vms) for at, page in enumerate(held) if page in wanted]
    changes = []
    for size in range(len(places) + 1):
        for dropped in combinations(places, size):
            after = [
                [ZERO if (vm, at) in dropped else page for at, page in enumerate(held)]
                for vm, held in enumerate(vms)
            ]
            changes.append(saved(after) - saved(vms))
    return min(changes), max(changes)


@given(small_vms.filter(lambda vms: sum(map(len, vms)) <= 9), st.lists(blocks, min_size=1, max_size=3))
def test_bounds_of_a_disk_are_those_over_all_choices_of_file_pages(
    vms: list[list[bytes | None]], disks: list[list[bytes]]
) -> None:
    found = prefetch_from_disk(fingerprinted(vms), fingerprinted(disks, "disk"))
    on_disk = {block for disk in disks for block in disk} - {ZERO}
    assert (found.basis, found.kind) == (Basis.DISK, Kind.BOUNDED)
    assert (found.lower_frames, found.upper_frames) == extremes(vms, on_disk)


@given(small_vms, st.lists(blocks, min_size=1, max_size=3), st.booleans())
def test_file_pages_are_those_that_equal_a_block(
    vms: list[list[bytes | None]], disks: list[list[bytes]], from_images: bool
) -> None:
    of_disks: list[MemoryImage] | list[Fingerprints] = fingerprinted(disks, "disk")
    if from_images:
        of_disks = [
            MemoryImage(f"disk{index}", disk, zero_runs=index % 2 == 0) for index, disk in enumerate(disks)
        ]
    found = prefetch_from_disk(fingerprinted(vms), of_disks)
    on_disk = {block for disk in disks for block in disk} - {ZERO}
    assert found.disk is not None
    in_memory = {page for vm in vms for page in vm} - {ZERO, None}
    for disk, each in zip(disks, found.disk.disks, strict=True):
        assert (each.blocks, each.zero_blocks) == (len(disk), disk.count(ZERO))
        assert each.contents_found == len(in_memory & set(disk))
    for vm, of_vm in enumerate(found.disk.vms):
        wanted = [page for page in vms[vm] if page is not None and page in on_disk]
        assert of_vm.file_pages == where(wanted, vms, vm)
        assert of_vm.contents == len(set(wanted))
        assert of_vm.nonzero_pages == sum(page not in {ZERO, None} for page in vms[vm])
    dropped: list[Vm] = [[ZERO if page in on_disk else page for page in vm] for vm in vms]
    assert measured(found.disk.dropped) == count(dropped, 1)
    assert found.disk.pages == sum(page in on_disk for vm in vms for page in vm)
    assert found.disk.contents == len(in_memory & on_disk)
    for step in found.balance:
        a, b = count(dropped[: step.vms], 1), count(vms[: step.vms], 1)
        assert step.zero_lost == a["saved_zero"] - b["saved_zero"]
        others = ("saved_self", "saved_inter")
        assert step.cache_saved_lower == step.cache_saved_upper == sum(b[each] - a[each] for each in others)
        assert (step.net_lower, step.net_upper) == (0, saved(dropped[: step.vms]) - saved(vms[: step.vms]))


@given(small_vms.filter(lambda vms: sum(map(len, vms)) <= 8))
def test_the_bound_of_contents_alone_is_that_over_all_choices_of_pages(vms: list[list[bytes | None]]) -> None:
    found = prefetch_unaided(fingerprinted(vms))
    assert found.basis is Basis.NONE
    everything = {page for vm in vms for page in vm if page is not None} - {ZERO}
    assert (found.lower_frames, found.upper_frames) == extremes(vms, everything)
    assert [caveat.code for caveat in found.caveats] == ["cache-not-told"]


def test_disks_tell_file_pages_among_lost_ones() -> None:
    cold: list[Vm] = [[content(1), ZERO, ZERO, ZERO]]
    warm: list[Vm] = [[content(1), content(2), content(3), content(1)]]
    disks = fingerprinted([[content(1), content(2)]], "disk")
    found = measure_prefetch(fingerprinted(warm), cold=fingerprinted(cold, "cold"), disks=disks)
    assert (found.basis, found.kind) == (Basis.COLD, Kind.MEASURED)
    assert found.cold is not None
    assert found.cold.vms[0].lost_file_pages == 2
    assert found.disk is not None
    assert found.disk.pages == 3
    assert not codes(found) & {"mapped-file-pages"}


def codes(found: Prefetch) -> set[str]:
    return {caveat.code for caveat in found.caveats}


def guest(first: int, size: int = 300) -> list[bytes | None]:
    return [content(number) for number in range(first, first + size)]


def test_a_cold_image_of_another_guest_is_refused_with_what_they_have_in_common() -> None:
    warm = fingerprinted([guest(1)])
    with pytest.raises(
        UnsupportedImageError, match=r"29 contents in common with it, 9\.7 % of the 300"
    ) as caught:
        prefetch_from_cold(warm, fingerprinted([guest(272)], "cold"))
    assert caught.value.path == "/cold0"
    assert prefetch_from_cold(warm, fingerprinted([guest(271)], "cold")).lower_frames == 0


def test_cold_images_of_other_memory_are_refused() -> None:
    warm = fingerprinted([guest(1)])
    with pytest.raises(UnsupportedImageError, match="300 pages are memory in one of them only"):
        prefetch_from_cold(warm, fingerprinted([guest(1, 600)], "cold"))
    absent: list[Vm] = [[*[None] * 299, ZERO], [*guest(1, 299), None]]
    nothing, filtered = fingerprinted(absent)
    with pytest.raises(UnsupportedImageError, match="no page is known both in it and in vm1"):
        prefetch_from_cold([filtered], [nothing])


def test_as_many_cold_images_as_vms_or_one() -> None:
    vms = fingerprinted([guest(1)] * 3)
    with pytest.raises(SizeError, match="2 cold images for 3 images"):
        prefetch_from_cold(vms, vms[:2])


def test_what_is_odd_about_cold_images_is_told() -> None:
    emptied: list[bytes | None] = [*guest(1, 200), *[ZERO] * 100]
    vms = fingerprinted([guest(1), guest(1)])
    assert "one-cold-image" in codes(prefetch_from_cold(vms, vms[:1]))
    assert "cold-is-the-same" in codes(prefetch_from_cold(vms[:1], vms[:1]))
    assert codes(prefetch_from_cold(vms[:1], fingerprinted([emptied]))) == set()
    assert "cold-is-fuller" in codes(prefetch_from_cold(fingerprinted([emptied]), vms[:1]))
    found = prefetch_from_cold(vms[:1], fingerprinted([guest(1)[::-1]]))
    assert codes(found) == {"cold-of-another-boot"}
    assert "0.0 % are the same" in found.caveats[0].message
    known_in_part: list[bytes | None] = [*guest(1, 250), *[None] * 50]
    found = prefetch_from_cold(vms[:1], fingerprinted([known_in_part]))
    assert "pages-in-one-only" in codes(found)
    assert found.cold is not None
    assert found.cold.vms[0].pages == 250


def test_device_memory_in_one_of_two_dumps_is_left_out() -> None:
    warm, before = [*guest(1, 640), *[None] * 10, *guest(700, 350)], [*guest(1, 640), ZERO, *[ZERO] * 9]
    images = [MemoryImage("warm", warm, gaps=True), MemoryImage("cold", [*before, *guest(700, 350)])]
    now, cold = hvshare.fingerprint_images(images)
    found = prefetch_from_cold([now], [cold])
    assert found.lower_frames == 0
    assert codes(found) == {"pages-in-one-only", "cold-is-the-same"}
    assert "10 pages are known in it or in its cold image cold" in found.caveats[0].message


def test_a_disk_that_does_not_belong_is_refused_for_the_vm_that_it_is_not_of() -> None:
    disk = fingerprinted([guest(1)], "disk")
    strange = guest(1000, 1000)
    with pytest.raises(
        UnsupportedImageError, match=r"only 0 of the 1,000 pages other than zero of vm1 \(0\.0 %\)"
    ):
        prefetch_from_disk(fingerprinted([guest(1), strange]), disk)
    few = prefetch_from_disk(fingerprinted([[*guest(1, 10), *guest(1000, 990)]]), disk)
    assert "few-file-pages" in codes(few)
    with pytest.raises(UnsupportedImageError, match=r"only 9 of the 1,000"):
        prefetch_from_disk(fingerprinted([[*guest(1, 9), *guest(1000, 991)]]), disk)


def test_a_second_disk_without_pages_of_memory_is_told() -> None:
    disks = fingerprinted([guest(1), guest(1000)], "disk")
    found = prefetch_from_disk(fingerprinted([guest(1)]), disks)
    told = [caveat for caveat in found.caveats if caveat.code == "disk-without-file-pages"]
    assert [caveat.image for caveat in told] == ["disk1"]
    assert "none of its 300 blocks other than zero" in told[0].message


def test_parts_of_the_work_add_up(monkeypatch: pytest.MonkeyPatch) -> None:
    numbers = random.Random(5)  # noqa: S311
    cold = [
        [content(numbers.choice([0, 0, numbers.randrange(1, 300)])) for _ in range(2000)] for _ in range(4)
    ]
    warm = [
        [page if page != ZERO else content(numbers.randrange(0, 500)) for page in before] for before in cold
    ]
    disks = [
        [content(number) for number in range(0, 500, 2)],
        [content(number) for number in range(0, 500, 3)],
    ]

    def measure() -> Prefetch:
        return measure_prefetch(
            fingerprinted(warm), cold=fingerprinted(cold, "cold"), disks=fingerprinted(disks, "disk")
        )

    whole = measure()
    monkeypatch.setattr(prefetch_contents, "_RANGE_CONTENTS", 10)
    monkeypatch.setattr(prefetch_contents, "_CHUNK", 7)
    monkeypatch.setattr(prefetch_axes, "_WINDOW_PAGES", 11)
    monkeypatch.setattr(disk_reading, "_BATCH_BLOCKS", 13)
    assert measure() == whole
    assert whole.cold is not None
    assert whole.cold.cold is not None
    assert measured(whole.cold.cold) == count(cold, 1)

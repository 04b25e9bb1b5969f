"""The bounds of ASLR against guests that were booted without it, and against an independent count."""

from __future__ import annotations

import itertools
from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import hvshare
from hvshare.erosion.aslr_classes import in_company, join_classes
from hvshare.erosion.aslr_contents import Contents
from tests.aslr_guests import Disk, Truth, find, images_of
from tests.oracle import PAGE

DISK = Disk(processes=2)


def boots(seeds: list[int | None], **factors: bool) -> list[list[bytes]]:
    return [DISK.boot(vm, seed, **factors) for vm, seed in enumerate(seeds)]


@pytest.mark.parametrize(
    "factors", [{}, {"user": False}, {"kernel": False}], ids=["all", "kernel only", "programs only"]
)
def test_the_interval_contains_the_truth_of_other_boots(factors: dict[str, bool]) -> None:
    randomised, plain = boots([1, 2], **factors), boots([None, None])
    truth, found = Truth.of(plain, randomised), find(randomised)
    assert truth.saved > 50
    assert 0.75 * truth.saved <= found.explained_saved_frames <= truth.saved <= found.upper_saved_frames


def test_without_aslr_next_to_nothing_is_explained() -> None:
    truth = Truth.of(boots([None, None]), boots([1, 2]))
    assert find(boots([None, None])).explained_saved_frames < 0.02 * truth.saved


def test_one_vm_and_three() -> None:
    for seeds in ([1], [1, 2, 3]):
        randomised, plain = boots(list(seeds)), boots([None] * len(seeds))
        truth, found = Truth.of(plain, randomised), find(randomised)
        assert 0 < found.explained_saved_frames <= truth.saved <= found.upper_saved_frames


def test_all_parts_add_up_however_many_processes_search() -> None:
    randomised = boots([1, 2])
    found = find(randomised, jobs=1)
    assert found == find(randomised, jobs=2)
    assert found.explained_saved_self + found.explained_saved_inter == found.explained_saved_frames
    assert sum(layer.saved_frames for layer in found.layers) == found.explained_saved_frames
    assert sum(layer.pages for layer in found.layers) == found.explained_pages
    assert found.upper_saved_frames == found.explained_saved_frames + found.near_saved_frames
    left = {each.name: each.pages for each in found.remainder}
    assert left["near"] == found.near_pages
    assert found.explained_pages + sum(left.values()) == found.unmatched_pages


def test_slides_of_the_kernel_are_listed() -> None:
    first, second = (DISK.boot(vm, seed, user=False) for vm, seed in enumerate((1, 2)))
    constants = find([first, second]).constants
    assert constants
    assert all(each.distance % PAGE == 0 and each.distance for each in constants)
    assert any(each.field_bits == 32 for each in constants)
    assert all((each.lowest_address or 1 << 63) >= 1 << 63 for each in constants if each.field_bits == 64)


def test_pages_that_point_to_their_own_neighbours_are_no_twins() -> None:
    # A free list: each page differs from all others in nothing but its own address.
    random = np.random.default_rng(5)
    offsets = np.sort(random.choice(256, 100, replace=False)) * 16
    pages = []
    for page in range(300):
        words = np.zeros(512, np.uint64)
        words[offsets // 8] = np.uint64(0x7F12_3450_0000 + page * PAGE) + np.roll(offsets, -1).astype(
            np.uint64
        )
        pages.append(words.tobytes())
    assert find([pages]).explained_saved_frames == 0
    assert find([pages, pages]).explained_saved_frames == 0


@pytest.mark.parametrize("pages", [[], [bytes(PAGE)] * 3, [b"x" * PAGE], [bytes(PAGE), b"y" * PAGE]])
def test_guests_with_next_to_nothing_in_them(pages: list[bytes]) -> None:
    found = find([pages or [bytes(PAGE)], [bytes(PAGE)]])
    assert (found.explained_saved_frames, found.upper_saved_frames) == (0, 0)
    assert found.nonzero_pages == sum(page != bytes(PAGE) for page in pages)


LETTERS = st.lists(st.sampled_from([bytes([each]) * PAGE for each in b"\0abcd"]), min_size=1, max_size=8)


@given(st.lists(LETTERS, min_size=1, max_size=3), st.lists(st.integers(0, 9), max_size=12))
def test_merging_contents_is_counted_as_sharing_is(vms: list[list[bytes]], choice: list[int]) -> None:
    contents = Contents.of(hvshare.fingerprint_images(images_of(vms), jobs=1))
    number: dict[bytes, int] = {}
    for page in (page for vm in vms for page in vm if any(page)):
        number.setdefault(page, len(number))
    assert len(contents) == len(number)
    assert contents.pages.tolist() == [Counter(page for vm in vms for page in vm)[page] for page in number]
    steps = itertools.pairwise(choice) if number else ()
    pairs = [(one % len(number), other % len(number)) for one, other in steps]
    first, second = (np.array([pair[side] for pair in pairs], np.int64) for side in (0, 1))
    classes = join_classes(np.arange(len(number)), first, second)
    # The slow way: rename until nothing changes.
    name = list(range(len(number)))
    for _ in name:
        for one, other in pairs:
            name[one] = name[other] = min(name[one], name[other])
    assert classes.tolist() == name
    assert in_company(classes).tolist() == [name.count(each) > 1 for each in name]

    def saved(names: list[int]) -> tuple[int, int]:
        held = [{names[number[page]] for page in vm if any(page)} for vm in vms]
        pages = sum(any(page) for vm in vms for page in vm)
        in_vms = sum(map(len, held))
        return pages - in_vms, in_vms - len(set().union(*held))

    plain, merged = saved(list(range(len(number)))), saved(name)
    assert contents.saved(classes) == (merged[0] - plain[0], merged[1] - plain[1])

from __future__ import annotations

import tracemalloc
from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hvshare.fingerprint.pages import ZERO_DIGEST
from hvshare.sharing import grouping
from hvshare.sharing.grouping import FrequentContent, PageClass, group, repeated_contents

# Few values, so that they repeat; some differ in their lowest bit alone.
digests = st.lists(
    st.one_of(
        st.sampled_from([0, 1, 2, 3, 2**63, 2**63 + 1, 2**64 - 1, 2**64 - 2, ZERO_DIGEST]),
        st.integers(0, 2**64 - 1),
    ),
    max_size=60,
)


def expected_class(vms: list[list[int]], vm: int, digest: int) -> PageClass:
    if digest == ZERO_DIGEST:
        return PageClass.ZERO
    if vms[vm].count(digest) > 1:
        return PageClass.SELF
    return PageClass.INTER if sum(digest in other for other in vms) > 1 else PageClass.UNIQUE


@given(st.lists(digests, min_size=1, max_size=4), st.integers(0, 5), st.sampled_from([1, 4, 1 << 18]))
def test_against_counters(vms: list[list[int]], top: int, range_digests: int) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(grouping, "_RANGE_DIGESTS", range_digests)
        arrays = [np.array(vm, np.uint64) for vm in vms]
        classes = [np.zeros(len(vm), np.uint8) for vm in vms]
        groups = group(arrays, top=top, classes=classes)
        repeated = repeated_contents(arrays, 10**6)
    copies = Counter(digest for vm in vms for digest in vm if digest != ZERO_DIGEST)
    assert groups.distinct == len(copies)
    assert groups.distinct_of.tolist() == [len(set(vm) - {ZERO_DIGEST}) for vm in vms]
    bins = Counter(count.bit_length() - 1 for count in copies.values())
    assert groups.contents_by_copies.tolist() == [bins[index] for index in range(64)]
    assert int(groups.frames_by_copies.sum()) == sum(copies.values())
    assert repeated.tolist() == sorted(digest for digest, count in copies.items() if count > 1)
    most = sorted(((-count, digest) for digest, count in copies.items() if count > 1))[:top]
    assert [(-each.copies, each.digest) for each in groups.frequent] == most
    for each in groups.frequent:
        first_vm = next(index for index, vm in enumerate(vms) if each.digest in vm)
        assert each == FrequentContent(each.copies, each.digest, first_vm, vms[first_vm].index(each.digest))
    for index, (vm, of_vm) in enumerate(zip(vms, classes, strict=True)):
        assert of_vm.tolist() == [expected_class(vms, index, digest) for digest in vm]


def test_digests_alike_in_all_leading_bits_are_told_apart() -> None:
    # The sort keys lose the low bits of these; only the way back through the digests shows the order.
    vm = np.array([7, 3, 5, 3, 7, 1], np.uint64)
    groups = group([vm], top=3)
    assert groups.distinct == 4
    assert [(each.copies, each.digest, each.position) for each in groups.frequent] == [(2, 3, 1), (2, 7, 0)]


def test_sample_of_repeated_contents_stops_at_the_limit() -> None:
    vm = np.repeat(np.arange(1000, dtype=np.uint64) << np.uint64(54), 2)
    assert repeated_contents([vm], 5).tolist() == [number << 54 for number in range(5)]


@pytest.mark.parametrize("share", [0.0, 0.7, 1.0])
def test_memory_stays_bounded_whatever_repeats(share: float, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(grouping, "default_jobs", lambda: 64)
    pages = 1 << 22
    vm = np.random.default_rng(1).integers(0, 2**64, pages, dtype=np.uint64)
    vm[: int(share * pages)] = 0xCC
    classes = [np.zeros(pages, np.uint8)]
    tracemalloc.start()
    groups = group([vm], top=1, classes=classes)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    # Of 24 bytes a page in all, digests take 8 and classes 1.
    assert peak < 15 * pages
    assert groups.distinct == pages - int(share * pages) + (share > 0)
    assert [each.copies for each in groups.frequent] == ([int(share * pages)] if share else [])

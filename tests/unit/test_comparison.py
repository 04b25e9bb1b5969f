from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

import hvshare
from hvshare.sharing.comparison import Comparison, compare
from hvshare.sharing.domains import Domain, one_per_vm
from hvshare.units import PAGE_SIZE
from tests.guests import ZERO, MemoryImage, vms_with_gaps
from tests.oracle import Vm, count

SIZES = (PAGE_SIZE, 4 * PAGE_SIZE)
some_vms = st.lists(vms_with_gaps, min_size=1, max_size=5)


def compared(vms: list[Vm], domains: tuple[Domain, ...] = ()) -> Comparison:
    images = [MemoryImage(f"vm{index}", vm, zero_runs=bool(index % 2)) for index, vm in enumerate(vms)]
    return compare(hvshare.fingerprint_images(images), SIZES, domains=domains)


def saved(vms: list[Vm], size: int) -> int:
    counts = count(vms, size // PAGE_SIZE)
    return counts["frames"] - counts["distinct"]


@given(some_vms)
def test_counts_are_those_of_an_independent_count(vms: list[Vm]) -> None:
    found = compared(vms)
    for size in SIZES:
        expected = count(vms, size // PAGE_SIZE)
        assert {name: getattr(found.pooled[size], name) for name in expected} == expected
        for vm, image, contribution in zip(vms, found.images, found.contributions, strict=True):
            alone = count([vm], size // PAGE_SIZE)
            assert {name: getattr(image.counts[size], name) for name in alone} == alone
            others = [other for other in vms if other is not vm]
            assert contribution.saved[size] == saved(vms, size) - (saved(others, size) if others else 0)


@given(some_vms)
def test_pairs_hold_what_sets_hold(vms: list[Vm]) -> None:
    found = compared(vms)
    contents = [{page for page in vm if page not in (None, ZERO)} for vm in vms]
    assert len(found.pairs) == len(vms) * (len(vms) - 1) // 2
    for pair in found.pairs:
        common = contents[pair.a] & contents[pair.b]
        assert pair.common_contents == len(common)
        assert pair.common_of_a == sum(page in common for page in vms[pair.a])
        assert pair.common_of_b == sum(page in common for page in vms[pair.b])


@given(some_vms, st.lists(st.integers(0, 2), min_size=5, max_size=5))
def test_savings_stay_within_domains(vms: list[Vm], of_vm: list[int]) -> None:
    numbers = of_vm[: len(vms)]
    domains = tuple(
        Domain(f"d{number}", tuple(vm for vm, each in enumerate(numbers) if each == number))
        for number in dict.fromkeys(numbers)
    )
    found = compared(vms, domains)
    for domain, sharing, copies in zip(domains, found.domains, found.copies, strict=True):
        members = [vms[vm] for vm in domain.vms]
        for size in SIZES:
            expected = count(members, size // PAGE_SIZE)
            assert {name: getattr(sharing.counts[size], name) for name in expected} == expected
        pages = [page for vm in members for page in vm if page is not None]
        contents = {page: pages.count(page) for page in pages if page != ZERO}
        assert dict(copies.contents) == {
            number: list(contents.values()).count(number) for number in contents.values()
        }
        assert copies.zero_pages == pages.count(ZERO)
    for size in SIZES:
        assert found.saved_in_domains(size) <= found.pooled[size].saved


@given(some_vms)
def test_walls_around_each_vm_leave_what_it_saves_alone(vms: list[Vm]) -> None:
    found = compared(vms, tuple(one_per_vm([f"vm{index}" for index in range(len(vms))])))
    for size in SIZES:
        assert found.saved_in_domains(size) == sum(image.counts[size].saved for image in found.images)


@given(some_vms)
def test_the_order_of_vms_changes_nothing(vms: list[Vm]) -> None:
    forwards, backwards = compared(vms), compared(vms[::-1])
    assert forwards.pooled == backwards.pooled
    saved_of = [each.saved for each in forwards.contributions]
    assert saved_of == [each.saved for each in backwards.contributions][::-1]

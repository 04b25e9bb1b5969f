"""Address spaces that overlap in the lower 4 GB: what is found in guests of 32 bits, and of 64."""

from __future__ import annotations

import enum
import struct
from collections.abc import Sequence
from fractions import Fraction
from typing import Final, NamedTuple

import numpy as np
import pytest
from numpy.typing import NDArray

from hvshare.erosion.aslr_result import Aslr
from hvshare.synth.guest import plan_guest
from hvshare.synth.preset_file import load_preset
from hvshare.synth.settings import Settings
from hvshare.synth.template import Template
from tests.aslr_guests import (
    BASES,
    MB,
    Disk,
    Numbers,
    Part,
    Region,
    Truth,
    booted,
    find,
    kernel,
    process,
    slides,
)
from tests.guests import ZERO
from tests.oracle import PAGE, Vm

STEP: Final = 64 << 10
"""To what Windows aligns what it moves."""

PROCESSES: Final = 3
LEAST_SHARE: Final = 0.9


class Area(enum.IntEnum):
    """What moves as one in a guest of 32 bits."""

    KERNEL, LIBRARIES, HEAP, SECOND_HEAP, THIRD_HEAP = range(5)


HEAPS: Final = [Area.HEAP, Area.SECOND_HEAP, Area.THIRD_HEAP]
WITHOUT_ASLR: Final = [0xC100_0000, 0x7700_0000, 0x0030_0000, 0x0030_0000, 0x0030_0000]


class Pages(NamedTuple):
    """Pages with addresses of 32 bits in them.

    Attributes
    ----------
    content : ndarray of uint8, shape (pages, 4096)
        What is around the addresses.
    places, areas, offsets : ndarray of int64
        At which byte of all pages an address stands, and where it points to.
    """

    content: NDArray[np.uint8]
    places: Numbers
    areas: Numbers
    offsets: Numbers

    def __add__(self, other: object) -> Pages:
        assert isinstance(other, Pages)
        return Pages(
            np.concatenate((self.content, other.content)),
            np.concatenate((self.places, other.places + self.content.size)),
            np.concatenate((self.areas, other.areas)),
            np.concatenate((self.offsets, other.offsets)),
        )

    def of_process(self, heap: Area) -> Pages:
        """Let the addresses of heaps point into that of another process."""
        return self._replace(areas=np.where(self.areas >= Area.HEAP, heap, self.areas))

    def at(self, bases: Sequence[int]) -> list[bytes]:
        """Write the pages as they are with areas at some addresses."""
        written = bytearray(self.content.tobytes())
        for place, area, offset in zip(
            self.places.tolist(), self.areas.tolist(), self.offsets.tolist(), strict=True
        ):
            struct.pack_into("<I", written, place, bases[area] + offset)
        return [bytes(written[at : at + PAGE]) for at in range(0, len(written), PAGE)]


def data_pages(random: np.random.Generator, pages: int, into: dict[Area, int], share: float = 0.1) -> Pages:
    """Make data structures: nothing, small numbers, a few of any size, and aligned addresses."""
    words = random.integers(0, 1 << 32, (pages, PAGE // 4), dtype=np.uint32)
    kind = random.random(words.shape)
    words[kind < 0.9] >>= np.uint32(24)
    words[kind < 0.5] = 0
    places = np.flatnonzero(random.random(words.size) < share) * 4
    areas = random.choice([*into], len(places))
    ends = np.array([into.get(area, 1) for area in Area])
    return Pages(words.view(np.uint8), places, areas, random.integers(0, ends[areas]) & ~3)


def code_pages(random: np.random.Generator, pages: int, into: Area, end: int, each: int = 12) -> Pages:
    """Make code: any bytes, and addresses that start at any of them."""
    content = random.integers(0, 256, (pages, PAGE), dtype=np.uint8)
    within = np.concatenate([random.choice((PAGE - 4) // 5, each, replace=False) * 5 for _ in range(pages)])
    places = np.repeat(np.arange(pages) * PAGE, each) + within
    return Pages(content, places, np.full(len(places), into), random.integers(0, end, len(places)))


class System(NamedTuple):
    """What all guests run that are booted from one disk."""

    shared: Pages
    heap: Pages

    @classmethod
    def of(cls, seed: int, heap_pages: int = 40) -> System:
        """Make the kernel, the libraries, and the heap of a program."""
        random = np.random.default_rng(seed)
        shared = data_pages(random, 30, {Area.KERNEL: 6 * MB}) + code_pages(random, 30, Area.KERNEL, 6 * MB)
        shared += data_pages(random, 20, {Area.LIBRARIES: 4 * MB})
        shared += code_pages(random, 40, Area.LIBRARIES, 4 * MB)
        return cls(
            shared, data_pages(random, heap_pages, {Area.HEAP: heap_pages * PAGE, Area.LIBRARIES: 4 * MB})
        )

    def boot(self, vm: int, bases: Sequence[int], processes: int = PROCESSES) -> list[bytes]:
        """Boot a VM that runs a program several times, with pages that are its own and some of zeros."""
        random = np.random.default_rng((vm, 3))
        pages = self.shared.at(bases)
        for area in HEAPS[:processes]:
            pages += self.heap.of_process(area).at(bases)
        pages += [random.bytes(PAGE) for _ in range(20)] + [ZERO] * 10
        return [pages[place] for place in random.permutation(len(pages)).tolist()]


def moved(seed: int, *, system: bool = True, programs: bool = True) -> list[int]:
    """Say where areas are after a boot: heaps of all processes within 2 MB of each other."""
    random = np.random.default_rng((seed, 4))
    bases = list(WITHOUT_ASLR)
    if system:
        bases[Area.KERNEL] += int(random.integers(1, 60)) * 2 * MB
    if programs:
        bases[Area.LIBRARIES] -= int(random.integers(1, 256)) * STEP
        for area, steps in zip(
            HEAPS, random.choice(np.arange(1, 32), len(HEAPS), False).tolist(), strict=True
        ):
            bases[area] += steps * STEP
    return bases


def check(off: Sequence[Vm], on: Sequence[Vm]) -> Aslr:
    """Search with ASLR, and hold what is found against a count of raw bytes."""
    truth, found = Truth.of(off, on), find(on)
    assert LEAST_SHARE * truth.saved <= found.explained_saved_frames <= truth.saved
    assert truth.saved <= found.upper_saved_frames
    assert found.explained_saved_self <= truth.saved_self + truth.saved_inter - found.explained_saved_inter
    return found


SYSTEM = System.of(1)


def boots(bases: Sequence[Sequence[int]], system: System = SYSTEM) -> list[list[bytes]]:
    return [system.boot(vm, each) for vm, each in enumerate(bases)]


@pytest.mark.parametrize(
    ("vms", "what"),
    [(2, {}), (3, {}), (2, {"system": False}), (2, {"programs": False}), (1, {})],
    ids=["two VMs", "three VMs", "programs alone", "kernels alone", "one VM"],
)
def test_bounds_hold_what_boots_without_aslr_save(vms: int, what: dict[str, bool]) -> None:
    on = boots([moved(11 + vm, **what) for vm in range(vms)])
    off = boots([WITHOUT_ASLR] * vms)
    truth, found = Truth.of(off, on), check(off, on)
    assert truth.saved >= 60
    assert found.wide_vms == 0
    if what.get("programs", True):
        assert LEAST_SHARE * truth.saved_self <= found.explained_saved_self <= truth.saved_self
    else:
        assert found.explained_saved_self == 0


@pytest.mark.parametrize(("step", "kernel"), [(PAGE, 0xC100_0000), (STEP, 0x8280_0000)])
def test_systems_that_move_by_pages_or_have_a_kernel_at_2_gb(step: int, kernel: int) -> None:
    bases = [moved(13), moved(14)]
    for each in bases:
        each[Area.KERNEL] += kernel - WITHOUT_ASLR[Area.KERNEL]
        for area in HEAPS:
            each[area] = WITHOUT_ASLR[area] + (each[area] - WITHOUT_ASLR[area]) // STEP * 7 * step
    off = boots([[kernel, *WITHOUT_ASLR[1:]]] * 2)
    check(off, boots(bases))


def distances(bases: Sequence[Sequence[int]], one: int, other: int) -> set[int]:
    """Tell by what areas of a VM moved to those of another, or heaps to others in the same VM."""
    found = {bases[other][area] - bases[one][area] for area in (Area.KERNEL, Area.LIBRARIES)}
    found |= {bases[other][second] - bases[one][first] for first in HEAPS for second in HEAPS}
    return found - {0}


@pytest.mark.parametrize("seed", [21, 22])
def test_constants_are_the_distances_between_boots_and_between_processes(seed: int) -> None:
    bases = [moved(seed), moved(seed + 100)]
    constants = find(boots(bases)).constants
    assert {each.field_bits for each in constants} == {32}
    names = {"vm0": 0, "vm1": 1}
    for one, other in ((0, 0), (0, 1), (1, 1)):
        here = [
            each.distance
            for each in constants
            if (names[each.first_image], names[each.second_image]) == (one, other)
        ]
        assert len(here) == len(set(here))
        expected = distances(bases, one, other)
        if one == other:
            # Which page of a pair within a VM comes first is chance.
            assert {*here} <= expected
            here, expected = [abs(each) for each in here], {abs(each) for each in expected}
        assert {*here} == expected
    for each in constants:
        assert each.lowest_address is not None
        assert each.highest_address is not None
        base = bases[names[each.first_image]]
        assert any(
            base[area] // PAGE * PAGE <= each.lowest_address <= each.highest_address < base[area] + 8 * MB
            for area in Area
        )


@pytest.mark.parametrize("vms", [1, 2, 3])
def test_nothing_is_explained_where_nothing_moved(vms: int) -> None:
    found = find(boots([WITHOUT_ASLR] * vms))
    assert (found.explained_saved_frames, found.explained_pages, found.constants) == (0, 0, ())


def test_other_programs_are_no_twins() -> None:
    other = System.of(2)
    vms = [SYSTEM.boot(0, moved(31), 1), other.boot(1, moved(32), 1)]
    assert find(vms).explained_saved_frames == 0


def memory_map(base: int, pages: int, above: int) -> list[bytes]:
    """Make an array that describes frames: entries of 32 bytes that point to others at the same place."""
    found = []
    for page in range(pages):
        entries = []
        for entry in range(PAGE // 32):
            before, behind = (base + (page + by) * PAGE + entry * 32 for by in (-1, 1))
            entries.append(struct.pack("<8I", 0x4000_0028, 1, behind, above, before, above, 0, entry))
        found.append(b"".join(entries))
    return found


@pytest.mark.parametrize("base", [0x8300_0000, 0xC300_0000])
@pytest.mark.parametrize("above", [0, 1, 0xFFFF_FFFF])
def test_a_map_of_memory_that_several_vms_hold_is_no_twin_of_itself(base: int, above: int) -> None:
    pages = memory_map(base, 40, above)
    assert find([pages, pages]).explained_saved_frames == 0


def test_a_map_of_memory_is_no_twin_beside_what_moved() -> None:
    pages, vms = memory_map(0x8300_0000, 40, 1), boots([moved(41), moved(42)])
    found = find([[*vm, *pages] for vm in vms])
    assert found.explained_saved_frames == find(vms).explained_saved_frames > 0


@pytest.mark.parametrize("base", [0x8300_0000, 0xC300_0000])
def test_a_map_of_memory_that_one_vm_holds_is_no_twin_of_itself(base: int) -> None:
    pages = memory_map(base, 40, 1)
    assert find([pages]).explained_saved_frames == 0
    assert find([pages, pages[:30]]).explained_saved_frames == 0


def alike_pages(heap: int, start: int, pages: int) -> list[bytes]:
    """Make an array in a heap: pages that are alike but for addresses in themselves."""
    content = data_pages(np.random.default_rng(51), 1, {Area.HEAP: PAGE}, 0.01)
    bases = ([0, 0, heap + (start + page) * PAGE] for page in range(pages))
    return [page for each in bases for page in content.at(each)]


@pytest.mark.parametrize("pages", [8, 40])
@pytest.mark.parametrize("seeds", [(None,), (None, None), (52,), (52, 53)])
def test_neighbours_in_a_heap_are_no_twins(seeds: Sequence[int | None], pages: int) -> None:
    on: list[list[bytes]] = []
    off: list[list[bytes]] = []
    for vm, seed in enumerate(seeds):
        bases = WITHOUT_ASLR if seed is None else moved(seed)
        for guests, each in ((on, bases), (off, WITHOUT_ASLR)):
            array = alike_pages(each[Area.HEAP], 40 + 60 * vm, pages)
            guests.append([*SYSTEM.boot(vm, each, 1), *array])
    assert find(on).explained_saved_frames <= Truth.of(off, on).saved


def test_a_mixed_set_of_vms_finds_what_each_kind_alone_finds() -> None:
    wide = Disk(61, processes=2).boot(0, 62)
    narrow = boots([moved(63), moved(64)])
    of_wide, of_narrow = find([wide]), find(narrow)
    assert min(of_wide.explained_saved_frames, of_narrow.explained_saved_frames) > 100
    for vms in ([wide, *narrow], [narrow[0], wide, narrow[1]]):
        found = find(vms)
        assert found.wide_vms == 1
        for name in (
            "explained_saved_self",
            "explained_saved_inter",
            "explained_pages",
            "upper_saved_frames",
        ):
            assert getattr(found, name) == getattr(of_wide, name) + getattr(of_narrow, name)
        bits = [
            (each.field_bits, each.distance, each.pages)
            for each in (*of_wide.constants, *of_narrow.constants)
        ]
        assert sorted((each.field_bits, each.distance, each.pages) for each in found.constants) == sorted(
            bits
        )


def low_heaps(seed: int) -> NDArray[np.uint64]:
    """Say where regions of a 64-bit guest are whose heaps overlap in the lower 4 GB."""
    bases = slides(seed)
    random = np.random.default_rng((seed, 5))
    for region, steps in zip(
        (Region.HEAP, Region.SECOND_HEAP), random.choice(32, 2, False).tolist(), strict=True
    ):
        bases[region] = 0x0030_0000 + steps * STEP
    return bases


@pytest.mark.parametrize("seed", [71, 72])
@pytest.mark.parametrize("vms", [1, 2])
def test_heaps_of_64_bit_guests_that_overlap_below_4_gb_are_found(seed: int, vms: int) -> None:
    random = np.random.default_rng(70)
    program = process(random)
    part: Part = kernel(random) + program + program.for_second_process()
    off = [booted(part, vm, BASES) for vm in range(vms)]
    on = [booted(part, vm, low_heaps(seed + 100 * vm)) for vm in range(vms)]
    found = check(off, on)
    assert found.wide_vms == vms
    assert {each.field_bits for each in found.constants if each.lowest_address} == {64}


def made(vm: int, template: Template, *, aslr: bool) -> list[bytes]:
    settings = Settings(template.preset, template.preset.memory, vm=vm, boot=vm, aslr=aslr)
    plan = plan_guest(settings, template)
    out = np.empty((len(plan), 512), np.uint64)
    plan.make(out, 0)
    return [page.tobytes() for page in out]


def test_bounds_hold_the_truth_of_made_guests_of_32_bits() -> None:
    template = Template(load_preset("windows7-x86").scaled(Fraction(1, 256)), 1)
    off, on = ([made(vm, template, aslr=aslr) for vm in (1, 2)] for aslr in (False, True))
    truth, found = Truth.of(off, on), find(on)
    assert truth.saved >= 50
    # A few words that differ otherwise are forgiven in twins that are displaced.
    displaced = {layer.name: layer.saved_frames for layer in found.layers}["displaced"]
    saved = found.explained_saved_frames - displaced
    assert LEAST_SHARE * truth.saved <= saved <= truth.saved <= found.upper_saved_frames
    assert displaced <= 0.01 * truth.saved
    assert LEAST_SHARE * truth.saved_self <= found.explained_saved_self <= truth.saved_self
    assert found.wide_vms == 0
    found = find(off)
    assert (found.explained_saved_frames, found.constants) == (0, ())

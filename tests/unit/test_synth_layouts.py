"""Address space layouts against the rules of the operating systems, over many boots."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from fractions import Fraction
from functools import cache
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hvshare.errors import PresetError
from hvshare.synth.address_spaces import (
    BOOT,
    DIRECT_MAP,
    FIRST_PROCESS,
    HEAP,
    KERNEL,
    LIBRARIES,
    MODULES,
    ON_DISK,
    PROGRAM,
    STACK,
    AddressSpaces,
)
from hvshare.synth.applications import with_applications
from hvshare.synth.contents.filling import fill
from hvshare.synth.contents.kinds import Kind, Pages
from hvshare.synth.draws import Draws
from hvshare.synth.gaps import Gaps
from hvshare.synth.layouts import Process, lay_out
from hvshare.synth.preset import Preset
from hvshare.synth.preset_file import load_preset, parse_preset, preset_text
from hvshare.synth.template import Template

BOOTS = 300
KB64 = 1 << 16


@cache
def made(name: str) -> Template:
    return Template(load_preset(name).scaled(Fraction(1, 64)), 1)


def spaces_of(name: str, boot: int | None) -> AddressSpaces:
    template = made(name)
    draws = None if boot is None else Draws.of("boot", boot)
    return lay_out(template.preset, template.disk, template.processes, template.preset.memory, draws)


def loaded_first(template: Template) -> list[int]:
    order: list[int] = []
    for process in template.processes:
        order += [int(each) for each in process.libraries if int(each) not in order]
    return order


@pytest.mark.parametrize("name", ["windows7-x86", "windows7-x64"])
def test_windows_packs_libraries_downward_from_one_bias_a_boot(name: str) -> None:
    template = made(name)
    order = loaded_first(template)
    sizes = [-(-int(template.disk.image_sizes[each]) // KB64) * KB64 for each in order]
    end = template.preset.aslr.user_end
    seen = set()
    for boot in range(BOOTS):
        bases = spaces_of(name, boot).bases
        libraries = [int(bases[BOOT, LIBRARIES + each]) for each in order]
        start = libraries[0] + sizes[0]
        bias, rest = divmod(end - start, KB64)
        assert rest == 0
        assert 0 <= bias < 256
        seen.add(bias)
        below = start
        for base, size in zip(libraries, sizes, strict=True):
            below -= size
            assert base == below
    # Of 256 biases, 300 boots draw 256 * (1 - (255 / 256) ** 300) = 177 on average, with a deviation of 5.1.
    assert 156 <= len(seen) <= 198


def test_windows_has_libraries_at_one_address_in_all_processes() -> None:
    template = made("windows7-x64")
    bases = spaces_of("windows7-x64", 7).bases
    for space, process in enumerate(template.processes, FIRST_PROCESS):
        assert (bases[space, LIBRARIES:] == bases[BOOT, LIBRARIES:]).all()
        assert bases[space, PROGRAM] == bases[BOOT, LIBRARIES + process.program]


def test_boots_of_one_bias_have_libraries_at_the_same_addresses() -> None:
    count = len(made("windows7-x64").disk.libraries)
    by_first: dict[int, list[bytes]] = {}
    for boot in range(BOOTS):
        libraries = spaces_of("windows7-x64", boot).bases[BOOT, LIBRARIES : LIBRARIES + count]
        by_first.setdefault(int(libraries[0]), []).append(libraries.tobytes())
    collisions = [each for each in by_first.values() if len(each) > 1]
    assert len(collisions) > 40
    assert all(len(set(each)) == 1 for each in collisions)


def test_windows_puts_executables_64_kb_apart_and_never_where_they_were_linked() -> None:
    template = made("windows7-x64")
    for boot in range(100):
        bases = spaces_of("windows7-x64", boot).bases
        for file in template.disk.programs:
            moved = int(bases[BOOT, LIBRARIES + file]) - int(bases[ON_DISK, LIBRARIES + file])
            assert moved % KB64 == 0
            assert 1 <= moved // KB64 <= 254


def test_windows_moves_heaps_to_one_of_32_places_and_leaves_the_kernel() -> None:
    fixed = spaces_of("windows7-x64", None).bases
    slots = set()
    for boot in range(100):
        bases = spaces_of("windows7-x64", boot).bases
        for region in (KERNEL, MODULES, DIRECT_MAP):
            assert (bases[:, region] == fixed[:, region]).all()
        moved = (bases - fixed)[FIRST_PROCESS:, HEAP]
        assert not (moved % KB64).any()
        slots |= {int(each) // KB64 for each in moved}
    assert slots == set(range(32))


def test_windows_xp_moves_nothing() -> None:
    assert (spaces_of("windows-xp-x86", 1).bases == spaces_of("windows-xp-x86", None).bases).all()


@pytest.mark.parametrize("name", ["windows-xp-x86", "windows7-x86", "windows7-x64"])
def test_without_aslr_images_lie_where_files_have_them(name: str) -> None:
    bases = spaces_of(name, None).bases
    assert (bases[BOOT:, LIBRARIES:] == bases[ON_DISK, LIBRARIES:]).all()
    assert bases[ON_DISK, LIBRARIES:].all()


def test_linux_draws_places_for_each_program_in_pages() -> None:
    template = made("linux-x64")
    fixed = spaces_of("linux-x64", None).bases
    for boot in range(40):
        spaces = spaces_of("linux-x64", boot)
        for region, most in ((PROGRAM, 1 << 40), (HEAP, (1 << 40) + (1 << 30)), (STACK, 1 << 34)):
            moved = np.abs(
                spaces.bases[FIRST_PROCESS:, region].astype(np.int64)
                - fixed[FIRST_PROCESS:, region].astype(np.int64)
            )
            assert not (moved % 4096).any()
            assert (moved < most).all()
            assert len(set(moved.tolist())) == len(template.processes)
        for space, process in enumerate(template.processes, FIRST_PROCESS):
            ends = sorted(
                (
                    int(spaces.bases[space, region]),
                    int(spaces.bases[space, region] + spaces.sizes[space, region]),
                )
                for region in (PROGRAM, HEAP, STACK, *(LIBRARIES + process.libraries))
            )
            assert all(end <= start for (_, end), (start, _) in pairwise(ends))
            assert ends[-1][1] <= template.preset.aslr.user_end


def test_linux_moves_the_kernel_by_2_mb_within_1_gb_and_modules_by_pages() -> None:
    fixed = spaces_of("linux-x64", None).bases[BOOT]
    size = made("linux-x64").preset.kernel.image
    kernels, modules = set(), set()
    for boot in range(BOOTS):
        bases = spaces_of("linux-x64", boot).bases
        assert (bases[BOOT:, KERNEL] == bases[BOOT, KERNEL]).all()
        moved = int(bases[BOOT, KERNEL] - fixed[KERNEL])
        assert moved % (2 << 20) == 0
        assert int(bases[BOOT, KERNEL]) + size <= 0xFFFF_FFFF_C000_0000
        kernels.add(moved)
        of_modules = int(bases[BOOT, MODULES] - fixed[MODULES])
        assert of_modules % 4096 == 0
        assert 1 <= of_modules // 4096 <= 1024
        modules.add(of_modules)
        assert int(bases[BOOT, DIRECT_MAP] - fixed[DIRECT_MAP]) % (1 << 30) == 0
    # 300 draws out of 503 and of 1,024 places: 226 and 260 on average, with deviations of 5.8 and 5.2.
    assert 203 <= len(kernels) <= 249
    assert 239 <= len(modules) <= 281


def test_linux_without_aslr_is_alike_in_all_processes_of_a_program() -> None:
    template = made("linux-x64")
    bases = spaces_of("linux-x64", None).bases
    of_program: dict[str, list[bytes]] = {}
    for space, process in enumerate(template.processes, FIRST_PROCESS):
        of_program.setdefault(process.name.rpartition(" ")[0], []).append(bases[space].tobytes())
    assert {name: len(set(each)) for name, each in of_program.items()} == dict.fromkeys(of_program, 1)


MIB = 1 << 20
GIB = 1 << 30
NAMES = ["linux-x64", "windows-xp-x86", "windows7-x64", "windows7-x86"]


def large(name: str, *, libraries: int = 0, stack: int = 0, image: int = 0, heap_places: int = 0) -> Preset:
    """Give a preset at full size, but for files that no process maps; with some sizes of its own."""
    preset = load_preset(name)
    few = dataclasses.replace(preset.disk, text=0, media=0, records=0)
    programs = tuple(
        dataclasses.replace(each, stack=stack or each.stack, image=image or each.image)
        for each in preset.programs
    )
    aslr = dataclasses.replace(preset.aslr, heap_places=heap_places or preset.aslr.heap_places)
    disk = dataclasses.replace(few, libraries=libraries or few.libraries)
    return dataclasses.replace(preset, disk=disk, programs=programs, aslr=aslr)


def regions_of(
    preset: Preset, spaces: AddressSpaces, processes: list[Process]
) -> Iterator[list[tuple[int, int]]]:
    """Give first and last address of all that a process has, in order, as plain numbers."""
    last = (1 << 32 if preset.architecture == "i386" else 1 << 64) - 1
    for space, process in enumerate(processes, FIRST_PROCESS):
        of_user = [PROGRAM, HEAP, STACK, *(LIBRARIES + process.libraries).tolist()]
        found = []
        for region in [*of_user, KERNEL, MODULES, DIRECT_MAP]:
            base, size = int(spaces.bases[space, region]), int(spaces.sizes[space, region])
            assert size > 0
            assert base >= KB64
            assert base + size <= (preset.aslr.user_end if region in of_user else last + 1)
            assert region in of_user or base > last // 2
            found.append((base, base + size))
        yield sorted(found)


@pytest.mark.parametrize("apps", [0, 3 * GIB, 7 * GIB], ids=["alone", "3GiB", "7GiB"])
@pytest.mark.parametrize(
    "preset",
    [
        *(large(name) for name in NAMES),
        # Libraries meet stacks, and heaps, stacks and executables find no room in their usual places.
        large("linux-x64", stack=4 * GIB),
        large("windows7-x64", stack=600 * MIB, image=80 * MIB, heap_places=256),
        large("windows7-x86", stack=6 * MIB, image=24 * MIB, heap_places=256),
        # More libraries than there are addresses, of which fewer are loaded.
        large("windows7-x86", libraries=3 * GIB),
    ],
    ids=[*NAMES, "large stacks", "x64 with large programs", "x86 with large programs", "many libraries"],
)
def test_no_two_regions_of_a_process_overlap(preset: Preset, apps: int) -> None:
    for seed in (1, 2):
        template = Template(preset, seed)
        processes = with_applications(template, apps // 4096)
        assert sum(each.heap for each in processes[len(template.processes) :]) == apps
        assert len({each.name for each in processes}) == len(processes)
        for boot in (None, *range(8)):
            draws = None if boot is None else template.draws.child("boot", boot)
            spaces = lay_out(preset, template.disk, processes, preset.memory, draws)
            for regions in regions_of(preset, spaces, processes):
                assert all(one[1] <= other[0] for one, other in pairwise(regions))


@pytest.mark.parametrize("name", ["windows-xp-x86", "windows7-x64"])
def test_real_libraries_that_were_linked_to_lie_anywhere_do_not_overlap(name: str) -> None:
    preset = large(name)
    template = Template(preset, 1)
    count, end = len(template.disk.libraries), preset.aslr.user_end
    program = 0x40_0000 if name == "windows-xp-x86" else 0x1_4000_0000
    # Where executables, stacks and heaps lie, on no 64 KB, across the end, behind it, and all at one place.
    linked = [program, 0x3_0000, 0x25_0000, 0x1234_5000, end - 4096, 1 << 63, *[0x1000_0000] * 40]
    preferred = template.disk.preferred.copy()
    preferred[:count] = np.resize(np.array(linked, np.uint64), count)
    disk = dataclasses.replace(template.disk, preferred=preferred)
    spaces = lay_out(preset, disk, template.processes, preset.memory, None)
    for regions in regions_of(preset, spaces, list(template.processes)):
        assert all(one[1] <= other[0] for one, other in pairwise(regions))
    # What finds its place free keeps it, as the first library of all does with 0x10000000.
    assert preferred[6] == spaces.bases[BOOT, LIBRARIES + 6] == 0x1000_0000


def test_a_heap_lies_below_the_executable_if_it_fits_and_else_behind_it() -> None:
    preset = large("windows-xp-x86")
    template = Template(preset, 1)
    processes = [
        dataclasses.replace(template.processes[0], heap=heap)
        for heap in (4096, 0x40_0000 - 0x25_0000, 0x40_0000 - 0x25_0000 + 4096, 14 * MIB)
    ]
    bases = lay_out(preset, template.disk, processes, preset.memory, None).bases[FIRST_PROCESS:]
    # The executable of explorer has 1 MiB.
    assert bases[:, PROGRAM].tolist() == [0x40_0000] * 4
    assert bases[:, HEAP].tolist() == [0x25_0000, 0x25_0000, 0x50_0000, 0x50_0000]
    assert bases[:, STACK].tolist() == [0x3_0000] * 4


def test_heaps_behind_executables_are_moved_to_all_their_places_too() -> None:
    preset = large("windows7-x86")
    template = Template(preset, 1)
    (process, *_) = template.processes
    behind = set()
    for boot in range(300):
        spaces = lay_out(preset, template.disk, [process], preset.memory, Draws.of("boot", boot))
        end = int(spaces.bases[FIRST_PROCESS, PROGRAM] + spaces.sizes[FIRST_PROCESS, PROGRAM])
        distance = int(spaces.bases[FIRST_PROCESS, HEAP]) - end
        if distance >= 0:
            behind.add(distance)
    # Of 30 MiB, it never fits below; 300 boots draw each of 32 places but for a chance of 1 in 400.
    assert behind == {place * KB64 for place in range(32)}


def test_without_aslr_loaded_images_of_full_size_lie_where_files_have_them() -> None:
    for name in ("windows-xp-x86", "windows7-x86", "windows7-x64"):
        preset = large(name)
        template = Template(preset, 1)
        bases = lay_out(preset, template.disk, template.processes, preset.memory, None).bases
        assert (bases[BOOT:, LIBRARIES:] == bases[ON_DISK, LIBRARIES:]).all()


@pytest.mark.parametrize(
    ("name", "single"), [("windows-xp-x86", False), ("windows7-x86", False), ("windows7-x64", True)]
)
def test_applications_are_as_many_processes_as_address_spaces_need(name: str, single: bool) -> None:
    template = Template(large(name), 1)
    own = with_applications(template, 6 * GIB // 4096)[len(template.processes) :]
    assert (len(own) == 1) is single
    # Programs of their own: what two of them have in common does not depend on how many they are.
    assert len({each.name.rpartition(" ")[0] for each in own}) == len(own)
    assert all(each.heap % (2 * MIB) == 0 for each in own[:-1])
    if not single:
        # 2 GB of user space less libraries; not much of it is left unused.
        assert all(0.9 * GIB < each.heap < 1.6 * GIB for each in own[:-1])
    assert [each.name for each in with_applications(template, 1)[-1:]] == ["application 0"]


@pytest.mark.parametrize(("name", "highest"), [("windows-xp-x86", 1 << 32), ("windows7-x64", 1 << 64)])
def test_no_address_of_a_kernel_wraps_to_where_programs_lie(name: str, highest: int) -> None:
    template = made(name)
    memory = 8 * GIB
    spaces = lay_out(template.preset, template.disk, template.processes, memory, None)
    gfns = np.arange(0, memory // 4096, 4099)
    kind = Kind.KERNEL_DATA_I386 if highest == 1 << 32 else Kind.KERNEL_DATA_X86_64
    pages = Pages(
        np.full(len(gfns), kind, np.uint8),
        Draws.of("keys").words(len(gfns)),
        np.zeros(len(gfns), np.uint64),
        np.full(len(gfns), BOOT, np.int32),
        np.full(len(gfns), KERNEL, np.int32),
    )
    # What is an address is told by moving all that they point to.
    moved = dataclasses.replace(spaces, bases=spaces.bases + np.uint64(1 << 12))
    made_pages = np.empty((2, len(gfns), 512), np.uint64)
    for out, where in zip(made_pages, (spaces, moved), strict=True):
        fill(out, pages, where, gfns)
    words = made_pages.view("<u4" if highest == 1 << 32 else "<u8").astype(np.uint64)
    addresses = words[0][words[0] != words[1]]
    assert len(addresses) > 30 * len(gfns)
    assert int(addresses.min()) >= highest // 2


@pytest.mark.parametrize(
    ("name", "old", "new", "told"),
    [
        ("windows7-x86", "user-end = 0x7FFF0000", "user-end = 0", "aslr.user-end is 0x0, and programs[0]"),
        ("windows7-x86", "user-end = 0x7FFF0000", "user-end = 0x1000000", "aslr.user-end is 0x1000000"),
        ("windows7-x86", "user-end = 0x7FFF0000", "user-end = 0x7FFFF000", "give a multiple of 64 KB"),
        ("windows7-x86", "user-end = 0x7FFF0000", "user-end = 0xBFFF0000", "programs below 0x80000000"),
        ("windows-xp-x86", "user-end = 0x7FFF0000", "user-end = 0x400000", "aslr.user-end is 0x400000"),
        (
            "windows7-x64",
            "user-end = 0x7FFFFFF0000",
            "user-end = 0x140000000",
            "aslr.user-end is 0x140000000",
        ),
        ("linux-x64", "user-end = 0x7FFFFFFFF000", "user-end = 0x7FFFFFF000", "aslr.user-end is 0x7fffff"),
        ("linux-x64", "user-end = 0x7FFFFFFFF000", "user-end = 0x800000000000", "below 0x7ffffffff000"),
        ("windows7-x86", 'heap = "80 MiB"', 'heap = "2 GiB"', "programs[4].heap"),
        ("windows7-x86", 'image = "8 MiB"', 'image = "121 MiB"', "kernel.image is 121.0 MiB"),
        ("windows7-x86", 'drivers = "40 MiB"', 'drivers = "97 MiB"', "kernel.drivers is 97.0 MiB"),
        ("linux-x64", 'image = "40 MiB"', 'image = "1009 MiB"', "has room for 1,008.0 MiB"),
    ],
)
def test_a_preset_that_finds_no_room_is_told(name: str, old: str, new: str, told: str) -> None:
    text = preset_text(name)
    assert old in text
    with pytest.raises(PresetError) as caught:
        parse_preset(text.replace(old, new, 1), "mine.toml")
    assert str(caught.value).startswith("mine.toml: ")
    assert told in str(caught.value)
    assert caught.value.advice


def test_libraries_and_heaps_that_find_no_room_are_told() -> None:
    # Half of 2 GB for the libraries that are loaded, and more than the other half for a heap.
    preset = large("windows7-x86", libraries=3 * GIB)
    (first, *others) = preset.programs
    greedy = dataclasses.replace(preset, programs=(dataclasses.replace(first, heap=1400 * MIB), *others))
    with pytest.raises(
        PresetError, match=r"windows7-x86: aslr.user-end is .* heap of explorer 0 has 1.4 GiB"
    ):
        with_applications(Template(greedy, 1), 0)
    with pytest.raises(PresetError, match=r"windows7-x86: aslr.user-end is 0x7fff0000, and .* no room"):
        with_applications(Template(large("windows7-x86", libraries=12 * GIB), 1), 0)
    with pytest.raises(PresetError, match=r"windows7-x86: kernel.image is 128.0 MiB"):
        with_applications(Template(load_preset("windows7-x86").scaled(Fraction(16)), 1), 0)


@settings(max_examples=200, deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 60), st.integers(0, 12)), max_size=12),
    st.integers(0, 60),
    st.integers(1, 20),
)
def test_gaps_are_what_sets_of_addresses_have_left(
    parts: list[tuple[int, int]], start: int, size: int
) -> None:
    gaps, left = Gaps(3, 50), set(range(3, 50))
    for base, length in parts:
        gaps.take(base, length)
        left -= set(range(base, base + length))
    fits = [base for base in range(60) if left >= set(range(base, base + size))]
    assert gaps.holds(start, size) is (start in fits)
    assert gaps.lowest(size, start) == min((base for base in fits if base >= start), default=None)
    assert gaps.highest(size) == max(fits, default=None)
    longest = [
        length for length in range(48) for base in range(50) if left >= set(range(base, base + length))
    ]
    assert gaps.widest == max(longest)
    other = gaps.copy()
    other.take(0, 60)
    assert (other.widest, gaps.widest) == (0, max(longest))

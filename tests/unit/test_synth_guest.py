"""Synthetic guests: memory adds up, is the same everywhere, and what is known of it is true."""

from __future__ import annotations

import dataclasses
import hashlib
import io
import os
from collections import Counter
from fractions import Fraction
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

import hvshare
from hvshare.errors import BudgetError
from hvshare.synth.address_spaces import FIRST_PROCESS, HEAP
from hvshare.synth.allocations import Allocation, rows
from hvshare.synth.contents.kinds import Kind
from hvshare.synth.draws import Draws
from hvshare.synth.guest import GuestPlan, _place, plan_guest
from hvshare.synth.image import SynthImage
from hvshare.synth.owners import Owner
from hvshare.synth.preset_file import load_preset
from hvshare.synth.settings import Prefetching, Settings
from hvshare.synth.template import Template
from hvshare.synth.truth import Truth
from hvshare.synth.writing import write_guest
from tests.oracle import count

NAMES = ["linux-x64", "windows-xp-x86", "windows7-x64", "windows7-x86"]
MIB = 1 << 20


@cache
def template_of(name: str, scale: Fraction, seed: int = 1) -> Template:
    return Template(load_preset(name).scaled(scale), seed)


def plan(name: str, scale: Fraction = Fraction(1, 128), **asked: Any) -> GuestPlan:  # noqa: ANN401  # whatever Settings takes
    template = template_of(name, scale, asked.pop("template", 1))
    preset = template.preset
    settings: dict[str, Any] = {
        "memory": preset.memory,
        "prefetch": Prefetching(preset.prefetch),
        "fragmentation": preset.fragmentation,
        "template": template.seed,
    }
    return plan_guest(Settings(preset, **(settings | asked)), template)


def memory_of(guest: GuestPlan, *, fixed: bool = False) -> NDArray[np.uint64]:
    out = np.empty((len(guest), 512), np.uint64)
    guest.make(out, 0, fixed=fixed)
    return out


def pages_of(guest: GuestPlan, *owners: Owner) -> NDArray[np.int64]:
    return np.flatnonzero(np.isin(guest.owners, owners))


def mib_by_owner(guest: GuestPlan, scale: int) -> dict[Owner, float]:
    return {owner: pages * scale / 256 for owner, pages in guest.pages_of_owners.items()}


# Part 3 of the series: XP at 2 GB uses about 375 MB; Windows 7 at 8 GB uses 3.29 GB, caches 5,827 MB and has
# 0 MB free.


def test_windows_xp_uses_what_the_series_saw() -> None:
    memory = mib_by_owner(plan("windows-xp-x86", Fraction(1)), 1)
    assert memory[Owner.FREE] == pytest.approx(2048 - 375, abs=4)
    assert memory[Owner.PREFETCHED] == 0


def test_windows_7_uses_and_caches_what_the_series_saw() -> None:
    memory = mib_by_owner(plan("windows7-x64", Fraction(1, 8)), 8)
    used = sum(mib for owner, mib in memory.items() if owner not in (Owner.FREE, Owner.PREFETCHED))
    assert used == pytest.approx(3.29 * 1024, rel=0.01)
    assert memory[Owner.PREFETCHED] + memory[Owner.FILE_CACHE] == pytest.approx(5827, rel=0.01)
    assert memory[Owner.FREE] == 0


@pytest.mark.parametrize("name", NAMES)
def test_owners_have_all_memory_and_free_pages_are_zero(name: str) -> None:
    guest = plan(name)
    assert sum(guest.pages_of_owners.values()) == len(guest) == guest.settings.memory // 4096
    zero = np.logical_not(memory_of(guest).any(axis=1))
    assert zero[pages_of(guest, Owner.FREE)].all()
    assert np.count_nonzero(zero) == guest.pages_of_owners[Owner.FREE]


# What these guests are is a promise: the same arguments give the same bytes on every machine.
SUMS = {
    ("linux-x64", True, "off"): "2e055ab88af7efff8e08de9383f4b2c4f0bbe6c9d23994e53c961b10b1c70562",
    ("linux-x64", False, "preload"): "47140759c4b3d0fc5bbe88e1afdb2f9835c165f432c2bd01966012f3a51aa05a",
    ("windows-xp-x86", False, "off"): "50914187c0a1343a0545e9cd639dc18347177a32f535ee9b80de79a7ae5b9ba7",
    ("windows7-x64", True, "superfetch"): "81d1824c763b22ce62f0239fce8001c807ee5748e54f217fdea4888e974a4594",
    ("windows7-x64", False, "off"): "101fb8fb6d19a19ac1e022c838099c9dd808cd7ecacba19b26766aba49deb71f",
    ("windows7-x86", True, "superfetch"): "53de3e34f8929e7122ef74a0cc0ed5ba1af00b2d766146d7bce223bed6a5eed1",
    ("windows7-x86", False, "off"): "ddeb0900c7c0e1b2ae5fa26db167f830d5f280a5630c72aac55f71364dc91999",
}


def promised(name: str, aslr: bool, prefetch: Any) -> str:  # noqa: ANN401  # one of three words
    guest = plan(
        name,
        Fraction(1, 512),
        aslr=aslr,
        vm=2,
        boot=3,
        prefetch=Prefetching(prefetch),
        fragmentation=Fraction(1, 4),
        apps=64 << 10,
    )
    return hashlib.sha256(memory_of(guest).astype("<u8").tobytes()).hexdigest()


@pytest.mark.parametrize(("name", "aslr", "prefetch"), SUMS)
def test_the_same_arguments_give_the_same_bytes(name: str, aslr: bool, prefetch: str) -> None:
    assert promised(name, aslr, prefetch) == SUMS[name, aslr, prefetch]


@pytest.mark.parametrize("name", NAMES)
def test_blocks_of_any_size_are_the_same_memory(name: str) -> None:
    guest = plan(name, Fraction(1, 512))
    whole = memory_of(guest)
    parts = []
    for first in range(0, len(guest), 77):
        part = np.empty((min(77, len(guest) - first), 512), np.uint64)
        guest.make(part, first)
        parts.append(part)
    assert (np.concatenate(parts) == whole).all()


@pytest.mark.parametrize("name", ["linux-x64", "windows7-x64", "windows7-x86"])
def test_truth_is_what_the_guest_would_be_without_aslr(name: str) -> None:
    guest = plan(name, Fraction(1, 256))
    file = _File()
    truth = write_guest(guest, file, truth=True)
    assert truth is not None
    randomized = np.frombuffer(file.getvalue(), np.uint64).reshape(-1, 512)
    without = memory_of(plan(name, Fraction(1, 256), aslr=False))
    assert (truth.aslr == (randomized != without).any(axis=1)).all()
    assert 0.02 < truth.aslr.mean() < 0.5
    assert (truth.owners == guest.owners).all()
    # Equal numbers for equal pages, by plain Python.
    pages = [page.tobytes() for page in without]
    assert (
        len(set(pages))
        == len(set(truth.contents.tolist()))
        == len(set(zip(pages, truth.contents.tolist(), strict=True)))
    )


def test_truth_is_a_file_and_comes_back(tmp_path: Path) -> None:
    guest = plan("linux-x64", Fraction(1, 512))
    truth = write_guest(guest, _File(), truth=True)
    assert truth is not None
    for path in (tmp_path / "one.npz", tmp_path / "two.npz"):
        with path.open("wb") as file:
            truth.write(file, guest)
    assert (tmp_path / "one.npz").read_bytes() == (tmp_path / "two.npz").read_bytes()
    found, about = Truth.read(str(tmp_path / "one.npz"))
    assert (found.owners == truth.owners).all()
    assert (found.aslr == truth.aslr).all()
    assert (found.contents == truth.contents).all()
    assert about["preset"] == "linux-x64"
    assert about["owners"][found.owners[0]] == "firmware"  # type: ignore[index]


@pytest.mark.parametrize("damage", [b"", b"PK\x03\x04", b"\x93NUMPY"])
def test_a_damaged_truth_is_told(damage: bytes, tmp_path: Path) -> None:
    (tmp_path / "truth.npz").write_bytes(damage)
    with pytest.raises(hvshare.ImageError, match=r"truth\.npz: it is no file of"):
        Truth.read(str(tmp_path / "truth.npz"))


@pytest.mark.parametrize(("name", "expected"), [("windows7-x86", 0.525), ("windows7-x64", 0.082)])
def test_relocation_touches_as_many_image_pages_as_in_real_ones(name: str, expected: float) -> None:
    # FACTS: 52.5 % of i386 and 8.2 % of x86-64 image pages differ between two load addresses.
    guests = [plan(name, Fraction(1, 16), boot=boot, fragmentation=Fraction(0)) for boot in (1, 2)]
    libraries = [np.sort(pages_of(guest, Owner.LIBRARIES)) for guest in guests]
    assert (libraries[0] == libraries[1]).all()
    made = []
    for guest in guests:
        out = np.empty((1, 512), np.uint64)
        pages = []
        for gfn in libraries[0].tolist():
            guest.make(out, gfn)
            pages.append(out.tobytes())
        made.append(pages)
    differ = sum(one != other for one, other in zip(*made, strict=True))
    total = len(libraries[0])
    # Four standard errors of a share that is drawn page by page.
    assert differ / total == pytest.approx(expected, abs=4 * (expected * (1 - expected) / total) ** 0.5)


@pytest.mark.parametrize("name", NAMES)
def test_images_are_the_disks_but_for_addresses(name: str) -> None:
    guest = plan(name, aslr=False)
    disk = np.empty((len(template_of(name, Fraction(1, 128)).disk), 512), np.uint64)
    template_of(name, Fraction(1, 128)).make_disk_pages(disk, 0)
    known = {page.tobytes() for page in disk}
    memory = memory_of(guest)
    for owner in (Owner.LIBRARIES, Owner.PROGRAMS, Owner.PREFETCHED):
        # Without ASLR nothing is relocated.
        assert all(memory[gfn].tobytes() in known for gfn in pages_of(guest, owner))


def test_guests_of_one_template_share_files_and_others_nothing() -> None:
    cases: list[dict[str, Any]] = [{}, {"vm": 2, "boot": 2}, {"template": 2}]
    one, same, other = (
        {page.tobytes() for page in memory_of(plan("windows7-x64", aslr=False, **asked))} for asked in cases
    )
    assert len(one & same) > 0.5 * len(one)
    assert len(one & other) <= 1


def test_a_boot_keeps_files_and_draws_the_rest_anew() -> None:
    first, second = plan("linux-x64", vm=1, boot=1), plan("linux-x64", vm=1, boot=2)
    memory = [memory_of(first), memory_of(second)]
    files = [
        {made[gfn].tobytes() for gfn in pages_of(guest, Owner.FILE_CACHE)}
        for guest, made in zip((first, second), memory, strict=True)
    ]
    assert files[0] == files[1]
    data = [
        {made[gfn].tobytes() for gfn in pages_of(guest, Owner.KERNEL_DATA)}
        for guest, made in zip((first, second), memory, strict=True)
    ]
    assert len(data[0] & data[1]) <= 0.03 * len(data[0])


@pytest.mark.parametrize("name", ["windows7-x64", "linux-x64"])
def test_prefetching_takes_free_memory_and_that_alone(name: str) -> None:
    kind = load_preset(name).prefetcher.kind
    without = plan(name, prefetch=Prefetching("off"))
    free = without.pages_of_owners[Owner.FREE] + without.pages_of_owners[Owner.DIRTY]
    before = None
    for share in (Fraction(0), Fraction(1, 4), Fraction(1, 2), Fraction(1)):
        guest = plan(name, prefetch=Prefetching(kind, share))
        owned = guest.pages_of_owners
        assert owned[Owner.PREFETCHED] <= int(free * share)
        assert owned[Owner.FREE] + owned[Owner.DIRTY] + owned[Owner.PREFETCHED] == free
        others = set(Owner) - {Owner.FREE, Owner.DIRTY, Owner.PREFETCHED}
        assert {owner: owned[owner] for owner in others} == {
            owner: without.pages_of_owners[owner] for owner in others
        }
        keys = set(guest.contents.keys[pages_of(guest, Owner.PREFETCHED)].tolist())
        assert before is None or before <= keys
        before = keys


def test_applications_take_from_the_cache_what_is_not_free() -> None:
    guest = plan("windows7-x64", prefetch=Prefetching("off"))
    free, cache = (guest.pages_of_owners[owner] for owner in (Owner.FREE, Owner.FILE_CACHE))
    apps = (free + cache // 2) * 4096
    pressed = plan("windows7-x64", apps=apps)
    assert pressed.pages_of_owners[Owner.FREE] == pressed.pages_of_owners[Owner.PREFETCHED] == 0
    # An application has a stack, page tables and written pages of images besides.
    assert cache // 2 - 200 <= pressed.pages_of_owners[Owner.FILE_CACHE] < cache // 2
    for owner in (Owner.KERNEL_DATA, Owner.LIBRARIES):
        assert pressed.pages_of_owners[owner] == guest.pages_of_owners[owner]


def test_more_than_there_is_cannot_be_demanded() -> None:
    with pytest.raises(BudgetError, match=r"need .* MiB, and memory is 64.0 MiB"):
        plan("windows7-x64", apps=64 * MIB)
    with pytest.raises(BudgetError, match=r"memory is 2\.0 MiB; give more memory"):
        plan("windows7-x64", memory=2 * MIB)


def test_what_is_far_more_than_memory_is_refused_before_a_page_is_planned() -> None:
    for name in NAMES:
        with pytest.raises(BudgetError, match=r"need 16.0 TiB, and memory is"):
            plan(name, apps=1 << 44)


def test_applications_that_no_address_space_holds_are_several_processes() -> None:
    gib = 1 << 30
    guest = plan("windows-xp-x86", Fraction(1, 512), memory=4 * gib, apps=3 * gib, guest_large_pages=2 * gib)
    assert guest.large_blocks == 1024
    applications = FIRST_PROCESS + len(template_of("windows-xp-x86", Fraction(1, 512)).processes)
    pages = guest.contents[pages_of(guest, Owner.HEAPS, Owner.LARGE_PAGES)]
    spaces, counts = np.unique(pages.spaces[pages.spaces >= applications], return_counts=True)
    assert spaces.tolist() == [applications, applications + 1, applications + 2]
    assert counts.sum() * 4096 == 3 * gib
    for space, count_of_space in zip(spaces, counts, strict=True):
        first, size = int(guest.spaces.bases[space, HEAP]), int(guest.spaces.sizes[space, HEAP])
        assert size == count_of_space * 4096
        assert 0x40_0000 < first < first + size < 0x6000_0000
    # What is common to all processes of a program is in no two of them: each is a program of its own.
    tally = Counter(zip(pages.kinds.tolist(), pages.keys.tolist(), strict=True))
    of_applications = pages[pages.spaces >= applications]
    assert {
        tally[row] for row in zip(of_applications.kinds.tolist(), of_applications.keys.tolist(), strict=True)
    } == {1}


def test_processes_may_be_more_than_16_bits_tell_apart() -> None:
    settings = Settings(load_preset("linux-x64"), 2 * MIB)
    spaces = np.array([1, 32_767, 32_768, 70_000])
    pages = rows(Kind.DATA, np.arange(4, dtype=np.uint64), space=spaces, region=spaces)
    _, contents, _ = _place(settings, Draws.of("frames"), [], [Allocation(Owner.HEAPS, pages)])
    placed = np.argsort(contents.keys)[-3:]
    assert contents.spaces[placed].tolist() == contents.regions[placed].tolist() == spaces[1:].tolist()


def test_large_pages_are_whole_blocks_with_the_contents_of_small_ones() -> None:
    asked = {"apps": 12 * MIB, "prefetch": Prefetching("off")}
    small = plan("linux-x64", Fraction(1, 64), aslr=False, **asked)
    large = plan("linux-x64", Fraction(1, 64), aslr=False, guest_large_pages=7 * MIB, **asked)
    assert large.large_blocks == 4
    gfns = pages_of(large, Owner.LARGE_PAGES)
    assert len(gfns) == 4 * 512
    assert (gfns.reshape(-1, 512) % 512 == np.arange(512)).all()
    heaps = [
        Counter(page.tobytes() for page in memory_of(guest)[pages_of(guest, Owner.LARGE_PAGES, Owner.HEAPS)])
        for guest in (small, large)
    ]
    assert heaps[0] == heaps[1]


def test_where_all_is_fragmented_there_are_no_large_pages() -> None:
    guest = plan("linux-x64", Fraction(1, 64), guest_large_pages=8 * MIB, fragmentation=Fraction(1))
    assert guest.large_blocks == 0
    assert guest.pages_of_owners[Owner.LARGE_PAGES] == 2048


def test_fragmentation_breaks_zero_frames_up() -> None:
    whole = []
    for fragmentation in (Fraction(0), Fraction(1, 4), Fraction(1, 2), Fraction(1)):
        guest = plan("windows-xp-x86", Fraction(1, 16), fragmentation=fragmentation)
        free = (guest.owners == Owner.FREE).reshape(-1, 512).all(axis=1)
        whole.append(int(np.count_nonzero(free)))
    free_pages = plan("windows-xp-x86", Fraction(1, 16)).pages_of_owners[Owner.FREE]
    assert whole[0] >= free_pages // 512 - 1
    assert whole == sorted(whole, reverse=True)
    assert len(set(whole)) == 4
    assert whole[-1] == 0


def test_an_image_that_is_made_while_it_is_read_is_the_written_one(tmp_path: Path) -> None:
    guest = plan("linux-x64", Fraction(1, 256))
    path = tmp_path / "guest.raw"
    with path.open("wb") as file:
        write_guest(guest, file, jobs=2)
    assert path.read_bytes() == memory_of(guest).tobytes()
    with SynthImage("made", guest) as made, hvshare.open_image(str(path)) as written:
        of_made, of_written = hvshare.fingerprint_images([made, written])
    assert (of_made.digests == of_written.digests).all()
    assert of_made.size_bytes == guest.settings.memory


def test_counts_of_made_guests_are_those_of_their_bytes() -> None:
    guests = [plan("windows7-x86", Fraction(1, 128), vm=vm, boot=vm) for vm in (1, 2, 3)]
    images = [SynthImage(f"vm {number}", guest) for number, guest in enumerate(guests)]
    pooled = hvshare.measure(hvshare.fingerprint_images(images)).pooled[4096]
    expected = count([[page.tobytes() for page in memory_of(guest)] for guest in guests], 1)
    counts = dataclasses.asdict(pooled)
    assert {name: counts[name] for name in expected if name in counts} == {
        name: number for name, number in expected.items() if name in counts
    }
    assert {"frames", "zero", "distinct", "saved_zero", "saved_self", "saved_inter"} <= set(counts) | {"x"}


def test_usage_tells_guests_apart_by_diversity() -> None:
    def prefetched(diversity: int, vm: int) -> set[int]:
        template = template_of("windows7-x64", Fraction(1, 128))
        prefetcher = dataclasses.replace(template.preset.prefetcher, diversity=Fraction(diversity, 10))
        preset = dataclasses.replace(template.preset, prefetcher=prefetcher)
        settings = Settings(preset, preset.memory, vm=vm, prefetch=Prefetching("superfetch", Fraction(1, 8)))
        guest = plan_guest(settings, Template(preset, 1))
        return set(guest.contents.keys[pages_of(guest, Owner.PREFETCHED)].tolist())

    in_common = []
    for diversity in (0, 3, 10):
        one, other = prefetched(diversity, 1), prefetched(diversity, 2)
        in_common.append(len(one & other) / len(one))
    assert in_common[0] == 1
    assert in_common[0] > in_common[1] > in_common[2]


class _File(io.BytesIO):
    """A file in memory that looks like a pipe, which is written to in order."""

    name = "memory"

    def fileno(self) -> int:
        if not hasattr(self, "pipe"):
            self.pipe = os.pipe()
        return self.pipe[1]

    def __del__(self) -> None:
        for end in getattr(self, "pipe", ()):
            os.close(end)

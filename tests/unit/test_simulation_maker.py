"""A maker of small guests for the tests of experiments, in the plainest way, and what it must keep to."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Sequence
from fractions import Fraction

from hvshare.erosion.passes import Passes
from hvshare.errors import PresetError
from hvshare.sharing.counts import Counts
from hvshare.simulation.making import MadeGuest, Request
from hvshare.simulation.running import Laboratory
from hvshare.simulation.tallies import Tally
from hvshare.synth.preset_file import load_preset
from tests.guests import ZERO, MemoryImage
from tests.oracle import PAGE, count

MEMORY = 4 << 20
PAGES = MEMORY // PAGE

SIZES = {4096: 1, 2 << 20: 512}


def page(*key: str | int) -> bytes:
    """Give the page of a key, with a key's digest in every 32 bytes of it."""
    return hashlib.sha256(repr(key).encode()).digest() * (PAGE // 32)


def pages_of(request: Request) -> list[bytes]:
    """List the pages of a guest: programs, its own data, applications, its cache, and zeros."""
    of_all, own = ("t", request.template), ("v", request.template, request.vm)
    bias = hashlib.sha256(repr(own).encode()).digest()[0] % 4 if request.aslr else 0
    pages = [page(*of_all, "code", number % 90) for number in range(100)]
    pages += [page(*of_all, "moved", bias, number) for number in range(20)]
    pages += [page(*own, number, request.prefetch == "off") for number in range(40)]
    pages += [page(*of_all, "app", number % 3) for number in range(request.apps // PAGE)]
    free = request.memory_bytes // PAGE - len(pages)
    if free < 0:
        raise PresetError("more is asked for than there is", advice="give more memory")
    match request.prefetch:
        case "off":
            share = Fraction(0)
        case str():
            share = Fraction(1)
        case share:
            pass
    pages += [page(*of_all, "disk", number + request.vm % 2) for number in range(int(free * share))]
    pages += [ZERO] * (request.memory_bytes // PAGE - len(pages))
    if not request.guest_large_pages:
        turned = request.vm % 7
        pages = pages[turned:] + pages[:turned]
    return pages


class Maker:
    """Makes guests, and remembers which and whether they were closed."""

    def __init__(self) -> None:
        self.asked: list[Request] = []
        self.checked: list[Request] = []
        self.open: set[int] = set()

    def check(self, requests: Sequence[Request]) -> None:
        self.checked += requests
        for request in requests:
            pages_of(request)

    def __call__(self, request: Request, name: str) -> MadeGuest:
        assert request.template in {each.template for each in self.checked}
        pages = pages_of(request)
        number = len(self.asked)
        self.asked.append(request)
        self.open.add(number)
        zero = pages.count(ZERO) * PAGE
        return MadeGuest(_Image(name, pages, self.open, number), MEMORY - zero - PAGE, PAGE, zero)


class _Image(MemoryImage):
    def __init__(self, name: str, pages: Sequence[bytes], still_open: set[int], number: int) -> None:
        super().__init__(name, pages, zero_runs=number % 2 == 0)
        self._still_open = still_open
        self._number = number

    def close(self) -> None:
        self._still_open.remove(self._number)


class Progress:
    """Remembers the passes and what was done of each."""

    def __init__(self) -> None:
        self.passes: list[tuple[str, int]] = []
        self.done: list[int] = []

    def start(self, name: str, total: int) -> None:
        self.passes.append((name, total))
        self.done.append(0)

    def advance(self, pages: int) -> None:
        self.done[-1] += pages


def request(**changes: object) -> Request:
    """Ask for a small guest."""
    asked = dataclasses.replace(Request.of(load_preset("windows7-x64")), memory_bytes=MEMORY)
    return dataclasses.replace(asked, **changes)  # type: ignore[arg-type]


def laboratory(
    maker: Maker, vms: int = 3, seeds: tuple[int, ...] = (1, 2), progress: Passes | None = None
) -> Laboratory:
    return Laboratory(maker, vms, seeds, jobs=1, progress=progress)


def expected(asked: Request, vms: int, seed: int, frame_size: int = PAGE) -> dict[str, Fraction]:
    """Count the shares of memory that are saved over again, from the bytes of all guests."""
    guests = [pages_of(dataclasses.replace(asked, template=seed, vm=number)) for number in range(1, vms + 1)]
    counts = count(guests, SIZES[frame_size])
    memory = vms * asked.memory_bytes
    names = {"zero": "saved_zero", "self": "saved_self", "inter": "saved_inter"}
    shares = {name: Fraction(counts[field] * frame_size, memory) for name, field in names.items()}
    shares["saved"] = Fraction((counts["frames"] - counts["distinct"]) * frame_size, memory)
    shares["zero memory"] = Fraction(counts["zero"] * frame_size, memory)
    return shares


def test_guests_differ_by_what_was_asked_for_alone() -> None:
    plain = pages_of(request(vm=7, prefetch="off"))
    assert len(plain) == PAGES
    assert plain == pages_of(request(vm=7, prefetch="off"))
    filled = pages_of(request(vm=7, prefetch="superfetch"))
    assert filled.count(ZERO) == 0 < plain.count(ZERO)
    assert set(pages_of(request(vm=7, prefetch="off", template=2))) & set(plain) == {ZERO}


def test_a_group_is_counted_and_let_go_of() -> None:
    maker, progress = Maker(), Progress()
    place = laboratory(maker, progress=progress)
    asked = request(prefetch="off")
    place.prepare([asked])
    for seed in place.seeds:
        group = place.group(asked, seed)
        for size, tally in group.tallies().items():
            shares = expected(asked, 3, seed, size)
            assert tally.shares() == {name: shares[name] for name in ("zero", "self", "inter", "saved")}
            assert tally.share(tally.zero_memory) == shares["zero memory"]
        assert group.tallies(2)[PAGE].shares()["saved"] == expected(asked, 2, seed)["saved"]
        assert group.occupancy.used + group.occupancy.cache + group.occupancy.free == 3 * MEMORY
        assert not maker.open
    assert [(each.template, each.vm) for each in maker.asked] == [(s, v) for s in (1, 2) for v in (1, 2, 3)]
    assert progress.passes == [("Making guests", 6 * PAGES)]
    assert progress.done == [6 * PAGES]


def test_a_tally_is_in_bytes_of_its_frames_and_of_all_known_memory() -> None:
    large = 2 << 20
    pages = Counts(
        PAGE,
        frames=3000,
        partial_frames=0,
        zero=1000,
        distinct=1989,
        saved_zero=999,
        saved_self=7,
        saved_inter=5,
    )
    frames = Counts(
        large, frames=5, partial_frames=1, zero=2, distinct=1, saved_zero=1, saved_self=2, saved_inter=1
    )
    found = {size: Tally.of({PAGE: pages, large: frames}, size) for size in (PAGE, large)}
    memory = 3000 * PAGE
    assert found[PAGE] == Tally(memory, 999 * PAGE, 7 * PAGE, 5 * PAGE, 1000 * PAGE)
    assert found[large] == Tally(memory, large, 2 * large, large, 2 * large)
    assert (found[large].nonzero, found[large].saved) == (3 * large, 4 * large)

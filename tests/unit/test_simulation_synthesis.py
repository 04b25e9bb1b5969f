"""Experiments with guests of `hvshare.synth`: requests in its words, and what comes of them."""

from __future__ import annotations

import dataclasses
from contextlib import closing
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

import hvshare
from hvshare.errors import BudgetError, PresetError
from hvshare.simulation.factorial import simulate
from hvshare.simulation.levels import OnLevels
from hvshare.simulation.making import MadeGuest, Request, most_demanding
from hvshare.simulation.running import Laboratory, tallies_of
from hvshare.simulation.sweeping import sweep
from hvshare.simulation.sweeps import parse_sweep
from hvshare.simulation.synthesis import SynthMaker, settings_of
from hvshare.synth.preset_file import load_preset
from hvshare.synth.settings import Prefetching
from tests.oracle import PAGE

SCALE = Fraction(1, 64)
"""A guest of 32 MB, which is made in a moment."""


@pytest.fixture(scope="module")
def maker() -> SynthMaker:
    return SynthMaker()


def asked(**changes: object) -> Request:
    request = Request.of(load_preset("windows7-x86").scaled(SCALE))
    return dataclasses.replace(request, **changes)  # type: ignore[arg-type]


def fingerprints(guest: MadeGuest) -> hvshare.Fingerprints:
    with closing(guest.image):
        return hvshare.fingerprint_images([guest.image], jobs=1)[0]


@pytest.mark.parametrize("name", ["windows-xp-x86", "windows7-x86", "windows7-x64", "linux-x64"])
def test_a_preset_is_asked_for_as_it_is(name: str) -> None:
    preset = load_preset(name)
    settings = settings_of(Request.of(preset))
    assert settings.preset == preset
    assert settings.memory == preset.memory
    assert settings.aslr == (name != "windows-xp-x86")
    assert settings.prefetch == Prefetching.parse("default", preset)
    assert settings.fragmentation == preset.fragmentation


def test_every_part_of_a_request_reaches_the_settings() -> None:
    request = asked(
        memory_bytes=48 << 20, template=7, vm=9, aslr=False, prefetch=Fraction(1, 3),
        guest_large_pages=2 << 20, apps=4 << 20, fragmentation=Fraction(1, 5), diversity=Fraction(1, 7),
    )  # fmt: skip
    settings = settings_of(request)
    assert (settings.memory, settings.template, settings.vm, settings.boot) == (48 << 20, 7, 9, 9)
    assert settings.prefetch == Prefetching("superfetch", Fraction(1, 3))
    assert (settings.aslr, settings.guest_large_pages, settings.apps) == (False, 2 << 20, 4 << 20)
    assert (settings.fragmentation, settings.preset.prefetcher.diversity) == (Fraction(1, 5), Fraction(1, 7))


def test_what_is_prefetched_is_cache_and_not_in_use(maker: SynthMaker) -> None:
    read = maker(asked(prefetch="off"), "vm1")
    for prefetch in ("off", "superfetch"):
        guest = maker(asked(prefetch=prefetch), "vm1")
        prefetched = guest.cache_bytes - read.cache_bytes
        assert guest.used_bytes + prefetched + guest.free_bytes == asked().memory_bytes
        assert guest.used_bytes == read.used_bytes
        assert (prefetched > 0) == (prefetch == "superfetch")
        zero = tallies_of([fingerprints(guest)])[PAGE].zero_memory
        # What is free is zero on Windows, and hardly anything else is.
        assert guest.free_bytes <= zero <= guest.free_bytes + asked().memory_bytes // 20


def test_the_same_request_is_the_same_guest(maker: SynthMaker) -> None:
    again = SynthMaker()(asked(vm=2), "vm2")
    assert fingerprints(maker(asked(vm=2), "vm2")).identity == fingerprints(again).identity
    assert (
        fingerprints(maker(asked(vm=3), "vm3")).identity != fingerprints(maker(asked(vm=2), "vm2")).identity
    )


@pytest.mark.parametrize(
    ("changes", "error"),
    [
        ({"memory_bytes": 2 << 20}, BudgetError),
        ({"memory_bytes": PAGE}, PresetError),
        ({"prefetch": "all"}, PresetError),
    ],
)
def test_what_cannot_be_is_an_error(
    maker: SynthMaker, changes: dict[str, object], error: type[PresetError]
) -> None:
    with pytest.raises(error):
        maker(asked(**changes), "vm1")


@pytest.mark.parametrize("name", ["windows-xp-x86", "windows7-x64", "linux-x64"])
def test_a_check_refuses_what_cannot_be_made_and_nothing_else(name: str) -> None:
    preset = load_preset(name).scaled(Fraction(1, 128))
    request = dataclasses.replace(Request.of(preset), guest_large_pages=2 << 20)
    maker, refused = SynthMaker(), SynthMaker()
    answers = []
    # To the page: the most that applications can have is looked for by halves.
    fits, fails = 0, request.memory_bytes // PAGE + 1
    while fails - fits > 1:
        pages = (fits + fails) // 2
        answers.append(_is_refused(maker, dataclasses.replace(request, apps=pages * PAGE)))
        fits, fails = (fits, pages) if answers[-1] else (pages, fails)
    assert {True, False} == set(answers)
    for apps, cannot_be in ((fits, False), (fails, True)):
        for changes in ({"prefetch": "off"}, {"vm": 2}, {"fragmentation": Fraction(1), "aslr": False}):
            each = dataclasses.replace(request, apps=apps * PAGE, **changes)
            try:
                refused(each, "vm").image.close()
            except BudgetError:
                assert cannot_be
            else:
                assert not cannot_be
    # One that cannot be is found among others, wherever it stands.
    well, ill = (dataclasses.replace(request, apps=apps * PAGE) for apps in (fits, fails))
    for requests in ([well, ill], [ill, well]):
        with pytest.raises(BudgetError):
            maker.check(requests)


def _is_refused(maker: SynthMaker, request: Request) -> bool:
    try:
        maker.check([request])
    except BudgetError:
        return True
    return False


@pytest.mark.parametrize(
    "changes", [{"memory_bytes": 1 << 45}, {"prefetch": "all"}, {"fragmentation": Fraction(2)}]
)
def test_every_request_is_checked_for_values_that_cannot_be(changes: dict[str, object]) -> None:
    with pytest.raises(PresetError):
        SynthMaker().check([asked(), asked(**changes), asked()])


def test_applications_beyond_memory_are_refused_without_a_plan() -> None:
    # Their plan alone would take hundreds of GB.
    with pytest.raises(BudgetError, match=r"need 16\.0 TiB, and memory is 32\.0 MiB"):
        SynthMaker().check([asked(apps=1 << 44)])


@given(
    st.lists(st.tuples(st.integers(1, 6), st.integers(0, 6), st.integers(0, 2), st.booleans()), min_size=1)
)
def test_whoever_demands_most_is_planned(guests: list[tuple[int, int, int, bool]]) -> None:
    presets = [load_preset(name) for name in ("linux-x64", "windows7-x64")]
    requests = [
        dataclasses.replace(
            Request.of(presets[other]),
            memory_bytes=memory << 21,
            apps=apps << 20,
            guest_large_pages=large << 21,
        )
        for memory, apps, large, other in guests
    ]
    chosen = most_demanding(requests)
    assert len({(each.preset.name, each.memory_bytes) for each in chosen}) == len(chosen)
    for request in requests:
        assert any(
            each.preset == request.preset
            and each.memory_bytes <= request.memory_bytes
            and max(each.apps, each.guest_large_pages) >= max(request.apps, request.guest_large_pages)
            for each in chosen
        )


def test_large_pages_that_were_not_to_be_had_are_told(maker: SynthMaker) -> None:
    place = Laboratory(maker, 1, (1,), jobs=1)
    request = asked(guest_large_pages=4 << 20, prefetch="off")
    found = sweep(place, request, parse_sweep("fragmentation=0,1"), scale=Fraction(1))
    (told,) = [caveat for caveat in found.caveats if caveat.code == "fewer-large-pages"]
    assert told.message.startswith("2 of 4 large pages")
    assert "with fragmentation 1 it was 0 of 2" in told.message
    written = sweep(place, dataclasses.replace(request, fragmentation=Fraction(1)), parse_sweep("written=0"),
                    scale=Fraction(1))  # fmt: skip
    assert "0 of 2 large pages" in " ".join(caveat.message for caveat in written.caveats)
    none = sweep(place, request, parse_sweep("vms=1"), scale=Fraction(1))
    assert "fewer-large-pages" not in {caveat.code for caveat in none.caveats}


def test_the_factorial_with_guests_of_synth(maker: SynthMaker) -> None:
    request = asked()
    found = simulate(
        Laboratory(maker, 2, (1,), jobs=1), request, OnLevels("superfetch", 2 << 20), scale=SCALE
    )
    saved = {each.factors: each.spread.mean for each in found.effects if each.response == "saved"}
    zero = {each.factors: each.spread.mean for each in found.effects if each.response == "zero"}
    assert saved["host-large-pages",] < 0
    assert saved["aslr",] < 0
    assert zero["prefetch",] < 0
    assert zero["aslr",] == pytest.approx(0, abs=0.01)
    possible, *steps = found.waterfall
    assert sum(step.lower_bytes for step in steps) == possible.lower_bytes
    assert [step.factor for step in steps] == ["prefetch", "aslr", "large-pages", "left"]
    assert "cold-of-another-boot" not in {caveat.code for caveat in found.caveats}

"""Experiments with guests of `hvshare.synth`: requests in its words, and what comes of them."""

from __future__ import annotations

import dataclasses
from contextlib import closing
from fractions import Fraction

import pytest

import hvshare
from hvshare.errors import BudgetError, PresetError
from hvshare.simulation.factorial import simulate
from hvshare.simulation.levels import OnLevels
from hvshare.simulation.making import MadeGuest, Request
from hvshare.simulation.running import Laboratory, tallies_of
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

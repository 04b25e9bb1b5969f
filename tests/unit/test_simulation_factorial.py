"""The full factorial held against a Counter over the bytes of all guests."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Mapping
from fractions import Fraction

import pytest

from hvshare.errors import PresetError
from hvshare.simulation.design import GUEST_FACTORS
from hvshare.simulation.factorial import simulate
from hvshare.simulation.levels import OnLevels, at_levels
from hvshare.simulation.making import Request
from hvshare.simulation.results import RESPONSES, Simulation, Spread
from hvshare.synth.preset_file import load_preset
from tests.unit.test_simulation_maker import MEMORY, PAGES, Maker, Progress, expected, laboratory, request

ON = OnLevels("superfetch", 2 << 20)


@pytest.fixture(scope="module")
def found() -> Simulation:
    return simulate(laboratory(Maker()), request(), ON, scale=Fraction(1, 16), settings={"boot": 3})


def guest_of(levels: Mapping[str, bool]) -> Request:
    return request(
        aslr=levels["aslr"],
        prefetch="superfetch" if levels["prefetch"] else "off",
        guest_large_pages=(2 << 20) * levels["guest-large-pages"],
        apps=2 << 20,
    )


def test_every_cell_is_what_the_bytes_say(found: Simulation) -> None:
    assert len(found.cells) == 16
    for cell in found.cells:
        of_seeds = [expected(guest_of(cell.levels), 3, seed, cell.host_page_bytes) for seed in (1, 2)]
        spreads = {name: Spread.of([shares[name] for shares in of_seeds]) for name in of_seeds[0]}
        assert (cell.saved, cell.zero, cell.self_sharing, cell.inter_vm, cell.zero_memory) == (
            spreads["saved"], spreads["zero"], spreads["self"], spreads["inter"], spreads["zero memory"],
        )  # fmt: skip
        assert cell.memory_bytes == 3 * MEMORY


def test_main_effects_are_differences_of_means(found: Simulation) -> None:
    assert len(found.effects) == 15 * len(RESPONSES)
    fields = {"saved": "saved", "zero": "zero", "self": "self_sharing", "inter": "inter_vm"}
    for effect in found.effects[: 4 * len(RESPONSES)]:
        (factor,) = effect.factors
        means = {True: 0.0, False: 0.0}
        for cell in found.cells:
            means[cell.levels[factor]] += getattr(cell, fields[effect.response]).mean / 8
        assert effect.spread.mean == pytest.approx(means[True] - means[False], abs=1e-12)


def test_factors_do_what_the_maker_makes_them_do(found: Simulation) -> None:
    saved = {each.factors: each.spread.mean for each in found.effects if each.response == "saved"}
    zero = {each.factors: each.spread.mean for each in found.effects if each.response == "zero"}
    assert saved["aslr",] < 0
    assert saved["host-large-pages",] < saved["aslr",]
    assert zero["prefetch",] < 0
    assert zero["aslr",] == 0


def test_the_waterfall_says_what_it_is_of_and_adds_up(found: Simulation) -> None:
    possible, *steps = found.waterfall
    assert sum(step.lower_bytes for step in steps) == possible.lower_bytes
    assert sum(step.upper_bytes for step in steps) == possible.upper_bytes
    left = next(step for step in steps if step.factor == "left")
    shares = expected(guest_of(dict.fromkeys(GUEST_FACTORS, True)), 3, 1, 2 << 20)
    assert left.lower_bytes == shares["saved"] * 3 * MEMORY
    assert (found.waterfall_levels, found.waterfall_seed) == (dict.fromkeys(GUEST_FACTORS, True), 1)
    assert "waterfall-of-one-setting" in {caveat.code for caveat in found.caveats}


def test_what_was_made_is_told(found: Simulation) -> None:
    assert (found.preset, found.vms, found.seeds, found.scale) == ("windows7-x64", 3, (1, 2), "1/16")
    assert found.memory_bytes == MEMORY
    assert found.settings == {"boot": 3}
    codes = [caveat.code for caveat in found.caveats]
    assert "scaled" in codes
    assert "one-seed" not in codes


def test_guests_are_the_same_but_for_their_factors_and_none_stays_open() -> None:
    maker, progress = Maker(), Progress()
    one = simulate(laboratory(maker, 2, (5,), progress), request(), ON, scale=Fraction(1), waterfall=False)
    assert not maker.open
    assert len(maker.asked) == 16
    assert {(each.template, each.vm) for each in maker.asked} == {(5, 1), (5, 2)}
    assert {each.apps for each in maker.asked} == {2 << 20}
    assert one.waterfall == ()
    assert one.waterfall_seed is None
    assert all(each.spread.deviation is None for each in one.effects)
    assert {"one-seed", "synthetic-guests"} == {caveat.code for caveat in one.caveats}
    assert (progress.passes, progress.done) == ([("Making guests", 16 * PAGES)], [16 * PAGES])


def test_factors_that_are_not_named_stay() -> None:
    asked = request(guest_large_pages=4 << 20, apps=8 << 20)
    assert at_levels(asked, {}, ON) == asked
    assert at_levels(asked, {"guest-large-pages": False}, ON).apps == 8 << 20
    assert at_levels(asked, {"prefetch": True}, OnLevels(Fraction(1, 2), 0)).prefetch == Fraction(1, 2)
    assert OnLevels.of(asked) == OnLevels("superfetch", MEMORY // 8)


def test_an_impossible_guest_is_an_error_and_nothing_stays_open() -> None:
    maker = Maker()
    with pytest.raises(PresetError, match="more is asked for"):
        simulate(laboratory(maker), request(apps=MEMORY), ON, scale=Fraction(1))
    assert not maker.open
    assert not maker.asked


def test_a_system_without_aslr_has_a_factor_less() -> None:
    maker = Maker()
    asked = dataclasses.replace(Request.of(load_preset("windows-xp-x86")), memory_bytes=MEMORY)
    found = simulate(laboratory(maker, 2, (1, 2)), asked, ON, scale=Fraction(1))
    factors = ("prefetch", "guest-large-pages", "host-large-pages")
    assert found.factors == factors
    assert len({tuple(cell.levels.items()) for cell in found.cells}) == len(found.cells) == 8
    assert {tuple(cell.levels) for cell in found.cells} == {factors}
    assert {each.factors for each in found.effects} == {
        chosen for count in (1, 2, 3) for chosen in itertools.combinations(factors, count)
    }
    assert not any(each.aslr for each in maker.asked)
    assert found.waterfall_levels == dict.fromkeys(factors[:2], True)
    assert "factor-left-out" in {caveat.code for caveat in found.caveats}
    for cell in found.cells:
        guest = dataclasses.replace(
            asked,
            prefetch="superfetch" if cell.levels["prefetch"] else "off",
            guest_large_pages=(2 << 20) * cell.levels["guest-large-pages"],
            apps=2 << 20,
        )
        saved = [expected(guest, 2, seed, cell.host_page_bytes)["saved"] for seed in (1, 2)]
        assert cell.saved == Spread.of(saved)


@pytest.mark.parametrize(("vms", "seeds"), [(0, (1,)), (2, ()), (2, (1, 1))])
def test_no_guests_are_no_laboratory(vms: int, seeds: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="guests of the templates"):
        laboratory(Maker(), vms, seeds)

"""The claims of the series: verdicts worked out by hand, and figures held against the bytes of all guests."""

from __future__ import annotations

import dataclasses
import re
from fractions import Fraction

import pytest

from hvshare.simulation.cases import Case, Cases
from hvshare.simulation.running import Occupancy
from hvshare.simulation.series import NEWER, OLDER, PRESETS, judge_claims, run_series
from hvshare.simulation.series_results import Claim, Verdict
from hvshare.simulation.tallies import Tally
from hvshare.synth.preset import Preset
from hvshare.synth.preset_file import load_preset
from tests.unit.test_simulation_maker import MEMORY, Maker, expected, laboratory, request

HOLDS, CONDITIONS, FAILS = Verdict.HOLDS, Verdict.CONDITIONS, Verdict.FAILS


def case(
    name: str, aslr: bool, prefetch: bool, small: tuple[int, int, int], large: tuple[int, int, int]
) -> Case:
    """Make a case of 1,000 bytes: what is saved of zero, by self-sharing and between VMs."""
    return Case(
        name,
        aslr,
        prefetch,
        vms=2,
        small=(Tally(1000, *small, small[0]),),
        large=(Tally(1000, *large, large[0]),),
        occupancy=(Occupancy(600, 300, 100),),
    )


def four(name: str, **changes: tuple[int, int, int]) -> list[Case]:
    """Make the four cases of a preset of which every claim holds, but for what is changed."""
    small = {
        "off_off": (500, 50, 150), "on_off": (500, 50, 130), "off_on": (5, 50, 250), "on_on": (5, 50, 215),
    } | changes  # fmt: skip
    return [
        case(
            name,
            aslr == "on",
            prefetch == "on",
            small[f"{aslr}_{prefetch}"],
            (300 * (prefetch == "off"), 0, 5),
        )
        for prefetch in ("off", "on")
        for aslr in ("off", "on")
    ]


def verdicts(cases: list[Case]) -> dict[int, Claim]:
    return {each.number: each for each in judge_claims(Cases(cases), Fraction(1, 4))}


def test_claims_that_hold() -> None:
    found = verdicts(four(NEWER))
    assert sorted(found) == [1, 2, 3, 4, 5]
    assert [found[number].verdict for number in (1, 2, 3, 4, 5)] == [
        HOLDS, CONDITIONS, HOLDS, CONDITIONS, HOLDS,
    ]  # fmt: skip
    without, on = "prefetching off", "prefetching on"
    assert found[2].conditions == f"{NEWER}, ASLR off, {without}; {NEWER}, ASLR on, {without}"
    shares = {each.label: each.value for each in found[4].findings}
    assert shares == {
        f"{NEWER}, {without}, zero included": 20 / 700,
        f"{NEWER}, {without}, zero apart": 20 / 200,
        f"{NEWER}, {on}, zero included": 35 / 305,
        f"{NEWER}, {on}, zero apart": 35 / 300,
    }
    assert found[4].conditions == (
        f"{NEWER}, {without}, zero apart; {NEWER}, {on}, zero included; {NEWER}, {on}, zero apart"
    )


@pytest.mark.parametrize(("inter_vm", "verdict"), [(9, HOLDS), (10, FAILS)])
def test_almost_nothing_is_less_than_a_hundredth(inter_vm: int, verdict: Verdict) -> None:
    only = case(OLDER, False, False, (800, 50, 60), (400, 0, inter_vm))
    assert verdicts([only])[1].verdict is verdict


@pytest.mark.parametrize(("zero", "verdict"), [(51, HOLDS), (50, FAILS)])
def test_the_greatest_benefit_is_more_than_half(zero: int, verdict: Verdict) -> None:
    only = case(OLDER, False, False, (zero, 20, 30), (0, 0, 0))
    assert verdicts([only])[2].verdict is verdict


@pytest.mark.parametrize(
    ("after", "bears_out"),
    [
        ((50, 50, 150), (True, True)),
        ((51, 50, 150), (False, True)),
        ((50, 50, 149), (True, False)),
        ((500, 0, 0), (False, False)),
    ],
)
def test_prefetching(after: tuple[int, int, int], bears_out: tuple[bool, bool]) -> None:
    found = verdicts(four("guest", off_on=after))[3].findings
    assert tuple(each.bears_out for each in found if each.label == "guest, ASLR off") == bears_out


@pytest.mark.parametrize(
    ("saved", "bears_out"), [(94, True), (96, False), (85, True), (84, False), (95, True), (120, False)]
)
def test_about_ten_percent(saved: int, bears_out: bool) -> None:
    cases = four("guest", off_off=(0, 0, 100), on_off=(0, 0, saved))
    of_all, apart = [each for each in verdicts(cases)[4].findings if "prefetching off" in each.label]
    assert of_all.bears_out is apart.bears_out is bears_out


def test_main_effects_are_of_the_eight_cells() -> None:
    found = {each.quantity: each for each in verdicts(four("guest"))[5].findings}
    small, large = [700, 680, 305, 270], [305, 305, 5, 5]
    assert found["main effect of ASLR"].value == pytest.approx((-20 - 35) / 4 / 1000)
    assert found["main effect of prefetching"].value == pytest.approx(
        (305 + 270 + 5 + 5 - 700 - 680 - 305 - 305) / 4 / 1000
    )
    assert found["main effect of large pages"].value == pytest.approx((sum(large) - sum(small)) / 4 / 1000)
    beside = found["by how much the effect of prefetching exceeds that of ASLR"]
    assert beside.value == pytest.approx(1405 / 4 / 1000 - 55 / 4 / 1000)
    assert beside.bears_out


GONE_BUT_LESS_SAVED = {"off_on": (5, 50, 149), "on_on": (5, 50, 129)}
"""Prefetching takes 99 % of the zero pages; of others 199 bytes are saved after 200, and 179 after 180."""
BETWEEN_THE_TWO = {
    "off_off": (100, 100, 400), "on_off": (100, 100, 300), "off_on": (100, 100, 700), "on_on": (100, 100, 600)
}  # fmt: skip
"""ASLR takes 100 at 4 KB and nothing at 2 MB: an effect of -50. Prefetching: (900 + 800 + 5 + 5 - 600 - 500 -
305 - 305) / 4 = 0. Large pages: (305 + 305 + 5 + 5 - 600 - 500 - 900 - 800) / 4 = -545."""
MOST_OF_ALL = {"on_off": (0, 0, 0), "on_on": (0, 0, 0), "off_on": (500, 50, 150)}
"""ASLR takes all: (305 + 5 - 700 - 700 - 305 - 5) / 4 = -350. Prefetching: (700 + 5 + 5 - 700 - 305 - 305) /
4 = -150. Large pages: (305 + 305 + 5 + 5 - 700 - 700) / 4 = -195."""


@pytest.mark.parametrize(
    ("number", "one", "other", "verdict", "conditions"),
    [
        (3, {}, {}, HOLDS, ""),
        (3, GONE_BUT_LESS_SAVED, GONE_BUT_LESS_SAVED, FAILS, ""),
        (3, {"off_on": (51, 50, 250), "on_on": (51, 50, 215)}, GONE_BUT_LESS_SAVED, FAILS, ""),
        (3, {}, GONE_BUT_LESS_SAVED, CONDITIONS, "one, ASLR off; one, ASLR on"),
        (3, GONE_BUT_LESS_SAVED, {"off_on": (5, 50, 149)}, CONDITIONS, "other, ASLR on"),
        (4, {"on_off": (500, 50, 140), "on_on": (5, 50, 246)},
         {"on_off": (500, 50, 140), "on_on": (5, 50, 246)}, CONDITIONS,
         "one, prefetching off, zero apart; other, prefetching off, zero apart"),
        (4, {"on_off": (500, 50, 149), "on_on": (5, 50, 246)},
         {"on_off": (500, 50, 20), "on_on": (5, 50, 100)}, FAILS, ""),
        (5, {}, {}, HOLDS, ""),
        (5, BETWEEN_THE_TWO, BETWEEN_THE_TWO, FAILS, ""),
        (5, MOST_OF_ALL, BETWEEN_THE_TWO, FAILS, ""),
        (5, {}, BETWEEN_THE_TWO, CONDITIONS, "one"),
        (5, MOST_OF_ALL, {}, CONDITIONS, "other"),
    ],
)  # fmt: skip
def test_a_condition_is_all_that_the_criterion_asks_for(
    number: int,
    one: dict[str, tuple[int, int, int]],
    other: dict[str, tuple[int, int, int]],
    verdict: Verdict,
    conditions: str,
) -> None:
    found = verdicts([*four("one", **one), *four("other", **other)])[number]
    assert (found.verdict, found.conditions) == (verdict, conditions)


@pytest.mark.parametrize(
    ("older", "newer", "verdict"),
    [
        ((800, 50, 60), (5, 50, 215), HOLDS),
        # More than half of the one is zero, and it is not true of the other that less than 1 % is.
        ((800, 50, 60), (10, 50, 215), FAILS),
        ((800, 50, 60), (5, 50, 900), FAILS),
        ((500, 50, 60), (5, 50, 215), FAILS),
        ((400, 50, 60), (10, 50, 500), FAILS),
    ],
)
def test_older_and_newer_are_one_condition(
    older: tuple[int, int, int], newer: tuple[int, int, int], verdict: Verdict
) -> None:
    found = verdicts([case(OLDER, False, False, older, (0, 0, 0)), *four(NEWER, on_on=newer)])[6]
    assert (found.verdict, found.conditions) == (verdict, "")
    assert len({each.label for each in found.findings if each.bears_out is not None}) == 1


def test_a_share_says_of_what_and_a_difference_is_none() -> None:
    older = case(OLDER, False, False, (800, 50, 60), (400, 0, 0))
    found = [each for of_claim in verdicts([older, *four(NEWER)]).values() for each in of_claim.findings]
    units: dict[str, set[str]] = {}
    for each in found:
        units.setdefault(each.unit, set()).add(each.quantity)
        assert (each.of is None) == (each.unit == "bytes")
    assert units["share_difference"] == {
        "saved more at 4 KB, zero apart",
        "main effect of ASLR",
        "main effect of prefetching",
        "main effect of large pages",
        "by how much the effect of prefetching exceeds that of ASLR",
        "by how much the effect of large pages exceeds that of ASLR",
        f"saved at 4 KB less of {NEWER}",
    }
    assert [
        each for each in units["share"] if not re.search(r"\bof (memory|all|what|zero)|\bamong ", each)
    ] == []


def test_what_exceeds_by_little_is_close() -> None:
    # Prefetching changes 55 and ASLR 50: (900 + 800 + 5 + 5 + 220 - 600 - 500 - 305 - 305) / 4 = 55.
    cases = four("one", **BETWEEN_THE_TWO | {"off_on": (100, 100, 810), "on_on": (100, 100, 710)})
    found = {each.quantity: each for each in verdicts(cases)[5].findings}
    exceeding = found["by how much the effect of prefetching exceeds that of ASLR"]
    assert (exceeding.value, exceeding.bears_out, exceeding.close_to_limit) == (0.005, True, True)
    assert not found["by how much the effect of large pages exceeds that of ASLR"].close_to_limit
    assert found["main effect of ASLR"].close_to_limit is None


def test_older_and_newer_guests() -> None:
    older = case(OLDER, False, False, (800, 50, 60), (400, 0, 0))
    found = verdicts([older, *four(NEWER)])[6]
    assert found.verdict is HOLDS
    values = {(each.label, each.quantity): (each.value, each.unit) for each in found.findings}
    # Of two guests at a quarter of the size.
    assert values[older.label, "used memory of one guest, scaled up to full size"] == (1200.0, "bytes")
    assert values[older.label, "free memory of one guest, scaled up to full size"] == (200.0, "bytes")
    assert values[f"{NEWER}, ASLR on, prefetching on", "saved at 4 KB, of memory"] == (0.27, "share")
    exceeding, unit = values[f"{OLDER} beside {NEWER}", f"saved at 4 KB less of {NEWER}"]
    assert exceeding == pytest.approx(0.91 - 0.27)
    assert unit == "share_difference"


def small(name: str) -> Preset:
    return dataclasses.replace(load_preset(name), memory=MEMORY)


def test_the_series_is_run_with_guests_of_every_preset() -> None:
    maker = Maker()
    found = run_series(laboratory(maker, 2), [small(name) for name in PRESETS], scale=Fraction(1, 16))
    assert not maker.open
    assert [each.number for each in found.claims] == [1, 2, 3, 4, 5, 6]
    assert found.presets == PRESETS
    assert "follows-from-model" in {caveat.code for caveat in found.caveats}
    # One case of the preset without ASLR and four of each other, two seeds, two guests.
    assert len(maker.asked) == (1 + 3 * 4) * 2 * 2
    of_zero = {each.label: each for each in found.claims[1].findings}
    for aslr in (False, True):
        label = f"{NEWER}, ASLR {'on' if aslr else 'off'}, prefetching off"
        shares = [expected(request(aslr=aslr, prefetch="off"), 2, seed) for seed in (1, 2)]
        assert of_zero[label].lowest == min(float(each["zero"] / each["saved"]) for each in shares)
        assert of_zero[label].highest == max(float(each["zero"] / each["saved"]) for each in shares)
    at_two_mb = {(each.label, each.quantity): each.value for each in found.claims[0].findings}
    plain = request(aslr=False, prefetch="off")
    means = [expected(plain, 2, seed, 2 << 20)["zero"] for seed in (1, 2)]
    label = f"{NEWER}, ASLR off, prefetching off"
    assert at_two_mb[label, "saved at 2 MB, zero, of memory"] == float(sum(means, Fraction(0)) / 2)


def test_without_one_of_the_two_there_is_no_comparison() -> None:
    found = run_series(laboratory(Maker(), 2, (1,)), [small(OLDER)], scale=Fraction(1))
    assert [each.number for each in found.claims] == [1, 2]

"""The claims of the series: the rule of the verdicts, and figures held against the bytes of all guests."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from fractions import Fraction

import pytest

from hvshare.simulation.cases import Case, Cases
from hvshare.simulation.claims import claim, finding, judge
from hvshare.simulation.results import Claim, Finding, Verdict
from hvshare.simulation.running import Occupancy
from hvshare.simulation.series import NEWER, OLDER, PRESETS, judge_claims, run_series
from hvshare.simulation.tallies import Tally
from hvshare.synth.preset import Preset
from hvshare.synth.preset_file import load_preset
from tests.unit.test_simulation_maker import MEMORY, Maker, expected, laboratory, request

HOLDS, CONDITIONS, FAILS = Verdict.HOLDS, Verdict.CONDITIONS, Verdict.FAILS


def shown(label: str, quantity: str, bears_out: bool | None) -> Finding:
    return Finding(label, quantity, 0.5, "share", 0.4, 0.6, bears_out)


@pytest.mark.parametrize(
    ("of_findings", "verdict", "conditions"),
    [
        ([("a", "x", True)], HOLDS, ""),
        ([("a", "x", True), ("a", "beside", None)], HOLDS, ""),
        ([("a", "x", False), ("b", "x", False), ("b", "beside", None)], FAILS, ""),
        ([("a", "x", True), ("b", "x", False), ("c", "x", True)], CONDITIONS, "a; c"),
        ([("a", "x", True), ("a", "y", False), ("b", "x", False)], CONDITIONS, "a (x)"),
        ([("a", "x", True), ("a", "y", True), ("b", "x", False)], CONDITIONS, "a"),
    ],
)
def test_the_rule(of_findings: list[tuple[str, str, bool | None]], verdict: Verdict, conditions: str) -> None:
    assert judge([shown(*each) for each in of_findings]) == (verdict, conditions)


@pytest.mark.parametrize("findings", [[], [shown("a", "beside", None)]])
def test_a_claim_without_a_deciding_figure_is_none(findings: Sequence[Finding]) -> None:
    with pytest.raises(ValueError, match="no finding decides"):
        claim(1, "part 3", "text", "criterion", findings)


def test_every_seed_must_meet_the_criterion() -> None:
    values = [Fraction(1, 4), Fraction(3, 4)]
    spread = (0.5, "share", 0.25, 0.75)
    criteria: list[tuple[Callable[[Fraction], bool] | None, bool | None]] = [
        (lambda share: share > 0, True),
        (lambda share: share > Fraction(1, 2), False),
        (None, None),
    ]
    for criterion, bears_out in criteria:
        assert finding("a", "x", values, criterion=criterion) == Finding("a", "x", *spread, bears_out)


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
    without = "prefetching off"
    assert found[2].conditions == f"{NEWER}, ASLR off, {without}; {NEWER}, ASLR on, {without}"
    shares = {(each.label, each.quantity): each.value for each in found[4].findings}
    assert shares[f"{NEWER}, {without}", "less of all that is saved"] == 20 / 700
    assert shares[f"{NEWER}, {without}", "less of what is saved, zero apart"] == 20 / 200
    assert shares[f"{NEWER}, prefetching on", "less of all that is saved"] == 35 / 305
    assert found[4].conditions == (
        f"{NEWER}, {without} (less of what is saved, zero apart); {NEWER}, prefetching on"
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
    of_all, apart = [each for each in verdicts(cases)[4].findings if each.label.endswith("off")]
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


def test_aslr_is_not_little_where_it_takes_more() -> None:
    strong = four("guest", on_off=(0, 0, 0), on_on=(0, 0, 0), off_on=(500, 50, 150))
    found = verdicts(strong)[5]
    assert found.verdict is not HOLDS


def test_older_and_newer_guests() -> None:
    older = case(OLDER, False, False, (800, 50, 60), (400, 0, 0))
    found = verdicts([older, *four(NEWER)])[6]
    assert found.verdict is HOLDS
    values = {(each.label, each.quantity): (each.value, each.unit) for each in found.findings}
    # Of two guests at a quarter of the size.
    assert values[older.label, "used memory of one guest, scaled up to full size"] == (1200.0, "bytes")
    assert values[older.label, "free memory of one guest, scaled up to full size"] == (200.0, "bytes")
    assert values[f"{NEWER}, ASLR on, prefetching on", "saved at 4 KB"] == (0.27, "share")
    emptier = verdicts([older, *four(NEWER, on_on=(10, 50, 215))])[6]
    assert emptier.verdict is CONDITIONS


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
    assert at_two_mb[label, "saved at 2 MB, zero"] == float(sum(means, Fraction(0)) / 2)


def test_without_one_of_the_two_there_is_no_comparison() -> None:
    found = run_series(laboratory(Maker(), 2, (1,)), [small(OLDER)], scale=Fraction(1))
    assert [each.number for each in found.claims] == [1, 2]

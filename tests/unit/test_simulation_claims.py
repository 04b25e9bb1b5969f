"""The rule of the verdicts: what a figure, a condition and a claim need to hold."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction

import pytest

from hvshare.simulation.claims import Limits, claim, finding, judge
from hvshare.simulation.series_results import Finding, Verdict

HOLDS, CONDITIONS, FAILS = Verdict.HOLDS, Verdict.CONDITIONS, Verdict.FAILS
HALF, TENTH = Fraction(1, 2), Fraction(1, 10)


def shown(label: str, quantity: str, bears_out: bool | None) -> Finding:
    close = None if bears_out is None else False
    return Finding(label, quantity, 0.5, "share", "memory", 0.4, 0.6, bears_out, close)


@pytest.mark.parametrize(
    ("of_findings", "verdict", "conditions"),
    [
        ([("a", "x", True)], HOLDS, ""),
        ([("a", "x", True), ("a", "beside", None)], HOLDS, ""),
        ([("a", "x", False), ("b", "x", False), ("b", "beside", None)], FAILS, ""),
        ([("a", "x", True), ("b", "x", False), ("c", "x", True)], CONDITIONS, "a; c"),
        # Half of what a criterion asks for is not what it asks for.
        ([("a", "x", True), ("a", "y", False), ("b", "x", False)], FAILS, ""),
        ([("a", "x", True), ("a", "y", False)], FAILS, ""),
        ([("a", "x", True), ("b", "x", True), ("a", "y", False)], CONDITIONS, "b"),
        ([("a", "x", True), ("a", "y", True), ("b", "x", False)], CONDITIONS, "a"),
    ],
)
def test_the_rule(of_findings: list[tuple[str, str, bool | None]], verdict: Verdict, conditions: str) -> None:
    assert judge([shown(*each) for each in of_findings]) == (verdict, conditions)


@pytest.mark.parametrize("findings", [[], [shown("a", "beside", None)]])
def test_a_claim_without_a_deciding_figure_is_none(findings: Sequence[Finding]) -> None:
    with pytest.raises(ValueError, match="no finding decides"):
        claim(1, "part 3", "text", "criterion", findings)


@pytest.mark.parametrize(
    ("limits", "bears_out"),
    [
        (Limits(lowest=Fraction(0)), True),
        (Limits(lowest=HALF), False),
        (Limits(lowest=Fraction(1, 4)), False),
        (Limits(lowest=Fraction(1, 4), included=True), True),
        (Limits(Fraction(1, 4), Fraction(3, 4), included=True), True),
        (Limits(Fraction(1, 4), Fraction(3, 4)), False),
        (Limits(highest=HALF), False),
        (Limits(highest=Fraction(1)), True),
        (None, None),
    ],
)
def test_every_seed_must_meet_the_criterion(limits: Limits | None, bears_out: bool | None) -> None:
    found = finding("a", "x", [Fraction(1, 4), Fraction(3, 4)], limits=limits)
    assert (found.value, found.lowest, found.highest) == (0.5, 0.25, 0.75)
    assert found.bears_out is bears_out
    assert (found.close_to_limit is None) == (limits is None)


@pytest.mark.parametrize(
    ("percents", "limits", "beside", "close"),
    [
        # Of 10 %, a tenth is one point.
        ([9], Limits(highest=TENTH), (), True),
        ([11], Limits(highest=TENTH), (), True),
        ([8], Limits(highest=TENTH), (), False),
        ([12], Limits(highest=TENTH), (), False),
        # Three points between the seeds, and the mean two from the limit.
        ([6, 7, 9, 10], Limits(highest=TENTH), (), True),
        ([6, 7, 8, 7], Limits(highest=TENTH), (), False),
        # Each of two limits counts.
        ([5.4], Limits(Fraction(5, 100), Fraction(15, 100)), (), True),
        ([5.6], Limits(Fraction(5, 100), Fraction(15, 100)), (), False),
        ([16.5], Limits(Fraction(5, 100), Fraction(15, 100)), (), True),
        # By how much one exceeds another of 20 %, of which a tenth are two points.
        ([2], Limits(lowest=Fraction(0)), (20,), True),
        ([-2], Limits(lowest=Fraction(0)), (-20,), True),
        ([3], Limits(lowest=Fraction(0)), (20,), False),
        ([2], Limits(lowest=Fraction(0)), (), False),
    ],
)
def test_what_is_close_to_its_limit(
    percents: list[float], limits: Limits, beside: tuple[int, ...], close: bool
) -> None:
    of_seeds = [Fraction(str(percent)) / 100 for percent in percents]
    compared = [Fraction(percent, 100) for percent in beside] * len(of_seeds)
    assert finding("a", "x", of_seeds, limits=limits, beside=compared).close_to_limit is close

"""The interval of ASLR for made guests, beside the truth that travels with them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from tests.validation.counting import Pages, Savings, savings
from tests.validation.made import Made
from tests.validation.proofs import Predict


@dataclass(frozen=True)
class AslrCase:
    """The interval of two guests, beside what is true.

    Attributes
    ----------
    preset, prefetching : str
        What they are, and whether free memory is filled.
    template : int
        Seed of what they have in common.
    truth : Savings
        Frames that they would save further without ASLR.
    lower : Savings
        The lower bound.
    upper : int
        The upper bound, in frames.
    victims : int
        Pages without a copy that would have one without ASLR.
    explained : int
        Pages without a copy that the estimator explains.
    """

    preset: str
    prefetching: str
    template: int
    truth: Savings
    lower: Savings
    upper: int
    victims: int
    explained: int

    @property
    def error(self) -> float:
        """How far the lower bound is from the truth, in parts of it."""
        return self.lower.saved / self.truth.saved - 1 if self.truth.saved else float("nan")

    @property
    def holds(self) -> bool:
        """Whether the truth lies in the interval."""
        return self.lower.saved <= self.truth.saved <= self.upper


def victims(as_is: Sequence[Pages], without: Sequence[Pages]) -> int:
    """Count pages that are alone as they are, and would not be without ASLR."""
    now = Counter(page for pages in as_is for page in pages)
    then = Counter(page for pages in without for page in pages)
    return sum(
        now[page] == 1 and then[other] > 1
        for pages, others in zip(as_is, without, strict=True)
        for page, other in zip(pages, others, strict=True)
    )


def measure_case(made: Made, predict: Predict, group: str) -> tuple[Savings, Savings, int, int, int]:
    """Give truth, lower bound, upper bound, victims and explained pages of the guests of a group."""
    guests = made.members(group)
    as_is, without = [made.pages(each) for each in guests], [made.truth(each).contents for each in guests]
    now, then = savings(as_is), savings(without)
    found = predict("aslr", (), guests)
    lower = Savings(0, found["explained_saved_self"], found["explained_saved_inter"])
    truth = Savings(then.zero - now.zero, then.own - now.own, then.inter - now.inter)
    return truth, lower, found["upper_saved_frames"], victims(as_is, without), found["explained_pages"]


_TITLES: Final = (
    *("Guests", "Prefetching", "Template", "Truth", "Lower bound", "Error of it", "Upper bound"),
    *("Truth is", "Explained / victims"),
)


def aslr_table(cases: Sequence[AslrCase]) -> Iterator[str]:
    """Write a line a case, and how many intervals hold the truth."""
    yield from ("### ASLR", "", "Predicted: `hvshare erosion aslr --json GUEST.raw...`", "")
    yield (
        "Measured: frames that the contents of the truth save, less those that the guests save as they are, "
        "by Counters. Victims: pages without a copy that would have one without ASLR."
    )
    yield ""
    yield f"| {' | '.join(_TITLES)} |"
    yield f"|{' --- |' * len(_TITLES)}"
    for case in cases:
        cells = (
            case.preset,
            case.prefetching,
            str(case.template),
            _split(case.truth),
            _split(case.lower),
            f"{case.error:+.0%}".replace("%", " %"),
            f"{case.upper:,}",
            _where(case),
            f"{case.explained:,} / {case.victims:,}",
        )
        yield f"| {' | '.join(cells)} |"
    yield ""
    for preset in dict.fromkeys(case.preset for case in cases):
        own = [case for case in cases if case.preset == preset]
        errors = sorted(case.error for case in own)
        yield (
            f"{preset}: {sum(case.holds for case in own)} of {len(own)} intervals hold the truth; the lower "
            f"bound is off by {errors[0]:+.0%} to {errors[-1]:+.0%}, the upper bound is "
            f"{min(_ratios(own)):.1f} to {max(_ratios(own)):.1f} times the truth."
        ).replace("%", " %")
        yield ""
    yield f"All: {sum(case.holds for case in cases)} of {len(cases)} intervals hold the truth."
    yield ""


def _ratios(cases: Iterable[AslrCase]) -> list[float]:
    return [case.upper / case.truth.saved if case.truth.saved else float("nan") for case in cases]


def _split(saved: Savings) -> str:
    return f"{saved.saved:,} (self {saved.own:,}, inter-VM {saved.inter:,})"


def _where(case: AslrCase) -> str:
    if case.holds:
        return "within"
    return "**below it**" if case.truth.saved < case.lower.saved else "**above it**"

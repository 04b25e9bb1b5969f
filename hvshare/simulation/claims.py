"""Figures found, and what they say of a claim: by a rule that is the same for all claims.

A figure meets its part of the criterion if it does so for every seed. A condition, which is all figures of
one label, bears a claim out if all of its figures that decide meet theirs. A claim holds if all conditions
bear it out, does not hold if none does, and holds under the conditions that do otherwise.
"""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from typing import TYPE_CHECKING, Final

from hvshare.simulation.results import Spread
from hvshare.simulation.series_results import Claim, Finding, Verdict

if TYPE_CHECKING:
    from collections.abc import Sequence

CLOSE: Final = Fraction(1, 10)
"""A figure that is no further from its limit than this part of it is told to be close."""


@dataclass(frozen=True)
class Limits:
    """Between what a figure meets a criterion.

    Attributes
    ----------
    lowest, highest : Fraction or None
        The limits; None where there is none.
    included : bool
        Whether a figure that is at a limit meets the criterion.
    """

    lowest: Fraction | None = None
    highest: Fraction | None = None
    included: bool = False

    def meets(self, figure: Fraction) -> bool:
        """Whether a figure meets the criterion.

        Examples
        --------
        >>> [Limits(lowest=Fraction(1, 2)).meets(Fraction(parts, 4)) for parts in (1, 2, 3)]
        [False, False, True]
        """
        limits = (self.lowest, self.highest)
        if figure in limits:
            return self.included
        return (self.lowest is None or figure > self.lowest) and (
            self.highest is None or figure < self.highest
        )

    def is_close(self, of_seeds: Sequence[Fraction], size: Fraction | None = None) -> bool:
        """Whether figures lie close to a limit.

        Parameters
        ----------
        of_seeds : sequence of Fraction
            One a seed.
        size : Fraction, optional
            What a tenth is taken of; the limit by default.

        Returns
        -------
        bool
            Whether their mean is no further from a limit than a tenth of that, or than the seeds are apart.

        Examples
        --------
        >>> tenth = Limits(highest=Fraction(1, 10))
        >>> [tenth.is_close([Fraction(percent, 100)]) for percent in (8, 9, 11, 12)]
        [False, True, True, False]
        """
        mean = sum(of_seeds, Fraction(0)) / len(of_seeds)
        apart = max(of_seeds) - min(of_seeds)
        return any(
            abs(mean - limit) <= max(apart, CLOSE * abs(limit if size is None else size))
            for limit in (self.lowest, self.highest)
            if limit is not None
        )


def finding(
    label: str,
    quantity: str,
    of_seeds: Sequence[Fraction],
    *,
    unit: str = "share",
    of: str | None = "memory",
    limits: Limits | None = None,
    beside: Sequence[Fraction] = (),
) -> Finding:
    """Put a figure together out of those of the seeds.

    Parameters
    ----------
    label, quantity, unit, of : str
        As in `Finding`.
    of_seeds : sequence of Fraction
        One a seed.
    limits : Limits, optional
        Between what a figure bears the claim out; without them it is shown beside and decides nothing.
    beside : sequence of Fraction, optional
        One a seed: what is compared with it where the figure is a difference, whose limit of 0 has no tenth.

    Returns
    -------
    Finding
    """
    spread = Spread.of(of_seeds)
    bears_out = close = None
    if limits is not None:
        size = sum(map(abs, beside), Fraction(0)) / len(beside) if beside else None
        bears_out, close = all(map(limits.meets, of_seeds)), limits.is_close(of_seeds, size)
    return Finding(label, quantity, spread.mean, unit, of, spread.lowest, spread.highest, bears_out, close)


def judge(findings: Sequence[Finding]) -> tuple[Verdict, str]:
    """Derive a verdict, and the conditions under which a claim holds.

    Parameters
    ----------
    findings : sequence of Finding
        At least one of them decides.

    Returns
    -------
    tuple of Verdict and str
        Conditions are named by label; empty unless the claim holds under some only.

    Raises
    ------
    ValueError
        If none decides.
    """
    conditions: dict[str, bool] = {}
    for each in findings:
        if each.bears_out is not None:
            conditions[each.label] = conditions.get(each.label, True) and each.bears_out
    if not conditions:
        raise ValueError("no finding decides")
    holding = [label for label, bears_out in conditions.items() if bears_out]
    if len(holding) == len(conditions):
        return Verdict.HOLDS, ""
    if not holding:
        return Verdict.FAILS, ""
    return Verdict.CONDITIONS, "; ".join(holding)


def claim(number: int, source: str, text: str, criterion: str, findings: Sequence[Finding]) -> Claim:
    """Put a claim together with its verdict; see `Claim`."""
    verdict, conditions = judge(findings)
    return Claim(number, source, text, criterion, tuple(findings), verdict, conditions)

"""Figures found, and what they say of a claim: by a rule that is the same for all claims.

A figure bears a claim out if it meets the criterion of the claim for every seed. A claim holds if all of the
figures that decide bear it out, does not hold if none does, and holds under the conditions of those that do
otherwise.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from hvshare.simulation.results import Claim, Finding, Spread, Verdict

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from fractions import Fraction


def finding(
    label: str,
    quantity: str,
    of_seeds: Sequence[Fraction],
    unit: str = "share",
    criterion: Callable[[Fraction], bool] | None = None,
) -> Finding:
    """Put a figure together out of those of the seeds.

    Parameters
    ----------
    label, quantity, unit : str
        As in `Finding`.
    of_seeds : sequence of Fraction
        One a seed.
    criterion : callable, optional
        Whether a figure bears the claim out; without it the figure is shown beside and decides nothing.

    Returns
    -------
    Finding
    """
    spread = Spread.of(of_seeds)
    bears_out = None if criterion is None else all(map(criterion, of_seeds))
    return Finding(label, quantity, spread.mean, unit, spread.lowest, spread.highest, bears_out)


def judge(findings: Sequence[Finding]) -> tuple[Verdict, str]:
    """Derive a verdict, and the conditions under which a claim holds.

    Parameters
    ----------
    findings : sequence of Finding
        At least one of them decides.

    Returns
    -------
    tuple of Verdict and str
        Conditions are named by label, and by quantity where several of one label decide; empty unless the
        claim holds under some only.

    Raises
    ------
    ValueError
        If none decides.
    """
    deciding = [each for each in findings if each.bears_out is not None]
    if not deciding:
        raise ValueError("no finding decides")
    holding = [each for each in deciding if each.bears_out]
    if len(holding) == len(deciding):
        return Verdict.HOLDS, ""
    if not holding:
        return Verdict.FAILS, ""
    return Verdict.CONDITIONS, "; ".join(_named(label, deciding) for label in _labels(holding))


def _labels(findings: Sequence[Finding]) -> list[str]:
    return list(dict.fromkeys(each.label for each in findings))


def _named(label: str, deciding: Sequence[Finding]) -> str:
    of_label = [each for each in deciding if each.label == label]
    if all(each.bears_out for each in of_label):
        return label
    return f"{label} ({', '.join(each.quantity for each in of_label if each.bears_out)})"


def claim(number: int, source: str, text: str, criterion: str, findings: Sequence[Finding]) -> Claim:
    """Put a claim together with its verdict; see `Claim`."""
    verdict, conditions = judge(findings)
    return Claim(number, source, text, criterion, tuple(findings), verdict, conditions)

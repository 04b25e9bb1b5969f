"""The results of the series: its claims, what was found, and verdicts."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from hvshare.simulation.results import Experiment


class Verdict(StrEnum):
    """What the findings say of a claim."""

    HOLDS = "holds"
    CONDITIONS = "holds under these conditions"
    FAILS = "does not hold"


@dataclass(frozen=True)
class Finding:
    """One figure that bears on a claim.

    Attributes
    ----------
    label : str
        The conditions, such as ``windows7-x86, ASLR off, prefetching off``.
    quantity : str
        What the figure is, such as ``saved at 2 MB, zero apart, of memory``.
    value : float
        Mean over the seeds.
    unit : str
        ``share``, ``share_difference``, ``bytes``, ``ratio`` or ``count``.
    of : str or None
        What a share is a part of, and what two shares that a difference is between are parts of; None for
        other units.
    lowest, highest : float
        Over the seeds.
    bears_out : bool or None
        Whether the figure meets its part of the criterion; None for one shown beside, which decides nothing.
    close_to_limit : bool or None
        Whether it is so near to a limit of the criterion that other seeds, or guests a little different,
        might say otherwise; None for one that decides nothing.
    """

    label: str
    quantity: str
    value: float
    unit: str
    of: str | None
    lowest: float
    highest: float
    bears_out: bool | None
    close_to_limit: bool | None


@dataclass(frozen=True)
class Claim:
    """One claim of the series, put to the test.

    Attributes
    ----------
    number : int
        From 1.
    source : str
        ``part 3`` or ``part 4``.
    text : str
        The claim.
    criterion : str
        What is compared with what.
    findings : tuple of Finding
        The figures found.
    verdict : Verdict
        HOLDS if all conditions bear it out, FAILS if none does; a condition is all findings of one label, and
        bears the claim out if all of them that decide do.
    conditions : str
        Labels of those where it holds; empty unless the verdict is CONDITIONS.
    """

    number: int
    source: str
    text: str
    criterion: str
    findings: tuple[Finding, ...]
    verdict: Verdict
    conditions: str


@dataclass(frozen=True, kw_only=True)
class Series(Experiment):
    """The claims of the series, one by one.

    Attributes
    ----------
    claims : tuple of Claim
        In the order of their numbers.
    presets : tuple of str
        Guests that were made.
    """

    claims: tuple[Claim, ...]
    presets: tuple[str, ...]

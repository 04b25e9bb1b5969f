"""What a proof is: rows of figures that were predicted, beside the same ones measured in another way."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

_NOTHING: Final = "–"

Predict = Callable[[str, Sequence[str], Sequence[str]], dict[str, Any]]
"""Gives a section of ``hvshare erosion`` as JSON has it, for options and names of guests."""


class PredictionError(Exception):
    """The command did not come to a result."""


@dataclass(frozen=True)
class Row:
    """One figure.

    Attributes
    ----------
    guests, figure : str
        Of whom, and what.
    predicted, measured : str
        What hvshare says, and what is so.
    asked, found : str
        What the two have to be to each other, and what they are.
    holds : bool
        Whether that is as it should be.
    """

    guests: str
    figure: str
    predicted: str
    measured: str
    asked: str
    found: str
    holds: bool


@dataclass
class Proof:
    """A table of figures, with what they were made of.

    Attributes
    ----------
    title : str
        What is proven.
    command : str
        What makes the column of predictions, with GUEST for the names in a row.
    truth : str
        What makes the column of measurements.
    rows : list of Row
    notes : list of str
        What else to know, such as what is not in the lab.
    """

    title: str
    command: str
    truth: str
    rows: list[Row] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def equal(self, guests: Sequence[str], figure: str, predicted: object, measured: object) -> None:
        """Add a figure that has to be the same."""
        same = predicted == measured
        first, second = (
            f"{value:,}" if isinstance(value, int) else str(value) for value in (predicted, measured)
        )
        self._add(guests, figure, first, second, "equal", "equal" if same else "different", same)

    def share(
        self,
        guests: Sequence[str],
        figure: str,
        part: int,
        whole: int,
        *,
        at_least: float | None = None,
        below: float | None = None,
    ) -> None:
        """Add a part of a whole, which has to be as large, or as small, where either is asked."""
        share = part / whole if whole > 0 else float("nan")
        holds = (at_least is None or share >= at_least) and (below is None or share < below)
        if at_least is not None:
            asked = "all" if at_least == 1 else f"{at_least:.0%} or more"
        else:
            asked = _NOTHING if below is None else f"under {below:.0%}"
        found = f"{share:.1%}" if whole > 0 else _NOTHING
        self._add(guests, figure, f"{part:,}", f"{whole:,}", _spaced(asked), _spaced(found), holds)

    def within(self, guests: Sequence[str], figure: str, bounds: tuple[int, int], measured: int) -> None:
        """Add an interval that has to hold what is measured."""
        low, high = bounds
        found = "below it" if measured < low else "above it" if measured > high else "within"
        self._add(guests, figure, f"{low:,} to {high:,}", f"{measured:,}", "within", found, found == "within")

    def failed(self, guests: Sequence[str], error: PredictionError) -> None:
        """Add that there is nothing to compare."""
        self._add(guests, "none", _NOTHING, _NOTHING, "a result", str(error), False)

    def missing(self, what: str) -> None:
        """Tell that the lab lacks something."""
        self.notes.append(f"Not in this lab: {what}.")

    def _add(
        self,
        guests: Sequence[str],
        figure: str,
        predicted: str,
        measured: str,
        asked: str,
        found: str,
        holds: bool,
    ) -> None:
        self.rows.append(Row(", ".join(guests), figure, predicted, measured, asked, found, holds))


def _spaced(text: str) -> str:
    return text.replace("%", " %")


def command_in(folder: Path, tell: Callable[[str], None]) -> Predict:
    """Give what runs the command in a folder, and tells of it before."""

    def predict(section: str, options: Sequence[str], guests: Sequence[str]) -> dict[str, Any]:
        arguments = ["erosion", section, "--json", *options, *(f"{guest}.raw" for guest in guests)]
        tell(f"hvshare {' '.join(arguments)}")
        run = subprocess.run(
            [sys.executable, "-m", "hvshare", *arguments, "--quiet"],
            capture_output=True,
            check=False,
            cwd=folder,
            stdin=subprocess.DEVNULL,
        )
        if run.returncode:
            lines = run.stderr.decode(errors="replace").strip().splitlines()
            raise PredictionError(f"exit {run.returncode}: {lines[-1] if lines else ''}")
        found: dict[str, Any] = json.loads(run.stdout)[section.replace("-", "_")]
        return found

    return predict

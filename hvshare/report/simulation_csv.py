"""Experiments with guests made to order, as CSV."""

from __future__ import annotations

import csv
import io
from typing import TYPE_CHECKING

from hvshare.report.effects import effects_by_factors
from hvshare.report.simulation_machine import (
    RESPONSE_NAMES,
    clone_point_fields,
    finding_fields,
    saved_fields,
    spread_fields,
    step_fields,
    sweep_point_fields,
)
from hvshare.report.text import encodable
from hvshare.simulation.results import Clones, Simulation, Sweep
from hvshare.simulation.series_results import Series

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from hvshare.report.simulation_machine import Result


def simulate_csv(result: Result) -> str:
    """Write what an experiment found as CSV.

    Parameters
    ----------
    result : Simulation, Series, Clones or Sweep
        What was found.

    Returns
    -------
    str
        Of a factorial a row a cell, a row an effect and a row a step of the waterfall, which ``type`` tells
        apart; or a row a finding; or a row a point. What a row does not have is empty.
    """
    match result:
        case Simulation():
            return _simulation_csv(result)
        case Series():
            return _series_csv(result)
        case Clones():
            return _csv([_flat_spreads(fields) for fields in map(clone_point_fields, result.points)])
        case Sweep():
            rows = [
                {"parameter": result.parameter, **_flat_spreads(sweep_point_fields(point))}
                for point in result.points
            ]
            return _csv(rows)


def _simulation_csv(result: Simulation) -> str:
    rows: list[dict[str, object]] = []
    for cell in result.cells:
        row = {
            "type": "cell",
            **_levels(cell.levels),
            "host_page_bytes": cell.host_page_bytes,
            "memory_bytes": cell.memory_bytes,
            "factors": "",
            **saved_fields(cell),
            "zero_memory": spread_fields(cell.zero_memory),
        }
        rows.append(_flat_spreads(row))
    for factors, spreads in effects_by_factors(result.effects).items():
        of_effect: dict[str, object] = {"type": "effect", "factors": " ".join(factors)}
        of_effect |= {RESPONSE_NAMES[response]: spread_fields(spread) for response, spread in spreads.items()}
        rows.append(_flat_spreads(of_effect))
    of_waterfall = {"type": "waterfall", **_levels(result.waterfall_levels)}
    rows.extend({**of_waterfall, "step": step.factor, **step_fields(step)} for step in result.waterfall)
    return _csv(rows)


def _levels(levels: Mapping[str, bool]) -> dict[str, object]:
    return {factor.replace("-", "_"): "on" if is_on else "off" for factor, is_on in levels.items()}


def _series_csv(result: Series) -> str:
    switches = {True: "true", False: "false", None: ""}
    rows: list[dict[str, object]] = []
    for claim in result.claims:
        of_claim = {
            "claim": claim.number,
            "source": claim.source,
            "text": claim.text,
            "verdict": str(claim.verdict),
            "conditions": encodable(claim.conditions),
        }
        for finding in claim.findings:
            answers = {
                "bears_out": switches[finding.bears_out],
                "close_to_limit": switches[finding.close_to_limit],
            }
            rows.append({**of_claim, **finding_fields(finding), **answers})
    return _csv(rows)


def _flat_spreads(fields: Mapping[str, object]) -> dict[str, object]:
    """Give each figure of a spread a name of its own: that of the spread, ``_`` and its own."""
    flat: dict[str, object] = {}
    for name, value in fields.items():
        if isinstance(value, dict):
            flat |= {f"{name}_{part}": figure for part, figure in value.items()}
        else:
            flat[name] = value
    return flat


def _csv(rows: Iterable[Mapping[str, object]]) -> str:
    """Write rows under the columns of all of them; what a row lacks is empty."""
    found = list(rows)
    columns = list(dict.fromkeys(name for row in found for name in row))
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows(found)
    return text.getvalue()

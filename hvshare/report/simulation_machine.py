"""Experiments with guests made to order, as JSON and CSV; the schema is ``docs/schema/simulate-1.json``."""

from __future__ import annotations

import csv
import io
from typing import TYPE_CHECKING, Final, TypeAlias

from hvshare.erosion.report import Kind
from hvshare.report.effects import effects_by_factors
from hvshare.report.machine import caveat_fields, json_document
from hvshare.report.text import encodable
from hvshare.simulation.results import Clones, Series, Simulation, Sweep

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from hvshare.simulation.results import CellResult, ClonePoint, Spread, SweepPoint

    Result: TypeAlias = Simulation | Series | Clones | Sweep

SIMULATE_SCHEMA: Final = "hvshare.simulate/1"

_RESPONSES: Final = {
    "saved": "saved",
    "zero": "saved_zero",
    "self": "saved_self",
    "inter": "saved_inter",
}
"""Names of what is saved, as other results have them."""
_SPREAD: Final = ("mean", "deviation", "lowest", "highest")


def simulate_json(result: Result) -> str:
    """Write what an experiment found as one JSON object.

    Parameters
    ----------
    result : Simulation, Series, Clones or Sweep
        What was found.

    Returns
    -------
    str
        Shares are parts of memory from 0 to 1 and never rounded; effects are differences of shares.
    """
    match result:
        case Simulation():
            fields = _simulation(result)
        case Series():
            fields = _series(result)
        case Clones():
            fields = _clones(result)
        case Sweep():
            fields = _sweep(result)
    return json_document(
        {
            "schema": SIMULATE_SCHEMA,
            **fields,
            "kind": str(Kind.MODELLED),
            "caveats": caveat_fields(result.caveats),
        }
    )


def simulate_csv(result: Result) -> str:
    """Write what an experiment found as CSV.

    Parameters
    ----------
    result : Simulation, Series, Clones or Sweep
        What was found.

    Returns
    -------
    str
        A row a cell and then a row an effect; or a row a finding; or a row a point.
    """
    match result:
        case Simulation():
            return _simulation_csv(result)
        case Series():
            return _series_csv(result)
        case Clones():
            return _csv([_flat_spreads(fields) for fields in map(_clone_point, result.points)])
        case Sweep():
            rows = [
                {"parameter": result.parameter, **_flat_spreads(_sweep_point(point))}
                for point in result.points
            ]
            return _csv(rows)


def _simulation(result: Simulation) -> dict[str, object]:
    return {
        "experiment": "factorial",
        "preset": encodable(result.preset),
        **_made(result),
        "memory_bytes": result.memory_bytes,
        "factors": list(result.factors),
        "cells": [
            {
                "levels": dict(cell.levels),
                "host_page_bytes": cell.host_page_bytes,
                "memory_bytes": cell.memory_bytes,
                **_saved(cell),
                "zero_memory": _spread(cell.zero_memory),
            }
            for cell in result.cells
        ],
        "effects": [
            {
                "factors": list(effect.factors),
                "response": _RESPONSES[effect.response],
                **_spread(effect.spread),
            }
            for effect in result.effects
        ],
        "waterfall": [
            {
                "factor": step.factor,
                "kind": str(step.kind),
                "lower_bytes": step.lower_bytes,
                "upper_bytes": step.upper_bytes,
            }
            for step in result.waterfall
        ],
        "waterfall_levels": dict(result.waterfall_levels),
        "waterfall_seed": result.waterfall_seed,
    }


def _series(result: Series) -> dict[str, object]:
    return {
        "experiment": "series",
        "presets": [encodable(preset) for preset in result.presets],
        **_made(result),
        "claims": [
            {
                "number": claim.number,
                "source": claim.source,
                "text": claim.text,
                "criterion": claim.criterion,
                "findings": [
                    {
                        "label": encodable(finding.label),
                        "quantity": finding.quantity,
                        "value": finding.value,
                        "unit": finding.unit,
                        "lowest": finding.lowest,
                        "highest": finding.highest,
                        "bears_out": finding.bears_out,
                    }
                    for finding in claim.findings
                ],
                "verdict": str(claim.verdict),
                "conditions": encodable(claim.conditions),
            }
            for claim in result.claims
        ],
    }


def _clones(result: Clones) -> dict[str, object]:
    return {
        "experiment": "clones",
        "preset": encodable(result.preset),
        **_made(result),
        "memory_bytes": result.memory_bytes,
        "pattern": result.pattern,
        "points": [_clone_point(point) for point in result.points],
        "half_life_pages": result.half_life_pages,
    }


def _clone_point(point: ClonePoint) -> dict[str, object]:
    return {
        "pages_written": point.pages_written,
        "saved_4k": _spread(point.saved_small),
        "saved_2m": _spread(point.saved_large),
        "shared_frames": _spread(point.shared_frames),
        "expected_frames": point.expected_frames,
    }


def _sweep(result: Sweep) -> dict[str, object]:
    return {
        "experiment": "sweep",
        "preset": encodable(result.preset),
        **_made(result),
        "memory_bytes": result.memory_bytes,
        "parameter": result.parameter,
        "points": [_sweep_point(point) for point in result.points],
    }


def _sweep_point(point: SweepPoint) -> dict[str, object]:
    return {
        "value": encodable(point.value) if isinstance(point.value, str) else point.value,
        "label": encodable(point.label),
        "saved_4k": _spread(point.small),
        "saved_zero_4k": _spread(point.zero),
        "saved_self_4k": _spread(point.self_sharing),
        "saved_inter_4k": _spread(point.inter_vm),
        "saved_2m": _spread(point.large),
    }


def _made(result: Result) -> dict[str, object]:
    return {
        "vms": result.vms,
        "seeds": list(result.seeds),
        "scale": result.scale,
        "settings": {
            name: encodable(value) if isinstance(value, str) else value
            for name, value in result.settings.items()
        },
    }


def _saved(of: CellResult) -> dict[str, object]:
    return {
        "saved": _spread(of.saved),
        "saved_zero": _spread(of.zero),
        "saved_self": _spread(of.self_sharing),
        "saved_inter": _spread(of.inter_vm),
    }


def _spread(spread: Spread) -> dict[str, object]:
    return {name: getattr(spread, name) for name in _SPREAD}


def _simulation_csv(result: Simulation) -> str:
    switches = {True: "on", False: "off"}
    rows: list[dict[str, object]] = []
    for cell in result.cells:
        levels = {factor.replace("-", "_"): switches[on] for factor, on in cell.levels.items()}
        row = {
            "type": "cell",
            **levels,
            "host_page_bytes": cell.host_page_bytes,
            "memory_bytes": cell.memory_bytes,
            "factors": "",
            **_saved(cell),
            "zero_memory": _spread(cell.zero_memory),
        }
        rows.append(_flat_spreads(row))
    for factors, spreads in effects_by_factors(result.effects).items():
        of_effect: dict[str, object] = {"type": "effect", "factors": " ".join(factors)}
        of_effect |= {_RESPONSES[response]: _spread(spread) for response, spread in spreads.items()}
        rows.append(_flat_spreads(of_effect))
    return _csv(rows)


def _series_csv(result: Series) -> str:
    return _csv(
        [
            {
                "claim": claim.number,
                "source": claim.source,
                "text": claim.text,
                "verdict": str(claim.verdict),
                "conditions": encodable(claim.conditions),
                "label": encodable(finding.label),
                "quantity": finding.quantity,
                "value": finding.value,
                "unit": finding.unit,
                "lowest": finding.lowest,
                "highest": finding.highest,
                "bears_out": "" if finding.bears_out is None else str(finding.bears_out).lower(),
            }
            for claim in result.claims
            for finding in claim.findings
        ]
    )


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
    """Write rows under the columns of the first one; what a row lacks is empty."""
    found = list(rows)
    text = io.StringIO()
    writer = csv.DictWriter(text, list(found[0]) if found else [], lineterminator="\n")
    writer.writeheader()
    writer.writerows(found)
    return text.getvalue()

"""Experiments with guests made to order, as JSON; the schema is ``docs/schema/simulate-1.json``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, TypeAlias

from hvshare.erosion.report import Kind
from hvshare.report.machine import caveat_fields, json_document
from hvshare.report.text import encodable
from hvshare.simulation.results import Clones, Simulation, Sweep
from hvshare.simulation.series_results import Series

if TYPE_CHECKING:
    from hvshare.erosion.report import WaterfallStep
    from hvshare.simulation.results import CellResult, ClonePoint, Spread, SweepPoint
    from hvshare.simulation.series_results import Finding

    Result: TypeAlias = Simulation | Series | Clones | Sweep

SIMULATE_SCHEMA: Final = "hvshare.simulate/1"

RESPONSE_NAMES: Final = {
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
                **saved_fields(cell),
                "zero_memory": spread_fields(cell.zero_memory),
            }
            for cell in result.cells
        ],
        "effects": [
            {
                "factors": list(effect.factors),
                "response": RESPONSE_NAMES[effect.response],
                **spread_fields(effect.spread),
            }
            for effect in result.effects
        ],
        "waterfall": [{"factor": step.factor, **step_fields(step)} for step in result.waterfall],
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
                "findings": [finding_fields(finding) for finding in claim.findings],
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
        "points": [clone_point_fields(point) for point in result.points],
        "half_life_pages": result.half_life_pages,
    }


def step_fields(step: WaterfallStep) -> dict[str, object]:
    """Give how large a step of a waterfall is, and how that was found."""
    return {"kind": str(step.kind), "lower_bytes": step.lower_bytes, "upper_bytes": step.upper_bytes}


def finding_fields(finding: Finding) -> dict[str, object]:
    """Give a figure that bears on a claim."""
    return {
        "label": encodable(finding.label),
        "quantity": finding.quantity,
        "value": finding.value,
        "unit": finding.unit,
        "of": finding.of,
        "lowest": finding.lowest,
        "highest": finding.highest,
        "bears_out": finding.bears_out,
        "close_to_limit": finding.close_to_limit,
    }


def clone_point_fields(point: ClonePoint) -> dict[str, object]:
    """Give clones after some pages written."""
    return {
        "pages_written": point.pages_written,
        "saved_4k": spread_fields(point.saved_small),
        "saved_2m": spread_fields(point.saved_large),
        "shared_frames": spread_fields(point.shared_frames),
        "expected_frames": point.expected_frames,
    }


def _sweep(result: Sweep) -> dict[str, object]:
    return {
        "experiment": "sweep",
        "preset": encodable(result.preset),
        **_made(result),
        "memory_bytes": result.memory_bytes,
        "parameter": result.parameter,
        "points": [sweep_point_fields(point) for point in result.points],
    }


def sweep_point_fields(point: SweepPoint) -> dict[str, object]:
    """Give what is saved at one value of a parameter."""
    return {
        "value": encodable(point.value) if isinstance(point.value, str) else point.value,
        "label": encodable(point.label),
        "saved_4k": spread_fields(point.small),
        "saved_zero_4k": spread_fields(point.zero),
        "saved_self_4k": spread_fields(point.self_sharing),
        "saved_inter_4k": spread_fields(point.inter_vm),
        "saved_2m": spread_fields(point.large),
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


def saved_fields(of: CellResult) -> dict[str, object]:
    """Give what is saved in a cell, and its parts."""
    return {
        "saved": spread_fields(of.saved),
        "saved_zero": spread_fields(of.zero),
        "saved_self": spread_fields(of.self_sharing),
        "saved_inter": spread_fields(of.inter_vm),
    }


def spread_fields(spread: Spread) -> dict[str, object]:
    """Give a figure over several seeds."""
    return {name: getattr(spread, name) for name in _SPREAD}

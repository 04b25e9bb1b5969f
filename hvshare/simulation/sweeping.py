"""What is saved as one parameter varies and all others stay."""

from __future__ import annotations

import dataclasses
from fractions import Fraction
from typing import TYPE_CHECKING

from hvshare.simulation.caveats import experiment_caveats
from hvshare.simulation.clones import snapshots, written_is_unique
from hvshare.simulation.making import scaled_size
from hvshare.simulation.results import Spread, Sweep, SweepPoint
from hvshare.simulation.running import tallies_of
from hvshare.simulation.tallies import share_spreads
from hvshare.units import LARGE_FRAME_SIZE, PAGE_SIZE

if TYPE_CHECKING:
    from collections.abc import Mapping

    from hvshare.simulation.making import Request
    from hvshare.simulation.running import Laboratory
    from hvshare.simulation.sweeps import Axis, Value
    from hvshare.simulation.tallies import Tally


def at_value(request: Request, parameter: str, value: Value, scale: Fraction) -> Request:
    """Set one parameter of a guest.

    Parameters
    ----------
    request : Request
        What else is asked for.
    parameter : str
        Out of `hvshare.simulation.sweeps.PARAMETERS`; those of no single guest change nothing.
    value : int, Fraction or str
        Sizes are those of a guest of full size.
    scale : Fraction
        What sizes are scaled by, as the preset was.

    Returns
    -------
    Request
    """
    match parameter, value:
        case "prefetch", str() | Fraction():
            return dataclasses.replace(request, prefetch=value)
        case "aslr", str():
            return dataclasses.replace(request, aslr=value == "on")
        case "memory", int():
            return dataclasses.replace(request, memory_bytes=scaled_size(value, scale))
        case "apps", int():
            return dataclasses.replace(request, apps=scaled_size(value, scale))
        case "guest-large-pages", int():
            return dataclasses.replace(request, guest_large_pages=scaled_size(value, scale))
        case "fragmentation", Fraction():
            return dataclasses.replace(request, fragmentation=value)
        case "diversity", Fraction():
            return dataclasses.replace(request, diversity=value)
    return request


def sweep(
    laboratory: Laboratory,
    request: Request,
    axis: Axis,
    *,
    scale: Fraction,
    settings: Mapping[str, str | int | float] | None = None,
) -> Sweep:
    """Measure what is saved at each value of a parameter.

    Parameters
    ----------
    laboratory : Laboratory
        Makes guests. Where their number varies, a guest is made once, and is in all points that have so many.
    request : Request
        What all guests have in common.
    axis : Axis
        The parameter and its values. Where the guests' large pages vary, applications are as large in all of
        them: what is not in large pages is in small ones.
    scale : Fraction
        What the preset was scaled by; sizes on the axis are scaled alike.
    settings : mapping of str to str, int or float, optional
        What else was asked for, to be told.

    Returns
    -------
    Sweep

    Raises
    ------
    PresetError
        If there can be no such guests.
    """
    if axis.parameter == "guest-large-pages":
        # Otherwise the guests would differ by what they run, too.
        most = max(scaled_size(int(value), scale) for value in axis.values)
        request = dataclasses.replace(request, apps=max(request.apps, most))
    requests = [at_value(request, axis.parameter, value, scale) for value in axis.values]
    caveats = experiment_caveats(scale, laboratory.seeds)
    if axis.parameter == "vms":
        laboratory = dataclasses.replace(laboratory, vms=max(map(int, axis.values)))
        found = _over_vms(laboratory, request, axis)
    elif axis.parameter == "written":
        caveats += (written_is_unique(),)
        found = _over_written(laboratory, request, axis)
    else:
        laboratory.announce(requests)
        found = [[laboratory.group(each, seed).tallies() for seed in laboratory.seeds] for each in requests]
    return Sweep(
        preset=request.preset.name,
        vms=laboratory.vms,
        seeds=laboratory.seeds,
        memory_bytes=max(each.memory_bytes for each in requests),
        scale=str(scale),
        settings=dict(settings or {}),
        parameter=axis.parameter,
        points=tuple(
            _point(value, label, tallies)
            for value, label, tallies in zip(axis.values, axis.labels, found, strict=True)
        ),
        caveats=caveats,
    )


def _over_vms(laboratory: Laboratory, request: Request, axis: Axis) -> list[list[dict[int, Tally]]]:
    laboratory.announce([request])
    found: list[list[dict[int, Tally]]] = [[] for _ in axis.values]
    for seed in laboratory.seeds:
        group = laboratory.group(request, seed)
        for of_value, vms in zip(found, axis.values, strict=True):
            of_value.append(group.tallies(int(vms)))
    return found


def _over_written(laboratory: Laboratory, request: Request, axis: Axis) -> list[list[dict[int, Tally]]]:
    found: list[list[dict[int, Tally]]] = [[] for _ in axis.values]
    for snapshot in snapshots(laboratory, request, "uniform", max(map(int, axis.values))):
        for of_value, written in zip(found, axis.values, strict=True):
            of_value.append(tallies_of(snapshot.clones(int(written))))
    return found


def _point(value: Value, label: str, tallies: list[dict[int, Tally]]) -> SweepPoint:
    small = share_spreads([of_seed[PAGE_SIZE] for of_seed in tallies])
    return SweepPoint(
        float(value) if isinstance(value, Fraction) else value,
        label,
        small=small["saved"],
        zero=small["zero"],
        self_sharing=small["self"],
        inter_vm=small["inter"],
        large=Spread.of([of_seed[LARGE_FRAME_SIZE].shares()["saved"] for of_seed in tallies]),
    )

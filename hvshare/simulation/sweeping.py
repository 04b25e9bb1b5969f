"""What is saved as one parameter varies and all others stay."""

from __future__ import annotations

import dataclasses
from fractions import Fraction
from typing import TYPE_CHECKING, Final

from hvshare.errors import PresetError
from hvshare.simulation.caveats import experiment_caveats, fewer_large_pages
from hvshare.simulation.clones import snapshots, written_is_unique
from hvshare.simulation.making import LargePages, scaled_size
from hvshare.simulation.results import Spread, Sweep, SweepPoint
from hvshare.simulation.running import tallies_of
from hvshare.simulation.tallies import share_spreads
from hvshare.units import LARGE_FRAME_SIZE, PAGE_SIZE

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import TypeAlias

    from hvshare.simulation.making import Request
    from hvshare.simulation.running import Laboratory
    from hvshare.simulation.sweeps import Axis, Value
    from hvshare.simulation.tallies import Tally

    _Found: TypeAlias = tuple[list[list[dict[int, Tally]]], dict[str, LargePages]]
    """For each value and each seed what is saved, and large pages by the setting of the guests."""

_SIZES: Final = ("memory", "apps", "guest-large-pages")


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

    Raises
    ------
    PresetError
        If its system has no ASLR to be on, or a size is nothing once it is scaled.
    """
    match parameter, value:
        case "prefetch", str() | Fraction():
            return dataclasses.replace(request, prefetch=value)
        case "aslr", "on" if request.preset.aslr.kind == "none":
            raise PresetError(
                f"--sweep aslr: {request.preset.name} has none",
                advice="take another preset, or give aslr.kind in one of your own",
            )
        case "aslr", str():
            return dataclasses.replace(request, aslr=value == "on")
        case "memory", int():
            return dataclasses.replace(request, memory_bytes=scaled_size(value, scale, LARGE_FRAME_SIZE))
        case "apps", int():
            return dataclasses.replace(request, apps=scaled_size(value, scale))
        case "guest-large-pages", int():
            large = scaled_size(value, scale, LARGE_FRAME_SIZE)
            return dataclasses.replace(request, guest_large_pages=large)
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
        If there can be no such guests, or values of a size are the same once they are scaled.
    """
    if axis.parameter == "guest-large-pages":
        # Otherwise the guests would differ by what they run, too.
        most = max(scaled_size(int(value), scale, LARGE_FRAME_SIZE) for value in axis.values)
        request = dataclasses.replace(request, apps=max(request.apps, most))
    requests = [at_value(request, axis.parameter, value, scale) for value in axis.values]
    if axis.parameter in _SIZES:
        _check_different(axis, requests, scale)
    caveats = experiment_caveats(scale, laboratory.seeds)
    if axis.parameter == "vms":
        laboratory = dataclasses.replace(laboratory, vms=max(map(int, axis.values)))
        found, large_pages = _over_vms(laboratory, request, axis)
    elif axis.parameter == "written":
        caveats += (written_is_unique(),)
        found, large_pages = _over_written(laboratory, request, axis)
    else:
        found, large_pages = _over_settings(laboratory, requests, axis)
    caveats += fewer_large_pages(large_pages)
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


def _check_different(axis: Axis, requests: Sequence[Request], scale: Fraction) -> None:
    """Refuse points that would be the same guests under several labels."""
    seen: dict[tuple[int, ...], str] = {}
    for request, label in zip(requests, axis.labels, strict=True):
        made = (request.memory_bytes, request.application_bytes, request.guest_large_pages)
        if made in seen:
            raise PresetError(
                f"--sweep {axis.parameter}: {seen[made]} and {label} make the same guests at a scale of "
                f"{scale}",
                advice="take values further apart, or a larger --scale",
            )
        seen[made] = label


def _over_settings(laboratory: Laboratory, requests: Sequence[Request], axis: Axis) -> _Found:
    laboratory.prepare(requests)
    found: list[list[dict[int, Tally]]] = []
    large_pages = {}
    for request, label in zip(requests, axis.labels, strict=True):
        # Of a group, digests are let go of as soon as they are counted.
        groups = (laboratory.group(request, seed) for seed in laboratory.seeds)
        counted = [(group.tallies(), group.large_pages) for group in groups]
        found.append([tallies for tallies, _ in counted])
        large_pages[f"{axis.parameter} {label}"] = LargePages.total([pages for _, pages in counted])
    return found, large_pages


def _over_vms(laboratory: Laboratory, request: Request, axis: Axis) -> _Found:
    laboratory.prepare([request])
    found: list[list[dict[int, Tally]]] = [[] for _ in axis.values]
    large_pages = []
    for seed in laboratory.seeds:
        group = laboratory.group(request, seed)
        large_pages.append(group.large_pages)
        for of_value, vms in zip(found, axis.values, strict=True):
            of_value.append(group.tallies(int(vms)))
    return found, {"": LargePages.total(large_pages)}


def _over_written(laboratory: Laboratory, request: Request, axis: Axis) -> _Found:
    found: list[list[dict[int, Tally]]] = [[] for _ in axis.values]
    large_pages = []
    for snapshot, of_guest in snapshots(laboratory, request, "uniform", max(map(int, axis.values))):
        large_pages.append(of_guest)
        for of_value, written in zip(found, axis.values, strict=True):
            of_value.append(tallies_of(snapshot.clones(int(written))))
    return found, {"": LargePages.total(large_pages)}


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

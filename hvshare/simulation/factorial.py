"""The full factorial of ASLR, prefetching, the guest's own large pages and the host's frame size."""

from __future__ import annotations

from contextlib import ExitStack
from typing import TYPE_CHECKING

from hvshare.erosion.measure import measure_erosion
from hvshare.simulation.caveats import (
    experiment_caveats,
    factor_left_out,
    fewer_large_pages,
    waterfall_of_one_setting,
)
from hvshare.simulation.design import GUEST_FACTORS, HOST_FACTOR, cells, settings_of
from hvshare.simulation.effects import effects
from hvshare.simulation.levels import at_levels
from hvshare.simulation.making import LargePages
from hvshare.simulation.results import RESPONSES, CellResult, Simulation, Spread
from hvshare.simulation.tallies import share_spreads

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from fractions import Fraction

    from hvshare.erosion.report import ErosionReport
    from hvshare.fingerprint.fingerprints import Fingerprints
    from hvshare.simulation.design import Cell
    from hvshare.simulation.levels import OnLevels
    from hvshare.simulation.making import Request
    from hvshare.simulation.running import Laboratory
    from hvshare.simulation.tallies import Tally


def simulate(
    laboratory: Laboratory,
    request: Request,
    on: OnLevels,
    *,
    scale: Fraction,
    waterfall: bool = True,
    settings: Mapping[str, str | int | float] | None = None,
) -> Simulation:
    """Make the guests of all cells, and find what each factor does to sharing.

    Parameters
    ----------
    laboratory : Laboratory
        Makes guests; the same seeds for every cell, so that cells differ by their factors alone.
    request : Request
        What all guests have in common.
    on : OnLevels
        What factors are like where they are on. ASLR is no factor of a preset that has none.
    scale : Fraction
        What the preset was scaled by, to be told.
    waterfall : bool
        Whether erosion is measured in the guests with all factors on, of the first seed.
    settings : mapping of str to str, int or float, optional
        What else was asked for, to be told.

    Returns
    -------
    Simulation

    Raises
    ------
    PresetError
        If there can be no such guests.
    """
    has_aslr = request.preset.aslr.kind != "none"
    guest_factors = tuple(factor for factor in GUEST_FACTORS if has_aslr or factor != "aslr")
    all_on = dict.fromkeys(guest_factors, True)
    configurations = list(settings_of(guest_factors))
    asked = [at_levels(request, levels, on) for levels in configurations]
    laboratory.prepare(asked)
    by_seed: dict[int, list[dict[int, Tally]]] = {}
    large_pages: list[LargePages] = []
    erosion: ErosionReport | None = None
    # The first seed comes last: its waterfall has a progress of its own, which ends that of making guests.
    for seed in reversed(laboratory.seeds):
        measured = by_seed[seed] = []
        cold: tuple[Fingerprints, ...] = ()
        for levels, each in zip(configurations, asked, strict=True):
            with ExitStack() as stack:
                guests = laboratory.made(each, seed, stack)
                group = laboratory.hashed(guests, each.memory_bytes)
                measured.append(group.tallies())
                large_pages.append(group.large_pages)
                if not waterfall or seed != laboratory.seeds[0]:
                    continue
                if levels == all_on | {"prefetch": False}:
                    cold = group.fingerprints
                if levels == all_on:
                    erosion = measure_erosion(
                        group.fingerprints,
                        [guest.image for guest in guests],
                        cold=cold,
                        jobs=laboratory.jobs,
                        progress=laboratory.progress,
                    )
    design = cells(guest_factors)
    of_cells = [
        [by_seed[seed][index % len(asked)][cell.host_page_bytes] for seed in laboratory.seeds]
        for index, cell in enumerate(design)
    ]
    caveats = experiment_caveats(scale, laboratory.seeds)
    if not has_aslr:
        caveats += (factor_left_out(request.preset.name),)
    caveats += fewer_large_pages({"": LargePages.total(large_pages)})
    if erosion is not None:
        caveats += (waterfall_of_one_setting(all_on, laboratory.seeds[0]), *erosion.caveats)
    factors = (*guest_factors, HOST_FACTOR)
    return Simulation(
        preset=request.preset.name,
        vms=laboratory.vms,
        seeds=laboratory.seeds,
        memory_bytes=request.memory_bytes,
        scale=str(scale),
        settings=dict(settings or {}),
        factors=factors,
        cells=tuple(_cell_result(cell, tallies) for cell, tallies in zip(design, of_cells, strict=True)),
        effects=effects(
            factors,
            [[tally.shares() for tally in tallies] for tallies in zip(*of_cells, strict=True)],
            RESPONSES,
        ),
        waterfall=erosion.waterfall if erosion is not None else (),
        waterfall_levels=all_on if erosion is not None else {},
        waterfall_seed=laboratory.seeds[0] if erosion is not None else None,
        caveats=caveats,
    )


def _cell_result(cell: Cell, tallies: Sequence[Tally]) -> CellResult:
    spreads = share_spreads(tallies)
    return CellResult(
        cell.levels,
        cell.host_page_bytes,
        tallies[0].memory,
        saved=spreads["saved"],
        zero=spreads["zero"],
        self_sharing=spreads["self"],
        inter_vm=spreads["inter"],
        zero_memory=Spread.of([tally.share(tally.zero_memory) for tally in tallies]),
    )

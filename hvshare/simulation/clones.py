"""How fast guests that were restored from one snapshot diverge."""

from __future__ import annotations

import dataclasses
from fractions import Fraction
from typing import TYPE_CHECKING

import numpy as np

from hvshare.caveats import Caveat
from hvshare.errors import PresetError
from hvshare.simulation.caveats import experiment_caveats, fewer_large_pages
from hvshare.simulation.closed_forms import expected_shared_frames, untouched_chance
from hvshare.simulation.making import LargePages
from hvshare.simulation.results import ClonePoint, Clones, Spread
from hvshare.simulation.running import tallies_of
from hvshare.simulation.snapshot import FRAME_PAGES, Snapshot
from hvshare.units import LARGE_FRAME_SIZE, PAGE_SIZE

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from hvshare.simulation.making import Request
    from hvshare.simulation.running import Laboratory
    from hvshare.simulation.snapshot import Pattern


def default_points(pages: int) -> list[int]:
    """Choose numbers of pages to write: none, powers of two, and all.

    Examples
    --------
    >>> default_points(512)
    [0, 1, 2, 4, 8, 16, 32, 64, 128, 256, 512]
    """
    return sorted({0, pages, *(1 << power for power in range(pages.bit_length()))})


def snapshots(
    laboratory: Laboratory, request: Request, pattern: Pattern, most_written: int
) -> Iterator[tuple[Snapshot, LargePages]]:
    """Make one guest of each seed, with the laboratory's number of clones.

    Yields
    ------
    tuple of Snapshot and LargePages
        One a seed, with the large pages of the guest.

    Raises
    ------
    PresetError
        If more pages are to be written than a guest has.
    """
    if most_written > (pages := request.memory_bytes // PAGE_SIZE):
        raise PresetError(
            f"{most_written:,} pages cannot be written in a guest that has {pages:,}",
            advice="write fewer, or make guests larger",
        )
    of_one = dataclasses.replace(laboratory, vms=1)
    of_one.prepare([request])
    for seed in of_one.seeds:
        group = of_one.group(request, seed)
        yield Snapshot(group.fingerprints[0], laboratory.vms, seed, pattern), group.large_pages


def measure_clones(
    laboratory: Laboratory,
    request: Request,
    *,
    scale: Fraction,
    points: Sequence[int] = (),
    pattern: Pattern = "uniform",
    settings: Mapping[str, str | int | float] | None = None,
) -> Clones:
    """Let clones of one guest write to their memory, and measure what they still share.

    Parameters
    ----------
    laboratory : Laboratory
        Makes one guest of each seed; as many clones as it makes guests of other experiments.
    request : Request
        The guest.
    scale : Fraction
        What the preset was scaled by, to be told.
    points : sequence of int
        Pages that each clone writes; `default_points` by default.
    pattern : str
        Whether pages are written at random or in blocks, out of `hvshare.simulation.snapshot.PATTERNS`.
    settings : mapping of str to str, int or float, optional
        What else was asked for, to be told.

    Returns
    -------
    Clones

    Raises
    ------
    PresetError
        If more pages are to be written than a guest has.
    """
    written = sorted(set(points)) or default_points(request.memory_bytes // PAGE_SIZE)
    small: dict[int, list[Fraction]] = {count: [] for count in written}
    large: dict[int, list[Fraction]] = {count: [] for count in written}
    frames: dict[int, list[Fraction]] = {count: [] for count in written}
    expected: dict[int, float] = {}
    losses, large_pages = [], []
    for snapshot, of_guest in snapshots(laboratory, request, pattern, written[-1]):
        large_pages.append(of_guest)
        losses.append(snapshot.losses())
        for count in written:
            clones = snapshot.clones(count)
            tallies = tallies_of(clones)
            small[count].append(tallies[PAGE_SIZE].shares()["saved"])
            large[count].append(tallies[LARGE_FRAME_SIZE].shares()["saved"])
            frames[count].append(Fraction(*snapshot.shared_frames(clones)))
            untouched = untouched_chance(snapshot.pages, FRAME_PAGES, count)
            expected[count] = expected_shared_frames(laboratory.vms, untouched)
    lost = np.sort(np.concatenate(losses))
    return Clones(
        preset=request.preset.name,
        vms=laboratory.vms,
        seeds=laboratory.seeds,
        memory_bytes=request.memory_bytes,
        scale=str(scale),
        settings=dict(settings or {}),
        pattern=pattern,
        points=tuple(
            ClonePoint(
                count,
                saved_small=Spread.of(small[count]),
                saved_large=Spread.of(large[count]),
                shared_frames=Spread.of(frames[count]),
                expected_frames=expected[count] if pattern == "uniform" else None,
            )
            for count in written
        ),
        half_life_pages=int(lost[(len(lost) - 1) // 2]) if len(lost) else None,
        caveats=(
            *experiment_caveats(scale, laboratory.seeds),
            *fewer_large_pages({"": LargePages.total(large_pages)}),
            written_is_unique(),
        ),
    )


def written_is_unique() -> Caveat:
    """Say what clones write."""
    return Caveat(
        "written-is-unique",
        "what a clone writes is taken to be in no other page, and to go to pages not written before",
        "take figures for what is lost at the most: real guests also write what others hold",
    )

"""The results of experiments: frozen, and plain numbers and words only.

Shares are parts of the known memory of all VMs of a cell or point, from 0 to 1, whatever the size of frames.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from fractions import Fraction
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from hvshare.caveats import Caveat
    from hvshare.erosion.report import WaterfallStep

RESPONSES = ("zero", "self", "inter", "saved")
"""What is asked of each cell: zero, self-sharing and inter-VM savings, and all of them."""


@dataclass(frozen=True)
class Spread:
    """One figure over several seeds.

    Attributes
    ----------
    mean : float
        Over the seeds.
    deviation : float or None
        Standard deviation of the seeds, with n - 1; None for one seed.
    lowest, highest : float
        The smallest and the largest.
    """

    mean: float
    deviation: float | None
    lowest: float
    highest: float

    @classmethod
    def of(cls, values: Sequence[Fraction | int]) -> Self:
        """Summarize exact figures, one a seed; only the results are rounded.

        Examples
        --------
        >>> Spread.of([Fraction(1, 4), Fraction(3, 4)]).mean
        0.5
        """
        count = len(values)
        mean = sum(values, Fraction(0)) / count
        deviation = None
        if count > 1:
            # An exact sum under the root: the root of IEEE 754 is rounded alike on every machine.
            deviation = math.sqrt(sum(((value - mean) ** 2 for value in values), Fraction(0)) / (count - 1))
        return cls(float(mean), deviation, float(min(values)), float(max(values)))


@dataclass(frozen=True, kw_only=True)
class Experiment:
    """What every experiment says of itself.

    Attributes
    ----------
    vms : int
        Guests a cell or point; the most of them if that is what varies.
    seeds : tuple of int
        Of the templates; every figure is a `Spread` over them.
    scale : str
        Part of the preset's sizes that was made, such as ``1/16``; ``1`` for all.
    settings : mapping of str to str, int or float
        What else was asked for.
    caveats : tuple of Caveat
        What to know before trusting the figures.
    """

    vms: int
    seeds: tuple[int, ...]
    scale: str
    settings: Mapping[str, str | int | float]
    caveats: tuple[Caveat, ...]


@dataclass(frozen=True, kw_only=True)
class OfOnePreset(Experiment):
    """An experiment with guests of one description.

    Attributes
    ----------
    preset : str
        Name of the description of the guest.
    memory_bytes : int
        Of one guest; the most of it if that is what varies.
    """

    preset: str
    memory_bytes: int


@dataclass(frozen=True)
class CellResult:
    """One setting of all factors, in frames of one size.

    Attributes
    ----------
    levels : mapping of str to bool
        By factor, whether it is on; ``host-large-pages`` is the host's frame size.
    host_page_bytes : int
        4,096 or 2,097,152.
    memory_bytes : int
        Known memory of all VMs of one seed.
    saved, zero, self_sharing, inter_vm : Spread
        What is saved, and its three parts.
    zero_memory : Spread
        Memory in zero frames, saved or not.
    """

    levels: Mapping[str, bool]
    host_page_bytes: int
    memory_bytes: int
    saved: Spread
    zero: Spread
    self_sharing: Spread
    inter_vm: Spread
    zero_memory: Spread


@dataclass(frozen=True)
class Effect:
    """What a factor, or several together, change on average.

    Attributes
    ----------
    factors : tuple of str
        One for a main effect, more for an interaction.
    response : str
        One of `RESPONSES`.
    spread : Spread
        Change of the share of memory; negative where the factor takes away.
    """

    factors: tuple[str, ...]
    response: str
    spread: Spread


@dataclass(frozen=True, kw_only=True)
class Simulation(OfOnePreset):
    """The full factorial of all factors.

    Attributes
    ----------
    factors : tuple of str
        In the order of the design.
    cells : tuple of CellResult
        Every setting of the factors once.
    effects : tuple of Effect
        Main effects first, then interactions of two, and so on; for each, every response.
    waterfall : tuple of WaterfallStep
        Of the guests of `waterfall_levels` and `waterfall_seed`; empty if it was not asked for.
    waterfall_levels : mapping of str to bool
        The setting it is of.
    waterfall_seed : int or None
        The seed it is of.
    """

    factors: tuple[str, ...]
    cells: tuple[CellResult, ...]
    effects: tuple[Effect, ...]
    waterfall: tuple[WaterfallStep, ...]
    waterfall_levels: Mapping[str, bool]
    waterfall_seed: int | None


@dataclass(frozen=True)
class ClonePoint:
    """Clones of one snapshot after each has written some pages.

    Attributes
    ----------
    pages_written : int
        By each clone.
    saved_small, saved_large : Spread
        Saved at 4 KB and at 2 MB, as shares of memory.
    shared_frames : Spread
        Share of the large frames of all clones that another clone still holds at the same place.
    expected_frames : float or None
        The same by the closed form; None for writes that are not uniform.
    """

    pages_written: int
    saved_small: Spread
    saved_large: Spread
    shared_frames: Spread
    expected_frames: float | None


@dataclass(frozen=True, kw_only=True)
class Clones(OfOnePreset):
    """How fast clones of one snapshot diverge.

    Attributes
    ----------
    pattern : str
        ``uniform`` or ``clustered``.
    points : tuple of ClonePoint
        In ascending order of pages written.
    half_life_pages : int or None
        Pages written by each clone at which half of the frames that had a copy before have one no longer,
        over all seeds; None where no frame had one.
    """

    pattern: str
    points: tuple[ClonePoint, ...]
    half_life_pages: int | None


@dataclass(frozen=True)
class SweepPoint:
    """One value of a parameter.

    Attributes
    ----------
    value : int, float or str
        For an axis; a word for what is no number, such as ``off``.
    label : str
        As people write it.
    small : Spread
        Saved at 4 KB, as shares of memory.
    zero, self_sharing, inter_vm : Spread
        Its parts.
    large : Spread
        Saved at 2 MB.
    """

    value: float | int | str
    label: str
    small: Spread
    zero: Spread
    self_sharing: Spread
    inter_vm: Spread
    large: Spread


@dataclass(frozen=True, kw_only=True)
class Sweep(OfOnePreset):
    """What is saved as one parameter varies.

    Attributes
    ----------
    parameter : str
        Such as ``vms``.
    points : tuple of SweepPoint
        In the order asked for.
    """

    parameter: str
    points: tuple[SweepPoint, ...]

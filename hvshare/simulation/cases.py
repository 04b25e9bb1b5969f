"""The guests that the claims of the series are held against: with ASLR and prefetching, and without."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from typing import TYPE_CHECKING

from hvshare.simulation.design import settings_of
from hvshare.simulation.levels import OnLevels, at_levels
from hvshare.simulation.making import Request
from hvshare.units import LARGE_FRAME_SIZE, PAGE_SIZE

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from hvshare.simulation.running import Laboratory, Occupancy
    from hvshare.simulation.tallies import Tally
    from hvshare.synth.preset import Preset

FACTORS = ("aslr", "prefetch")
"""Factors that the guests are made with and without."""


@dataclass(frozen=True)
class Case:
    """The guests of one preset under one setting, over all seeds.

    Attributes
    ----------
    preset : str
        Its name.
    aslr, prefetch : bool
        Whether they are on.
    vms : int
        Guests of each seed.
    small, large : tuple of Tally
        One a seed, at 4 KB and at 2 MB.
    occupancy : tuple of Occupancy
        One a seed, of all guests.
    """

    preset: str
    aslr: bool
    prefetch: bool
    vms: int
    small: tuple[Tally, ...]
    large: tuple[Tally, ...]
    occupancy: tuple[Occupancy, ...]

    @property
    def label(self) -> str:
        """The setting in words."""
        return f"{self.preset}, ASLR {_word(self.aslr)}, prefetching {_word(self.prefetch)}"

    def nonzero_shares(self) -> list[Fraction]:
        """Share of memory that is saved at 4 KB, zero apart, of each seed."""
        return [tally.share(tally.nonzero) for tally in self.small]


def _word(is_on: bool) -> str:
    return "on" if is_on else "off"


class Cases:
    """All cases, found by preset and setting.

    Parameters
    ----------
    cases : sequence of Case
        In the order in which they are listed.
    """

    def __init__(self, cases: Sequence[Case]) -> None:
        self._cases = {(case.preset, case.aslr, case.prefetch): case for case in cases}

    def __iter__(self) -> Iterator[Case]:
        return iter(self._cases.values())

    def of(self, preset: str, *, aslr: bool, prefetch: bool) -> Case:
        """Give one of them."""
        return self._cases[preset, aslr, prefetch]

    def has(self, preset: str, *, aslr: bool, prefetch: bool) -> bool:
        """Whether there is such a case."""
        return (preset, aslr, prefetch) in self._cases

    def presets(self) -> list[str]:
        """List the names of the presets."""
        return list(dict.fromkeys(case.preset for case in self))

    def randomized(self) -> list[str]:
        """List the names of the presets that there are with all settings."""
        return [name for name in self.presets() if self.has(name, aslr=True, prefetch=True)]


def settings_for(preset: Preset) -> list[Mapping[str, bool]]:
    """List the settings that a preset is made with: all of them, or neither factor where it has no ASLR.

    The preset without ASLR is Windows XP, which does not prefetch into free memory either.
    """
    if preset.aslr.kind == "none":
        return [dict.fromkeys(FACTORS, False)]
    return list(settings_of(FACTORS))


def measure_cases(laboratory: Laboratory, presets: Sequence[Preset]) -> Cases:
    """Make the guests of all cases and measure them.

    Parameters
    ----------
    laboratory : Laboratory
        Makes them; the same seeds for every case.
    presets : sequence of Preset
        Scaled already.

    Returns
    -------
    Cases
    """
    asked = [
        (preset, levels, _request(preset, levels)) for preset in presets for levels in settings_for(preset)
    ]
    laboratory.prepare([request for _, _, request in asked])
    cases = []
    for preset, levels, request in asked:
        small, large, occupancy = [], [], []
        for seed in laboratory.seeds:
            group = laboratory.group(request, seed)
            tallies = group.tallies()
            small.append(tallies[PAGE_SIZE])
            large.append(tallies[LARGE_FRAME_SIZE])
            occupancy.append(group.occupancy)
        cases.append(
            Case(
                preset.name,
                **levels,
                vms=laboratory.vms,
                small=tuple(small),
                large=tuple(large),
                occupancy=tuple(occupancy),
            )
        )
    return Cases(cases)


def _request(preset: Preset, levels: Mapping[str, bool]) -> Request:
    request = Request.of(preset)
    return at_levels(request, levels, OnLevels.of(request))


def ratio(part: int, whole: int) -> Fraction:
    """Divide, and take nothing of nothing for nothing."""
    return Fraction(part, whole) if whole else Fraction(0)

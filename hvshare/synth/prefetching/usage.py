"""Which programs are used, how often, and at what time of the week."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np

from hvshare.errors import PresetError
from hvshare.synth.draws import below

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from hvshare.synth.draws import Draws

HOURS: Final = 168
"""Hours of a week; hour 0 begins on Monday at midnight."""

MOST_USES: Final = (1 << 31) - 1
"""Counts up to this one can be weighted and added up for a million programs in 64 bits."""

WHOLE: Final = 1_000
"""A diversity of one, in parts per 1,000."""

_DAY: Final = 24
_SAME_HOUR, _HOUR_BESIDE, _SAME_HOUR_OF_DAY, _ANY_HOUR = 64, 32, 16, 1
_MOST_POPULAR: Final = 1 << 16


@dataclass(frozen=True)
class UsageHistory:
    """How often each program was used in each hour of the week.

    Attributes
    ----------
    uses : ndarray of int64, shape (programs, 168)
        Counts from 0 to `MOST_USES`; hour 0 begins on Monday at midnight.

    Raises
    ------
    PresetError
        The shape or a count is another one.

    Examples
    --------
    >>> uses = np.zeros((2, HOURS), np.int64)
    >>> uses[0, 9], uses[1, 20] = 3, 4
    >>> history = UsageHistory(uses)
    >>> history.wanted(9).tolist(), history.wanted(20).tolist()
    ([192, 4], [3, 256])
    """

    uses: NDArray[np.int64]

    def __post_init__(self) -> None:
        if self.uses.ndim != 2 or self.uses.shape[1] != HOURS:
            raise PresetError(
                f"a usage history of shape {self.uses.shape}", advice=f"give a row of {HOURS} hours a program"
            )
        if self.uses.size and not 0 <= int(self.uses.min()) <= int(self.uses.max()) <= MOST_USES:
            raise PresetError(
                f"a usage history with counts from {self.uses.min()} to {self.uses.max()}",
                advice=f"counts are from 0 to {MOST_USES}",
            )

    @property
    def programs(self) -> int:
        """How many programs it is about."""
        return len(self.uses)

    def wanted(self, hour: int) -> NDArray[np.int64]:
        """Weigh how much each program is wanted at an hour of the week.

        A use in the same hour of the week counts 64, in the hour before or after 32, in the same hour of
        another day 16, and any other one 1, so programs of the hour lead, and what is used often follows.

        Parameters
        ----------
        hour : int
            0 to 167.

        Returns
        -------
        ndarray of int64, shape (programs,)
            At least 0; 0 for programs that are never used.

        Raises
        ------
        PresetError
            There is no such hour.
        """
        if not 0 <= hour < HOURS:
            raise PresetError(f"hour {hour} of the week", advice=f"hours are from 0 to {HOURS - 1}")
        nearness = np.full(HOURS, _ANY_HOUR, np.int64)
        nearness[hour % _DAY :: _DAY] = _SAME_HOUR_OF_DAY
        nearness[[hour - 1, (hour + 1) % HOURS]] = _HOUR_BESIDE
        nearness[hour] = _SAME_HOUR
        weights: NDArray[np.int64] = self.uses @ nearness
        return weights


def draw_history(programs: int, template: Draws, vm: Draws, diversity: int = 0) -> UsageHistory:
    """Draw how a VM is used: as its template is, as nobody else's, or anything between.

    Popularity falls with rank as Zipf's law has it: the program of rank n is used 1/n times as often as the
    first. Each program is used in office hours, in the evening and at weekends, at night, or always.

    Parameters
    ----------
    programs : int
    template : Draws
        What is common to all VMs of a template follows from them.
    vm : Draws
        What a VM has of its own follows from them.
    diversity : int
        Parts per 1,000 that a VM has of its own: with 0, all VMs of a template are used alike; with 1,000,
        they have nothing in common.

    Returns
    -------
    UsageHistory

    Raises
    ------
    PresetError
        The diversity is not from 0 to 1,000, or there are fewer than no programs.

    Examples
    --------
    >>> from hvshare.synth.draws import Draws
    >>> template, vms = Draws.of("template", 1), [Draws.of("vm", number) for number in (1, 2)]
    >>> one, other = (draw_history(5, template, vm).uses for vm in vms)
    >>> bool((one == other).all())
    True
    """
    if not 0 <= diversity <= WHOLE:
        raise PresetError(
            f"usage that differs between VMs by {diversity} parts per 1,000",
            advice="give a fraction from 0 to 1",
        )
    if programs < 0:
        raise PresetError(f"{programs} programs", advice="give at least 0")
    common, own = (_drawn(programs, draws.child("usage history")) for draws in (template, vm))
    return UsageHistory((common * (WHOLE - diversity) + own * diversity) // WHOLE)


def draw_running(history: UsageHistory, weeks: int, draws: Draws) -> NDArray[np.bool_]:
    """Draw which programs run in each hour of some weeks.

    A program runs in an hour with odds of how often it is used then against a sixteenth of the highest count.

    Parameters
    ----------
    history : UsageHistory
    weeks : int
    draws : Draws

    Returns
    -------
    ndarray of bool, shape (weeks * 168, programs)
    """
    hourly = np.tile(history.uses.T, (weeks, 1))
    against = max(int(history.uses.max(initial=0)) >> 4, 1)
    words = draws.child("running").words(hourly.size).reshape(hourly.shape)
    return below(words, (hourly + against).astype(np.uint64)) < hourly.astype(np.uint64)


def _drawn(programs: int, draws: Draws) -> NDArray[np.int64]:
    popularity = np.zeros((programs, 1), np.int64)
    popularity[draws.child("popularity").permutation(programs), 0] = _MOST_POPULAR // np.arange(
        1, programs + 1
    )
    patterns = _patterns()
    times = patterns[below(draws.child("pattern").words(programs), len(patterns)).astype(np.int64)]
    # Times from a half to one and a half, so that no two programs are used alike.
    chance = 512 + below(draws.child("chance").words(programs * HOURS), 1024).astype(np.int64)
    drawn: NDArray[np.int64] = popularity * times * chance.reshape(programs, HOURS) >> 10
    return drawn


def _patterns() -> NDArray[np.int64]:
    """Give how busy a program is in each hour: a row for each sixteenth of all programs."""
    hours = np.arange(HOURS)
    day, time = hours // _DAY, hours % _DAY
    workday = day < 5
    office = np.where(workday & (time >= 8) & (time < 18), 16, 0) + np.where(workday & (time == 12), -8, 0)
    leisure = np.where((time >= 18) & (time < 23), 12, 0) + np.where(
        ~workday & (time >= 9) & (time < 18), 8, 0
    )
    nightly = np.where((time >= 1) & (time < 4), 12, 0)
    always = np.full(HOURS, 4)
    rows = [office] * 8 + [leisure] * 4 + [nightly] * 2 + [always] * 2
    # Nobody keeps to a pattern altogether.
    return np.maximum(np.array(rows, np.int64), 1)

"""Preload: what Linux programs map is read before they start, by which other programs run.

A model of the daemon by its author's description: B. Esfahbod, "Preload - An Adaptive Prefetching Daemon",
master's thesis, University of Toronto, 2006, and the comments of preload.conf 0.6.4 for the cycle and the
memory that it may use. A Markov chain for each two programs tells how probable it is that one starts soon,
and from that follows which maps will be needed. Chains do not fade with time here.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np

from hvshare.errors import PresetError
from hvshare.synth.prefetching.markov import PairChains
from hvshare.synth.prefetching.orders import first_of_each

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from hvshare.synth.prefetching.memory import PageCache

CYCLE_SECONDS: Final = 20
"""How often preload looks at what runs and reads ahead (preload.conf: cycle)."""

ONE: Final = 1 << 20
"""A probability of 1 in the whole numbers that decide the order of maps."""


@dataclass(frozen=True)
class MemoryShares:
    """How much memory preload may fill in a cycle, in per cent (preload.conf: memtotal, memfree, memcached).

    Attributes
    ----------
    total, free, cached : int
        From -100 to 100. By default preload takes half of what is free beyond a fifth of all memory.

    Raises
    ------
    PresetError
        A share is another one.

    Examples
    --------
    >>> MemoryShares().most(total=1_000, free=800, cached=50)
    300
    """

    total: int = -10
    free: int = 50
    cached: int = 0

    def __post_init__(self) -> None:
        for share in (self.total, self.free, self.cached):
            if not -100 <= share <= 100:
                raise PresetError(f"{share} per cent of memory", advice="shares are from -100 to 100")

    def most(self, total: int, free: int, cached: int) -> int:
        """Give how many pages may be read ahead, at least 0, of how many there are."""
        return max(max(0, total * self.total + free * self.free) + cached * self.cached, 0) // 100


class Preload:
    """Which maps will be needed soon, learnt from which programs run when.

    Parameters
    ----------
    maps_of : sequence of ndarray of int64
        For each program the numbers of the maps that it uses.
    pages_of : sequence of ndarray of int64
        For each map, a range of a file, its disk pages in order.
    cycle : int
        Seconds; a program starts soon if it starts within them.
    shares : MemoryShares

    Attributes
    ----------
    chains : PairChains
        What was learnt.

    Raises
    ------
    PresetError
        A program uses a map that there is not, or a cycle is no time.

    Examples
    --------
    >>> preload = Preload([np.array([0]), np.array([0, 1])], [np.array([7]), np.array([8, 9])])
    >>> preload.observe(np.array([[False, False], [True, False], [True, True]] * 5), seconds=60)
    >>> preload.order(np.array([True, False])).tolist()
    [8, 9]
    """

    def __init__(
        self,
        maps_of: Sequence[NDArray[np.int64]],
        pages_of: Sequence[NDArray[np.int64]],
        cycle: int = CYCLE_SECONDS,
        shares: MemoryShares | None = None,
    ) -> None:
        if cycle < 1:
            raise PresetError(f"a cycle of {cycle} seconds", advice="give at least 1 second")
        self._maps_of = [np.sort(first_of_each(np.asarray(maps, np.int64))) for maps in maps_of]
        for program, maps in enumerate(self._maps_of):
            if len(maps) and not 0 <= maps[0] <= maps[-1] < len(pages_of):
                raise PresetError(
                    f"program {program} uses maps {maps[0]} to {maps[-1]}, and there are {len(pages_of)}",
                    advice="number maps from 0",
                )
        self._pages_of = [np.asarray(pages, np.int64) for pages in pages_of]
        self._cycle = cycle
        self._shares = shares or MemoryShares()
        self.chains = PairChains(len(maps_of))

    def observe(self, running: NDArray[np.bool_], seconds: int) -> None:
        """Learn which programs ran in periods of so many seconds; see `PairChains.observe`."""
        self.chains.observe(running, seconds)

    def probabilities(self, running: NDArray[np.bool_]) -> NDArray[np.float64]:
        """Give how probable it is that each program starts within a cycle.

        Every other program says how probable it is, by its chain and weighted by how closely the two run
        together; that none of them is right is the product of what is left.

        Parameters
        ----------
        running : ndarray of bool, shape (programs,)
            What runs now.

        Returns
        -------
        ndarray of float64, shape (programs,)
            From 0 to 1; 0 for what runs.
        """
        by_others = self.chains.starts(running, self._cycle) * np.abs(self.chains.correlations())
        return 1.0 - _product(1.0 - by_others)

    def needs(self, running: NDArray[np.bool_]) -> NDArray[np.int64]:
        """Give how probable it is that each map is read within a cycle, in whole numbers of which `ONE` is 1.

        It is read if any program that uses it starts. What a running program uses is in memory: 0.

        Returns
        -------
        ndarray of int64, shape (maps,)
        """
        by_program = np.zeros((self.chains.programs, len(self._pages_of)))
        probabilities = self.probabilities(running)
        for program, maps in enumerate(self._maps_of):
            by_program[program, maps] = probabilities[program]
        needs = 1.0 - _product(1.0 - by_program)
        for maps, runs in zip(self._maps_of, running, strict=True):
            if runs:
                needs[maps] = 0.0
        # Rounded, so that what is equal but for the last bits is in the order of its numbers.
        return np.rint(needs * ONE).astype(np.int64)

    def order(self, running: NDArray[np.bool_]) -> NDArray[np.int64]:
        """Put disk pages in order, those of the map that will most probably be read first.

        Maps that are as probable as each other are in the order of their numbers; those that will not be read
        are left out.

        Parameters
        ----------
        running : ndarray of bool, shape (programs,)
            What runs now.

        Returns
        -------
        ndarray of int64, shape (pages,)
            No page twice.
        """
        needs = self.needs(running)
        most_first = np.argsort(-needs, kind="stable")[: np.count_nonzero(needs)]
        none = np.zeros(0, np.int64)
        return first_of_each(np.concatenate((none, *(self._pages_of[each] for each in most_first))))

    def prefetch(self, memory: PageCache, running: NDArray[np.bool_], cycles: int = 1) -> NDArray[np.int64]:
        """Read ahead into free memory for some cycles, in each as much as the shares of memory allow.

        Returns
        -------
        ndarray of int64, shape (pages,)
            What was brought in, in order.
        """
        free, cached = memory.free, memory.cached_count
        for _ in range(cycles):
            most = min(self._shares.most(memory.capacity, free, cached), free)
            free, cached = free - most, cached + most
            if not most:
                break
        return memory.prefetch(self.order(running), memory.free - free)


def _product(factors: NDArray[np.float64]) -> NDArray[np.float64]:
    """Multiply all rows, one after the other."""
    # In which order numpy would multiply them is up to the machine, and so would be the last bits.
    product = np.ones(factors.shape[1])
    for row in factors:
        product *= row
    return product

"""What pairs of programs did, as continuous-time Markov chains: which runs, which starts, and how soon."""

from __future__ import annotations

from itertools import product
from typing import TYPE_CHECKING, Final

import numpy as np

from hvshare.errors import PresetError

if TYPE_CHECKING:
    from numpy.typing import NDArray

_STATES: Final = 4
_BOTH: Final = 3
_OTHER, _PROGRAM = 1, 2
"""A pair's state: `_OTHER` if the other program runs, and `_PROGRAM` more if the program itself does."""


class PairChains:
    """A Markov chain of four states for each pair of programs: neither runs, the one, the other, or both.

    Attributes
    ----------
    programs : int
    elapsed : int
        Seconds observed.
    ran : ndarray of int64, shape (programs,)
        Seconds that each program ran.
    stayed : ndarray of int64, shape (programs, programs, 4)
        Seconds that a pair was in a state. The first index is of the other program, the second of the one
        that may start; states are neither, the other, the one, both.
    moves : ndarray of int64, shape (programs, programs, 4, 4)
        How often a pair went from a state to another.

    Examples
    --------
    >>> chains = PairChains(2)
    >>> for running in ([False, False], [True, False], [True, True]):
    ...     chains.observe(np.array(running), seconds=60)
    >>> chains.stayed[0, 1].tolist(), chains.moves[0, 1, 1].tolist()
    ([60, 60, 0, 60], [0, 0, 0, 1])
    """

    def __init__(self, programs: int) -> None:
        self.programs = programs
        self.elapsed = 0
        self.ran = np.zeros(programs, np.int64)
        self.stayed = np.zeros((programs, programs, _STATES), np.int64)
        self.moves = np.zeros((programs, programs, _STATES, _STATES), np.int64)
        self._last = np.zeros((0, programs), np.bool_)

    def observe(self, running: NDArray[np.bool_], seconds: int) -> None:
        """Learn which programs ran in periods that follow each other, and those observed before.

        Parameters
        ----------
        running : ndarray of bool, shape (programs,) or (periods, programs)
        seconds : int
            Of each period; at least 1.

        Raises
        ------
        PresetError
            The time is no time, or there are more or fewer programs.
        """
        if seconds < 1:
            raise PresetError(f"programs observed for {seconds} seconds", advice="observe at least 1 second")
        now = np.atleast_2d(running)
        self._check(now)
        states = [_both(now == other, now == one) for one in (False, True) for other in (False, True)]
        self.stayed += np.stack(states, axis=-1) * seconds
        self.ran += now.sum(axis=0) * seconds
        self.elapsed += len(now) * seconds
        self._count_moves(np.concatenate((self._last, now)))
        self._last = now[-1:].copy() if len(now) else self._last

    def _count_moves(self, running: NDArray[np.bool_]) -> None:
        did = [
            [(running[:-1] == before) & (running[1:] == after) for after in (False, True)]
            for before in (False, True)
        ]
        for state, following in product(range(_STATES), repeat=2):
            if state != following:
                other = did[state & _OTHER][following & _OTHER]
                one = did[state // _PROGRAM][following // _PROGRAM]
                self.moves[:, :, state, following] += _both(other, one)

    def correlations(self) -> NDArray[np.float64]:
        """Give how closely two programs run together: Pearson's correlation of whether each one runs.

        Returns
        -------
        ndarray of float64, shape (programs, programs)
            From -1 to 1; 0 where a program has always or never run, which tells nothing of others.
        """
        together = self.stayed[:, :, _BOTH] * float(self.elapsed)
        # Of + - * / and square roots, IEEE 754 leaves no bit to the machine.
        spread = np.sqrt(self.ran * (self.elapsed - self.ran).astype(np.float64))
        known = spread[:, None] * spread[None, :]
        covariance = together - self.ran[:, None].astype(np.float64) * self.ran[None, :]
        correlations: NDArray[np.float64] = np.divide(
            covariance, known, out=np.zeros_like(known), where=known > 0
        )
        return correlations.clip(-1.0, 1.0)

    def starts(self, running: NDArray[np.bool_], seconds: int) -> NDArray[np.float64]:
        """Give how probable it is that each program starts soon, by what each other one does.

        A pair leaves its state at a rate of how often it left it by how long it was in it. That it leaves
        within t is taken as r·t / (1 + r·t), which needs no exponential function: libraries differ in the
        last bits of theirs. Where it goes is told by how often it went there.

        Parameters
        ----------
        running : ndarray of bool, shape (programs,)
            What runs now.
        seconds : int
            What soon is.

        Returns
        -------
        ndarray of float64, shape (programs, programs)
            By the other program, then by the one that may start; 0 where it runs already, for a program by
            itself, and where a pair was never seen in the state it is in.
        """
        states = self._states(running)
        moves = np.take_along_axis(self.moves, states[:, :, None, None], axis=2)[:, :, 0]
        stayed = np.take_along_axis(self.stayed, states[:, :, None], axis=2)[:, :, 0]
        left = moves.sum(axis=2) * seconds
        started = (moves[:, :, _PROGRAM] + moves[:, :, _BOTH]) * seconds
        seen = stayed + left
        probabilities: NDArray[np.float64] = np.divide(
            started, seen, out=np.zeros(seen.shape), where=seen > 0
        )
        probabilities[:, running] = 0.0
        np.fill_diagonal(probabilities, 0.0)
        return probabilities

    def _states(self, running: NDArray[np.bool_]) -> NDArray[np.int64]:
        self._check(running)
        now = running.astype(np.int64)
        return now[:, None] * _OTHER + now[None, :] * _PROGRAM

    def _check(self, running: NDArray[np.bool_]) -> None:
        if running.shape[-1] != self.programs:
            raise PresetError(
                f"what runs was told for {running.shape[-1]} programs, and there are {self.programs}",
                advice="tell it for every program",
            )


def _both(one: NDArray[np.bool_], other: NDArray[np.bool_]) -> NDArray[np.int64]:
    """Count the rows in which each column of one and each column of the other are set."""
    # Doubles hold such counts exactly, so the order in which a library adds them up does not matter.
    return (one.T.astype(np.float64) @ other.astype(np.float64)).astype(np.int64)

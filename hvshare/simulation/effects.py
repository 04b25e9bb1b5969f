"""Main effects and interactions of factors that are off or on.

Contrasts of a full factorial by Yates's algorithm (F. Yates, "The Design and Analysis of Factorial
Experiments", Imperial Bureau of Soil Science, Technical Communication 35, 1937), in exact fractions. Nothing
else is modelled: the spread is that over the seeds.
"""

from __future__ import annotations

import itertools
from fractions import Fraction
from typing import TYPE_CHECKING

from hvshare.simulation.results import Effect, Spread

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence


def contrasts(responses: Sequence[Fraction | int]) -> list[Fraction]:
    """Turn the responses of a full factorial into effects.

    Parameters
    ----------
    responses : sequence of Fraction or int
        One a cell, 2**k of them in standard order: bit i of a cell's index tells whether factor i is on.

    Returns
    -------
    list of Fraction
        At index 0 the mean. At any other index, whose bits tell the factors: for one factor, the mean of the
        cells where it is on less that of those where it is off; for two, half the difference between the
        effect of the one where the other is on and where it is off; and so on.

    Raises
    ------
    ValueError
        If their number is no power of two.

    Examples
    --------
    >>> [int(effect) for effect in contrasts([10, 20, 30, 60])]
    [30, 20, 30, 10]
    """
    values = [Fraction(value) for value in responses]
    if not values or len(values) & (len(values) - 1):
        raise ValueError(f"{len(values)} cells are no full factorial of factors with two levels")
    for _ in range(len(values).bit_length() - 1):
        pairs = list(zip(values[::2], values[1::2], strict=True))
        values = [low + high for low, high in pairs] + [high - low for low, high in pairs]
    half = Fraction(len(values), 2)
    return [values[0] / len(values), *(value / half for value in values[1:])]


def effects(
    factors: Sequence[str], by_seed: Sequence[Sequence[Mapping[str, Fraction]]], responses: Sequence[str]
) -> tuple[Effect, ...]:
    """Find all main effects and interactions on each response, with their spread over the seeds.

    Parameters
    ----------
    factors : sequence of str
        In the order of the bits of a cell's index.
    by_seed : sequence of sequence of mapping of str to Fraction
        For each seed, the responses of each cell in standard order.
    responses : sequence of str
        Which ones.

    Returns
    -------
    tuple of Effect
        Main effects first, then interactions of two, and so on.

    Raises
    ------
    ValueError
        If a seed does not have one cell for each setting of the factors.
    """
    for cells in by_seed:
        if len(cells) != 1 << len(factors):
            raise ValueError(f"{len(cells)} cells for {len(factors)} factors")
    found = {
        response: [contrasts([cell[response] for cell in cells]) for cells in by_seed]
        for response in responses
    }
    return tuple(
        Effect(
            tuple(factors[bit] for bit in bits),
            response,
            Spread.of([of_seed[sum(1 << bit for bit in bits)] for of_seed in found[response]]),
        )
        for count in range(1, len(factors) + 1)
        for bits in itertools.combinations(range(len(factors)), count)
        for response in responses
    )

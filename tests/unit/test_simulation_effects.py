"""Effects held against least squares, against plain loops, and against the standard library's statistics."""

from __future__ import annotations

import itertools
import statistics
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hvshare.simulation.design import FACTORS, HOST_FACTOR, cells, settings_of
from hvshare.simulation.effects import contrasts, effects
from hvshare.simulation.results import Spread

responses = st.integers(0, 5).flatmap(
    lambda factors: st.lists(st.integers(-(2**20), 2**20), min_size=1 << factors, max_size=1 << factors)
)


@given(responses)
def test_least_squares_find_the_same(values: list[int]) -> None:
    factors = len(values).bit_length() - 1
    signs = [[1 if cell >> bit & 1 else -1 for bit in range(factors)] for cell in range(len(values))]
    columns = [
        [float(np.prod([row[bit] for bit in range(factors) if term >> bit & 1])) for row in signs]
        for term in range(len(values))
    ]
    fitted = np.linalg.lstsq(np.array(columns).T, np.array(values, float), rcond=None)[0]
    # An effect is the change from -1 to 1: twice the coefficient; the first column is the mean.
    fitted[1:] *= 2
    assert np.allclose([float(effect) for effect in contrasts(values)], fitted, atol=1e-6)


def effect_by_definition(cell_of: dict[tuple[bool, ...], Fraction], bits: tuple[int, ...]) -> Fraction:
    """Reckon an effect as its definition says, one factor after another."""
    if not bits:
        raise ValueError("no factor")
    first, rest = bits[0], bits[1:]
    on = {levels: value for levels, value in cell_of.items() if levels[first]}
    off = {levels: value for levels, value in cell_of.items() if not levels[first]}
    if not rest:
        return sum(on.values(), Fraction(0)) / len(on) - sum(off.values(), Fraction(0)) / len(off)
    return (effect_by_definition(on, rest) - effect_by_definition(off, rest)) / 2


@given(st.lists(st.lists(st.fractions(-1, 1), min_size=8, max_size=8), min_size=1, max_size=3))
def test_effects_are_as_defined(by_seed: list[list[Fraction]]) -> None:
    names = ("a", "b", "c")
    levels = [tuple(each.values()) for each in settings_of(names)]
    found = effects(names, [[{"y": value} for value in values] for values in by_seed], ["y"])
    orders = [bits for count in (1, 2, 3) for bits in itertools.combinations(range(3), count)]
    assert [each.factors for each in found] == [tuple(names[bit] for bit in bits) for bits in orders]
    for effect, bits in zip(found, orders, strict=True):
        of_seeds = [effect_by_definition(dict(zip(levels, values, strict=True)), bits) for values in by_seed]
        assert effect.spread == Spread.of(of_seeds)


def test_each_response_has_its_own() -> None:
    cell_of = [{"up": Fraction(value), "down": Fraction(-2 * value)} for value in (0, 1, 4, 9)]
    found = {
        (each.factors, each.response): each.spread.mean for each in effects("ab", [cell_of], ["up", "down"])
    }
    assert found == {
        (("a",), "up"): 3, (("a",), "down"): -6,
        (("b",), "up"): 6, (("b",), "down"): -12,
        (("a", "b"), "up"): 2, (("a", "b"), "down"): -4,
    }  # fmt: skip


@pytest.mark.parametrize("count", [0, 3, 6, 12])
def test_what_is_no_full_factorial_is_refused(count: int) -> None:
    with pytest.raises(ValueError, match="no full factorial"):
        contrasts([1] * count)


def test_a_missing_cell_is_refused() -> None:
    with pytest.raises(ValueError, match="2 cells for 2 factors"):
        effects("ab", [[{"y": Fraction(1)}] * 2], ["y"])


@given(st.lists(st.fractions(-100, 100, max_denominator=2**20), min_size=2, max_size=9))
def test_spread_is_that_of_the_standard_library(values: list[Fraction]) -> None:
    spread = Spread.of(values)
    assert spread.mean == pytest.approx(float(statistics.mean(values)), abs=1e-12)
    assert spread.deviation == pytest.approx(float(statistics.stdev(values)), abs=1e-9)
    assert (spread.lowest, spread.highest) == (float(min(values)), float(max(values)))


def test_one_seed_has_no_deviation() -> None:
    assert Spread.of([Fraction(1, 3)]) == Spread(1 / 3, None, 1 / 3, 1 / 3)


def test_the_design_has_every_setting_once() -> None:
    design = cells()
    assert len({tuple(sorted(cell.levels.items())) for cell in design}) == len(design) == 1 << len(FACTORS)
    for index, cell in enumerate(design):
        assert [cell.levels[factor] for factor in FACTORS] == [bool(index >> bit & 1) for bit in range(4)]
        assert cell.host_page_bytes == (2 << 20 if cell.levels[HOST_FACTOR] else 4096)

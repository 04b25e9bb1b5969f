"""Closed forms held against simulations by draws, within four standard errors, and against all cases.

Seeds are fixed, so a test that passes passes always. Four standard errors of a mean leave out one correct
formula in some 16,000; a formula that is off by more than a few percent of what it varies by fails.
"""

from __future__ import annotations

import itertools
import math
import statistics
from collections.abc import Iterator
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

import hvshare
from hvshare.fingerprint.pages import ZERO_DIGEST
from hvshare.images.runs import RunKind, Runs
from hvshare.simulation.closed_forms import (
    BIASES,
    expected_biases,
    expected_distinct,
    expected_relocated_sharing,
    expected_savings,
    expected_shared_frames,
    untouched_chance,
)
from hvshare.synth.draws import Draws, below

REPETITIONS = 200


def check_mean(found: list[float], expected: float) -> None:
    """Hold the mean of independent repetitions against what is expected."""
    error = statistics.stdev(found) / math.sqrt(len(found))
    assert error > 0, "a simulation that does not vary has no sampling error"
    assert abs(statistics.mean(found) - expected) < 4 * error


def image(name: str, digests: NDArray[np.uint64]) -> hvshare.Fingerprints:
    runs = Runs()
    runs.append(0, len(digests), RunKind.PRESENT)
    return hvshare.Fingerprints(name, name, "test", runs, digests)


def drawn_guest(
    draws: Draws, vm: int, pages: int, zero: float, common: float, contents: int
) -> hvshare.Fingerprints:
    """Draw the kind of each page, and what it holds, as the closed form has it."""
    of_kind = draws.child("kind", vm).fractions(pages)
    shared = below(draws.child("content", vm).words(pages), contents) + np.uint64(1)
    private = draws.child("private", vm).words(pages) | np.uint64(1 << 63)
    digests = np.where(of_kind < zero + common, shared, private)
    digests[of_kind < zero] = ZERO_DIGEST
    return image(f"vm{vm}", digests)


@pytest.mark.parametrize(
    ("vms", "pages", "zero", "common", "contents"),
    [
        (1, 300, 0.3, 0.4, 50),
        (4, 300, 0.3, 0.4, 50),
        (4, 100, 0.01, 0.5, 1000),
        (3, 50, 0.02, 0.9, 20),
        (8, 64, 0.5, 0.25, 200),
    ],
)
def test_savings(vms: int, pages: int, zero: float, common: float, contents: int) -> None:
    expected = expected_savings(vms=vms, pages=pages, zero=zero, common=common, contents=contents)
    found = []
    for repetition in range(REPETITIONS):
        draws = Draws.of("closed forms", repetition)
        guests = [drawn_guest(draws, vm, pages, zero, common, contents) for vm in range(vms)]
        found.append(hvshare.measure(guests, [4096]).pooled[4096])
    check_mean([counts.saved_zero for counts in found], expected.zero)
    check_mean([counts.saved_self for counts in found], expected.self_sharing)
    check_mean([counts.saved for counts in found], expected.saved)
    if vms > 1:
        check_mean([counts.saved_inter for counts in found], expected.inter_vm)
    else:
        assert expected.inter_vm == pytest.approx(0, abs=1e-9)
        assert {counts.saved_inter for counts in found} == {0}


def all_guests(vms: int, pages: int, contents: int) -> Iterator[tuple[tuple[int, ...], ...]]:
    """List all ways in which pages can be zero (0) or one of some contents, each as likely as any other."""
    each = list(itertools.product(range(contents + 1), repeat=pages))
    return itertools.product(each, repeat=vms)


@pytest.mark.parametrize(("vms", "pages", "contents"), [(1, 4, 2), (2, 2, 3), (3, 2, 1), (2, 3, 1)])
def test_savings_are_the_mean_over_all_cases(vms: int, pages: int, contents: int) -> None:
    zero, self_sharing, inter = [], [], []
    for guests in all_guests(vms, pages, contents):
        flat = [content for guest in guests for content in guest]
        zero.append(max(flat.count(0) - 1, 0))
        self_sharing.append(
            sum(max(guest.count(c) - 1, 0) for guest in guests for c in range(1, contents + 1))
        )
        inter.append(sum(max(sum(c in guest for guest in guests) - 1, 0) for c in range(1, contents + 1)))
    chance = 1 / (contents + 1)
    found = expected_savings(vms=vms, pages=pages, zero=chance, common=1 - chance, contents=contents)
    assert found.zero == pytest.approx(statistics.mean(zero))
    assert found.self_sharing == pytest.approx(statistics.mean(self_sharing))
    assert found.inter_vm == pytest.approx(statistics.mean(inter))


@pytest.mark.parametrize("boots", [2, 4, 32, 400])
def test_biases(boots: int) -> None:
    found = []
    # Two boots agree once in 256 times: this often some 80 times, so that the sampling error is known.
    for repetition in range(20_000 if boots == 2 else 4 * REPETITIONS):
        chosen = below(Draws.of("biases", repetition).words(boots), BIASES)
        found.append(float(len(set(chosen.tolist()))))
    check_mean(found, expected_biases(boots))
    assert expected_biases(boots) == pytest.approx(256 * (1 - (1 - 1 / 256) ** boots))


@pytest.mark.parametrize(("vms", "biases"), [(2, 4), (5, 4), (16, 256)])
def test_relocated_pages(vms: int, biases: int) -> None:
    pages = 30
    found = []
    for repetition in range(2 * REPETITIONS):
        chosen = below(Draws.of("relocated", repetition).words(vms), biases).tolist()
        guests = [
            image(f"vm{vm}", np.arange(1, pages + 1, dtype=np.uint64) + np.uint64(1000 * bias))
            for vm, bias in enumerate(chosen)
        ]
        found.append(float(hvshare.measure(guests, [4096]).pooled[4096].saved_inter))
    check_mean(found, expected_relocated_sharing(vms, pages, biases))


@given(st.integers(1, 200), st.data())
def test_untouched_is_hypergeometric(pages: int, data: st.DataObject) -> None:
    in_frame = data.draw(st.integers(1, pages))
    written = data.draw(st.integers(0, pages))
    exact = Fraction(math.comb(pages - in_frame, written), math.comb(pages, written))
    assert untouched_chance(pages, in_frame, written) == pytest.approx(float(exact), rel=1e-9, abs=1e-300)


@pytest.mark.parametrize("vms", [2, 3, 8])
def test_shared_frames_are_binomial(vms: int) -> None:
    for percent in (0, 1, 25, 50, 99, 100):
        chance = Fraction(percent, 100)
        # Of k clones that have not written to a frame, k hold it with another, if there are two or more.
        exact = sum(
            k * math.comb(vms, k) * chance**k * (1 - chance) ** (vms - k) for k in range(2, vms + 1)
        ) / Fraction(vms)
        assert expected_shared_frames(vms, percent / 100) == pytest.approx(float(exact))


@given(st.integers(0, 1000), st.integers(1, 1000), st.floats(0, 1))
def test_distinct_is_within_bounds(draws: int, contents: int, chance: float) -> None:
    found = expected_distinct(draws, contents, chance)
    assert 0 <= found <= contents * (1 + 1e-12)
    assert found <= draws * chance * (1 + 1e-9) + 1e-12


def test_certain_cases() -> None:
    assert expected_distinct(5, 1) == 1
    assert expected_distinct(0, 1) == 0
    assert expected_distinct(5, 0) == 0
    only_zero = expected_savings(vms=3, pages=10, zero=1.0, common=0.0, contents=0)
    assert tuple(only_zero) == (29, 0, 0)
    nothing = expected_savings(vms=3, pages=10, zero=0.0, common=0.0, contents=0)
    assert tuple(nothing) == (0, 0, 0)


@pytest.mark.parametrize(
    ("vms", "pages", "zero", "common"), [(0, 1, 0, 0), (1, 0, 0, 0), (1, 1, -0.1, 0), (1, 1, 0.6, 0.6)]
)
def test_impossible_guests_are_refused(vms: int, pages: int, zero: float, common: float) -> None:
    with pytest.raises(ValueError, match="guests of"):
        expected_savings(vms=vms, pages=pages, zero=zero, common=common, contents=1)


@pytest.mark.parametrize(("pages", "in_frame", "written"), [(4, 5, 1), (4, 0, 1), (4, 2, 5), (4, 2, -1)])
def test_impossible_writes_are_refused(pages: int, in_frame: int, written: int) -> None:
    with pytest.raises(ValueError, match="pages written"):
        untouched_chance(pages, in_frame, written)

"""What the search for twins is quick by: sets of keys, pairs within limits, results in the order of tasks."""

from __future__ import annotations

from functools import partial
from itertools import combinations, groupby
from typing import NamedTuple

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from hvshare.erosion.aslr_keys import KeySet
from hvshare.erosion.aslr_parts import collect
from hvshare.erosion.aslr_sketches import count_equal, pairs_in_groups

KEYS = st.lists(st.integers(0, 20) | st.integers(0, 2**64 - 1), max_size=60)


class Columns(NamedTuple):
    """Two columns that need not be of one length."""

    numbers: NDArray[np.int64]
    words: NDArray[np.uint64]


@given(KEYS, KEYS)
def test_a_key_set_has_what_it_was_made_of(keys: list[int], further: list[int]) -> None:
    asked = keys + further
    has = KeySet(np.sort(np.array(keys, np.uint64))).has(np.array(asked, np.uint64))
    assert has.tolist() == [each in set(keys) for each in asked]


@given(st.lists(st.integers(0, 6), max_size=30).map(sorted), st.integers(2, 6), st.integers(0, 40))
def test_pairs_are_those_of_small_groups_up_to_a_limit(values: list[int], most: int, limit: int) -> None:
    expected: set[tuple[int, int]] = set()
    for _, group in groupby(range(len(values)), key=values.__getitem__):
        pairs = list(combinations(group, 2))
        if len(pairs) > most * (most - 1) // 2:
            continue
        if len(expected) + len(pairs) > limit:
            break
        expected.update(pairs)
    found = [
        pair
        for one, other in pairs_in_groups(np.array(values, np.uint64), most, limit)
        for pair in zip(one.tolist(), other.tolist(), strict=True)
    ]
    assert len(found) == len(set(found))
    assert set(found) == expected


def test_equal_values_of_several_arrays_are_counted_once() -> None:
    values, counts = count_equal([np.array([7, 3]), np.array([], np.int64), np.array([7, 7, 1])])
    assert (values.tolist(), counts.tolist()) == ([1, 3, 7], [1, 1, 3])


@pytest.mark.parametrize("jobs", [1, 2, 3])
def test_columns_come_in_the_order_of_tasks_however_many_processes_find_them(jobs: int) -> None:
    none = np.empty(0, np.int64)
    found = collect([partial(_columns, number) for number in range(9)], Columns(none, none.view("u8")), jobs)
    assert found.numbers.tolist() == [each for number in range(9) for each in range(number)]
    assert found.words.tolist() == [number for number in range(9) for _ in range(number % 2)]
    assert found.words.dtype == np.uint64


def test_no_tasks_find_no_rows() -> None:
    none = np.empty(0, np.int64)
    found = collect([], Columns(none, none.view("u8")), 2)
    assert isinstance(found, Columns)
    assert not len(found.numbers)


def _columns(number: int) -> Columns:
    return Columns(np.arange(number), np.full(number % 2, number, np.uint64))

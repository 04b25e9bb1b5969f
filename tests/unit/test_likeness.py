from __future__ import annotations

import itertools

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from hvshare.sharing.likeness import LikenessTree, group_by_likeness, likeness


def leaves_apart(tree: LikenessTree) -> list[tuple[list[int], list[int], float]]:
    if tree.vm is not None:
        return []
    a, b = tree.parts
    return [(a.vms, b.vms, tree.likeness), *leaves_apart(a), *leaves_apart(b)]


@given(st.lists(st.sets(st.integers(0, 20)), min_size=1, max_size=7))
def test_groups_are_joined_at_the_mean_likeness_of_their_pairs(vms: list[set[int]]) -> None:
    common = np.array([[len(a & b) for b in vms] for a in vms])
    alike = likeness(common, np.array([len(vm) for vm in vms]))
    for (i, a), (j, b) in itertools.product(enumerate(vms), repeat=2):
        assert np.isclose(alike[i, j], len(a & b) / len(a | b) if a | b else 0)
    tree = group_by_likeness(alike)
    assert sorted(tree.vms) == list(range(len(vms)))
    for left, right, at in leaves_apart(tree):
        assert np.isclose(at, np.mean([alike[i, j] for i in left for j in right]))
        # Groups join at no more than what joined their parts.
        for part in tree.parts:
            assert part.likeness >= tree.likeness - 1e-12

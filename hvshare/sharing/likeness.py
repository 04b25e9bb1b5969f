"""VMs grouped by how much of their contents they have in common, step by step."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray


@dataclass(frozen=True)
class LikenessTree:
    """VMs, or groups of them, that are joined at one likeness.

    Attributes
    ----------
    likeness : float
        Of its two parts, from 0 to 1; 1 for a single VM.
    vm : int or None
        Index of the VM, if it is a single one.
    parts : tuple of LikenessTree
        The two parts, or none.
    """

    likeness: float
    vm: int | None = None
    parts: tuple[LikenessTree, ...] = ()

    @property
    def vms(self) -> list[int]:
        """Indexes of all its VMs, in the order in which they are drawn."""
        if self.vm is not None:
            return [self.vm]
        return [vm for part in self.parts for vm in part.vms]


def likeness(common_contents: NDArray[np.int64], distinct_of: NDArray[np.int64]) -> NDArray[np.float64]:
    """Tell how alike VMs are: contents in common over contents that either holds (Jaccard's index).

    Parameters
    ----------
    common_contents : ndarray of int64, shape (VMs, VMs)
        Contents other than zero that two VMs both hold.
    distinct_of : ndarray of int64, shape (VMs,)
        Contents other than zero that each holds.

    Returns
    -------
    ndarray of float64, shape (VMs, VMs)
        From 0 to 1; 0 where neither holds any.

    Examples
    --------
    >>> likeness(np.array([[4, 2], [2, 4]]), np.array([4, 4]))[0, 1].round(3)
    np.float64(0.333)
    """
    either = distinct_of[:, None] + distinct_of[None, :] - common_contents
    shares: NDArray[np.float64] = np.divide(
        common_contents, either, out=np.zeros(either.shape), where=either > 0
    )
    return shares


def group_by_likeness(alike: NDArray[np.float64]) -> LikenessTree:
    """Join the two most alike VMs or groups again and again, until one group is left.

    Parameters
    ----------
    alike : ndarray of float64, shape (VMs, VMs)
        Symmetric.

    Returns
    -------
    LikenessTree

    Notes
    -----
    Average linkage (UPGMA; Sokal and Michener 1958): the likeness of two groups is the mean over all pairs of
    their VMs.

    Examples
    --------
    >>> tree = group_by_likeness(np.array([[1, 0.2, 0.8], [0.2, 1, 0.4], [0.8, 0.4, 1]]))
    >>> tree.vms, round(tree.likeness, 3), round(tree.parts[1].likeness, 3)
    ([1, 0, 2], 0.3, 0.8)
    """
    trees = [LikenessTree(1.0, vm) for vm in range(len(alike))]
    sizes = np.ones(len(alike))
    means = alike.astype(np.float64)
    np.fill_diagonal(means, -1)
    while len(trees) > 1:
        a, b = sorted(int(index) for index in np.unravel_index(np.argmax(means), means.shape))
        joined = LikenessTree(float(means[a, b]), None, _by_size(trees[a], trees[b]))
        row = (means[a] * sizes[a] + means[b] * sizes[b]) / (sizes[a] + sizes[b])
        means[a], means[:, a], means[a, a] = row, row, -1
        means = np.delete(np.delete(means, b, 0), b, 1)
        sizes[a] += sizes[b]
        sizes = np.delete(sizes, b)
        trees[a] = joined
        del trees[b]
    return trees[0]


def _by_size(a: LikenessTree, b: LikenessTree) -> tuple[LikenessTree, LikenessTree]:
    """Put the smaller part first, so that a tree leans one way."""
    return (a, b) if len(a.vms) <= len(b.vms) else (b, a)

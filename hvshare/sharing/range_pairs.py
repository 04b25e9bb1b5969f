"""What each pair of VMs has in common, from the VMs that hold each content."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

_SHARE_OF_VMS: Final = 8
_CHUNK_CELLS: Final = 1 << 18
_EXACT_IN_FLOAT32: Final = 1 << 24


class PairTally:
    """Contents and pages in common, added up over pieces of a range.

    Contents that at least an eighth of the VMs hold make a 0/1 matrix of contents by VMs, whose product with
    itself counts all pairs at once; pairs of the others are counted one by one. The product costs the square
    of the number of VMs for a content, pairs the square of its holders, but for each some 64 times as much.

    Parameters
    ----------
    vms : int
        How many there are.
    """

    def __init__(self, vms: int) -> None:
        self._vms = vms
        self._common = np.zeros((vms, vms), np.int64)
        self._further = np.zeros((vms, vms), np.int64)

    def add(self, vm: NDArray[np.intp], copies: NDArray[np.intp], holders: NDArray[np.intp]) -> None:
        """Count contents that two or more VMs hold.

        Parameters
        ----------
        vm, copies : ndarray of intp, shape (holdings,)
            A VM that holds a content, and how many copies it has; content by content, VMs ascending.
        holders : ndarray of intp, shape (contents,)
            How many VMs hold each content.
        """
        many = holders * _SHARE_OF_VMS >= self._vms
        if many.all():
            self._add_many(vm, copies, holders)
            return
        of_many = np.repeat(many, holders)
        self._add_many(vm[of_many], copies[of_many], holders[many])
        self._add_few(vm[~of_many], copies[~of_many], holders[~many])

    def matrices(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Give what was counted.

        Returns
        -------
        ndarray of int64, shape (VMs, VMs)
            Contents in common; of no meaning on the diagonal.
        ndarray of int64, shape (VMs, VMs)
            At [a, b], copies in a, beyond one each, of contents that b holds, too.
        """
        return self._common, self._further

    def _add_many(self, vm: NDArray[np.intp], copies: NDArray[np.intp], holders: NDArray[np.intp]) -> None:
        ends = np.cumsum(holders)
        contents = max(1, min(_CHUNK_CELLS // self._vms, _EXACT_IN_FLOAT32))
        for start in range(0, len(holders), contents):
            here = holders[start : start + contents]
            first = int(ends[start - 1]) if start else 0
            chunk = slice(first, first + int(here.sum()))
            cells = np.repeat(np.arange(len(here)) * self._vms, here) + vm[chunk]
            held = np.zeros((len(here), self._vms), np.float32)
            held.reshape(-1)[cells] = 1
            self._common += (held.T @ held).astype(np.int64)
            self._add_further(held, cells, copies[chunk] - 1)

    def _add_further(
        self, held: NDArray[np.float32], cells: NDArray[np.intp], further: NDArray[np.intp]
    ) -> None:
        where = np.flatnonzero(further)
        if not len(where):
            return
        cells, further = cells[where], further[where]
        content = cells // self._vms
        opens = np.ones(len(content), bool)
        opens[1:] = content[1:] != content[:-1]
        row = np.cumsum(opens) - 1
        dtype = np.float32 if int(further.sum()) < _EXACT_IN_FLOAT32 else np.float64
        weights = np.zeros((int(row[-1]) + 1, self._vms), dtype)
        weights.reshape(-1)[row * self._vms + cells % self._vms] = further
        self._further += (weights.T @ held[content[opens]].astype(dtype, copy=False)).astype(np.int64)

    def _add_few(self, vm: NDArray[np.intp], copies: NDArray[np.intp], holders: NDArray[np.intp]) -> None:
        # How many holders of the same content follow.
        behind = np.repeat(np.cumsum(holders), holders) - np.arange(1, len(vm) + 1)
        common, further = self._common.reshape(-1), self._further.reshape(-1)
        more = copies > 1
        holding, distance = np.flatnonzero(behind), 1
        while len(holding):
            a, b = vm[holding], vm[holding + distance]
            np.add.at(common, a * self._vms + b, 1)
            np.add.at(common, b * self._vms + a, 1)
            for one, other, at in ((a, b, holding), (b, a, holding + distance)):
                where = np.flatnonzero(more[at])
                if len(where):
                    cells = one[where] * self._vms + other[where]
                    np.add.at(further, cells, copies[at[where]] - 1)
            distance += 1
            holding = holding[behind[holding] >= distance]

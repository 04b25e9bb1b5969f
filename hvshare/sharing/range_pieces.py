"""Sorted digests of many VMs cut into pieces that fit in a processor's caches."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import NDArray

_PIECE_DIGESTS: Final = 1 << 17  # 1 MiB of keys stays in the caches of one core


def pieces(
    runs: Sequence[NDArray[np.uint64]], vm_of: NDArray[np.intp], vms: int, least: int = 0
) -> Iterator[NDArray[np.uint64]]:
    """Cut digests into pieces by value, as keys that name content and VM at once.

    Where all digests of a piece start with the same bits, these make room for the number of the VM in the low
    ones, and nothing is lost. Where there are too few of them, digests are replaced by their rank.

    Parameters
    ----------
    runs : sequence of ndarray of uint64
        Digests in ascending order.
    vm_of : ndarray of intp, shape (runs,)
        The number of the VM of each run.
    vms : int
        How many VMs there are.
    least : int
        Digests of a piece, about, at the least.

    Yields
    ------
    ndarray of uint64
        Keys of a piece in ascending order, as `Tally.add` takes them. No content is in two pieces.
    """
    kept = [index for index, digests in enumerate(runs) if len(digests)]
    runs, vm_of = [runs[index] for index in kept], vm_of[kept]
    total = sum(map(len, runs))
    if not total:
        return
    vm_bits = (vms - 1).bit_length()
    piece_bits = (-(-total // max(_PIECE_DIGESTS, least)) - 1).bit_length()
    missing_bits = vm_bits - _common_bits(runs)
    if missing_bits > piece_bits and (len(runs) + 256) << missing_bits < total // 4:
        piece_bits = missing_bits  # some more pieces take less time than ranks
    if missing_bits > piece_bits:
        contents = np.sort(np.concatenate(runs))
        runs = [np.searchsorted(contents, digests).astype(np.uint64) for digests in runs]
        del contents
    edges = _edges(runs, piece_bits)
    bounds = [[0, *np.searchsorted(digests, edges).tolist(), len(digests)] for digests in runs]
    numbers = vm_of.astype(np.uint64)
    for piece in range(len(edges) + 1):
        parts = [digests[ends[piece] : ends[piece + 1]] for digests, ends in zip(runs, bounds, strict=True)]
        keys = np.concatenate(parts)
        if len(keys):
            keys <<= np.uint64(vm_bits)
            keys |= np.repeat(numbers, [len(part) for part in parts])
            keys.sort()
            yield keys


def _common_bits(runs: Sequence[NDArray[np.uint64]]) -> int:
    """Count the leading bits that all digests have in common."""
    lowest = min(int(digests[0]) for digests in runs)
    highest = max(int(digests[-1]) for digests in runs)
    return 64 - (lowest ^ highest).bit_length()


def _edges(runs: Sequence[NDArray[np.uint64]], bits: int) -> NDArray[np.uint64]:
    """Give the first digest of each piece but the first, if so many further bits tell them apart."""
    varying = 64 - _common_bits(runs)
    bits = min(bits, varying)
    first = next(int(digests[0]) for digests in runs) >> varying << varying
    return np.array([first + (piece << (varying - bits)) for piece in range(1, 1 << bits)], np.uint64)

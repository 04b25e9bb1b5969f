"""Clones of one snapshot that write to their memory, by digests alone: no contents are made for it."""

from __future__ import annotations

import dataclasses
from array import array
from typing import TYPE_CHECKING, Final, Literal

import numpy as np

from hvshare.fingerprint.coverage import Coverage
from hvshare.fingerprint.pages import ZERO_DIGEST
from hvshare.images.runs import RunKind, Runs
from hvshare.synth.draws import Draws, numbered
from hvshare.units import LARGE_FRAME_SIZE, PAGE_SIZE

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from hvshare.fingerprint.fingerprints import Fingerprints

Pattern = Literal["uniform", "clustered"]
"""Where clones write: pages at random, or blocks of `CLUSTER_PAGES` at random and every page of a block."""

PATTERNS: Final[tuple[Pattern, ...]] = ("uniform", "clustered")

CLUSTER_PAGES: Final = 64
"""Pages that are written one after another where writes are clustered: 256 KB."""

FRAME_PAGES: Final = LARGE_FRAME_SIZE // PAGE_SIZE


class Snapshot:
    """A guest, and some clones of it.

    Each clone writes to all its pages in an order of its own, so what it has written after more pages
    contains what it had written after fewer. What is written is in no other page.

    Parameters
    ----------
    fingerprints : Fingerprints
        The guest. ABSENT pages are left out.
    vms : int
        Clones.
    seed : int
        Of the orders.
    pattern : str
        Out of `PATTERNS`.

    Attributes
    ----------
    pages : int
        Known pages of the guest.
    """

    def __init__(self, fingerprints: Fingerprints, vms: int, seed: int, pattern: Pattern = "uniform") -> None:
        known = Coverage(fingerprints.runs, (RunKind.PRESENT, RunKind.ZERO))
        first, end = known.merged()
        runs = Runs.from_arrays(first, end - first, array("b", bytes(len(first))))
        self.pages = runs.pages_of(RunKind.PRESENT)
        present = Coverage(fingerprints.runs, (RunKind.PRESENT,))
        digests = np.full(self.pages, ZERO_DIGEST, np.uint64)
        digests[known.below(present.gfns(0, len(fingerprints.digests)))] = fingerprints.digests
        self._guest = dataclasses.replace(fingerprints, runs=runs, digests=digests, caveats=())
        self._gfns = known.gfns(0, self.pages)
        draws = [Draws.of("clone", seed, vm) for vm in range(1, vms + 1)]
        self._ranks = [_ranks(each, self.pages, pattern) for each in draws]
        counters = np.arange(self.pages, dtype=np.uint64)
        self._written = [
            numbered(np.array([each.child("written").key], np.uint64), counters) for each in draws
        ]

    def clones(self, pages_written: int) -> list[Fingerprints]:
        """Give the fingerprints of all clones after each has written so many pages."""
        return [
            dataclasses.replace(
                self._guest,
                name=f"vm{number}",
                digests=np.where(ranks < pages_written, written, self._guest.digests),
            )
            for number, (ranks, written) in enumerate(zip(self._ranks, self._written, strict=True), 1)
        ]

    def shared_frames(self, clones: Sequence[Fingerprints]) -> tuple[int, int]:
        """Count the large frames of clones that another clone holds at the same place, and all of them."""
        before = self._guest.frames(LARGE_FRAME_SIZE).digests
        holders = np.zeros(len(before), np.int64)
        for clone in clones:
            holders += clone.frames(LARGE_FRAME_SIZE).digests == before
        return int(holders[holders > 1].sum()), len(before) * len(clones)

    def losses(self) -> NDArray[np.int64]:
        """Tell for each large frame of each clone after how many pages no other clone holds it any longer.

        Returns
        -------
        ndarray of int64
            Ascending; empty for a single clone, none of whose frames has a copy.
        """
        if len(self._ranks) < 2:
            return np.zeros(0, np.int64)
        frames = self._gfns // FRAME_PAGES
        starts = np.flatnonzero(np.diff(frames, prepend=-1))
        whole = np.diff(starts, append=self.pages) == FRAME_PAGES
        touched = np.sort([np.minimum.reduceat(ranks, starts)[whole] for ranks in self._ranks], axis=0)
        # Who holds a frame longest holds it alone once the last but one has written to it.
        touched[-1] = touched[-2]
        return np.sort(touched, axis=None).astype(np.int64) + 1


def _ranks(draws: Draws, pages: int, pattern: Pattern) -> NDArray[np.int64]:
    """Give each page its place in an order: the page of rank 0 is written first."""
    if pattern == "uniform":
        order = draws.permutation(pages)
    else:
        blocks = draws.permutation(-(-pages // CLUSTER_PAGES)) * CLUSTER_PAGES
        order = (blocks[:, None] + np.arange(CLUSTER_PAGES)).ravel()
        order = order[order < pages]
    ranks = np.empty(pages, np.int64)
    ranks[order] = np.arange(pages)
    return ranks

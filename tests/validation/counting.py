"""The counts of sharing and the ends of a break curve, done over again with Counters."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

from tests.validation.lab import ZERO

Pages = Sequence[bytes]
"""A digest for each page of a guest."""


class Savings(NamedTuple):
    """Frames saved, by how."""

    zero: int
    own: int
    inter: int

    @property
    def saved(self) -> int:
        """All of them."""
        return sum(self)

    def __str__(self) -> str:
        return f"zero {self.zero:,}, self {self.own:,}, inter-VM {self.inter:,}"


def whole_frames(pages: Pages, size: int) -> list[bytes]:
    """Join the digests of as many pages as a frame has."""
    return [b"".join(pages[start : start + size]) for start in range(0, len(pages) - size + 1, size)]


def savings(vms: Sequence[Pages], size: int = 1) -> Savings:
    """Count what some VMs save in one sharing domain, in frames of so many pages."""
    held = [Counter(whole_frames(pages, size)) for pages in vms]
    zero = sum(frames.pop(ZERO * size, 0) for frames in held)
    own = sum(copies - 1 for frames in held for copies in frames.values())
    holders = Counter(content for frames in held for content in frames)
    return Savings(max(zero - 1, 0), own, sum(vms - 1 for vms in holders.values()))


class CurveEnds(NamedTuple):
    """Pages saved when no large frame is broken, the best one, all but the best one, and all."""

    none: int
    one: int
    all_but_one: int
    all: int

    def __str__(self) -> str:
        return " / ".join(f"{pages:,}" for pages in self)


def curve_ends(vms: Sequence[Pages], size: int = 512) -> CurveEnds:
    """Count both ends of a break curve, where one choice leaves so few that all can be tried.

    Notes
    -----
    A broken frame is `size` pages; each of their contents is kept once, or not at all where a page outside of
    large frames has it.
    """
    large = [frame for pages in vms for frame in whole_frames(pages, size)]
    outside = [page for pages in vms for page in pages[len(pages) // size * size :]]
    width = len(ZERO)
    known = set(outside)
    broken = [
        {frame[at : at + width] for at in range(0, len(frame), width)} - known
        for frame in dict.fromkeys(large)
    ]
    start = (len(large) - len(broken)) * size + len(outside) - len(known)
    if not broken:
        return CurveEnds(start, start, start, start)
    holders = Counter(content for contents in broken for content in contents)
    end = start + len(broken) * size - len(holders)
    best_alone = max(size - len(contents) for contents in broken)
    least_missed = min(size - sum(holders[content] == 1 for content in contents) for contents in broken)
    return CurveEnds(start, start + best_alone, end - least_missed, end)

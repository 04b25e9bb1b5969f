"""Exact shares of memory, in which experiments reckon."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from typing import TYPE_CHECKING

from hvshare.simulation.results import Spread
from hvshare.units import PAGE_SIZE

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from hvshare.sharing.counts import Counts


@dataclass(frozen=True)
class Tally:
    """What is saved in frames of one size in the guests of one seed, in bytes.

    Attributes
    ----------
    memory : int
        Known memory, the same for every frame size.
    zero, self_sharing, inter_vm : int
        What is saved.
    zero_memory : int
        Zero frames, saved or not.
    """

    memory: int
    zero: int
    self_sharing: int
    inter_vm: int
    zero_memory: int

    @classmethod
    def of(cls, pooled: Mapping[int, Counts], frame_size: int) -> Tally:
        """Take the counts of one frame size out of those of all, among which 4 KB must be."""
        counts = pooled[frame_size]
        return cls(
            pooled[PAGE_SIZE].frame_bytes,
            counts.saved_zero * frame_size,
            counts.saved_self * frame_size,
            counts.saved_inter * frame_size,
            counts.zero * frame_size,
        )

    @property
    def nonzero(self) -> int:
        """Bytes saved, zero apart."""
        return self.self_sharing + self.inter_vm

    @property
    def saved(self) -> int:
        """Bytes saved."""
        return self.zero + self.nonzero

    def share(self, part: int) -> Fraction:
        """Give a number of bytes as a share of memory."""
        return Fraction(part, self.memory)

    def shares(self) -> dict[str, Fraction]:
        """Give what is saved as shares of memory, by `hvshare.simulation.results.RESPONSES`.

        Examples
        --------
        >>> {name: str(share) for name, share in Tally(8, 4, 1, 2, 5).shares().items()}
        {'zero': '1/2', 'self': '1/8', 'inter': '1/4', 'saved': '7/8'}
        """
        return {
            "zero": self.share(self.zero),
            "self": self.share(self.self_sharing),
            "inter": self.share(self.inter_vm),
            "saved": self.share(self.saved),
        }


def share_spreads(tallies: Sequence[Tally]) -> dict[str, Spread]:
    """Summarize the shares of several seeds, by response."""
    shares = [tally.shares() for tally in tallies]
    return {name: Spread.of([of_seed[name] for of_seed in shares]) for name in shares[0]}

"""Blocks of memory that AVML leaves out because they are all zero, found by the gaps that they leave.

Source: microsoft/avml, ``src/image.rs``. AVML takes the ranges of System RAM of ``/proc/iomem``, in ascending
order, and all but its first versions cut each into blocks of 16 MiB from its start on, of which the last may
be shorter, and leave out blocks that are all zero, header and all; the newest do so in LiME's format, too.

So where a block of 16 MiB is followed by a gap of whole multiples of 16 MiB, all-zero blocks were left out,
or the range ended there and the next one starts in step with it by chance. Nothing in the file tells these
apart: such gaps are taken as ZERO, with a caveat. Any other gap is where a range ended. Zero blocks at the
start of a range, at its end, or a range of nothing else leave no trace.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from hvshare.caveats import Caveat
from hvshare.images.runs import RunKind
from hvshare.images.segments import Segment
from hvshare.units import format_size

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

BLOCK_BYTES: Final = 16 << 20
"""The most that AVML puts into a block, since it cuts ranges."""


class ZeroBlocks:
    """What the blocks so far say of those that were left out.

    Parameters
    ----------
    by_avml : bool
        Whether AVML wrote the file for certain; else a block of 16 MiB is the sign of it.

    Attributes
    ----------
    possible : bool
        Whether blocks may have been left out at all. A larger block shows that ranges were not cut.
    """

    def __init__(self, *, by_avml: bool) -> None:
        self.possible = True
        self._by_avml = by_avml
        self._end_of_whole: int | None = None
        self._gaps = self._gap_bytes = self._largest_gap = 0

    def see(self, size: int) -> None:
        """Take in how large a block is."""
        if size > BLOCK_BYTES:
            self.possible = False
        self._by_avml |= size == BLOCK_BYTES

    def gap_before(self, address: int, size: int) -> int:
        """Bytes before a block that are all zero, going by the block before it, which is then this one."""
        gap = 0
        if self.possible and self._end_of_whole is not None and address > self._end_of_whole:
            gap = address - self._end_of_whole
            if gap % BLOCK_BYTES:
                gap = 0
        if gap:
            self._gaps += 1
            self._gap_bytes += gap
            self._largest_gap = max(self._largest_gap, gap)
        self._end_of_whole = address + size if size == BLOCK_BYTES else None
        return gap

    def between(self, blocks: Iterable[Segment]) -> Iterator[Segment]:
        """List the gaps that are all zero, once all blocks are known."""
        for each in sorted(blocks):
            if gap := self.gap_before(each.address, each.size):
                yield Segment(each.address - gap, gap, 0, RunKind.ZERO, each.told_at)

    def caveats(self, name: str) -> list[Caveat]:
        """Say what was inferred."""
        rule = (
            f"AVML leaves out blocks of {format_size(BLOCK_BYTES)} that are all zero and does not say which"
        )
        unseen = "at the start or end of a range of memory they leave no trace and are in no count"
        advice = "compare the memory of the guest, as it is here, with what the guest was given"
        if self._gaps:
            size, largest = format_size(self._gap_bytes), format_size(self._largest_gap)
            return [
                Caveat(
                    "zero-blocks-inferred",
                    f"{rule}: gaps between blocks fit such blocks ({self._gaps:,} of {size} in all, the "
                    f"largest of {largest}) and count as zero pages, which is inferred; {unseen}",
                    f"{advice}: holes of its memory map that happen to fit would count as zero pages",
                    name,
                )
            ]
        if self.possible and self._by_avml:
            return [Caveat("zero-blocks-unseen", f"{rule}: {unseen}", advice, name)]
        return []

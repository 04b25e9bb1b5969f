"""How much memory the TLBs of some processors reach, and what the series says that large pages are worth."""

from __future__ import annotations

from typing import Final, NamedTuple

from hvshare.erosion.large_pages_result import Quote, TlbReach
from hvshare.units import LARGE_FRAME_SIZE, PAGE_SIZE

_PART_3: Final = 'J. Woolsey, "Dynamic Memory Coming to Hyper-V", part 3 (2010)'


class _Processor(NamedTuple):
    name: str
    small_entries: int
    large_entries: int
    source: str


# Entries of the last level of data TLBs; where that holds 4 KB alone, those of the first level for 2 MB.
_PROCESSORS: Final = (
    # As the series adds them up: 32 of the first level and 512 of the second.
    _Processor("AMD, 2006", 544, 8, _PART_3),
    _Processor(
        "Intel Nehalem, 2008",
        512,
        32,
        "Tom's Hardware, 2008, https://www.tomshardware.com/reviews/Intel-i7-nehalem-cpu,2041-11.html",
    ),
    _Processor(
        "Intel Skylake-SP, 2017",
        1536,
        1536,
        "Intel 64 and IA-32 Architectures Optimization Reference Manual (248966-045), table 2-15",
    ),
    _Processor(
        "Arm Cortex-A76, 2018",
        1280,
        1280,
        "Agilex 5 Hard Processor System Technical Reference Manual (814346), table 40",
    ),
    _Processor(
        "AMD Zen 2, 2019",
        2048,
        2048,
        "WikiChip, https://en.wikichip.org/wiki/amd/microarchitectures/zen_2",
    ),
    _Processor(
        "Intel Golden Cove, 2021",
        2048,
        1024,
        'D. Bakhvalov, "Performance Analysis and Tuning on Modern CPUs", chapter 3, '
        "https://github.com/dendibakh/perf-book",
    ),
)

SERIES_QUOTES: Final = (
    Quote("second-level address translation makes a host about 20 % faster", _PART_3),
    Quote("with large pages off, performance is about 20 % worse", _PART_3),
    Quote("large pages make a host 10-20 % faster", _PART_3),
)
"""Figures of time that the series gives; hvshare measures none of them."""


def tlb_reach() -> tuple[TlbReach, ...]:
    """List how much memory TLBs reach, oldest processor first.

    Returns
    -------
    tuple of TlbReach
        Entries times what each maps. In a guest, an entry maps no more than the smaller of the guest's and
        the host's page.

    Examples
    --------
    >>> newest = tlb_reach()[-1]
    >>> newest.small_reach_bytes >> 20, newest.large_reach_bytes >> 20
    (8, 2048)
    """
    return tuple(
        TlbReach(
            each.name,
            each.small_entries,
            each.large_entries,
            each.small_entries * PAGE_SIZE,
            each.large_entries * LARGE_FRAME_SIZE,
            each.source,
        )
        for each in _PROCESSORS
    )

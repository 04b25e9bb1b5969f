"""What the host's second-level page tables come to, from the layout of x86-64 page tables."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

import numpy as np

from hvshare.erosion.large_pages_result import PageTables, Walk
from hvshare.fingerprint.coverage import Coverage
from hvshare.images.runs import RunKind
from hvshare.units import LARGE_FRAME_SIZE, PAGE_SIZE

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from hvshare.fingerprint.fingerprints import Fingerprints

_ENTRIES: Final = 512
"""Entries of a table: 4,096 bytes of 8 each."""


class TableLayout(NamedTuple):
    """The host's tables for all guests while no large frame is broken.

    Attributes
    ----------
    small_entries, large_entries : int
        Entries that map a page of 4 KB, and a large frame of 2 MB.
    lowest_tables : int
        Tables of entries for pages of 4 KB.
    upper_tables : int
        All other tables of four levels.
    fifth_level_tables : int
        What a fifth level adds.
    """

    small_entries: int
    large_entries: int
    lowest_tables: int
    upper_tables: int
    fifth_level_tables: int

    def with_broken(self, mappings: int) -> PageTables:
        """Break so many large frames of guests; each then needs a table of its own, even one of zero pages.

        Examples
        --------
        >>> TableLayout(0, 512, 0, 3, 1).with_broken(2)
        PageTables(small_entries=1024, large_entries=510, table_bytes=20480, table_bytes_5_level=24576)
        """
        tables = self.lowest_tables + mappings + self.upper_tables
        return PageTables(
            self.small_entries + _ENTRIES * mappings,
            self.large_entries - mappings,
            tables * PAGE_SIZE,
            (tables + self.fifth_level_tables) * PAGE_SIZE,
        )


def lay_out_tables(fingerprints: Sequence[Fingerprints]) -> TableLayout:
    """Count the tables that map the known pages of all guests, large frames wherever they are whole.

    Parameters
    ----------
    fingerprints : sequence of Fingerprints
        One a VM; each has tables of its own.

    Returns
    -------
    TableLayout
        With 512 entries of 8 bytes a table, as four-level EPT and NPT have it: Intel 64 and IA-32
        Architectures Software Developer's Manual, volume 3C, "EPT Translation Mechanism"; AMD64 Architecture
        Programmer's Manual, volume 2, "Nested Paging".
    """
    total = np.zeros(5, np.int64)
    pages = LARGE_FRAME_SIZE // PAGE_SIZE
    for each in fingerprints:
        first, end = Coverage(each.runs, (RunKind.PRESENT, RunKind.ZERO)).merged()
        if not len(first):
            continue
        whole = int(np.maximum(end // pages - -(-first // pages), 0).sum())
        # A table of each level covers 512 times as much as one of the level below.
        touched = [_touched(first, end, pages * _ENTRIES**level) for level in range(4)]
        total += (
            int((end - first).sum()) - pages * whole,
            whole,
            touched[0] - whole,
            touched[1] + touched[2] + touched[3],
            1,
        )
    return TableLayout(*total.tolist())


def _touched(first: NDArray[np.int64], end: NDArray[np.int64], pages: int) -> int:
    """Count aligned regions of so many pages that hold a page of some ranges, given in ascending order."""
    lowest, highest = first // pages, (end - 1) // pages
    return int((highest - lowest + 1).sum()) - int(np.count_nonzero(lowest[1:] == highest[:-1]))


def nested_walks() -> tuple[Walk, ...]:
    """List what a page walk in a guest refers to in memory, by levels and page sizes.

    Returns
    -------
    tuple of Walk
        Each of g guest levels and the final guest physical address take a walk of h host levels, and each
        guest level one reference more: (g + 1) * (h + 1) - 1, 24 for four levels each (Bhargava et al.,
        "Accelerating two-dimensional page walks for virtualized systems", ASPLOS 2008). A page of 2 MB ends
        its walk one level early. Caches of translations spare most of these.

    Examples
    --------
    >>> [walk.references for walk in nested_walks()]
    [24, 19, 19, 15, 35, 29, 29, 24]
    """
    sizes = (PAGE_SIZE, LARGE_FRAME_SIZE)
    return tuple(
        Walk(
            levels, guest, host, (levels - (guest != PAGE_SIZE) + 1) * (levels - (host != PAGE_SIZE) + 1) - 1
        )
        for levels in (4, 5)
        for guest in sizes
        for host in sizes
    )

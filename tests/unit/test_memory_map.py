from __future__ import annotations

import numpy as np

from hvshare.fingerprint.fingerprints import Fingerprints
from hvshare.images.runs import RunKind, Runs
from hvshare.sharing.grouping import PageClass
from hvshare.sharing.memory_map import PageKind, map_memory
from tests.oracle import PAGE


def mapped(*parts: tuple[int, int, RunKind], cells: int) -> tuple[int, bool, list[PageKind]]:
    runs = Runs()
    for first_gfn, pages, kind in parts:
        runs.append(first_gfn, pages, kind)
    present = runs.pages_of(RunKind.PRESENT)
    fingerprints = Fingerprints("vm", "/vm", "memory", runs, np.arange(present, dtype=np.uint64))
    found = map_memory(fingerprints, np.full(present, PageClass.UNIQUE, np.uint8), cells)
    return found.span, found.without_gaps, list(found.cells)


def test_addresses_are_shown_where_memory_fills_them() -> None:
    assert mapped((0, 4, RunKind.PRESENT), (8, 4, RunKind.ZERO), (12, 4, RunKind.ABSENT), cells=4) == (
        16 * PAGE, False, [PageKind.UNIQUE, PageKind.NONE, PageKind.ZERO, PageKind.ABSENT],
    )  # fmt: skip


def test_memory_alone_is_shown_where_addresses_are_mostly_empty() -> None:
    # As in a process: a heap, libraries far above it, and a page at the very top.
    top = (1 << 52) - 1
    parts = (1024, 4, RunKind.PRESENT), (1 << 35, 3, RunKind.ZERO), (top, 1, RunKind.ABSENT)
    kinds = [PageKind.UNIQUE] * 4 + [PageKind.ZERO] * 3 + [PageKind.ABSENT]
    assert mapped(*parts, cells=8) == (8 * PAGE, True, kinds)
    assert mapped(*parts, cells=99) == (8 * PAGE, True, kinds)
    assert mapped(*parts, cells=2) == (8 * PAGE, True, [PageKind.UNIQUE, PageKind.ZERO])

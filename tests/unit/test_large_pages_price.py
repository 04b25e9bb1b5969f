"""Page tables held against sets of the regions that they map, page by page."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hvshare.erosion.page_tables import lay_out_tables, nested_walks
from hvshare.erosion.processors import SERIES_QUOTES, tlb_reach
from hvshare.fingerprint.fingerprints import Fingerprints
from hvshare.images.runs import RunKind, Runs

Run = tuple[int, int, RunKind]

# Gaps that end within a frame, at one, and beyond a region of each higher level.
gaps = st.sampled_from([0, 0, 1, 511, 512, 513, 1 << 18, (1 << 18) - 5, 1 << 27, (1 << 27) + 300])
lengths = st.sampled_from([1, 2, 100, 511, 512, 513, 1024, 1500])


@st.composite
def guests(draw: st.DrawFn) -> list[Run]:
    runs, at = [], draw(st.sampled_from([0, 1, 512, 700]))
    for _ in range(draw(st.integers(1, 5))):
        at += draw(gaps)
        length = draw(lengths)
        runs.append((at, length, draw(st.sampled_from(list(RunKind)))))
        at += length
    return runs


def fingerprints(name: str, layout: list[Run]) -> Fingerprints:
    runs = Runs()
    for first, length, kind in layout:
        runs.append(first, length, kind)
    return Fingerprints(name, name, "memory", runs, np.ones(runs.pages_of(RunKind.PRESENT), np.uint64))


@given(st.lists(guests(), min_size=1, max_size=3), st.data())
def test_tables_are_those_of_the_regions_that_hold_pages(vms: list[list[Run]], data: st.DataObject) -> None:
    small = large = tables = fifth = 0
    for vm in vms:
        known = {
            gfn
            for first, length, kind in vm
            if kind is not RunKind.ABSENT
            for gfn in range(first, first + length)
        }
        regions = [{gfn // 512**level for gfn in known} for level in range(1, 5)]
        whole = {frame for frame in regions[0] if all(frame * 512 + page in known for page in range(512))}
        small += len(known) - 512 * len(whole)
        large += len(whole)
        tables += len(regions[0] - whole) + sum(map(len, regions[1:]))
        fifth += bool(known)
    layout = lay_out_tables([fingerprints(str(number), vm) for number, vm in enumerate(vms)])
    broken = data.draw(st.integers(0, large))
    found = layout.with_broken(broken)
    assert (found.small_entries, found.large_entries) == (small + 512 * broken, large - broken)
    assert found.table_bytes == (tables + broken) * 4096
    assert found.table_bytes_5_level == (tables + broken + fifth) * 4096


def test_the_series_counts_as_many_entries() -> None:
    # Part 3: 4 GB take 1 M entries at 4 KB, 64 GB take 16 M, 1 TB takes 256 M.
    for gib, entries in ((4, 1 << 20), (64, 16 << 20), (1024, 256 << 20)):
        runs = Runs()
        runs.append(0, gib << 18, RunKind.ZERO)
        layout = lay_out_tables([Fingerprints("guest", "guest", "raw", runs, np.empty(0, np.uint64))])
        assert layout.with_broken(layout.large_entries).small_entries == entries


@pytest.mark.parametrize(
    ("levels", "guest", "host", "references"),
    [(4, 4096, 4096, 24), (4, 4096, 2 << 20, 19), (4, 2 << 20, 2 << 20, 15), (5, 4096, 4096, 35)],
)
def test_walks_refer_to_memory_as_often_as_published(
    levels: int, guest: int, host: int, references: int
) -> None:
    found = [
        walk.references
        for walk in nested_walks()
        if (walk.levels, walk.guest_page_size, walk.host_page_size) == (levels, guest, host)
    ]
    assert found == [references]


def test_every_figure_of_a_processor_has_a_source() -> None:
    for each in tlb_reach():
        assert each.source
        assert each.small_reach_bytes == each.small_entries * 4096
        assert each.large_reach_bytes == each.large_entries << 21
    series = tlb_reach()[0]
    # "A little over 2MB" and 16 MB.
    assert 2 << 20 < series.small_reach_bytes < 2.2 * (1 << 20)
    assert series.large_reach_bytes == 16 << 20
    assert all("part 3" in quote.source for quote in SERIES_QUOTES)

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hvshare.fingerprint.coverage import Coverage
from hvshare.images.runs import RunKind, Runs

kinds_of_pages = st.lists(st.sampled_from([*RunKind, None]), min_size=1, max_size=40)


def runs_of(kinds: list[RunKind | None]) -> Runs:
    runs = Runs()
    for gfn, kind in enumerate(kinds):
        if kind is not None:
            runs.append(gfn, 1, kind)
    return runs


@given(kinds_of_pages)
def test_runs_hold_what_was_put_in(kinds: list[RunKind | None]) -> None:
    runs = runs_of(kinds)
    pages = {gfn: run.kind for run in runs for gfn in range(run.first_gfn, run.end_gfn)}
    assert pages == {gfn: kind for gfn, kind in enumerate(kinds) if kind is not None}
    assert [runs.pages_of(kind) for kind in RunKind] == [kinds.count(kind) for kind in RunKind]
    # Runs that touch differ in kind, or they would be one.
    assert all(
        a.end_gfn < b.first_gfn or a.kind != b.kind for a, b in zip(runs, list(runs)[1:], strict=False)
    )


@given(kinds_of_pages, st.integers(0, 45), st.integers(0, 45))
def test_part_of_the_runs(kinds: list[RunKind | None], low: int, high: int) -> None:
    found = {
        gfn: run.kind for run in runs_of(kinds).within(low, high) for gfn in range(run.first_gfn, run.end_gfn)
    }
    assert found == {gfn: kind for gfn, kind in enumerate(kinds) if kind is not None and low <= gfn < high}


@given(kinds_of_pages, st.integers(1, 9))
def test_spans_hold_every_present_page_once(kinds: list[RunKind | None], pages: int) -> None:
    runs = runs_of(kinds)
    spans = list(runs.spans(pages))
    present = [gfn for gfn, kind in enumerate(kinds) if kind == RunKind.PRESENT]
    in_spans = [[gfn for gfn in present if low <= gfn < high] for low, high in spans]
    assert [gfn for span in in_spans for gfn in span] == present
    assert all(len(span) == pages for span in in_spans[:-1])
    assert all(span and len(span) <= pages for span in in_spans)


@given(kinds_of_pages, st.sets(st.sampled_from(list(RunKind)), min_size=1))
def test_coverage_counts_pages(kinds: list[RunKind | None], wanted: set[RunKind]) -> None:
    import numpy as np

    coverage = Coverage(runs_of(kinds), wanted)
    gfns = [gfn for gfn, kind in enumerate(kinds) if kind in wanted]
    bounds = np.arange(len(kinds) + 2)
    assert coverage.below(bounds).tolist() == [sum(gfn < bound for gfn in gfns) for bound in bounds.tolist()]
    if gfns:
        assert coverage.gfns(0, len(gfns)).tolist() == gfns
        first, end = coverage.merged()
        assert [g for f, e in zip(first.tolist(), end.tolist(), strict=True) for g in range(f, e)] == gfns
        assert (first[1:] > end[:-1]).all()


@pytest.mark.parametrize(("gfn", "pages"), [(0, 1), (4, 0), (4, -1)])
def test_runs_do_not_overlap(gfn: int, pages: int) -> None:
    runs = Runs()
    runs.append(0, 4, RunKind.PRESENT)
    with pytest.raises(ValueError, match="behind gfn 4"):
        runs.append(gfn, pages, RunKind.ZERO)

from __future__ import annotations

import io
import re
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.cells import cell_len

from hvshare.erosion.measure import waterfall
from hvshare.erosion.report import Kind, WaterfallStep
from hvshare.report.console import report_console
from hvshare.report.waterfall import waterfall_legend, waterfall_table
from tests.golden.erosion_report import aslr as made_up_aslr
from tests.golden.erosion_report import prefetch as made_up_prefetch
from tests.golden.sharing_report import counts

PAGE = 4096
LARGE = 2 << 20
ASLR, PREFETCH = made_up_aslr(), made_up_prefetch()

frames = st.integers(0, 5_000)
changes = st.integers(-5_000, 5_000)


@given(frames, frames, frames, changes, st.integers(0, 5_000), st.sampled_from(Kind), st.booleans())
def test_columns_add_up_and_no_frame_is_freed_twice(
    explained: int, near: int, zero: int, first: int, more: int, kind: Kind, with_aslr: bool
) -> None:
    pages = counts(PAGE, 20_480, zero + 2_048, 300, 200)
    large = counts(LARGE, 40, (zero + 2_048) // 512, 0, 0)
    here = {PAGE: pages, LARGE: large}
    explained = min(explained, pages.distinct - 1)
    upper = min(explained + near, pages.distinct - 1)
    aslr = replace(ASLR, explained_saved_frames=explained, upper_saved_frames=upper) if with_aslr else None
    kind = Kind.MEASURED if kind is Kind.MODELLED else kind
    last = first if kind is Kind.MEASURED else first + more
    steps = waterfall(here, aslr, replace(PREFETCH, kind=kind, lower_frames=first, upper_frames=last))
    factors = ["possible", "prefetch", *(["aslr"] if with_aslr else []), "large-pages", "left"]
    assert [step.factor for step in steps] == factors
    possible, *rest = steps
    assert possible.lower_bytes == sum(step.lower_bytes for step in rest)
    assert possible.upper_bytes == sum(step.upper_bytes for step in rest)
    assert all(step.lower_bytes <= step.upper_bytes for step in steps)
    by_name = {step.factor: step for step in steps}
    assert by_name["left"].lower_bytes == large.saved_bytes
    assert by_name["left"].lower_bytes + by_name["large-pages"].lower_bytes == pages.saved_bytes
    assert by_name["prefetch"].lower_bytes <= first * PAGE
    assert by_name["prefetch"].upper_bytes <= last * PAGE
    if kind is Kind.BOUNDED:
        assert possible.upper_bytes <= max(
            pages.frame_bytes - PAGE, pages.saved_bytes + upper * with_aslr * PAGE
        )
    else:
        assert by_name["prefetch"].lower_bytes == by_name["prefetch"].upper_bytes == first * PAGE
    assert possible.kind is (Kind.BOUNDED if with_aslr or kind is Kind.BOUNDED else Kind.MEASURED)


def drawn(steps: list[WaterfallStep], width: int = 80, encoding: str = "utf-8") -> list[str]:
    raw = io.BytesIO()
    with io.TextIOWrapper(raw, encoding=encoding, newline="\n") as file:
        console = report_console(file, width=width)
        left, large = steps[-1].upper_bytes, steps[-2].upper_bytes
        console.print(waterfall_table(steps, saved_now=left + large, memory=1 << 30, console=console))
        console.print(waterfall_legend(ascii_only=console.options.ascii_only))
        file.flush()
        return raw.getvalue().decode(encoding).splitlines()


def steps_of(prefetch: tuple[int, int]) -> list[WaterfallStep]:
    mib = 1 << 20
    rest = [
        WaterfallStep("prefetch", Kind.BOUNDED, *(each * mib for each in prefetch)),
        WaterfallStep("aslr", Kind.BOUNDED, 81 * mib, 102 * mib),
        WaterfallStep("large-pages", Kind.MEASURED, 176 * mib, 176 * mib),
        WaterfallStep("left", Kind.MEASURED, 540 * mib, 540 * mib),
    ]
    lower, upper = sum(step.lower_bytes for step in rest), sum(step.upper_bytes for step in rest)
    return [WaterfallStep("possible", Kind.BOUNDED, lower, upper), *rest]


@pytest.mark.parametrize("width", [80, 100, 160])
@pytest.mark.parametrize("prefetch", [(0, 200), (-50, -20), (-50, 30), (160, 160), (0, 0), (-500, -500)])
def test_each_step_has_a_bar_its_kind_and_its_bounds(prefetch: tuple[int, int], width: int) -> None:
    lines = drawn(steps_of(prefetch), width)
    assert max(map(cell_len, lines)) <= width
    rows = {line.split("  ")[0]: line for line in lines[2:-1]}
    assert list(rows) == ["possible", "prefetching", "ASLR", "now at 4 KB", "large pages", "left at 2 MB"]
    assert ["bounded" in row for row in rows.values()] == [True, True, True, False, False, False]
    assert all("measured" in rows[name] for name in ("now at 4 KB", "large pages", "left at 2 MB"))
    assert "-81.0 to -102.0 MiB" in rows["ASLR"]
    assert "7.9 to 10.0 %" in rows["ASLR"]
    assert "716.0 MiB" in rows["now at 4 KB"]
    bars = {name: re.search("[█▒]+", row) for name, row in rows.items()}
    assert [name for name, bar in bars.items() if bar is None] == ([] if any(prefetch) else ["prefetching"])
    # What is bounded has a part that is not certain, and what is measured has none.
    assert "▒" in rows["ASLR"]
    assert "▒" in rows["possible"]
    assert "▒" not in rows["now at 4 KB"] + rows["large pages"] + rows["left at 2 MB"]
    # Bars stand on each other: large pages end where the savings of today end.
    large, now = bars["large pages"], bars["now at 4 KB"]
    assert large is not None
    assert now is not None
    assert large.end() == now.end()


def test_changes_have_the_sign_of_what_they_do_to_sharing() -> None:
    text = "\n".join(drawn(steps_of((-50, 30))))
    assert "+50.0 to -30.0 MiB" in text
    assert "+ adds to it" in text


def test_plain_signs_where_there_are_no_others() -> None:
    text = "\n".join(drawn(steps_of((0, 200)), encoding="ascii"))
    assert "##" in text
    assert "==" in text

"""How large pages are shown: nothing is cut, whatever the width, the size of the pool and the terminal."""

from __future__ import annotations

import io
import json
from dataclasses import replace
from functools import partial

import pytest
from rich.cells import cell_len

from hvshare.erosion.large_pages_result import (
    Bloat,
    BloatBin,
    BreakPoint,
    Knee,
    LargePages,
    PageTables,
    Policy,
    Price,
    Target,
)
from hvshare.erosion.page_tables import nested_walks
from hvshare.erosion.processors import SERIES_QUOTES, tlb_reach
from hvshare.report.console import report_console, write_report
from hvshare.report.large_pages import large_pages_fields, large_pages_summary, print_large_pages
from hvshare.sharing.counts import Counts

FRAME = 2 << 20
TABLES = PageTables(262_144, 512, 2 << 30, (2 << 30) + 4096)


def section(scale: int = 1) -> LargePages:
    ladder = {
        4096 << step: Counts(
            4096 << step,
            frames=(524_288 >> step) * scale,
            partial_frames=0,
            zero=(262_144 >> step) * scale,
            distinct=(524_288 >> step) * scale - 3 * ((262_144 >> step) * scale // 4) + 1,
            saved_zero=(262_144 >> step) * scale // 4 - 1,
            saved_self=(262_144 >> step) * scale // 4,
            saved_inter=(262_144 >> step) * scale // 4,
        )
        for step in range(10)
    }
    saved = [400, 520, 600, 660, 700, 730, 750, 765, 775, 780, 780]
    points = [
        BreakPoint(k, 3 * k * scale, each * scale << 20, (each + 1) * scale << 20)
        for k, each in enumerate(saved)
    ]
    names = ("break nothing", "break to the knee", "break what repeats", "break all")
    policies = tuple(
        Policy(name, "somebody", *points[at][:3], TABLES, points[at].saved_bytes - (2 << 20))
        for name, at in zip(names, (0, 4, 9, 10), strict=True)
    )
    return LargePages(
        FRAME,
        ladder,
        30 * scale,
        10,
        700 * scale,
        90 * scale << 20,
        (BreakPoint(0, 0, 310 * scale << 20, 310 * scale << 20), *points),
        Knee(4, 12 * scale, 700 * scale << 20, 0.39),
        policies,
        Target(650 * scale << 20, 400 * scale << 20, 780 * scale << 20, 3, 9 * scale, 660 * scale << 20, 2),
        Price(TABLES, TABLES, tlb_reach(), nested_walks(), SERIES_QUOTES),
        Bloat(5 * scale, 9 << 20, 2 * scale, 4 << 20, (BloatBin(0, 0, scale, FRAME), BloatBin(1, 8, 2, 5))),
    )


def shown(found: LargePages, width: int, encoding: str = "utf-8") -> str:
    raw = io.BytesIO()
    with io.TextIOWrapper(raw, encoding=encoding, errors="strict", newline="\n") as file:
        write_report(report_console(file, width=width), partial(print_large_pages, found))
        file.flush()
        return raw.getvalue().decode(encoding)


@pytest.fixture(autouse=True)
def no_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("COLUMNS", "LINES", "NO_COLOR", "FORCE_COLOR", "TERM", "JUPYTER_COLUMNS"):
        monkeypatch.delenv(name, raising=False)


@pytest.mark.parametrize("scale", [1, 4096])
@pytest.mark.parametrize("width", [80, 100, 160])
def test_no_figure_is_cut_and_no_line_is_too_long(width: int, scale: int) -> None:
    text = shown(section(scale), width)
    assert "…" not in text
    assert max(map(cell_len, text.splitlines())) <= width
    for size in ("4 KB", "8 KB", "128 KB", "2 MB"):
        assert any(line.strip().startswith(size) for line in text.splitlines())


def test_chart_rises_from_left_to_right_and_marks_policies() -> None:
    lines = shown(section(), 80).splitlines()
    top = next(number for number, line in enumerate(lines) if line.startswith("saved"))
    rows = [line[13:] for line in lines[top + 1 : top + 11]]
    assert lines[top + 1].split()[0] == "780.0"
    assert lines[top + 11].split()[:2] == ["400.0", "MiB"]
    heights = [sum(len(row) > column and row[column] != " " for row in rows) for column in range(67)]
    assert heights == sorted(heights)
    assert (heights[0], heights[-1]) == (0, 10)
    letters = lines[top + 12][13:]
    assert [letters.index(letter) for letter in "NKRA"] == [0, 4 * 66 // 10, 9 * 66 // 10, 66]
    axis = lines[top + 11][13:]
    assert [column for column, sign in enumerate(axis) if sign == "┴"] == [0, 26, 59, 66]


def test_policies_that_fall_on_one_column_are_all_marked() -> None:
    found = section()
    same = tuple(replace(policy, broken_frames=0) for policy in found.policies)
    lines = shown(replace(found, policies=same), 80).splitlines()
    assert [line.strip() for line in lines if line.strip() in "NKRA" and line.strip()] == ["N", "K", "R", "A"]


def test_plain_terminals_get_plain_signs() -> None:
    text = shown(section(), 80, "ascii")
    assert "####" in text
    assert "+-----" in text


def test_colours_only_where_they_are_wanted(monkeypatch: pytest.MonkeyPatch) -> None:
    assert "\x1b" not in shown(section(), 80)
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("TERM", "xterm-256color")
    assert "\x1b[36m" in shown(section(), 80)
    monkeypatch.setenv("NO_COLOR", "1")
    assert "\x1b[36m" not in shown(section(), 80)


@pytest.mark.parametrize(
    ("target", "expected"),
    [
        (Target(650, 400, 780, 3, 9, 660, 2), "break 3 of 10 large frames"),
        (Target(300, 400, 780, 0, 0, 400, 0), "no large frame has to be broken"),
        (Target(900, 400, 780, None, None, None, None), "is more than sharing can"),
    ],
)
def test_targets_are_answered(target: Target, expected: str) -> None:
    text = " ".join(shown(replace(section(), target=target), 160).split())
    assert expected in text
    assert "Fewer than 2 cannot do" in text or target.broken_frames != 3


def test_summary_says_what_is_lost_free_and_to_be_had() -> None:
    text = large_pages_summary(section()).plain
    assert "take away 380.0 MiB" in text
    assert "400.0 MiB is free without breaking any, 700.0 MiB with 4 of 10 large frames broken" in text
    early = replace(section(), knee=Knee(0, 0, 400 << 20, 0.0))
    assert "the rest takes most of 10 large frames to be broken" in large_pages_summary(early).plain


def test_guests_that_large_pages_take_nothing_from() -> None:
    found = section()
    flat = tuple(point._replace(saved_bytes=5) for point in found.curve)
    assert "no more with all of them broken" in large_pages_summary(replace(found, curve=flat)).plain
    assert "it is flat" in shown(replace(found, curve=flat), 80)
    none = replace(found, frames=0, distinct_frames=0, curve=found.curve[:2])
    assert "No image has a whole frame of 2 MB" in shown(none, 80)
    assert "Policies" not in shown(none, 80)


def test_fields_are_those_of_the_issue_and_plain() -> None:
    fields = json.loads(json.dumps(large_pages_fields(section())))
    assert {"ladder", "curve", "knee", "price", "policies", "target", "bloat"} <= fields.keys()
    assert fields["kind"] == "measured"
    assert fields["kinds"]["curve.most_saved_bytes"] == "bounded"
    assert fields["price"]["kind"] == "modelled"
    assert {quote["kind"] for quote in fields["price"]["quotes"]} == {"quoted"}
    assert list(fields["ladder"]) == [str(4096 << step) for step in range(10)]
    assert fields["ladder"]["4096"]["saved_bytes"] == section().ladder[4096].saved_bytes
    assert fields["curve"][0] == {
        "broken_frames": 0,
        "broken_mappings": 0,
        "saved_bytes": 310 << 20,
        "most_saved_bytes": 310 << 20,
    }
    assert len(fields["curve"]) == 12
    assert fields["knee"]["broken_frames"] == 4

"""Results of experiments as users see them, held against files that a person has looked at.

After a change that is meant: look at what a failing test prints, and write it into the golden by hand or
with ``python -m tests.golden.test_simulation_reports``, which a test never does.
"""

from __future__ import annotations

import csv
import io
import json
import re
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from rich.cells import cell_len
from rich.console import Console

from hvshare.report.clones import print_clones
from hvshare.report.plot import Curve, Plot
from hvshare.report.series import print_series
from hvshare.report.simulation import print_simulation
from hvshare.report.simulation_csv import simulate_csv
from hvshare.report.simulation_machine import simulate_json
from hvshare.report.sweep import print_sweep
from tests.golden import simulation_results as made
from tests.golden.test_reports import no_environment, printed

FOLDER = Path(__file__).parent
SCHEMA = json.loads((FOLDER.parents[1] / "docs/schema/simulate-1.json").read_text(encoding="utf-8"))
VALIDATOR = jsonschema.Draft202012Validator(SCHEMA)
WIDTHS = (80, 100, 160)

RESULTS: dict[str, tuple[Callable[[Any, Console], None], Callable[[], Any]]] = {
    "factorial": (print_simulation, made.simulation),
    "one-seed": (print_simulation, made.one_seed),
    "series": (print_series, made.series),
    "clones": (print_clones, made.clones),
    "clustered": (print_clones, made.clustered_clones),
    "sweep": (print_sweep, made.sweep),
    "words": (print_sweep, made.word_sweep),
    "one-point": (print_sweep, made.one_point),
}
EXPERIMENTS = ("factorial", "series", "clones", "sweep")
SPREADS = {"mean", "deviation", "lowest", "highest"}


# A fixture that every test here uses.
__all__ = ["no_environment"]


def terminal(name: str, width: int = 80, encoding: str = "utf-8") -> str:
    show, make = RESULTS[name]
    return printed(partial(show, make()), width, encoding)


def renderings() -> dict[str, Callable[[], str]]:
    found: dict[str, Callable[[], str]] = {
        f"simulate-{name}-80.txt": partial(terminal, name) for name in RESULTS
    }
    for name in EXPERIMENTS:
        found[f"simulate-{name}-80-ascii.txt"] = partial(terminal, name, 80, "ascii")
        found[f"simulate-{name}.json"] = partial(simulate_json, RESULTS[name][1]())
        found[f"simulate-{name}.csv"] = partial(simulate_csv, RESULTS[name][1]())
    return found


@pytest.mark.parametrize("name", renderings())
def test_rendering_is_as_it_was(name: str) -> None:
    with (FOLDER / name).open(encoding="utf-8", newline="") as file:
        assert renderings()[name]() == file.read()


@pytest.mark.parametrize("encoding", ["utf-8", "ascii"])
@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("name", RESULTS)
def test_nothing_is_cut_or_too_wide(name: str, width: int, encoding: str) -> None:
    text = terminal(name, width, encoding)
    assert "…" not in text
    assert "\x1b" not in text
    # An encoding that lacks signs of a name shows them escaped, which nobody knows when laying lines out.
    assert max(map(cell_len, re.sub(r"\\u\w{4}", "xx", text).splitlines())) <= width
    assert "modelled" in text


@pytest.mark.parametrize("name", RESULTS)
def test_ascii_means_ascii(name: str) -> None:
    text = terminal(name, 80, "ascii")
    assert text.isascii()
    # The odd name alone has signs to escape.
    assert re.findall(r"\\(?!x1b|u65e5|u672c)[xu]\w+", text) == []


@pytest.mark.parametrize("name", ["factorial", "one-seed", "series", "words"])
def test_names_are_data(name: str) -> None:
    assert "x[/red]:smile:\\x1b[2J" in terminal(name).replace("\n", "")


@pytest.mark.parametrize("name", ["factorial", "one-seed"])
def test_every_figure_of_a_cell_is_in_the_table(name: str) -> None:
    result = RESULTS[name][1]()
    rows = [line.split() for line in terminal(name).splitlines() if re.match(r"(on|off) +(on|off) ", line)]
    assert len(rows) == 16
    for cell, row in zip(result.cells, rows, strict=True):
        guest_levels = list(cell.levels.values())[:3]
        assert row[:3] == ["on" if level else "off" for level in guest_levels]
        assert row[3:5] == (["2", "MB"] if cell.host_page_bytes > 4096 else ["4", "KB"])
        spreads = (cell.saved, cell.zero, cell.self_sharing, cell.inter_vm)
        assert [float(word) for word in row[5:] if "±" not in word] == [
            pytest.approx(100 * spread.mean, abs=0.051) for spread in spreads
        ]
        assert [float(word[1:]) for word in row[5:] if "±" in word] == [
            pytest.approx(100 * spread.deviation, abs=0.051)
            for spread in spreads
            if spread.deviation is not None
        ]


def test_effects_are_all_told() -> None:
    result = made.simulation()
    text = terminal("factorial")
    of_all = {effect.factors for effect in result.effects}
    small = {
        factors
        for factors in of_all
        if len(factors) > 1
        and all(abs(each.spread.mean) < 0.0005 for each in result.effects if each.factors == factors)
    }
    assert len(small) == 2
    assert f"{len(small)} interactions below 0.05 points" in text
    # Rows of cells begin with on or off.
    shown = re.findall(r"^(?!on |off ).+±.+±.+±.+±", text, re.MULTILINE)
    assert len(shown) == len(of_all) - len(small)
    assert (
        text.index("\nhost large pages") < text.index("\nprefetching  ") < text.index("\nguest large pages  ")
    )


@pytest.mark.parametrize("name", RESULTS)
def test_json_is_as_the_schema_says(name: str) -> None:
    VALIDATOR.check_schema(SCHEMA)
    document = json.loads(simulate_json(RESULTS[name][1]()))
    VALIDATOR.validate(document)
    assert document["kind"] == "modelled"
    for field in document:
        short = {key: value for key, value in document.items() if key != field}
        with pytest.raises(jsonschema.ValidationError):
            VALIDATOR.validate(short)
    with pytest.raises(jsonschema.ValidationError):
        VALIDATOR.validate({**document, "kind": "measured"})


def numbers(content: object) -> list[float]:
    """List all numbers of a JSON document, but for what is told of how guests were made."""
    if isinstance(content, dict):
        return [number for key, each in content.items() if key != "settings" for number in numbers(each)]
    if isinstance(content, list):
        return [number for each in content for number in numbers(each)]
    return [content] if isinstance(content, int | float) and not isinstance(content, bool) else []


def rows_of(name: str) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(simulate_csv(RESULTS[name][1]()))))


@pytest.mark.parametrize(
    ("name", "field"),
    [("clones", "points"), ("clustered", "points"), ("sweep", "points"), ("words", "points")],
)
def test_csv_has_the_points_of_json(name: str, field: str) -> None:
    points = json.loads(simulate_json(RESULTS[name][1]()))[field]
    rows = rows_of(name)
    assert len(rows) == len(points)
    for row, point in zip(rows, points, strict=True):
        flat = {
            (f"{key}_{part}" if part else key): value
            for key, member in point.items()
            for part, value in (member.items() if isinstance(member, dict) else [("", member)])
        }
        expected = {key: "" if value is None else str(value) for key, value in flat.items()}
        assert {key: value for key, value in row.items() if key != "parameter"} == expected


def test_csv_of_a_factorial_has_the_cells_and_effects_of_json() -> None:
    document = json.loads(simulate_json(made.simulation()))
    rows = rows_of("factorial")
    cells, effects, steps = (
        [row for row in rows if row["type"] == kind] for kind in ("cell", "effect", "waterfall")
    )
    assert len(cells) + len(effects) + len(steps) == len(rows)
    for row, cell in zip(cells, document["cells"], strict=True):
        for factor, on in cell["levels"].items():
            assert row[factor.replace("-", "_")] == ("on" if on else "off")
        for response in ("saved", "saved_zero", "saved_self", "saved_inter", "zero_memory"):
            assert {part: float(row[f"{response}_{part}"]) for part in SPREADS} == cell[response]
    found = {
        (tuple(row["factors"].split()), response): {
            part: float(row[f"{response}_{part}"]) for part in SPREADS
        }
        for row in effects
        for response in ("saved", "saved_zero", "saved_self", "saved_inter")
    }
    assert found == {
        (tuple(each["factors"]), each["response"]): {part: each[part] for part in SPREADS}
        for each in document["effects"]
    }
    names = ("step", "kind", "lower_bytes", "upper_bytes")
    assert [tuple(row[name] for name in names) for row in steps] == [
        (each["factor"], each["kind"], str(each["lower_bytes"]), str(each["upper_bytes"]))
        for each in document["waterfall"]
    ]
    assert len(steps) == 5
    assert {row[factor.replace("-", "_")] for row in steps for factor in document["waterfall_levels"]} == {
        "on"
    }


def test_csv_of_a_series_has_the_findings_of_json() -> None:
    document = json.loads(simulate_json(made.series()))
    findings = [(claim, finding) for claim in document["claims"] for finding in claim["findings"]]
    answers = {True: "true", False: "false", None: ""}
    rows = rows_of("series")
    assert len(rows) == len(findings)
    for row, (claim, finding) in zip(rows, findings, strict=True):
        assert (row["claim"], row["verdict"]) == (str(claim["number"]), claim["verdict"])
        assert float(row["value"]) == finding["value"]
        assert (row["label"], row["unit"]) == (finding["label"], finding["unit"])
        assert row["of"] == (finding["of"] or "")
        for name in ("bears_out", "close_to_limit"):
            assert row[name] == answers[finding[name]]


def test_points_are_not_shown_as_shares() -> None:
    rows = [line for line in terminal("series", 160).splitlines() if "in points of memory" in line]
    assert [re.findall(r"[-+]?\d+\.\d", row) for row in rows] == [
        ["-1.2", "-1.2", "-1.2"],
        ["0.0", "-0.2", "+1.2"],
    ]
    assert "%" not in "".join(rows)


def test_what_is_close_to_its_limit_says_so() -> None:
    text = " ".join(terminal("series", 160).split())
    assert text.count("close to") == sum(
        bool(finding.close_to_limit) for claim in made.series().claims for finding in claim.findings
    )


def test_a_waterfall_is_measured_in_made_guests() -> None:
    text = terminal("factorial")
    heading = next(line for line in text.splitlines() if line.startswith("What takes sharing away"))
    assert heading.endswith("in made guests")
    assert "modelled" not in text[text.index(heading) : text.index("Caveats")]


def test_the_first_line_is_the_answer() -> None:
    flat = {name: " ".join(terminal(name).split()) for name in RESULTS}
    assert flat["factorial"].startswith(
        "Host large pages change most of what sharing saves (modelled): -41.7 "
    )
    assert flat["series"].startswith(
        "Of 3 claims of the series, 1 holds, 1 holds under conditions, 1 does not"
    )
    assert flat["clones"].startswith(
        "Half of the 2 MB frames that clones share are lost once each has written 250"
    )
    assert flat["clustered"].startswith("More than half of the 2 MB frames that clones share are left")
    assert flat["sweep"].startswith("From vms 1 to 32, what sharing at 4 KB saves goes from 37.2 % to 74.4 %")
    assert flat["one-point"].startswith("With prefetch off, sharing at 4 KB saves 70.0 % of memory")


def plotted(plot: Plot, encoding: str = "utf-8") -> list[str]:
    return printed(lambda console: console.print(plot), 80, encoding).splitlines()


@pytest.mark.parametrize("encoding", ["utf-8", "ascii"])
def test_heights_of_areas_follow_the_shares(encoding: str) -> None:
    low, high = (".", "#") if encoding == "ascii" else ("░", "▓")
    shares = [0.0, 0.25, 0.5, 1.0]
    plot = Plot(
        [0, 10, 20, 30], ["0", "10", "20", "30"], "x",
        areas=(Curve("below", (0.0, 0.25, 0.25, 0.25)), Curve("above", (0.0, 0.0, 0.25, 0.75))), marks=(),
    )  # fmt: skip
    lines = plotted(plot, encoding)
    grid = [line.ljust(80)[9:] for line in lines[:12]]
    columns = [0, 70 * 10 // 30, 70 * 20 // 30, 70]
    for column, share, below in zip(columns, shares, (0.0, 0.25, 0.25, 0.25), strict=True):
        drawn = "".join(row[column] for row in reversed(grid)).rstrip()
        # A cell is drawn if its middle is reached, so heights are off by half a cell at the most.
        assert abs(len(drawn) - 12 * share) <= 0.5 + 12 * 1 / 70
        assert abs(drawn.count(low) - 12 * below) <= 0.5 + 12 * 1 / 70
        assert set(drawn) <= {low, high}
    assert lines[0].startswith("  100 %")
    assert lines[14].strip() == "x"


def test_marks_stand_where_the_shares_are() -> None:
    shares = (0.0, 0.3, 0.59, 0.6)
    plot = Plot([1, 2, 3, 4], ["1", "2", "3", "4"], "x", areas=(), marks=(Curve("marked", shares),))
    lines = plotted(plot)
    assert lines[0].startswith("   60 %")
    places = sorted(
        (column, 11 - row)
        for row, line in enumerate(lines[:12])
        for column, sign in enumerate(line)
        if sign == "●"
    )
    assert [column for column, _row in places] == [9, 9 + 23, 9 + 46, 9 + 70]
    assert [row for _column, row in places] == [0, 6, 11, 11]


def test_points_too_close_are_not_to_scale_and_say_so() -> None:
    area = (Curve("area", (0.5, 0.5, 0.5)),)
    far = plotted(Plot([0, 100, 1000], ["0", "100", "1000"], "x", areas=area, marks=()))
    near = plotted(Plot([0, 1, 1000], ["0", "1", "1000"], "x", areas=area, marks=()))
    back = plotted(Plot([9, 3, 1], ["9", "3", "1"], "x", areas=area, marks=()))
    assert [line[9:].index("┴", 1) for line in (far[12], near[12], back[12])] == [7, 35, 35]
    assert "not to scale" not in "\n".join(far)
    assert "x (not to scale)" in near[14]
    assert "x (not to scale)" in back[14]


def test_labels_do_not_run_into_each_other() -> None:
    count = 40
    labels = [f"value-{index}" for index in range(count)]
    plot = Plot(list(range(count)), labels, "x", areas=(Curve("area", (0.5,) * count),), marks=())
    shown = plotted(plot)[13].split()
    assert shown[0] == "value-0"
    assert shown[-1] == "value-39"
    assert set(shown) < set(labels)


if __name__ == "__main__":
    for golden, rendering in renderings().items():
        (FOLDER / golden).write_text(rendering(), encoding="utf-8", newline="\n")
    sys.exit(0)

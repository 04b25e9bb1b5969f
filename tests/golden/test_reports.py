"""Reports as users see them, held against files that a person has looked at.

After a change that is meant: look at what a failing test prints, and write it into the golden by hand or
with ``python -m tests.golden.test_reports``, which a test never does.
"""

from __future__ import annotations

import io
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
from rich.cells import cell_len
from rich.console import Console

from hvshare.report.console import report_console, write_report
from hvshare.report.erosion import print_erosion
from hvshare.report.erosion_machine import erosion_csv, erosion_json, erosion_json_lines
from hvshare.report.factors import print_factors
from hvshare.report.machine import image_json_line, pooled_json_line, sharing_csv, sharing_json
from hvshare.report.strip import strip_cells
from hvshare.report.terminal import print_sharing
from hvshare.units import format_size
from tests.golden.erosion_report import erosion_report, only
from tests.golden.sharing_report import ODD_NAME, sharing_report

FOLDER = Path(__file__).parent
WIDTHS = (80, 100, 160)
NAMES = ["web01.raw", ODD_NAME]
SECTIONS = ("large_pages", "aslr", "prefetch")


def printed(show: Callable[[Console], None], width: int, encoding: str = "utf-8") -> str:
    raw = io.BytesIO()
    with io.TextIOWrapper(raw, encoding=encoding, errors="backslashreplace", newline="\n") as file:
        write_report(report_console(file, width=width), show)
        file.flush()
        return raw.getvalue().decode(encoding)


def terminal(width: int, encoding: str = "utf-8") -> str:
    def show(console: Console) -> None:
        print_sharing(sharing_report(strip_cells(console.width, NAMES)), console)

    return printed(show, width, encoding)


def factors(width: int) -> str:
    pooled = sharing_report(1).pooled
    return printed(partial(print_factors, pooled[4096], pooled[2 << 20]), width)


def erosion(width: int, encoding: str = "utf-8", section: str = "") -> str:
    report = only(section) if section else erosion_report()
    return printed(partial(print_erosion, report), width, encoding)


def renderings() -> dict[str, str]:
    report = sharing_report(40)
    return {
        **{f"sharing-{width}.txt": terminal(width) for width in WIDTHS},
        "sharing-80-ascii.txt": terminal(80, "ascii"),
        "sharing.json": sharing_json(report),
        "sharing.csv": sharing_csv(report),
        "sharing.jsonl": "".join(map(image_json_line, report.images)) + pooled_json_line(report),
        "factors-80.txt": factors(80),
        **{f"erosion-{width}.txt": erosion(width) for width in WIDTHS},
        "erosion-80-ascii.txt": erosion(80, "ascii"),
        **{f"erosion-{name.replace('_', '-')}-80.txt": erosion(80, section=name) for name in SECTIONS},
        "erosion.json": erosion_json(erosion_report()),
        "erosion.jsonl": erosion_json_lines(erosion_report()),
        "erosion.csv": erosion_csv(erosion_report()),
    }


@pytest.fixture(autouse=True)
def no_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("COLUMNS", "LINES", "NO_COLOR", "FORCE_COLOR", "TERM", "JUPYTER_COLUMNS"):
        monkeypatch.delenv(name, raising=False)


@pytest.mark.parametrize("name", renderings())
def test_rendering_is_as_it_was(name: str) -> None:
    with (FOLDER / name).open(encoding="utf-8", newline="") as file:
        assert renderings()[name] == file.read()


@pytest.mark.parametrize("width", WIDTHS)
def test_nothing_is_cut_or_too_wide(width: int) -> None:
    text = terminal(width)
    assert "…" not in text
    assert max(map(cell_len, text.splitlines())) <= width
    report = sharing_report(40)
    figures = [f"{counts.distinct:,}" for counts in report.pooled.values()]
    figures += [format_size(counts.saved_bytes) for counts in report.pooled.values()]
    figures += [format_size(image.counts[4096].saved_bytes) for image in report.images]
    figures += [format_size(image.size_bytes) for image in report.images]
    figures += [f"{each.copies:,}" for each in report.frequent] + [
        f"{each.pages:,}" for each in report.copies
    ]
    assert [figure for figure in figures if f" {figure}" not in f" {text}"] == []
    # Markup, emoji codes and escapes in names are data.
    assert "x[/red]:smile:\\x1b[2J" in text.replace("\n", "")
    assert "\x1b" not in text


@pytest.mark.parametrize("section", ["", *SECTIONS])
@pytest.mark.parametrize("width", WIDTHS)
def test_erosion_is_not_cut_or_too_wide(section: str, width: int) -> None:
    text = erosion(width, section=section)
    assert "…" not in text
    assert max(map(cell_len, text.splitlines())) <= width
    report = only(section) if section else erosion_report()
    figures = [f"{report.aslr.explained_pages:,}"] if report.aslr else []
    if report.large_pages:
        figures += [format_size(report.large_pages.lost_bytes), f"{report.large_pages.distinct_frames:,}"]
    if report.prefetch:
        figures.append(format_size(report.prefetch.upper_bytes))
    assert [figure for figure in figures if figure not in text.replace("\n", " ")] == []
    assert "\x1b" not in text
    if section != "large_pages":  # which names no image
        assert "x[/red]:smile:\\x1b[2J" in text.replace("\n", "")


def test_erosion_in_ascii_is_ascii() -> None:
    assert erosion(80, "ascii").isascii()


def test_narrow_terminals_get_eighty_columns() -> None:
    assert terminal(40) == terminal(80)


def test_ascii_means_ascii() -> None:
    # The name alone is not ASCII, and escaped.
    assert terminal(80, "ascii").isascii()


if __name__ == "__main__":
    for golden, rendering in renderings().items():
        (FOLDER / golden).write_text(rendering, encoding="utf-8", newline="\n")
    sys.exit(0)

"""The prediction of KSM's counters beside what the kernel says, for people and for programs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from rich.text import Text

from hvshare.report.console import add_figure_column, add_name_column, data, data_table, heading
from hvshare.report.ksm import COUNTER_NAMES, counter_fields
from hvshare.report.machine import caveat_fields, json_document
from hvshare.report.terminal import print_caveats
from hvshare.report.text import encodable
from hvshare.sharing.ksm_result import JUDGED, TOLERANCE
from hvshare.units import PAGE_SIZE, format_size

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

    from hvshare.sharing.ksm_result import KsmCheck, KsmRun

KSM_CHECK_SCHEMA: Final = "hvshare.ksm-check/1"


def print_ksm_check(check: KsmCheck, console: Console) -> None:
    """Print what was predicted beside what the kernel says.

    Parameters
    ----------
    check : KsmCheck
        The results.
    console : Console
        Of at least 80 columns.
    """
    console.print(_verdict(check))
    console.print()
    console.print(heading("Mapped, in pages of 4 KB"))
    console.print(_images(check))
    for run in check.runs:
        console.print()
        settings = f"use_zero_pages {int(run.use_zero_pages)}, max_page_sharing {check.max_page_sharing}"
        console.print(heading(f"KSM with {settings}"))
        console.print(_counters(run))
        console.print(Text(_work(run), "dim"))
    print_caveats(check.caveats, console)


def _verdict(check: KsmCheck) -> Text:
    if check.agrees:
        return Text("The kernel agrees with the prediction", "bold").append(
            f": Linux {check.kernel}, {', '.join(JUDGED)} within {TOLERANCE} pages."
        )
    verdict = Text("The kernel DISAGREES with the prediction", "bold red").append(
        f" (Linux {check.kernel}): "
    )
    wrong = [
        f"with use_zero_pages {int(run.use_zero_pages)}, {name} is off by {difference:+,}"
        for run in check.runs
        for name, difference in run.differences.items()
        if abs(difference) > TOLERANCE
    ]
    return verdict.append("; ".join(wrong) + ".")


def _images(check: KsmCheck) -> Table:
    table = data_table()
    add_name_column(table, "Image")
    for title in ("Pages", "Zero", "Absent", "Memory"):
        add_figure_column(table, title)
    for image in check.images:
        table.add_row(
            data(image.name),
            f"{image.pages:,}",
            f"{image.zero_pages:,}",
            f"{image.absent_pages:,}",
            format_size(image.pages * PAGE_SIZE),
        )
    return table


def _counters(run: KsmRun) -> Table:
    table = data_table()
    table.add_column(Text("Counter"), min_width=26)
    for title in ("Predicted", "Actual", "Difference"):
        add_figure_column(table, title)
    predicted, own = run.predicted, run.own
    for name in COUNTER_NAMES:
        _add_counter(table, name, getattr(predicted, name), run.actual.get(name))
    for name, value in (
        ("ksm_merging_pages", predicted.merging_pages),
        ("ksm_zero_pages", predicted.ksm_zero_pages),
        ("ksm_rmap_items", predicted.rmap_items),
    ):
        if name in own:
            _add_counter(table, f"process: {name}", value, own[name])
    return table


def _add_counter(table: Table, name: str, predicted: int, actual: int | None) -> None:
    shown = (
        ("–", "–")
        if actual is None
        else (f"{actual:,}", f"{actual - predicted:+,}" if actual - predicted else "0")
    )
    table.add_row(name, f"{predicted:,}", *shown)


def _work(run: KsmRun) -> str:
    work = f"{run.full_scans:,} full scans"
    if run.pages_scanned is not None:
        work += f", {run.pages_scanned:,} pages looked at"
    if run.ksmd_seconds is not None:
        work += f" in {run.ksmd_seconds:.2f} s of processor time"
    if run.microseconds_of_a_page is not None:
        work += f": {run.microseconds_of_a_page:.1f} µs a page"
    return f"ksmd: {work}."


def ksm_check_json(check: KsmCheck) -> str:
    """Write a check as one JSON object."""
    content = {
        "schema": KSM_CHECK_SCHEMA,
        "kernel": check.kernel,
        "max_page_sharing": check.max_page_sharing,
        "tolerance_pages": TOLERANCE,
        "agrees": check.agrees,
        "images": [
            {
                "name": encodable(image.name),
                "path": encodable(image.path),
                "format": image.format,
                "pages": image.pages,
                "zero_pages": image.zero_pages,
                "absent_pages": image.absent_pages,
            }
            for image in check.images
        ],
        "pages": check.pages,
        "zero_pages": check.zero_pages,
        "runs": [_run(run) for run in check.runs],
        "caveats": caveat_fields(check.caveats),
    }
    return json_document(content)


def _run(run: KsmRun) -> dict[str, object]:
    return {
        "use_zero_pages": run.use_zero_pages,
        "agrees": run.agrees,
        "settled": run.settled,
        "predicted": counter_fields(run.predicted),
        "actual": {name: run.actual.get(name) for name in COUNTER_NAMES},
        "process": dict(run.own),
        "full_scans": run.full_scans,
        "pages_scanned": run.pages_scanned,
        "ksmd_seconds": run.ksmd_seconds,
    }

"""What a file is, for people."""

from __future__ import annotations

from itertools import islice
from typing import TYPE_CHECKING, Final

from rich.segment import Segment
from rich.text import Text

from hvshare.images.runs import RunKind
from hvshare.report.console import add_name_column, data, data_table, heading
from hvshare.report.terminal import print_caveats
from hvshare.units import PAGE_SIZE, format_size

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rich.console import Console, ConsoleOptions, RenderResult
    from rich.table import Table

    from hvshare.caveats import Caveat
    from hvshare.images.inspection import Inspection

SHOWN_RUNS: Final = 20


def print_inspections(
    inspections: Sequence[Inspection], caveats: Sequence[Caveat], console: Console, *, all_runs: bool = False
) -> None:
    """Print what some images are, one below the other.

    Parameters
    ----------
    inspections : sequence of Inspection
        The findings.
    caveats : sequence of Caveat
        Those that concern no single image.
    console : Console
        Of at least 80 columns.
    all_runs : bool
        Show every run, however many there are.
    """
    for number, inspection in enumerate(inspections):
        if number:
            console.print()
        _print_inspection(inspection, console, all_runs=all_runs)
    print_caveats(caveats, console)


def _print_inspection(inspection: Inspection, console: Console, *, all_runs: bool) -> None:
    console.print(data(inspection.name, "bold"))
    console.print(_facts(inspection))
    console.print()
    console.print(heading("Runs"))
    console.print(_RunLines(inspection, None if all_runs else SHOWN_RUNS))
    more = len(inspection.runs) - SHOWN_RUNS
    if more > 0 and not all_runs:
        console.print(Text(f"… and {more:,} more; --runs shows all", "dim"))
    print_caveats(inspection.caveats, console)


def _facts(inspection: Inspection) -> Table:
    table = data_table()
    table.show_header = False
    table.add_column(no_wrap=True)
    add_name_column(table, "")
    runs = inspection.runs
    table.add_row("path", data(inspection.path))
    table.add_row("format", f"{inspection.format}: {inspection.layout}")
    table.add_row("compression", _compression(inspection))
    if inspection.tool is not None:
        table.add_row("written by", data(inspection.tool))
    if inspection.file_bytes is not None:
        table.add_row("file", _size(inspection.file_bytes))
    if inspection.allocated_bytes is not None:
        table.add_row("on disk", _size(inspection.allocated_bytes))
    table.add_row("guest memory", f"{_size(inspection.size_bytes)}, {runs.pages:,} pages")
    for kind, words in (
        (RunKind.PRESENT, "stored"),
        (RunKind.ZERO, "zero, not stored"),
        (RunKind.ABSENT, "absent"),
    ):
        if pages := runs.pages_of(kind):
            table.add_row(words, _size(pages * PAGE_SIZE))
    for each in inspection.left_out:
        place = "" if each.address is None else f" at {each.address:#x}"
        table.add_row("left out", data(f"{format_size(each.size)}{place}: {each.what}"))
    if inspection.vmcoreinfo is not None:
        table.add_row("VMCOREINFO", "yes" if inspection.vmcoreinfo else "no")
    for name, value in inspection.details.items():
        table.add_row(data(name), data(value))
    return table


def _compression(inspection: Inspection) -> str:
    parts = []
    if inspection.page_compression is not None:
        parts.append(f"{inspection.page_compression} by page or block")
    if inspection.compression is not None:
        parts.append(f"{inspection.compression} around it all")
    return ", ".join(parts) or "none"


def _size(size: int) -> str:
    return f"{format_size(size)} ({size:,} bytes)"


class _RunLines:
    """Runs in fixed columns, past the layout of the console: there may be hundreds of thousands."""

    def __init__(self, inspection: Inspection, most: int | None) -> None:
        self._inspection = inspection
        self._most = most

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """Give the lines, headed by what their columns are."""
        end = f"{self._inspection.runs.end_gfn * PAGE_SIZE:#x}"
        columns = f"{{:>{max(13, len(end))}}}  {{:>{max(13, len(end))}}}  {{:>15}}  {{:>11}}  {{}}\n"
        head = columns.format("First address", "Last address", "Pages", "Size", "Kind")
        yield Segment(head, console.get_style("dim"))
        for run in islice(self._inspection.runs, self._most):
            first, last = run.first_gfn * PAGE_SIZE, run.end_gfn * PAGE_SIZE - 1
            size = format_size(run.pages * PAGE_SIZE)
            yield Segment(columns.format(f"{first:#x}", f"{last:#x}", f"{run.pages:,}", size, run.kind.name))

"""What takes sharing away, for people."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from rich.text import Text

from hvshare.report.aslr import aslr_summary, print_aslr
from hvshare.report.console import add_figure_column, add_name_column, data, data_table, heading
from hvshare.report.large_pages import large_pages_summary, large_pages_target, print_large_pages
from hvshare.report.prefetch import prefetch_summary, print_prefetch
from hvshare.report.terminal import print_caveats, verdict
from hvshare.report.waterfall import waterfall_legend, waterfall_table
from hvshare.units import LARGE_FRAME_SIZE, PAGE_SIZE, format_share, format_size

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

    from hvshare.erosion.report import ErosionReport

_FREED_ONCE: Final = (
    "A frame is freed once: beside ASLR, the bound of prefetching is cut to what ASLR leaves."
)


def print_erosion(report: ErosionReport, console: Console) -> None:
    """Print a report: all sections in short with the waterfall, or the one that was asked for in full.

    Parameters
    ----------
    report : ErosionReport
        What was measured.
    console : Console
        Of at least 80 columns.
    """
    if report.waterfall:
        _print_whole(report, console)
    else:
        if report.large_pages is not None:
            print_large_pages(report.large_pages, console)
        if report.aslr is not None:
            print_aslr(report.aslr, console)
        if report.prefetch is not None:
            print_prefetch(report.prefetch, console)
    print_caveats(report.caveats, console)


def _print_whole(report: ErosionReport, console: Console) -> None:
    console.print(verdict(report.pooled))
    _head(console, "Images")
    console.print(_images(report))
    _head(console, "What takes sharing away: from what would be possible to what is left")
    pages = report.pooled[PAGE_SIZE]
    console.print(
        waterfall_table(
            report.waterfall, saved_now=pages.saved_bytes, memory=pages.frame_bytes, console=console
        )
    )
    console.print(waterfall_legend(ascii_only=console.options.ascii_only))
    alone = report.prefetch.upper_bytes if report.prefetch else 0
    if any(step.factor == "prefetch" and step.upper_bytes < alone for step in report.waterfall):
        console.print(Text(_FREED_ONCE, "dim"))
    if report.large_pages is not None:
        _head(console, "Large pages (measured)")
        console.print(large_pages_summary(report.large_pages))
        if report.large_pages.target is not None:
            console.print(large_pages_target(report.large_pages.target, report.large_pages))
    if report.aslr is not None:
        _head(console, "ASLR (bounded)")
        console.print(aslr_summary(report.aslr))
    if report.prefetch is not None:
        _head(console, f"Prefetching ({report.prefetch.kind})")
        console.print(prefetch_summary(report.prefetch))
    console.print()
    console.print(Text("In full: hvshare erosion large-pages, aslr or prefetch, and the same images.", "dim"))


def _head(console: Console, title: str) -> None:
    console.print()
    console.print(heading(title))


def _images(report: ErosionReport) -> Table:
    table = data_table()
    add_name_column(table, "\nImage")
    for title in ("\nMemory", "\nZero", "Saved alone\nat 4 KB", "\nat 2 MB", "\nLeft of it"):
        add_figure_column(table, title)
    for image in report.images:
        small, large = image.counts[PAGE_SIZE], image.counts[LARGE_FRAME_SIZE]
        table.add_row(
            data(image.name),
            format_size(image.size_bytes),
            format_share(image.zero_bytes, image.present_bytes),
            format_size(small.saved_bytes),
            format_size(large.saved_bytes),
            format_share(large.saved_bytes, small.saved_bytes),
        )
    return table

"""What takes sharing away, as far as counts alone tell, and the commands that tell the rest."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.text import Text

from hvshare.erosion.report import Kind
from hvshare.report.console import add_figure_column, data_table, heading
from hvshare.units import format_size

if TYPE_CHECKING:
    from rich.console import Console

    from hvshare.sharing.counts import Counts


def print_factors(pages: Counts, large: Counts, console: Console) -> None:
    """Print a line for each factor.

    Parameters
    ----------
    pages, large : Counts
        Of all images, at 4 KB and at 2 MB.
    console : Console
        Of at least 80 columns.
    """
    table = data_table()
    table.add_column(Text("Factor"), no_wrap=True)
    add_figure_column(table, "Takes away")
    table.add_column(Text("Kind"), no_wrap=True)
    table.add_column(Text("The rest is told by"), no_wrap=True)
    lost = format_size(pages.saved_bytes - large.saved_bytes)
    table.add_row("large pages", lost, str(Kind.MEASURED), "hvshare erosion large-pages ...")
    table.add_row("ASLR", "unknown", "", "hvshare erosion aslr ...")
    table.add_row("prefetching", "unknown", "", "hvshare erosion prefetch --disk DISK ...")
    console.print()
    console.print(heading("What takes sharing away"))
    console.print(table)

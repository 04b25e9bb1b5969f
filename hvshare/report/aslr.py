"""What ASLR takes away, for people and for programs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from rich.text import Text

from hvshare.report.console import add_figure_column, add_name_column, data, data_table, heading
from hvshare.report.intervals import format_interval
from hvshare.report.text import encodable
from hvshare.units import PAGE_SIZE, format_share, format_size

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

    from hvshare.erosion.aslr_result import Aslr, AslrConstant

SHOWN_CONSTANTS: Final = 12
_SERIES: Final = (
    "The series that asked for this figure puts the impact of ASLR at about 10 % (J. Woolsey, Dynamic Memory "
    "Coming to Hyper-V, part 4, 2010), which is quoted here, not measured."
)


def print_aslr(aslr: Aslr, console: Console) -> None:
    """Print all that is known of what ASLR takes away.

    Parameters
    ----------
    aslr : Aslr
        What was found.
    console : Console
        Of at least 80 columns.
    """
    console.print(aslr_summary(aslr))
    console.print(_interval(aslr))
    console.print(Text(_SERIES, "dim"))
    console.print()
    console.print(heading("Pages other than zero, by what is known of them"))
    console.print(_pages(aslr))
    if aslr.layers:
        console.print()
        console.print(heading("Explained by addresses that moved, by layer (bounded from below)"))
        console.print(_layers(aslr))
    if aslr.constants:
        shown = aslr.constants[:SHOWN_CONSTANTS]
        title = "Distances by which addresses moved (measured)"
        if len(shown) < len(aslr.constants):
            title += f": the {len(shown)} that most pages bear out, of {len(aslr.constants):,}"
        console.print()
        console.print(heading(title))
        console.print(_constants(shown))


def aslr_summary(aslr: Aslr) -> Text:
    """Say in two sentences what ASLR takes away."""
    summary = Text()
    if not aslr.upper_saved_frames:
        summary.append("No page without a copy has a twin that addresses tell apart", "bold")
        return summary.append(": ASLR takes nothing away that content shows.")
    low, high = aslr.explained_saved_frames * PAGE_SIZE, aslr.upper_saved_frames * PAGE_SIZE
    summary.append(f"Without ASLR, sharing at 4 KB would save {format_interval(low, high)} further", "bold")
    return summary.append(
        f" (bounded): {aslr.explained_pages:,} of {aslr.unmatched_pages:,} pages without a copy differ "
        f"from a twin only by addresses that moved, {aslr.near_pages:,} more by little else."
    )


def _interval(aslr: Aslr) -> Table:
    table = data_table()
    table.add_column(Text("Sharing would save further"), min_width=26)
    for title in ("Frames", "Memory"):
        add_figure_column(table, title)
    rows = (
        ("lower bound: explained", aslr.explained_saved_frames),
        ("  self", aslr.explained_saved_self),
        ("  inter-VM", aslr.explained_saved_inter),
        ("near, on top of it", aslr.near_saved_frames),
        ("upper bound", aslr.upper_saved_frames),
    )
    for name, frames in rows:
        style = "bold" if "bound" in name else ""
        table.add_row(name, f"{frames:,}", format_size(frames * PAGE_SIZE), style=style)
    return table


def _pages(aslr: Aslr) -> Table:
    table = data_table()
    table.add_column(Text(""), min_width=26)
    for title in ("Pages", "of all"):
        add_figure_column(table, title)
    rows = [
        ("not zero", aslr.nonzero_pages),
        ("with a copy", aslr.nonzero_pages - aslr.unmatched_pages),
        ("without a copy", aslr.unmatched_pages),
        ("  explained", aslr.explained_pages),
        *((f"  {each.name}", each.pages) for each in aslr.remainder),
    ]
    for name, pages in rows:
        table.add_row(name, f"{pages:,}", format_share(pages, aslr.nonzero_pages))
    return table


def _layers(aslr: Aslr) -> Table:
    table = data_table()
    table.add_column(Text("Layer"), min_width=26)
    for title in ("Pages", "Frames saved", "Memory", "of explained"):
        add_figure_column(table, title)
    for each in aslr.layers:
        table.add_row(
            each.name,
            f"{each.pages:,}",
            f"{each.saved_frames:,}",
            format_size(each.saved_frames * PAGE_SIZE),
            format_share(each.saved_frames, aslr.explained_saved_frames),
        )
    return table


def _constants(constants: tuple[AslrConstant, ...]) -> Table:
    table = data_table()
    add_name_column(table, "Between", 14)
    for title in ("Bits", "Distance"):
        add_figure_column(table, title)
    add_figure_column(table, "Addresses that moved", "left")
    add_figure_column(table, "Pages")
    for each in constants:
        table.add_row(
            _between(each),
            str(each.field_bits),
            _hex(each.distance),
            ""
            if each.lowest_address is None or each.highest_address is None
            else f"{_hex(each.lowest_address)}\n{_hex(each.highest_address)}",
            f"{each.pages:,}",
        )
    return table


def _between(constant: AslrConstant) -> Text:
    if constant.first_image == constant.second_image:
        return Text("within ", overflow="fold").append_text(data(constant.first_image))
    return (
        Text(overflow="fold")
        .append_text(data(constant.first_image))
        .append(" – ")
        .append_text(data(constant.second_image))
    )


def _hex(number: int) -> str:
    return f"{number:#x}"


def aslr_fields(aslr: Aslr) -> dict[str, object]:
    """Give what ASLR takes away, as JSON has it.

    Returns
    -------
    dict
        Virtual addresses are text, since they are beyond what a number in JavaScript or jq holds exactly.
    """
    return {
        "kind": "bounded",
        "nonzero_pages": aslr.nonzero_pages,
        "unmatched_pages": aslr.unmatched_pages,
        "explained_pages": aslr.explained_pages,
        "explained_saved_frames": aslr.explained_saved_frames,
        "explained_saved_self": aslr.explained_saved_self,
        "explained_saved_inter": aslr.explained_saved_inter,
        "near_pages": aslr.near_pages,
        "near_saved_frames": aslr.near_saved_frames,
        "upper_saved_frames": aslr.upper_saved_frames,
        "layers": [
            {"name": each.name, "pages": each.pages, "saved_frames": each.saved_frames}
            for each in aslr.layers
        ],
        "constants": [
            {
                "first_image": encodable(each.first_image),
                "second_image": encodable(each.second_image),
                "field_bits": each.field_bits,
                "distance": each.distance,
                "lowest_address": None if each.lowest_address is None else _hex(each.lowest_address),
                "highest_address": None if each.highest_address is None else _hex(each.highest_address),
                "pages": each.pages,
            }
            for each in aslr.constants
        ],
        "remainder": [{"name": each.name, "pages": each.pages} for each in aslr.remainder],
    }

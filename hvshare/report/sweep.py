"""What is saved as one parameter varies, for people."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.text import Text

from hvshare.report.console import add_figure_column, data, data_table, heading
from hvshare.report.made import MODELLED, made_guests
from hvshare.report.plot import Curve, Plot
from hvshare.report.spreads import format_fraction, format_share_spread
from hvshare.report.terminal import print_caveats

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

    from hvshare.simulation.results import Sweep


def print_sweep(result: Sweep, console: Console) -> None:
    """Print what is saved at each value of a parameter, as a plot and as figures.

    Parameters
    ----------
    result : Sweep
        What was found.
    console : Console
        Of at least 80 columns.
    """
    ascii_only = console.options.ascii_only
    console.print(sweep_verdict(result))
    console.print(made_guests(result))
    console.print()
    console.print(heading(f"Saved, in % of memory, by {result.parameter} {MODELLED}"))
    if len(result.points) > 1:
        console.print(sweep_plot(result))
        console.print()
    console.print(_points(result, ascii_only=ascii_only))
    print_caveats(result.caveats, console)


def sweep_verdict(result: Sweep) -> Text:
    """Say in a sentence where savings go from the first point to the last."""
    first, last = result.points[0], result.points[-1]
    sentence = Text(overflow="fold")
    if first is last:
        sentence.append(f"With {result.parameter} ", "bold").append_text(data(first.label, "bold"))
        sentence.append(f", sharing at 4 KB saves {format_fraction(first.small.mean)} of memory", "bold")
        return sentence.append(f", at 2 MB {format_fraction(first.large.mean)} {MODELLED}.")
    sentence.append(f"From {result.parameter} ", "bold").append_text(data(first.label, "bold"))
    sentence.append(" to ", "bold").append_text(data(last.label, "bold"))
    sentence.append(
        f", what sharing at 4 KB saves goes from {format_fraction(first.small.mean)} to "
        f"{format_fraction(last.small.mean)} of memory",
        "bold",
    )
    return sentence.append(
        f", at 2 MB from {format_fraction(first.large.mean)} to "
        f"{format_fraction(last.large.mean)} {MODELLED}."
    )


def sweep_plot(result: Sweep) -> Plot:
    """Draw what is saved at 4 KB, zero apart, with what is saved at 2 MB marked in it."""
    points = result.points
    return Plot(
        [point.value for point in points],
        [point.label for point in points],
        result.parameter,
        areas=(
            Curve("zero at 4 KB", tuple(point.zero.mean for point in points)),
            Curve(
                "self and inter-VM at 4 KB",
                tuple(point.self_sharing.mean + point.inter_vm.mean for point in points),
            ),
        ),
        marks=(Curve("saved at 2 MB", tuple(point.large.mean for point in points)),),
    )


def _points(result: Sweep, *, ascii_only: bool) -> Table:
    table = data_table()
    add_figure_column(table, f"\n{result.parameter}")
    for title in ("Saved\nat 4 KB", "\nZero", "\nSelf", "\nInter-VM", "Saved\nat 2 MB"):
        add_figure_column(table, title)
    for point in result.points:
        spreads = (point.small, point.zero, point.self_sharing, point.inter_vm, point.large)
        table.add_row(
            data(point.label), *(format_share_spread(spread, ascii_only=ascii_only) for spread in spreads)
        )
    return table

"""How fast clones of one snapshot diverge, for people."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.text import Text

from hvshare.report.console import add_figure_column, data_table, heading
from hvshare.report.made import MODELLED, made_guests
from hvshare.report.plot import Curve, Plot
from hvshare.report.spreads import format_fraction, format_share_spread, signs
from hvshare.report.terminal import print_caveats
from hvshare.units import PAGE_SIZE, format_size

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

    from hvshare.simulation.results import Clones


def print_clones(result: Clones, console: Console) -> None:
    """Print what clones still share after so many pages written, as a plot and as figures.

    Parameters
    ----------
    result : Clones
        What was found.
    console : Console
        Of at least 80 columns.
    """
    ascii_only = console.options.ascii_only
    console.print(clones_verdict(result))
    console.print(made_guests(result, {"writes": result.pattern}))
    console.print()
    console.print(heading(f"Frames of 2 MB that still have a copy, in % of all, by pages written {MODELLED}"))
    if len(result.points) > 1:
        console.print(clones_plot(result))
        console.print()
    console.print(_points(result, ascii_only=ascii_only))
    print_caveats(result.caveats, console)


def clones_verdict(result: Clones) -> Text:
    """Say in a sentence how many pages it takes to drive half of the frames apart."""
    sentence = Text()
    first, last = result.points[0], result.points[-1]
    if result.half_life_pages is not None:
        written = result.half_life_pages
        share = format_fraction(written * PAGE_SIZE / result.memory_bytes)
        sentence.append(
            f"Half of the 2 MB frames that clones share are lost once each has written {written:,} pages",
            "bold",
        )
        sentence.append(f" ({format_size(written * PAGE_SIZE)}, {share} of its memory; modelled)")
    else:
        sentence.append(
            f"More than half of the 2 MB frames that clones share are left when each has written "
            f"{last.pages_written:,} pages",
            "bold",
        )
        sentence.append(f" ({format_size(last.pages_written * PAGE_SIZE)}; modelled)")
    large, small = (
        f"from {format_fraction(start.mean)} to {format_fraction(end.mean)}"
        for start, end in ((first.saved_large, last.saved_large), (first.saved_small, last.saved_small))
    )
    return sentence.append(
        f": from {first.pages_written:,} to {last.pages_written:,} pages written, what sharing saves goes "
        f"{large} of memory at 2 MB, and {small} at 4 KB."
    )


def clones_plot(result: Clones) -> Plot:
    """Draw the share of frames that still have a copy, and mark the closed form where there is one."""
    points = result.points
    expected = [point.expected_frames for point in points if point.expected_frames is not None]
    return Plot(
        [point.pages_written for point in points],
        [f"{point.pages_written:,}" for point in points],
        "pages written by each clone",
        areas=(Curve("still have a copy", tuple(point.shared_frames.mean for point in points)),),
        marks=(Curve("expected by the closed form", tuple(expected)),)
        if len(expected) == len(points)
        else (),
    )


def _points(result: Clones, *, ascii_only: bool) -> Table:
    table = data_table()
    titles = (
        "\nPages\nwritten", "\n\nMemory", "2 MB frames\nwith a copy,\n% of all", "\nclosed\nform",
        "Saved at\n2 MB, %\nof memory", "\n\nat 4 KB",
    )  # fmt: skip
    for title in titles:
        add_figure_column(table, title)
    none = signs(ascii_only=ascii_only).dash
    for point in result.points:
        expected = point.expected_frames
        spreads = [
            format_share_spread(spread, ascii_only=ascii_only)
            for spread in (point.shared_frames, point.saved_large, point.saved_small)
        ]
        table.add_row(
            f"{point.pages_written:,}",
            format_size(point.pages_written * PAGE_SIZE),
            spreads[0],
            none if expected is None else format_fraction(expected).removesuffix(" %"),
            *spreads[1:],
        )
    return table

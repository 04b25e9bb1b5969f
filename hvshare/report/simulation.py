"""The full factorial of what takes sharing away, for people."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from rich.text import Text

from hvshare.report.console import add_figure_column, data_table, heading
from hvshare.report.effects import effects_note, effects_table, main_effects
from hvshare.report.made import MODELLED, factor_name, made_guests
from hvshare.report.spreads import format_fraction, format_points, format_share_spread
from hvshare.report.terminal import print_caveats
from hvshare.report.waterfall import waterfall_legend, waterfall_table
from hvshare.units import format_frame_size

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

    from hvshare.simulation.results import Simulation


_TITLES: Final = {"aslr": "\nASLR", "prefetch": "Pre-\nfetch", "guest-large-pages": "Guest\nlarge"}


def print_simulation(result: Simulation, console: Console) -> None:
    """Print what a factorial found: each cell, each effect, and a waterfall where one was made.

    Parameters
    ----------
    result : Simulation
        What was found.
    console : Console
        Of at least 80 columns.
    """
    ascii_only = console.options.ascii_only
    console.print(simulation_verdict(result))
    console.print(made_guests(result))
    _head(console, "Saved, in % of memory, by what is on (modelled)")
    console.print(_cells(result, ascii_only=ascii_only))
    spread = "" if len(result.seeds) == 1 else ", with deviation, lowest and highest over seeds"
    _head(console, f"Effects in percentage points of memory{spread} (modelled)")
    table = effects_table(result.effects, ascii_only=ascii_only)
    if table.row_count:
        console.print(table)
    note = effects_note(result.effects)
    if note is not None:
        console.print(note)
    if result.waterfall:
        _print_waterfall(result, console)
    print_caveats(result.caveats, console)


def simulation_verdict(result: Simulation) -> Text:
    """Say in a sentence which factors change most of what is saved."""
    effects = main_effects(result.effects, "saved")
    sentence = Text()
    if not effects:
        return sentence.append(f"No factor was varied {MODELLED}.", "bold")
    first = effects[0]
    if not first.spread.mean:
        return sentence.append(f"No factor changes what sharing saves on average {MODELLED}.", "bold")
    name = factor_name(first.factors[0])
    sentence.append(
        f"{name[0].upper()}{name[1:]} change{'' if name.endswith('s') else 's'} most of what sharing saves",
        "bold",
    )
    sentence.append(f" {MODELLED}: {format_points(first.spread.mean)} percentage points of memory on average")
    rest = [f"{factor_name(each.factors[0])} {format_points(each.spread.mean)}" for each in effects[1:]]
    if rest:
        sentence.append(", ").append(", ".join(rest))
    for on in (False, True):
        cells = [cell for cell in result.cells if set(cell.levels.values()) == {on}]
        for cell in cells:
            opening = f"; with all of them {'on' if on else 'off'}, "
            sentence.append(f"{opening}{format_fraction(cell.saved.mean)} is saved")
    return sentence.append(".")


def _print_waterfall(result: Simulation, console: Console) -> None:
    levels = ", ".join(
        f"{factor_name(factor)} {_switch(on=on)}" for factor, on in result.waterfall_levels.items()
    )
    seed = "" if result.waterfall_seed is None else f", seed {result.waterfall_seed}"
    # Its kinds say how hvshare erosion found each step: the guests are modelled, and counted as any others.
    _head(console, "What takes sharing away in one cell, as hvshare erosion finds it in made guests")
    if levels or seed:
        console.print(Text(f"{levels}{seed}".removeprefix(", "), "dim"))
    # What is saved at 4 KB is what is left at 2 MB and what large pages take: both are known exactly.
    saved_now = sum(step.upper_bytes for step in result.waterfall if step.factor in ("left", "large-pages"))
    console.print(
        waterfall_table(
            result.waterfall,
            saved_now=saved_now,
            memory=result.vms * result.memory_bytes,
            console=console,
        )
    )
    console.print(waterfall_legend(ascii_only=console.options.ascii_only))


def _cells(result: Simulation, *, ascii_only: bool) -> Table:
    # The size of the host's frames says as much as the factor of that name.
    factors = [factor for factor in result.factors if factor != "host-large-pages"]
    table = data_table()
    for factor in factors:
        table.add_column(Text(_TITLES.get(factor, f"\n{factor}")), no_wrap=True)
    add_figure_column(table, "Host\nframes")
    for title in ("\nSaved", "\nZero", "\nSelf", "\nInter-VM"):
        add_figure_column(table, title)
    for cell in result.cells:
        spreads = (cell.saved, cell.zero, cell.self_sharing, cell.inter_vm)
        table.add_row(
            *(_switch(on=cell.levels[factor]) for factor in factors),
            format_frame_size(cell.host_page_bytes),
            *(format_share_spread(spread, ascii_only=ascii_only) for spread in spreads),
        )
    return table


def _switch(*, on: bool) -> str:
    return "on" if on else "off"


def _head(console: Console, title: str) -> None:
    console.print()
    console.print(heading(title))

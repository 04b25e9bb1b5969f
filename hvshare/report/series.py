"""The claims of the Hyper-V series, each with what was found and a verdict, for people."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from rich.padding import Padding
from rich.text import Text

from hvshare.report.console import add_figure_column, add_name_column, data, data_table, heading
from hvshare.report.made import MODELLED, made_guests
from hvshare.report.spreads import format_fraction, format_points, signs
from hvshare.report.terminal import print_caveats
from hvshare.simulation.series_results import Verdict
from hvshare.units import format_size

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

    from hvshare.simulation.series_results import Claim, Finding, Series

_STYLES: Final = {Verdict.HOLDS: "bold green", Verdict.CONDITIONS: "bold yellow", Verdict.FAILS: "bold red"}
_SOURCE: Final = "J. Woolsey, Dynamic Memory Coming to Hyper-V, 2010"


def print_series(result: Series, console: Console) -> None:
    """Print each claim with its criterion, the figures found, and the verdict.

    Parameters
    ----------
    result : Series
        What was found.
    console : Console
        Of at least 80 columns.
    """
    console.print(series_verdict(result))
    console.print(Text(f"The claims are those of {_SOURCE}, in other words.", "dim"))
    console.print(made_guests(result))
    for claim in result.claims:
        _print_claim(claim, console, several=len(result.seeds) > 1)
    print_caveats(result.caveats, console)


def series_verdict(result: Series) -> Text:
    """Say in a sentence how many claims hold."""
    counts = [sum(claim.verdict is verdict for claim in result.claims) for verdict in Verdict]
    holds, conditions, fails = counts
    sentence = Text()
    sentence.append(f"Of {len(result.claims):,} claims of the series, {holds:,} hold{_s(holds)}", "bold")
    return sentence.append(
        f", {conditions:,} hold{_s(conditions)} under conditions, {fails:,} "
        f"do{'es' if fails == 1 else ''} not hold {MODELLED}."
    )


def _s(count: int) -> str:
    return "s" if count == 1 else ""


def _print_claim(claim: Claim, console: Console, *, several: bool) -> None:
    console.print()
    console.print(
        heading(f"{claim.number}. {claim.text[:1].upper()}{claim.text[1:]}").append(
            f" ({claim.source})", "not bold"
        )
    )
    console.print(Padding(Text("criterion: ", "dim").append(claim.criterion, "not dim"), (0, 0, 0, 2)))
    console.print(_findings(claim.findings, several=several, ascii_only=console.options.ascii_only))
    verdict = Text("Verdict: ", "bold").append(f"{claim.verdict} {MODELLED}", _STYLES[claim.verdict])
    if claim.conditions:
        verdict.append(": ", "not bold").append_text(data(claim.conditions, "not bold"))
    console.print(verdict)


def _findings(findings: tuple[Finding, ...], *, several: bool, ascii_only: bool) -> Table:
    table = data_table()
    add_name_column(table, "\nGuests", 18)
    add_name_column(table, "\nFigure", 14)
    add_figure_column(table, "\nFound")
    if several:
        add_figure_column(table, "\nLowest")
        add_figure_column(table, "\nHighest")
    add_figure_column(table, "Bears\nout", "left")
    dash = signs(ascii_only=ascii_only).dash
    label = None
    for each in findings:
        spread = [_figure(value, each.unit) for value in (each.lowest, each.highest)] if several else []
        table.add_row(
            data(each.label if each.label != label else ""),
            _quantity(each),
            _figure(each.value, each.unit),
            *spread,
            _answer(each, dash),
        )
        label = each.label
    return table


def _quantity(found: Finding) -> str:
    """Say what a figure is; that it is in points, which a sign at the figure would not tell from a share."""
    if found.unit == "share_difference":
        return f"{found.quantity}, in points of {found.of}"
    return found.quantity


def _answer(found: Finding, dash: str) -> str:
    if found.bears_out is None:
        return dash
    answer = "yes" if found.bears_out else "no"
    return f"{answer},\nclose to\nthe limit" if found.close_to_limit else answer


def _figure(value: float, unit: str) -> str:
    match unit:
        case "share":
            return format_fraction(value)
        case "share_difference":
            return format_points(value)
        case "bytes":
            return format_size(round(value)) if value >= 0 else f"-{format_size(round(-value))}"
        case "count":
            return f"{value:,.0f}" if value == int(value) else f"{value:,.1f}"
        case _:
            return f"{value:,.2f}"

"""The console that reports are laid out for, and tables in which no figure is cut."""

from __future__ import annotations

import re
from typing import IO, TYPE_CHECKING, Final

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from hvshare.report.text import printable

if TYPE_CHECKING:
    from collections.abc import Callable

    from rich.console import JustifyMethod

_LAST_BLANKS: Final = re.compile(r" +$", re.MULTILINE)

LEAST_WIDTH: Final = 80
"""Columns that tables are right at; a narrower terminal wraps them."""


def report_console(file: IO[str], *, width: int | None = None) -> Console:
    """Make a console that prints data as it is: no markup, no emoji, no highlighting.

    Parameters
    ----------
    file : file object
        Where to print.
    width : int, optional
        Columns; those of the terminal, or 80 where there is none, by default.
    """
    console = Console(file=file, markup=False, emoji=False, highlight=False, width=width)
    if console.width < LEAST_WIDTH:
        console = Console(file=file, markup=False, emoji=False, highlight=False, width=LEAST_WIDTH)
    return console


def write_report(console: Console, show: Callable[[Console], None]) -> None:
    """Print a whole report, without the blanks that fill its lines up to the width.

    Parameters
    ----------
    console : Console
        Where to print.
    show : callable
        Prints the report on the console that it is given.
    """
    with console.capture() as capture:
        show(console)
    console.file.write(_LAST_BLANKS.sub("", capture.get()))


def data(text: str, style: str = "") -> Text:
    """Take text from outside as data."""
    return Text(printable(text), style=style, overflow="fold")


def heading(text: str) -> Text:
    """Make the heading of a section."""
    return Text(text, style="bold")


def data_table() -> Table:
    """Make an empty table."""
    # Two columns between figures: with three, the widest table would not fit in 80.
    return Table(
        box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False, show_edge=False, header_style="dim"
    )


def add_name_column(table: Table, title: str, least: int = 10) -> None:
    """Add a column of names, which gives way to figures and folds."""
    table.add_column(Text(title), overflow="fold", min_width=least)


def add_figure_column(table: Table, title: str, justify: JustifyMethod = "right") -> None:
    """Add a column of figures, which keeps its width whatever happens."""
    table.add_column(Text(title), justify=justify, no_wrap=True)

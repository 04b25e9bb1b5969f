"""What KSM would count, for people and for programs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from rich.text import Text

from hvshare.report.console import add_figure_column, data, data_table, heading
from hvshare.report.text import encodable
from hvshare.units import PAGE_SIZE, format_size

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rich.console import Console
    from rich.table import Table

    from hvshare.sharing.ksm import KsmCounters, KsmWords
    from hvshare.sharing.ksm_scan import KsmScan

COUNTER_NAMES: Final = (
    "pages_shared",
    "pages_sharing",
    "pages_unshared",
    "pages_volatile",
    "ksm_zero_pages",
    "stable_node_chains",
    "stable_node_dups",
    "general_profit",
)
"""Names of the counters in ``/sys/kernel/mm/ksm``, in the order in which they are shown."""

_LABEL_COLUMNS: Final = 26


def print_ksm(words: Sequence[KsmWords], console: Console, *, scan: KsmScan | None = None) -> None:
    """Print what KSM would count, a table a sharing domain, and how long its scans take.

    Parameters
    ----------
    words : sequence of KsmWords
        One a sharing domain, or one for all VMs.
    console : Console
        Of at least 80 columns.
    scan : KsmScan, optional
        How long ksmd takes for all of them.
    """
    for number, each in enumerate(words):
        if number:
            console.print()
        title = Text("KSM, by its own counters", "bold")
        if each.domain:
            title.append(": ").append_text(data(each.domain))
        console.print(title)
        console.print(_counters(each))
    if scan is not None:
        console.print()
        console.print(heading("Scans of ksmd: time asleep, the least that it can take"))
        print_scan(scan, console)


def _counters(words: KsmWords) -> Table:
    table = data_table()
    table.add_column(
        Text(f"max_page_sharing {words.max_page_sharing}\nuse_zero_pages"), min_width=_LABEL_COLUMNS
    )
    columns = (words.without_zero_pages, words.with_zero_pages)
    for title in ("0", "1"):
        add_figure_column(table, f"\n{title}")
    for name in COUNTER_NAMES:
        if name != "pages_volatile":
            table.add_row(name, *(f"{getattr(each, name):,}" for each in columns))
    table.add_row("freed", *(format_size(each.saved_pages * PAGE_SIZE) for each in columns), style="bold")
    table.add_row("freed, less KSM's account", *(format_signed_size(each.general_profit) for each in columns))
    return table


def print_scan(scan: KsmScan, console: Console) -> None:
    """Print how long ksmd takes, and the setting that would take no longer than wanted."""
    table = data_table()
    table.add_column(Text(f"{scan.pages:,} pages"), min_width=_LABEL_COLUMNS)
    for title in ("pages_to_scan", "sleep_millisecs", "One scan", "Two scans"):
        add_figure_column(table, title)
    table.add_row(
        "at these settings",
        f"{scan.pages_to_scan:,}",
        f"{scan.sleep_millisecs:,}",
        format_duration(scan.one_scan_seconds),
        format_duration(scan.two_scans_seconds),
    )
    if scan.within_seconds is not None and scan.wanted_pages_to_scan is not None:
        table.add_row(
            "to settle in that time",
            f"{scan.wanted_pages_to_scan:,}",
            f"{scan.sleep_millisecs:,}",
            "",
            f"{format_duration(scan.within_seconds)}",
        )
    console.print(table)
    note = (
        "Nothing is merged before the second scan: a page must keep its checksum from one scan to the next. "
        "The work of ksmd comes on top; hvshare ksm-check measures it."
    )
    console.print(Text(note, "dim"))
    if scan.within_seconds is not None and scan.wanted_pages_to_scan is None:
        console.print(
            Text(
                f"No pages_to_scan makes two scans in {format_duration(scan.within_seconds)} while ksmd "
                f"sleeps {scan.sleep_millisecs:,} ms after each batch: choose a shorter sleep_millisecs."
            )
        )


def ksm_fields(words: Sequence[KsmWords], scan: KsmScan | None = None) -> dict[str, object]:
    """Give what KSM would count, as JSON has it.

    Returns
    -------
    dict
        ``domains``, one a sharing domain; ``scan``, or None.
    """
    return {
        "domains": [
            {
                "name": encodable(each.domain),
                "pages": each.pages,
                "zero_pages": each.zero_pages,
                "max_page_sharing": each.max_page_sharing,
                "use_zero_pages_0": counter_fields(each.without_zero_pages),
                "use_zero_pages_1": counter_fields(each.with_zero_pages),
            }
            for each in words
        ],
        "scan": None if scan is None else scan_fields(scan),
    }


def counter_fields(counters: KsmCounters) -> dict[str, int]:
    """Give the counters, as JSON has them."""
    return {name: getattr(counters, name) for name in COUNTER_NAMES}


def scan_fields(scan: KsmScan) -> dict[str, object]:
    """Give what scans take, as JSON has it: the least time, which is that asleep."""
    return {
        "pages": scan.pages,
        "pages_to_scan": scan.pages_to_scan,
        "sleep_millisecs": scan.sleep_millisecs,
        "one_scan_least_seconds": scan.one_scan_seconds,
        "two_scans_least_seconds": scan.two_scans_seconds,
        "within_seconds": scan.within_seconds,
        "wanted_pages_to_scan": scan.wanted_pages_to_scan,
    }


def format_signed_size(size: int) -> str:
    """Show bytes that may be less than none.

    Examples
    --------
    >>> format_signed_size(-4096), format_signed_size(4096)
    ('-4.0 KiB', '4.0 KiB')
    """
    return f"-{format_size(-size)}" if size < 0 else format_size(size)


def format_duration(seconds: float) -> str:
    """Show a time in at most two units.

    Examples
    --------
    >>> [format_duration(each) for each in (0, 0.04, 52.4, 209.7, 7300, 200_000)]
    ['0.00 s', '0.04 s', '52.4 s', '3 min 30 s', '2 h 2 min', '2 d 8 h']
    """
    if seconds < 59.95:
        return f"{seconds:.2f} s" if seconds < 9.95 else f"{seconds:.1f} s"
    rounded = round(seconds)
    for unit, size, lesser, of_lesser in (("d", 86400, "h", 3600), ("h", 3600, "min", 60)):
        if rounded >= size:
            whole, rest = divmod(round(rounded / of_lesser), size // of_lesser)
            return f"{whole} {unit} {rest} {lesser}"
    return f"{rounded // 60} min {rounded % 60} s"

"""What large pages take away and what breaking them costs, for people and for programs."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Final

from rich.padding import Padding
from rich.text import Text

from hvshare.report.break_chart import BreakChart
from hvshare.report.console import add_figure_column, add_name_column, data_table, heading
from hvshare.report.machine import counts_by_size
from hvshare.units import format_frame_size, format_share, format_size

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

    from hvshare.erosion.large_pages_result import LargePages, Target

_WIDE: Final = 100
_OTHER_KINDS: Final = {
    "curve.most_saved_bytes": "bounded",
    "target.least_broken_frames": "bounded",
    "policies.tables": "modelled",
    "policies.net_saved_bytes": "modelled",
    "price": "modelled",
    "price.quotes": "quoted",
}
"""Of the fields of the JSON that are not measured."""


def print_large_pages(section: LargePages, console: Console) -> None:
    """Print all that is known of what large pages take away.

    Parameters
    ----------
    section : LargePages
        The results.
    console : Console
        Of at least 80 columns.
    """
    console.print(large_pages_summary(section))
    if section.target is not None:
        console.print(large_pages_target(section.target, section))
    ladder = _ladder(section)
    if console.measure(ladder).maximum > console.width:
        ladder = _ladder(section, shares=False)
    _print_part(console, "Saved, by frame size (measured)", ladder)
    if section.distinct_frames:
        _print_curve(section, console)
        _print_part(
            console, "Policies (savings measured, page tables modelled)", _policies(section, console.width)
        )
        for policy in section.policies:
            console.print(_note(f"{policy.name}: {policy.practised_by}"))
        _print_price(section, console)
        _print_part(console, "Bloat: zero pages in large frames (measured)", _bloat(section))
        bloat = section.bloat
        console.print(
            _note(
                f"{bloat.nearly_empty_frames:,} large frames hold something, but in an eighth of their pages "
                f"at the most: {format_size(bloat.nearly_empty_zero_bytes)} of zero pages are locked in them."
            )
        )


def large_pages_summary(section: LargePages) -> Text:
    """Say in two sentences what large pages take away."""
    size = format_frame_size(section.frame_size)
    summary = Text()
    if not section.distinct_frames:
        return summary.append(f"No image has a whole frame of {size}", "bold").append(
            ", so large pages take nothing away."
        )
    free, all_saved = section.without_breaking_bytes, section.curve[-1].saved_bytes
    summary.append(f"Large pages take away {format_size(section.lost_bytes)} of sharing", "bold")
    summary.append(
        f" ({format_share(section.lost_bytes, all_saved)} of the {format_size(all_saved)} saved at 4 KB): "
        f"{format_size(free)} is free without breaking any"
    )
    knee = section.knee
    if not section.lost_bytes:
        summary.append(", and no more with all of them broken")
    elif not knee.broken_frames:
        summary.append(f", and the rest takes most of {section.distinct_frames:,} large frames to be broken")
    else:
        summary.append(
            f", {format_size(knee.saved_bytes)} with {knee.broken_frames:,} of {section.distinct_frames:,} "
            "large frames broken, where the curve bends"
        )
    return summary.append(". All of this is measured.")


def large_pages_target(target: Target, section: LargePages) -> Text:
    """Say how many large frames have to be broken to free so much.

    Parameters
    ----------
    target : Target
        What was asked for.
    section : LargePages
        The results that it belongs to.

    Returns
    -------
    Text
        One sentence or two.
    """
    text = Text(f"To free {format_size(target.target_bytes)}", "bold")
    if target.broken_frames is None or target.broken_mappings is None or target.saved_bytes is None:
        return text.append(
            f" is more than sharing can: {format_size(target.reachable_bytes)} with all large frames broken, "
            f"{format_size(target.without_breaking_bytes)} with none.",
            "not bold",
        )
    if not target.broken_frames:
        return text.append(
            f", no large frame has to be broken: {format_size(target.without_breaking_bytes)} is free so.",
            "not bold",
        )
    text.append(
        f", break {target.broken_frames:,} of {section.distinct_frames:,} large frames, which back "
        f"{target.broken_mappings:,} of {section.frames:,} of the guests: {format_size(target.saved_bytes)}.",
        "not bold",
    )
    if target.least_broken_frames is not None and target.least_broken_frames < target.broken_frames:
        text.append(
            f" Fewer than {target.least_broken_frames:,} cannot do, whichever are chosen.", "not bold"
        )
    return text


def _print_part(console: Console, title: str, table: Table) -> None:
    console.print()
    console.print(heading(title))
    console.print(table)


def _note(text: str) -> Padding:
    return Padding(Text(text, "dim"), (0, 0, 0, 2))


def _ladder(section: LargePages, *, shares: bool = True) -> Table:
    table = data_table()
    for title in (
        "Frames of",
        "Whole",
        "Saved",
        *(["of whole"] if shares else []),
        "Zero",
        "Self",
        "Inter-VM",
    ):
        add_figure_column(table, title)
    for size, counts in section.ladder.items():
        parts = (counts.saved_zero, counts.saved_self, counts.saved_inter)
        table.add_row(
            format_frame_size(size),
            f"{counts.frames:,}",
            format_size(counts.saved_bytes),
            *([format_share(counts.saved, counts.frames)] if shares else []),
            *(format_size(frames * size) for frames in parts),
        )
    return table


def _print_curve(section: LargePages, console: Console) -> None:
    console.print()
    console.print(heading("Break curve: identical large frames shared whole, others broken (measured)"))
    if section.outside_pages:
        console.print(
            _note(
                f"{section.outside_pages:,} pages lie in no whole large frame and save "
                f"{format_size(section.outside_saved_bytes)} among themselves, which is the first step"
            )
        )
    if section.lost_bytes:
        console.print(BreakChart(section.curve[bool(section.outside_pages) :], section.policies))
    else:
        console.print(_note("it is flat: breaking large frames frees nothing"))


def _policies(section: LargePages, width: int) -> Table:
    table = data_table()
    add_name_column(table, "Policy", 10)
    for title in (
        "\nBroken",
        "Guest\nframes",
        "\nSaved",
        "of saved\nat 4 KB",
        "Page\ntables",
        "Saved less\ntables",
    ):
        add_figure_column(table, title)
    if width >= _WIDE:
        add_figure_column(table, "Large\nentries")
        add_figure_column(table, "4 KB\nentries")
    for policy in section.policies:
        row = [
            policy.name,
            f"{policy.broken_frames:,}",
            f"{policy.broken_mappings:,}",
            format_size(policy.saved_bytes),
            format_share(policy.saved_bytes, section.curve[-1].saved_bytes),
            format_size(policy.tables.table_bytes),
            format_size(policy.net_saved_bytes),
        ]
        if width >= _WIDE:
            row += [f"{policy.tables.large_entries:,}", f"{policy.tables.small_entries:,}"]
        table.add_row(*row)
    return table


def _print_price(section: LargePages, console: Console) -> None:
    price = section.price
    tables = data_table()
    tables.add_column(Text("Page tables of the host"), min_width=24)
    for title in ("Large entries", "4 KB entries", "4 levels", "5 levels"):
        add_figure_column(tables, title)
    for name, each in (("no large frame broken", price.before), ("all broken", price.after)):
        sizes = (each.table_bytes, each.table_bytes_5_level)
        tables.add_row(name, f"{each.large_entries:,}", f"{each.small_entries:,}", *map(format_size, sizes))
    _print_part(console, "Price: page tables (modelled)", tables)
    reach = data_table()
    add_name_column(reach, "Last data TLB of", 22)
    for title in ("4 KB entries", "reach", "2 MB entries", "reach"):
        add_figure_column(reach, title)
    for processor in price.tlb_reach:
        reach.add_row(
            processor.processor,
            f"{processor.small_entries:,}",
            format_size(processor.small_reach_bytes),
            f"{processor.large_entries:,}",
            format_size(processor.large_reach_bytes),
        )
    _print_part(console, "Price: what a TLB reaches (as their documents say)", reach)
    for source in dict.fromkeys(processor.source for processor in price.tlb_reach):
        names = ", ".join(each.processor for each in price.tlb_reach if each.source == source)
        console.print(_note(f"{names}: {source}"))
    console.print(_note("In a guest, an entry maps the smaller of the guest's and the host's page."))
    walks = data_table()
    walks.add_column(Text("Page walk in a guest"), min_width=24)
    for title in ("Guest page", "Host page", "Memory references"):
        add_figure_column(walks, title)
    for walk in price.walks:
        sizes = (walk.guest_page_size, walk.host_page_size)
        walks.add_row(f"{walk.levels} levels", *map(format_frame_size, sizes), f"{walk.references}")
    _print_part(console, "Price: nested page walks that no cache shortens (modelled)", walks)
    for quote in price.quotes:
        console.print(_note(f"Quoted, not measured: {quote.claim} ({quote.source})"))


def _bloat(section: LargePages) -> Table:
    table = data_table()
    for title in ("Pages that hold anything", "Large frames", "of all", "Zero pages in them"):
        add_figure_column(table, title)
    for each in section.bloat.bins:
        table.add_row(
            f"{each.fewest}" if each.fewest == each.most else f"{each.fewest}-{each.most}",
            f"{each.frames:,}",
            format_share(each.frames, section.frames),
            format_size(each.zero_bytes),
        )
    return table


def large_pages_fields(section: LargePages) -> dict[str, object]:
    """Give what large pages take away, as JSON has it.

    Returns
    -------
    dict
        All figures are measured, but for those that `kinds` names.
    """
    price = section.price
    return {
        "kind": "measured",
        "kinds": dict(_OTHER_KINDS),
        "frame_size": section.frame_size,
        "frames": section.frames,
        "distinct_frames": section.distinct_frames,
        "outside_pages": section.outside_pages,
        "outside_saved_bytes": section.outside_saved_bytes,
        "without_breaking_bytes": section.without_breaking_bytes,
        "lost_bytes": section.lost_bytes,
        "ladder": counts_by_size(section.ladder),
        "curve": [point._asdict() for point in section.curve],
        "knee": asdict(section.knee),
        "policies": [asdict(policy) for policy in section.policies],
        "target": None if section.target is None else asdict(section.target),
        "price": {
            "kind": "modelled",
            "before": asdict(price.before),
            "after": asdict(price.after),
            "tlb_reach": [asdict(each) for each in price.tlb_reach],
            "walks": [asdict(each) for each in price.walks],
            "quotes": [{"kind": "quoted", **asdict(each)} for each in price.quotes],
        },
        "bloat": asdict(section.bloat),
    }

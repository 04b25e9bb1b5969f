"""The sharing report for people: the verdict first, caveats last."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from rich.bar import Bar
from rich.padding import Padding
from rich.text import Text

from hvshare.report.console import add_figure_column, add_name_column, data, data_table, heading
from hvshare.report.strip import MapStrips
from hvshare.sharing.memory_map import PageKind
from hvshare.units import PAGE_SIZE, format_frame_size, format_share, format_size

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from rich.console import Console, RenderableType
    from rich.table import Table

    from hvshare.caveats import Caveat
    from hvshare.sharing.counts import Counts
    from hvshare.sharing.report import CopiesBin, DescribedContent, SharingReport

_LABEL_COLUMNS: Final = 24
_COUNT_COLUMNS: Final = 15


def print_sharing(report: SharingReport, console: Console) -> None:
    """Print a sharing report.

    Parameters
    ----------
    report : SharingReport
        The results.
    console : Console
        Of at least 80 columns.
    """
    sections: list[tuple[str, Iterable[RenderableType]]] = [
        ("Images, by pages of 4 KB", [_images(report)]),
        ("Saved, by frame size", frame_sizes_tables(report.pooled, console.width)),
    ]
    if report.maps:
        gaps = ", gaps left out" if any(each.without_gaps for each in report.maps) else ", from address 0"
        sections.append((f"Memory map: what most pages are{gaps}", [MapStrips(report.maps)]))
    if report.copies:
        sections.append(("Copies of contents, zero apart", [_copies(report.copies, console)]))
    if report.frequent:
        sections.append(("Most frequent contents, zero apart", [_frequent(report.frequent, console.width)]))
    console.print(verdict(report.pooled))
    for title, parts in sections:
        console.print()
        console.print(heading(title))
        for part in parts:
            console.print(part)
    print_caveats(report.caveats, console)


def print_caveats(caveats: Sequence[Caveat], console: Console) -> None:
    """Print caveats, each with its advice."""
    if not caveats:
        return
    console.print()
    console.print(heading("Caveats"))
    for caveat in caveats:
        line = Text(overflow="fold")
        if caveat.image is not None:
            line.append_text(data(caveat.image, "bold")).append(": ")
        line.append_text(data(caveat.message)).append(f" [{caveat.code}]", "dim")
        console.print(Padding(line, (0, 0, 0, 2)))
        console.print(Padding(Text("advice: ", "dim").append(caveat.advice), (0, 0, 0, 4)))


def verdict(of_all: Mapping[int, Counts]) -> Text:
    """Say in a sentence what pooled counts, by frame size, come to."""
    pages = of_all[PAGE_SIZE]
    sentence = Text()
    sentence.append(f"Sharing at 4 KB would free {format_size(pages.saved_bytes)}", "bold")
    sentence.append(f" of {format_size(pages.frame_bytes)} ({format_share(pages.saved, pages.frames)}): ")
    parts = [("zero", pages.saved_zero), ("self", pages.saved_self), ("inter-VM", pages.saved_inter)]
    sentence.append(", ".join(f"{name} {format_size(frames * PAGE_SIZE)}" for name, frames in parts))
    for size, counts in of_all.items():
        if size == max(of_all) != PAGE_SIZE:
            sentence.append(
                f"; at {format_frame_size(size)}, {format_size(counts.saved_bytes)} of it is left"
            )
            if pages.saved:
                sentence.append(f" ({format_share(counts.saved_bytes, pages.saved_bytes)})")
    return sentence.append(".")


def _images(report: SharingReport) -> Table:
    table = data_table()
    add_name_column(table, "Image")
    absent = any(image.absent_bytes for image in report.images)
    add_figure_column(table, "Memory")
    kinds = [PageKind.ZERO, PageKind.SELF, PageKind.INTER, PageKind.UNIQUE]
    for title in ("\nZero", "Repeated\nwithin", "In other\nVM", "\nUnique"):
        add_figure_column(table, title)
    if absent:
        add_figure_column(table, "\nAbsent")
    add_figure_column(table, "Saved\nalone")
    for image, each in zip(report.images, report.maps, strict=True):
        known = image.present_bytes // PAGE_SIZE
        shares = [format_share(each.pages[kind], known) for kind in kinds]
        if absent:
            shares.append(format_share(image.absent_bytes, image.size_bytes))
        saved = format_size(image.counts[PAGE_SIZE].saved_bytes)
        table.add_row(data(image.name), format_size(image.size_bytes), *shares, saved)
    return table


def frame_sizes_tables(pooled: Mapping[int, Counts], width: int) -> Iterator[Table]:
    """Lay frame sizes out side by side, in as many tables as the width asks for."""
    sizes = list(pooled)
    fit = max(1, (width - _LABEL_COLUMNS) // _COUNT_COLUMNS)
    partial = any(counts.partial_frames for counts in pooled.values())
    pages = pooled[PAGE_SIZE]
    for start in range(0, len(sizes), fit):
        table = data_table()
        table.add_column(Text("Frames of"), no_wrap=True, min_width=_LABEL_COLUMNS - 4)
        for size in sizes[start : start + fit]:
            add_figure_column(table, format_frame_size(size))
        shown = [pooled[size] for size in sizes[start : start + fit]]
        table.add_row("whole frames", *(f"{counts.frames:,}" for counts in shown))
        if partial:
            table.add_row("partial frames", *(f"{counts.partial_frames:,}" for counts in shown))
        table.add_row("zero", *(f"{counts.zero:,}" for counts in shown))
        table.add_row("distinct", *(f"{counts.distinct:,}" for counts in shown))
        table.add_row("saved", *(f"{counts.saved:,}" for counts in shown), style="bold")
        table.add_row("  zero", *(f"{counts.saved_zero:,}" for counts in shown))
        table.add_row("  self", *(f"{counts.saved_self:,}" for counts in shown))
        table.add_row("  inter-VM", *(f"{counts.saved_inter:,}" for counts in shown))
        table.add_row("saved memory", *(format_size(counts.saved_bytes) for counts in shown), style="bold")
        table.add_row("  of whole frames", *(format_share(counts.saved, counts.frames) for counts in shown))
        table.add_row(
            "  of saved at 4 KB",
            *(format_share(counts.saved_bytes, pages.saved_bytes) for counts in shown),
        )
        yield table


def _copies(bins: Sequence[CopiesBin], console: Console) -> Table:
    table = data_table()
    for title in ("Copies", "Contents", "Pages", "Saved"):
        add_figure_column(table, title)
    add_figure_column(table, "Share of pages", "left")
    all_pages = sum(each.pages for each in bins)
    room = min(30, console.width - 52)
    for each in bins:
        copies = f"{each.fewest:,}" if each.most == each.fewest else f"{each.fewest:,}-{each.most:,}"
        saved = format_size((each.pages - each.contents) * PAGE_SIZE)
        table.add_row(
            copies,
            f"{each.contents:,}",
            f"{each.pages:,}",
            saved,
            _bar(each.pages, all_pages, room, ascii_only=console.options.ascii_only),
        )
    return table


def _bar(part: int, whole: int, width: int, *, ascii_only: bool) -> RenderableType:
    if ascii_only:
        return Text("#" * round(width * part / whole))
    return Bar(whole, 0, part, width=width, color="cyan")


def _frequent(contents: Sequence[DescribedContent], width: int) -> Table:
    shown_bytes = 8 if width < 100 else 16
    table = data_table()
    add_figure_column(table, "Copies")
    add_name_column(table, "Looks like", 14)
    add_figure_column(table, "First bytes", "left")
    add_name_column(table, "First at", 14)
    for content in contents:
        table.add_row(
            f"{content.copies:,}",
            content.description,
            content.first_bytes[:shown_bytes].hex(),
            data(f"{content.image} {content.gfn * PAGE_SIZE:#x}"),
        )
    return table

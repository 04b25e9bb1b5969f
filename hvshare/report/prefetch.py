"""What prefetching takes away, for people."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from rich.text import Text

from hvshare.erosion.prefetch_result import Basis
from hvshare.report.console import add_figure_column, add_name_column, data, data_table, heading
from hvshare.report.intervals import format_interval
from hvshare.report.prefetch_machine import prefetch_fields
from hvshare.units import PAGE_SIZE, format_share, format_size

if TYPE_CHECKING:
    from rich.console import Console, RenderableType
    from rich.table import Table

    from hvshare.erosion.prefetch_result import (
        BalanceStep,
        ColdComparison,
        DiskBlocks,
        FilePages,
        Prefetch,
        Whereabouts,
    )
    from hvshare.sharing.counts import Counts

__all__ = ["prefetch_fields", "prefetch_summary", "print_prefetch"]

SHOWN_STEPS: Final = 8
"""Numbers of VMs that the balance shows one by one; beyond them it shows powers of two and the last."""

_FIRST_COPIES: Final = (
    "A page of the cache that is repeated costs no more than its first copy: the zero page in its place "
    "would have been freed, and it is freed itself."
)


def print_prefetch(prefetch: Prefetch, console: Console) -> None:
    """Print all that is known of what prefetching takes away.

    Parameters
    ----------
    prefetch : Prefetch
        What was found.
    console : Console
        Of at least 80 columns.
    """
    console.print(prefetch_summary(prefetch))
    if prefetch.cold is not None:
        _print_cold(prefetch.cold, console)
    if prefetch.disk is not None:
        _print_disk(prefetch.disk, prefetch.pooled, console)
    if prefetch.balance:
        at_most = ", if all file pages were dropped" if prefetch.basis is Basis.DISK else ""
        lost = "zero pages lost against cache that is shared"
        _section(console, f"As VMs are added: {lost}{at_most} ({prefetch.kind})", _balance(prefetch.balance))
        console.print(Text(_FIRST_COPIES, "dim"))


def prefetch_summary(prefetch: Prefetch) -> Text:
    """Say in a sentence or two what prefetching takes away."""
    match prefetch.basis:
        case Basis.COLD if prefetch.cold is not None:
            return _cold_summary(prefetch, prefetch.balance[-1])
        case Basis.DISK if prefetch.disk is not None:
            return _disk_summary(prefetch, prefetch.disk)
    least = _sizes(prefetch.lower_bytes, prefetch.lower_bytes) if prefetch.lower_bytes else "nothing"
    most = format_size(prefetch.upper_bytes)
    summary = Text(f"What prefetching takes away lies between {least} and {most}", "bold")
    return summary.append(
        f" ({prefetch.kind}): contents alone do not tell cache from other memory. Name the disks of the "
        "guests with --disk for a closer bound, or with --cold images from before their cache was warm to "
        "measure it."
    )


def _cold_summary(prefetch: Prefetch, last: BalanceStep) -> Text:
    low, high = prefetch.lower_bytes, prefetch.upper_bytes
    is_gain = high < 0
    sizes = _sizes(-high, -low) if is_gain else _sizes(low, high)
    summary = Text(
        f"Since the cold images, sharing at 4 KB saves {sizes} {'more' if is_gain else 'less'}", "bold"
    )
    zero = f"{format_size(abs(last.zero_lost) * PAGE_SIZE)} {'less' if last.zero_lost >= 0 else 'more'}"
    least, most = last.cache_saved_lower, last.cache_saved_upper
    others = f"{_frames(-most, -least)} less" if most < 0 else f"{_frames(least, most)} more"
    return summary.append(f" ({prefetch.kind}): zero pages save {zero}, and all other pages {others}.")


def _disk_summary(prefetch: Prefetch, disk: FilePages) -> Text:
    pages = sum(vm.nonzero_pages for vm in disk.vms)
    size = format_size(prefetch.upper_bytes)
    summary = Text(f"Without file pages, sharing at 4 KB would save up to {size} more", "bold")
    return summary.append(
        f" ({prefetch.kind}): {format_size(disk.pages * PAGE_SIZE)} "
        f"({format_share(disk.pages, pages)} of what is not zero) equal a block of a disk and have "
        f"{format_size(disk.contents * PAGE_SIZE)} of different contents; what programs have mapped would "
        f"stay."
    )


def _print_cold(cold: ColdComparison, console: Console) -> None:
    known = "measured" if cold.cold is not None else "inter-VM before: bounded, all other: measured"
    _section(console, f"Saved at 4 KB, before and now ({known})", _before_and_now(cold))
    _section(console, "Zero pages lost, and where else their contents are now (measured)", _lost(cold))
    _section(console, "Pages at the same places, before and now (measured)", _places(cold))
    if len(cold.vms) > 1:
        _section(console, "Saved alone at 4 KB, before and now (measured)", _alone(cold))


def _print_disk(disk: FilePages, now: Counts, console: Console) -> None:
    _section(console, "Disks, in blocks of 4 KB (measured)", _disks(disk.disks))
    title = "File pages: what equals a block of a disk, and where else it is (measured)"
    _section(console, title, _file_pages(disk))
    _section(console, "Saved at 4 KB, now and if all file pages were dropped", _dropped(disk, now))


def _section(console: Console, title: str, table: Table) -> None:
    console.print()
    console.print(heading(title))
    console.print(table)


def _before_and_now(cold: ColdComparison) -> Table:
    table = data_table()
    table.add_column(Text(""), min_width=10)
    for title in ("Before", "Now", "Lost"):
        add_figure_column(table, title)
    now, known = cold.warm, cold.cold_saved_zero + cold.cold_saved_self
    low, high = cold.cold_saved_inter_lower, cold.cold_saved_inter_upper
    rows = (
        ("zero", cold.cold_saved_zero, cold.cold_saved_zero, now.saved_zero),
        ("self", cold.cold_saved_self, cold.cold_saved_self, now.saved_self),
        ("inter-VM", low, high, now.saved_inter),
        ("saved", known + low, known + high, now.saved),
    )
    for name, least, most, saved_now in rows:
        table.add_row(
            name,
            _frames(least, most),
            _frames(saved_now, saved_now),
            _frames(least - saved_now, most - saved_now),
            style="bold" if name == "saved" else "",
        )
    return table


def _lost(cold: ColdComparison) -> Table:
    table = data_table()
    add_name_column(table, "\nImage")
    titles = ("Zero\nbefore", "\nnow", "Zero\nbefore only", "Repeated\nbetween", "within\nonly", "\nUnique")
    for title in titles:
        add_figure_column(table, title)
    for vm in cold.vms:
        table.add_row(
            data(vm.image),
            *(_pages(pages) for pages in (vm.cold_zero_pages, vm.zero_pages, vm.lost.pages)),
            *_shares(vm.lost),
        )
    return table


def _places(cold: ColdComparison) -> Table:
    with_disk = any(vm.lost_file_pages is not None for vm in cold.vms)
    table = data_table()
    add_name_column(table, "\nImage, cold image", 12)
    for title in ("Zero\nnow only", "Zero in neither:\nthe same", "\nchanged"):
        add_figure_column(table, title)
    add_figure_column(table, "Lost to:\nheld before")
    if with_disk:
        add_figure_column(table, "file\npages")
    for vm in cold.vms:
        cells: list[RenderableType] = [
            data(vm.image).append("\n").append_text(data(vm.cold_image, "dim")),
            *(_pages(pages) for pages in (vm.gained_pages, vm.same_pages, vm.changed_pages)),
            format_share(vm.lost_held_before, vm.lost.pages),
        ]
        if with_disk:
            cells.append(format_share(vm.lost_file_pages or 0, vm.lost.pages))
        table.add_row(*cells)
    return table


def _alone(cold: ColdComparison) -> Table:
    table = data_table()
    add_name_column(table, "Image")
    for title in ("Before", "Now", "Lost"):
        add_figure_column(table, title)
    for vm in cold.vms:
        before, now = vm.cold_alone.saved, vm.alone.saved
        table.add_row(data(vm.image), _pages(before), _pages(now), _frames(before - now, before - now))
    return table


def _disks(disks: tuple[DiskBlocks, ...]) -> Table:
    table = data_table()
    add_name_column(table, "Disk")
    for title in ("Size", "Zero", "Contents in memory"):
        add_figure_column(table, title)
    for disk in disks:
        table.add_row(
            data(disk.name),
            _pages(disk.blocks),
            format_share(disk.zero_blocks, disk.blocks),
            f"{disk.contents_found:,}",
        )
    return table


def _file_pages(disk: FilePages) -> Table:
    table = data_table()
    add_name_column(table, "\nImage")
    titles = ("File\npages", "of not\nzero", "Repeated\nbetween", "within\nonly", "\nUnique", "\nContents")
    for title in titles:
        add_figure_column(table, title)
    for vm in disk.vms:
        table.add_row(
            data(vm.image),
            _pages(vm.file_pages.pages),
            format_share(vm.file_pages.pages, vm.nonzero_pages),
            *_shares(vm.file_pages),
            _pages(vm.contents),
        )
    return table


def _dropped(disk: FilePages, now: Counts) -> Table:
    table = data_table()
    table.add_column(Text(""), min_width=10)
    for title in ("Now\n(measured)", "All dropped\n(bound)", "More, at\nthe most"):
        add_figure_column(table, title)
    for name, part in (
        ("zero", "saved_zero"),
        ("self", "saved_self"),
        ("inter-VM", "saved_inter"),
        ("saved", "saved"),
    ):
        before, after = getattr(now, part), getattr(disk.dropped, part)
        table.add_row(
            name,
            _pages(before),
            _pages(after),
            _frames(after - before, after - before),
            style="bold" if name == "saved" else "",
        )
    return table


def _balance(steps: tuple[BalanceStep, ...]) -> Table:
    table = data_table()
    add_figure_column(table, "\nVMs")
    add_name_column(table, "\nwith")
    for title in ("Zero sharing\nlost", "Cache sharing\ngained", "Net\nloss"):
        add_figure_column(table, title)
    for step in steps:
        if step.vms > SHOWN_STEPS and step.vms & (step.vms - 1) and step is not steps[-1]:
            continue
        table.add_row(
            f"{step.vms:,}",
            data(step.image),
            _frames(step.zero_lost, step.zero_lost),
            _frames(step.cache_saved_lower, step.cache_saved_upper),
            _frames(step.net_lower, step.net_upper),
        )
    return table


def _shares(of: Whereabouts) -> tuple[str, ...]:
    return tuple(format_share(part, of.pages) for part in (of.between_vms, of.within_vm, of.unique))


def _pages(pages: int) -> str:
    return format_size(pages * PAGE_SIZE)


def _frames(low: int, high: int) -> str:
    """Show frames as memory, within bounds where they are not known exactly."""
    return _sizes(low * PAGE_SIZE, high * PAGE_SIZE)


def _sizes(low: int, high: int) -> str:
    if low >= 0:
        return format_interval(low, high)
    signed = [f"-{format_size(-size)}" if size < 0 else format_size(size) for size in (low, high)]
    return signed[0] if low == high else " to ".join(signed)

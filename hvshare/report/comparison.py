"""Many VMs beside each other, for people."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from rich.text import Text
from rich.tree import Tree

from hvshare.report.console import add_figure_column, add_name_column, data, data_table, heading
from hvshare.report.esx import esx_fields, print_esx
from hvshare.report.ksm import ksm_fields, print_ksm
from hvshare.report.machine import caveat_fields, counts_by_size, image_fields, json_document
from hvshare.report.terminal import frame_sizes_tables, print_caveats, verdict
from hvshare.report.text import encodable
from hvshare.units import PAGE_SIZE, format_share, format_size

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rich.console import Console
    from rich.table import Table

    from hvshare.sharing.comparison import Comparison, PairSharing
    from hvshare.sharing.hypervisor_words import HypervisorWords
    from hvshare.sharing.likeness import LikenessTree

COMPARE_SCHEMA: Final = "hvshare.compare/1"
SHOWN_PAIRS: Final = 10
_MOST_IN_TREE: Final = 32
_NAME_COLUMNS: Final = 16
_PAIRS_CAPTION: Final = (
    "Pairs do not add up to inter-VM savings: a content that three VMs hold is in three pairs."
)


def print_comparison(comparison: Comparison, words: HypervisorWords, console: Console) -> None:
    """Print a comparison.

    Parameters
    ----------
    comparison : Comparison
        What was measured.
    words : HypervisorWords
        The same in the words of hypervisors.
    console : Console
        Of at least 80 columns.
    """
    console.print(verdict(comparison.pooled))
    _section(console, "Images, by pages of 4 KB", _images(comparison))
    console.print()
    console.print(heading("Saved, by frame size"))
    for table in frame_sizes_tables(comparison.pooled, console.width):
        console.print(table)
    _print_pairs(comparison, console)
    if comparison.tree is not None and 2 < len(comparison.images) <= _MOST_IN_TREE:
        tree = _tree(comparison.tree, comparison)
        _section(console, "Likeness: contents in common, of those that either holds", tree)
    if comparison.domains:
        _section(console, "Sharing domains, at 4 KB", _domains(comparison))
    if words.ksm:
        console.print()
        print_ksm(words.ksm, console, scan=words.scan)
    if words.esx:
        console.print()
        alone = all(len(domain.images) == 1 for domain in comparison.domains)
        print_esx(words.esx, console, per_vm=bool(comparison.domains) and alone)
    print_caveats([*comparison.caveats, *words.caveats], console)


def comparison_json(comparison: Comparison, words: HypervisorWords) -> str:
    """Write a comparison as one JSON object."""
    names = [encodable(image.name) for image in comparison.images]
    return json_document(
        {
            "schema": COMPARE_SCHEMA,
            "images": [image_fields(image) for image in comparison.images],
            "pooled": counts_by_size(comparison.pooled),
            "contribution": [
                {
                    "image": encodable(each.image),
                    "saved_frames": {str(size): frames for size, frames in each.saved.items()},
                    "saved_bytes": {str(size): frames * size for size, frames in each.saved.items()},
                }
                for each in comparison.contributions
            ],
            "pairs": [
                {
                    "a": names[pair.a],
                    "b": names[pair.b],
                    "common_contents": pair.common_contents,
                    "common_of_a": pair.common_of_a,
                    "common_of_b": pair.common_of_b,
                }
                for pair in comparison.pairs
            ],
            "domains": [
                {
                    "name": encodable(each.name),
                    "images": [encodable(name) for name in each.images],
                    "counts": counts_by_size(each.counts),
                }
                for each in comparison.domains
            ],
            "ksm": ksm_fields(words.ksm, words.scan) if words.ksm else None,
            "esx": esx_fields(words.esx) if words.esx else None,
            "caveats": caveat_fields([*comparison.caveats, *words.caveats]),
        }
    )


def _section(console: Console, title: str, content: Table | Tree) -> None:
    console.print()
    console.print(heading(title))
    console.print(content)


def _images(comparison: Comparison) -> Table:
    table = data_table()
    add_figure_column(table, "\n#")
    add_name_column(table, "\nImage")
    for title in ("\nMemory", "\nZero", "Non-zero\npages", "Saved\nalone", "Saved less\nwithout it"):
        add_figure_column(table, title)
    for number, (image, contribution) in enumerate(
        zip(comparison.images, comparison.contributions, strict=True), 1
    ):
        table.add_row(
            str(number),
            data(image.name),
            format_size(image.size_bytes),
            format_share(image.zero_bytes, image.present_bytes),
            f"{image.nonzero_pages:,}",
            format_size(image.counts[PAGE_SIZE].saved_bytes),
            format_size(contribution.saved[PAGE_SIZE] * PAGE_SIZE),
        )
    return table


def _print_pairs(comparison: Comparison, console: Console) -> None:
    if not comparison.pairs:
        return
    widest = max(len(f"{pair.common_contents:,}") for pair in comparison.pairs)
    fit = (console.width - _NAME_COLUMNS - 6) // (max(widest, 7) + 2)
    if len(comparison.images) <= fit:
        title = "Pairs: contents in common, and their share of the non-zero pages of the VM of the row"
        _section(console, title, _matrix(comparison))
    else:
        ordered = sorted(comparison.pairs, key=lambda pair: -_alike(comparison, pair))
        closest = ordered[:SHOWN_PAIRS]
        distant = [pair for pair in ordered[-SHOWN_PAIRS:] if pair not in closest]
        title = f"Pairs: the closest {len(closest)} of {len(ordered):,}, by contents in common"
        _section(console, title, _pair_list(comparison, closest))
        if distant:
            _section(console, f"Pairs: the most distant {len(distant)}", _pair_list(comparison, distant))
    console.print(Text(_PAIRS_CAPTION, "dim"))


def _alike(comparison: Comparison, pair: PairSharing) -> float:
    pages = comparison.images[pair.a].nonzero_pages + comparison.images[pair.b].nonzero_pages
    return (pair.common_of_a + pair.common_of_b) / pages if pages else 0.0


def _matrix(comparison: Comparison) -> Table:
    count = len(comparison.images)
    cells = [["–"] * count for _ in range(count)]
    for pair in comparison.pairs:
        for row, column, pages in (
            (pair.a, pair.b, pair.common_of_a),
            (pair.b, pair.a, pair.common_of_b),
        ):
            share = format_share(pages, comparison.images[row].nonzero_pages)
            cells[row][column] = f"{pair.common_contents:,}\n{share}"
    table = data_table()
    add_figure_column(table, "#")
    table.add_column(Text("Image"), overflow="fold", max_width=_NAME_COLUMNS)
    for number in range(count):
        add_figure_column(table, str(number + 1))
    for index, image in enumerate(comparison.images):
        table.add_row(str(index + 1), data(image.name), *cells[index])
    return table


def _pair_list(comparison: Comparison, pairs: Sequence[PairSharing]) -> Table:
    table = data_table()
    add_name_column(table, "\nOne VM")
    add_figure_column(table, "of its\npages")
    add_name_column(table, "\nOther VM")
    add_figure_column(table, "of its\npages")
    add_figure_column(table, "Contents\nin common")
    for pair in pairs:
        a, b = comparison.images[pair.a], comparison.images[pair.b]
        table.add_row(
            data(a.name),
            format_share(pair.common_of_a, a.nonzero_pages),
            data(b.name),
            format_share(pair.common_of_b, b.nonzero_pages),
            f"{pair.common_contents:,}",
        )
    return table


def _tree(node: LikenessTree, comparison: Comparison) -> Tree:
    tree = Tree(_tree_label(node, comparison), guide_style="dim")
    _grow(tree, node, comparison)
    return tree


def _grow(tree: Tree, node: LikenessTree, comparison: Comparison) -> None:
    for part in node.parts:
        _grow(tree.add(_tree_label(part, comparison)), part, comparison)


def _tree_label(node: LikenessTree, comparison: Comparison) -> Text:
    if node.vm is not None:
        return data(comparison.images[node.vm].name)
    return Text(f"{100 * node.likeness:.1f} %", "cyan")


def _domains(comparison: Comparison) -> Table:
    table = data_table()
    add_name_column(table, "Domain")
    for title in ("VMs", "Memory", "Zero", "Self", "Inter-VM", "Saved"):
        add_figure_column(table, title)
    for domain in comparison.domains:
        counts = domain.counts[PAGE_SIZE]
        parts = (counts.frames, counts.saved_zero, counts.saved_self, counts.saved_inter, counts.saved)
        table.add_row(
            data(domain.name), f"{len(domain.images):,}", *(format_size(part * PAGE_SIZE) for part in parts)
        )
    pooled = comparison.pooled[PAGE_SIZE]
    inside = comparison.saved_in_domains(PAGE_SIZE)
    table.add_section()
    rows = (
        ("all domains", inside),
        ("without walls", pooled.saved),
        ("cost of the walls", pooled.saved - inside),
    )
    for name, saved in rows:
        size = format_size(saved * PAGE_SIZE)
        table.add_row(name, "", "", "", "", "", size, style="bold" if name == "cost of the walls" else "")
    return table

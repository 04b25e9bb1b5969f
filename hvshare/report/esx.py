"""What ESX would count, for people and for programs."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.text import Text

from hvshare.report.console import add_figure_column, add_name_column, data, data_table, heading
from hvshare.report.text import encodable
from hvshare.sharing.esx import esx_host, esx_megabytes
from hvshare.units import PAGE_SIZE

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rich.console import Console

    from hvshare.sharing.esx import EsxWords


def print_esx(salts: Sequence[EsxWords], console: Console, *, per_vm: bool = False) -> None:
    """Print what ESX would count, a row a group of VMs of equal salt, and the host.

    Parameters
    ----------
    salts : sequence of EsxWords
        One a sharing domain.
    console : Console
        Of at least 80 columns.
    per_vm : bool
        Whether each domain is one VM, as by default since 2014: then the columns are those of a VM in esxtop.
    """
    host = esx_host(salts)
    title = "each VM has a salt of its own" if per_vm else "VMs of a domain have equal salt"
    console.print(heading(f"ESX, in MB as in esxtop: {title}"))
    table = data_table()
    add_name_column(table, "VM" if per_vm else "Domain")
    for name in ("SHRD", "ZERO", "common", "SHRDSVD") if per_vm else ("shared", "zero", "common", "saving"):
        add_figure_column(table, name)
    for each in salts:
        table.add_row(data(each.domain or "all images"), *_megabytes(each))
    if len(salts) > 1:
        table.add_row("host", *_megabytes(host), style="bold")
    console.print(table)
    console.print(data(f"PSHARE/MB: {pshare(host)}"))
    note = (
        "Shared are guest pages that point at machine pages with more than one reference, common are those "
        "machine pages; zero pages are among both."
    )
    console.print(Text(note, "dim"))


def pshare(host: EsxWords) -> str:
    """Write the PSHARE line of esxtop, in whole MB.

    Examples
    --------
    >>> from hvshare.sharing.esx import EsxWords
    >>> pshare(EsxWords("", 5_000_000, 1_162_496, 201_728, 500_000))
    '4541  shared,     788  common:    3753 saving'
    """
    shared, common = round(esx_megabytes(host.shared)), round(esx_megabytes(host.common))
    return f"{shared:4}  shared, {common:7}  common: {shared - common:7} saving"


def _megabytes(words: EsxWords) -> list[str]:
    return [
        f"{esx_megabytes(pages):,.2f}" for pages in (words.shared, words.zero, words.common, words.saving)
    ]


def esx_fields(salts: Sequence[EsxWords]) -> dict[str, object]:
    """Give what ESX would count, as JSON has it: bytes, in domains and for the host."""
    return {
        "domains": [{"name": encodable(each.domain), **_fields(each)} for each in salts],
        "host": _fields(esx_host(salts)),
    }


def _fields(words: EsxWords) -> dict[str, int]:
    return {
        "memory_bytes": words.pages * PAGE_SIZE,
        "shared_bytes": words.shared * PAGE_SIZE,
        "common_bytes": words.common * PAGE_SIZE,
        "saving_bytes": words.saving * PAGE_SIZE,
        "zero_bytes": words.zero * PAGE_SIZE,
    }

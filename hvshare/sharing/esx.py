"""The same counts in the words of VMware ESX.

Source: vSphere Resource Management (memory shared and memory shared common; the memory panel of esxtop),
VMware KB 2080735 (salting), KB 1021095 (large pages).

*Shared* are guest pages that point at machine pages with more than one reference, *common* are those machine
pages, *saving* is shared - common. Zero pages are shared like all others, and are told as *zero* as well.
Sharing does not cross VMs of different salt: VMs of equal salt are a sharing domain. Since 2014 every VM has
a salt of its own, unless the administrator sets ``Mem.ShareForceSalting`` or ``sched.mem.pshare.salt``.

Where VMs share with each other, no source tells how esxtop divides savings among them, so there are no
figures of single VMs then.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from hvshare.caveats import Caveat
from hvshare.units import PAGE_SIZE

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

_MEGABYTE: Final = 1 << 20


@dataclass(frozen=True)
class EsxWords:
    """What ESX would count for a sharing domain, in pages of 4 KB.

    Attributes
    ----------
    domain : str
        Name of the sharing domain: VMs of equal salt.
    pages : int
        All pages of its VMs.
    shared : int
        Guest pages that point at machine pages with more than one reference; ``SHRD`` of a VM that shares
        with itself alone.
    common : int
        Machine pages with more than one reference.
    zero : int
        Guest pages that are zero: ``ZERO``. They are among `shared` if there are two or more.

    Examples
    --------
    >>> host = esx_words({1: 10, 2: 1, 4: 1}, zero_pages=6)
    >>> host.shared, host.common, host.saving
    (12, 3, 9)
    """

    domain: str
    pages: int
    shared: int
    common: int
    zero: int

    @property
    def saving(self) -> int:
        """Machine pages saved: shared - common; ``SHRDSVD`` of a VM that shares with itself alone."""
        return self.shared - self.common


def esx_words(copies: Mapping[int, int], zero_pages: int, *, domain: str = "") -> EsxWords:
    """Count what ESX shares in one sharing domain, at 4 KB.

    Parameters
    ----------
    copies : mapping of int to int
        For each number of copies, how many contents other than zero occur so often in the domain.
    zero_pages : int
        Pages that are zero.
    domain : str
        Name of the sharing domain.

    Returns
    -------
    EsxWords
    """
    contents = dict(copies)
    if zero_pages:
        contents[zero_pages] = contents.get(zero_pages, 0) + 1
    repeated = {number: count for number, count in contents.items() if number > 1}
    return EsxWords(
        domain,
        sum(number * count for number, count in contents.items()),
        sum(number * count for number, count in repeated.items()),
        sum(repeated.values()),
        zero_pages,
    )


def esx_host(domains: Iterable[EsxWords], name: str = "") -> EsxWords:
    """Add up sharing domains to what esxtop prints for the host: ``PSHARE/MB``.

    Examples
    --------
    >>> web, db = esx_words({2: 3}, 4, domain="web"), esx_words({1: 2}, 1, domain="db")
    >>> esx_host([web, db])
    EsxWords(domain='', pages=13, shared=10, common=4, zero=5)
    """
    total = EsxWords(name, 0, 0, 0, 0)
    for each in domains:
        total = EsxWords(
            name,
            total.pages + each.pages,
            total.shared + each.shared,
            total.common + each.common,
            total.zero + each.zero,
        )
    return total


def esx_megabytes(pages: int) -> float:
    """Tell pages in MB as ESX means them: 1,048,576 bytes.

    Examples
    --------
    >>> esx_megabytes(384)
    1.5
    """
    return pages * PAGE_SIZE / _MEGABYTE


def esx_caveats() -> list[Caveat]:
    """Tell under which conditions ESX counts what was counted here."""
    return [
        Caveat(
            "esx-small-pages",
            "ESX shares 4 KB pages; memory that is backed by large pages is shared only once ESX breaks "
            "them, when memory runs short, and memory that a guest never touched is in none of its counters",
            "compare with esxtop when small pages are in use (Mem.AllocGuestLargePage = 0), or under "
            "memory pressure",
        )
    ]

"""What Linux's KSM would count, in its own words, from how often each content occurs.

Source: Linux, ``mm/ksm.c`` and ``Documentation/admin-guide/mm/ksm.rst``. KSM merges private anonymous pages
of 4 KB that were marked with MADV_MERGEABLE; a transparent huge page is split when one of its pages finds a
match. The counters are those of memory that nobody writes to, once ksmd has settled: see
`hvshare.sharing.ksm_scan`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from hvshare.caveats import Caveat
from hvshare.errors import SizeError
from hvshare.units import PAGE_SIZE

if TYPE_CHECKING:
    from collections.abc import Mapping

DEFAULT_MAX_PAGE_SHARING: Final = 256
"""How many pages KSM keeps as one, unless ``max_page_sharing`` says otherwise."""

LEAST_MAX_PAGE_SHARING: Final = 2
"""A KSM page has two sharers when it is made, so the kernel accepts no less."""

RMAP_ITEM_BYTES: Final = 64
"""Size of the kernel's ``struct ksm_rmap_item`` on 64-bit: it keeps one for each page that it has scanned."""


@dataclass(frozen=True)
class KsmCounters:
    """Counters of ``/sys/kernel/mm/ksm``.

    Attributes
    ----------
    pages_shared : int
        Pages that KSM keeps in place of others.
    pages_sharing : int
        Further pages that are mapped to these, so what is saved.
    pages_unshared : int
        Pages that found no match, and are looked at again and again.
    ksm_zero_pages : int
        Pages that are mapped to the kernel's zero page; only with ``use_zero_pages``.
    stable_node_chains : int
        Contents that take more than one page, because of ``max_page_sharing``.
    stable_node_dups : int
        Pages that these contents take.
    pages_volatile : int
        Pages that changed too fast, or that ksmd has not got around to.
    """

    pages_shared: int
    pages_sharing: int
    pages_unshared: int
    ksm_zero_pages: int = 0
    stable_node_chains: int = 0
    stable_node_dups: int = 0
    pages_volatile: int = 0

    @property
    def rmap_items(self) -> int:
        """Pages that KSM keeps account of, ``ksm_rmap_items``: all but its zero pages."""
        return self.pages_shared + self.pages_sharing + self.pages_unshared + self.pages_volatile

    @property
    def merging_pages(self) -> int:
        """Pages that are mapped to a KSM page, ``ksm_merging_pages``."""
        return self.pages_shared + self.pages_sharing

    @property
    def saved_pages(self) -> int:
        """Pages that are freed, what KSM needs to keep account apart."""
        return self.pages_sharing + self.ksm_zero_pages

    @property
    def general_profit(self) -> int:
        """Bytes that are freed, less what the account takes.

        The kernel's formula: (pages_sharing + ksm_zero_pages) × page size − rmap_items × 64.

        Examples
        --------
        >>> KsmCounters(pages_shared=1, pages_sharing=3, pages_unshared=2).general_profit
        11904
        """
        return self.saved_pages * PAGE_SIZE - self.rmap_items * RMAP_ITEM_BYTES


@dataclass(frozen=True)
class KsmWords:
    """What KSM would count for some VMs of one host.

    Attributes
    ----------
    domain : str
        Name of the sharing domain; KSM itself takes all memory of a host as one.
    pages, zero_pages : int
        All pages, and those of them that are zero.
    max_page_sharing : int
        The setting that the counters are for.
    without_zero_pages, with_zero_pages : KsmCounters
        With ``use_zero_pages`` 0, which is the default, and 1.
    """

    domain: str
    pages: int
    zero_pages: int
    max_page_sharing: int
    without_zero_pages: KsmCounters
    with_zero_pages: KsmCounters


def ksm_words(
    copies: Mapping[int, int],
    zero_pages: int,
    *,
    domain: str = "",
    max_page_sharing: int = DEFAULT_MAX_PAGE_SHARING,
) -> KsmWords:
    """Predict KSM's counters with ``use_zero_pages`` and without.

    Parameters
    ----------
    copies : mapping of int to int
        For each number of copies, how many contents other than zero occur so often in all VMs together.
    zero_pages : int
        Pages that are zero.
    domain : str
        Name of the sharing domain.
    max_page_sharing : int
        The kernel's setting of that name.

    Raises
    ------
    SizeError
        If the kernel does not accept `max_page_sharing`.
    """
    with_zero, without = (
        predict(copies, zero_pages, use_zero_pages=uses, max_page_sharing=max_page_sharing)
        for uses in (True, False)
    )
    pages = sum(number * contents for number, contents in copies.items()) + zero_pages
    return KsmWords(domain, pages, zero_pages, max_page_sharing, without, with_zero)


def predict(
    copies: Mapping[int, int],
    zero_pages: int,
    *,
    use_zero_pages: bool,
    max_page_sharing: int = DEFAULT_MAX_PAGE_SHARING,
) -> KsmCounters:
    """Predict the counters of KSM once it has settled.

    Parameters
    ----------
    copies, zero_pages, max_page_sharing
        As in `ksm_words`.
    use_zero_pages : bool
        Whether zero pages are mapped to the kernel's zero page; otherwise zero is a content like any other.

    Returns
    -------
    KsmCounters

    Raises
    ------
    SizeError
        If the kernel does not accept `max_page_sharing`.

    Notes
    -----
    A KSM page is made of two pages and takes further ones until it has `max_page_sharing`; then two more make
    the next one. So the copies of one content fill KSM pages one after another, and a single copy that is
    left over stays unshared until it finds another. A content is counted as a chain once it takes a second
    KSM page, and all its KSM pages are then counted as dups.

    Examples
    --------
    >>> predict({1: 5, 2: 3, 600: 1}, 0, use_zero_pages=False)  # doctest: +NORMALIZE_WHITESPACE
    KsmCounters(pages_shared=6, pages_sharing=600, pages_unshared=5, ksm_zero_pages=0, stable_node_chains=1,
                stable_node_dups=3, pages_volatile=0)
    >>> predict({5: 1}, 0, use_zero_pages=False, max_page_sharing=2).pages_unshared
    1
    """
    if max_page_sharing < LEAST_MAX_PAGE_SHARING:
        raise SizeError(
            f"max_page_sharing cannot be {max_page_sharing}", advice="the kernel accepts 2 and more"
        )
    contents = dict(copies)
    if zero_pages and not use_zero_pages:
        contents[zero_pages] = contents.get(zero_pages, 0) + 1
    shared = sharing = unshared = chains = dups = 0
    for number, count in contents.items():
        full, rest = divmod(number, max_page_sharing)
        ksm_pages = full + (rest > 1)
        left_over = int(rest == 1)
        shared += count * ksm_pages
        sharing += count * (number - ksm_pages - left_over)
        unshared += count * left_over
        if ksm_pages > 1:
            chains += count
            dups += count * ksm_pages
    zero = zero_pages if use_zero_pages else 0
    return KsmCounters(shared, sharing, unshared, zero, chains, dups)


def ksm_caveats() -> list[Caveat]:
    """Tell under which conditions KSM counts what was predicted."""
    return [
        Caveat(
            "ksm-settled",
            "KSM's counters are those of memory that is private and anonymous, marked with MADV_MERGEABLE, "
            "not written to, and scanned at least twice",
            "guest memory in files, memfd or hugetlbfs is never merged; compare with the host's own counters "
            "when its guests are idle, or check a copy with hvshare ksm-check",
        )
    ]

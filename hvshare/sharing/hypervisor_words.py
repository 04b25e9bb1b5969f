"""A comparison in the words of the hypervisor that the user runs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

from hvshare.sharing.esx import EsxWords, esx_caveats, esx_words
from hvshare.sharing.ksm import KsmWords, ksm_caveats, ksm_words
from hvshare.sharing.ksm_scan import KsmScan, plan_scan

if TYPE_CHECKING:
    from collections.abc import Collection

    from hvshare.caveats import Caveat
    from hvshare.sharing.comparison import Comparison


@dataclass(frozen=True)
class HypervisorWords:
    """What KSM and ESX would count.

    Attributes
    ----------
    ksm : tuple of KsmWords
        One a sharing domain, or one for all VMs; none if KSM's words were not asked for.
    scan : KsmScan or None
        How long ksmd takes for all of them.
    esx : tuple of EsxWords
        One a sharing domain, or one for all VMs; none if ESX's words were not asked for.
    caveats : tuple of Caveat
        Under which conditions the hypervisors count so.
    """

    ksm: tuple[KsmWords, ...] = ()
    scan: KsmScan | None = None
    esx: tuple[EsxWords, ...] = ()
    caveats: tuple[Caveat, ...] = ()

    @classmethod
    def of(
        cls,
        comparison: Comparison,
        words: Collection[str],
        *,
        max_page_sharing: int,
        pages_to_scan: int,
        sleep_millisecs: int,
        within_seconds: float | None = None,
    ) -> Self:
        """Put a comparison into words.

        Parameters
        ----------
        comparison : Comparison
            What was measured.
        words : collection of str
            ``ksm`` and ``esx``, as far as they are wanted.
        max_page_sharing, pages_to_scan, sleep_millisecs : int
            KSM's settings.
        within_seconds : float, optional
            Time in which KSM should settle.
        """
        ksm: tuple[KsmWords, ...] = ()
        esx: tuple[EsxWords, ...] = ()
        scan = None
        caveats: list[Caveat] = []
        if "ksm" in words:
            ksm = tuple(
                ksm_words(
                    each.contents, each.zero_pages, domain=each.domain, max_page_sharing=max_page_sharing
                )
                for each in comparison.copies
            )
            scan = plan_scan(
                sum(each.pages for each in ksm),
                pages_to_scan=pages_to_scan,
                sleep_millisecs=sleep_millisecs,
                within_seconds=within_seconds,
            )
            caveats += ksm_caveats()
        if "esx" in words:
            esx = tuple(
                esx_words(each.contents, each.zero_pages, domain=each.domain) for each in comparison.copies
            )
            caveats += esx_caveats()
        return cls(ksm, scan, esx, tuple(caveats))

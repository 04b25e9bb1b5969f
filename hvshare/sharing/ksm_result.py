"""What a check with the kernel has shown."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Mapping

    from hvshare.caveats import Caveat
    from hvshare.sharing.ksm import KsmCounters
    from hvshare.sharing.ksm_memory import MappedImage

TOLERANCE: Final = 4
"""Pages by which the kernel may differ: it leaves out a page that somebody else holds at that moment."""

JUDGED: Final = ("pages_shared", "pages_sharing", "ksm_zero_pages")
"""Counters that have to agree."""


@dataclass(frozen=True)
class KsmRun:
    """KSM at work once.

    Attributes
    ----------
    use_zero_pages : bool
        The setting.
    predicted : KsmCounters
        What was expected.
    actual : mapping of str to int
        The counters of ``/sys/kernel/mm/ksm``, as far as this kernel has them.
    own : mapping of str to int
        The counters of ``/proc/PID/ksm_stat`` for the process that holds the memory, likewise.
    full_scans : int
        Full scans until it had settled.
    pages_scanned : int or None
        Pages that ksmd looked at, where the kernel tells.
    ksmd_seconds : float or None
        Processor time of ksmd, if it was found.
    settled : bool
        Whether the counters came to a rest.
    """

    use_zero_pages: bool
    predicted: KsmCounters
    actual: Mapping[str, int]
    own: Mapping[str, int]
    full_scans: int
    pages_scanned: int | None
    ksmd_seconds: float | None
    settled: bool

    @property
    def differences(self) -> dict[str, int]:
        """Actual less predicted, for each counter that this kernel has and that has to agree."""
        own_zero = self.own.get("ksm_zero_pages")
        actual = dict(self.actual) if own_zero is None else {**self.actual, "ksm_zero_pages": own_zero}
        found: dict[str, int] = {
            name: actual[name] - getattr(self.predicted, name) for name in JUDGED if name in actual
        }
        merging = self.own.get("ksm_merging_pages")
        if merging is not None:
            found["ksm_merging_pages"] = merging - self.predicted.merging_pages
        return found

    @property
    def agrees(self) -> bool:
        """Whether none of them differs by more than `TOLERANCE` pages."""
        return all(abs(difference) <= TOLERANCE for difference in self.differences.values())

    @property
    def microseconds_of_a_page(self) -> float | None:
        """Processor time of ksmd for each page that it looked at."""
        if not self.pages_scanned or self.ksmd_seconds is None:
            return None
        return self.ksmd_seconds * 1e6 / self.pages_scanned


@dataclass(frozen=True)
class KsmCheck:
    """The prediction held against the kernel.

    Attributes
    ----------
    kernel : str
        Its release.
    max_page_sharing : int
        The setting that was in force.
    images : tuple of MappedImage
        What was mapped.
    runs : tuple of KsmRun
        One for each setting of ``use_zero_pages``.
    caveats : tuple of Caveat
        What to know before trusting the figures.
    """

    kernel: str
    max_page_sharing: int
    images: tuple[MappedImage, ...]
    runs: tuple[KsmRun, ...]
    caveats: tuple[Caveat, ...]

    @property
    def pages(self) -> int:
        """All pages that were mapped."""
        return sum(image.pages for image in self.images)

    @property
    def zero_pages(self) -> int:
        """Those of them that are zero."""
        return sum(image.zero_pages for image in self.images)

    @property
    def agrees(self) -> bool:
        """Whether the kernel agrees in all runs."""
        return all(run.agrees for run in self.runs)

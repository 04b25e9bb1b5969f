"""The results of measuring erosion: frozen, and plain numbers only."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

    from hvshare.caveats import Caveat
    from hvshare.erosion.aslr_result import Aslr
    from hvshare.erosion.large_pages_result import LargePages
    from hvshare.erosion.prefetch_result import Prefetch
    from hvshare.sharing.counts import Counts
    from hvshare.sharing.report import ImageSharing


class Kind(StrEnum):
    """How a figure came about."""

    MEASURED = "measured"
    BOUNDED = "bounded"
    MODELLED = "modelled"


@dataclass(frozen=True)
class WaterfallStep:
    """One bar between the sharing that would be possible and what is left of it.

    Attributes
    ----------
    factor : str
        ``possible``, ``prefetch``, ``aslr``, ``large-pages`` or ``left``.
    kind : Kind
        How the figures came about.
    lower_bytes, upper_bytes : int
        For ``possible`` and ``left`` what is saved, for the others what the factor takes away; negative where
        it adds to sharing. Equal where the figure is measured.
    """

    factor: str
    kind: Kind
    lower_bytes: int
    upper_bytes: int


@dataclass(frozen=True)
class ErosionReport:
    """What large pages, ASLR and prefetching take away from sharing in some images of one domain.

    Attributes
    ----------
    images : tuple of ImageSharing
        One an image, in the order given.
    pooled : mapping of int to Counts
        By frame size, over all images.
    large_pages : LargePages or None
        None where it was not asked for.
    aslr : Aslr or None
        None where it was not asked for.
    prefetch : Prefetch or None
        None where it was not asked for.
    waterfall : tuple of WaterfallStep
        Empty unless all three were asked for. Each column of bytes adds up: possible is left and the factors;
        the step of ASLR is absent where it could not be found.
    caveats : tuple of Caveat
        What to know before trusting the figures.
    """

    images: tuple[ImageSharing, ...]
    pooled: Mapping[int, Counts]
    large_pages: LargePages | None
    aslr: Aslr | None
    prefetch: Prefetch | None
    waterfall: tuple[WaterfallStep, ...]
    caveats: tuple[Caveat, ...]

"""What it means for a guest that a factor is off or on."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    from collections.abc import Mapping
    from fractions import Fraction

    from hvshare.simulation.making import Request


@dataclass(frozen=True)
class OnLevels:
    """What factors are like where they are on.

    Attributes
    ----------
    prefetch : str or Fraction
        The kind of a prefetcher, or the share of free memory that the preset's own fills.
    guest_large_pages : int
        Bytes that applications allocate in large pages, and in small ones where large pages are off:
        otherwise the guests would differ by what they run.
    """

    prefetch: str | Fraction
    guest_large_pages: int

    @classmethod
    def of(cls, request: Request) -> Self:
        """Take the preset's own prefetcher, and large pages for an eighth of memory."""
        return cls(request.preset.prefetcher.kind, request.memory_bytes // 8)


def at_levels(request: Request, levels: Mapping[str, bool], on: OnLevels) -> Request:
    """Set the factors of a guest.

    Parameters
    ----------
    request : Request
        What else is asked for.
    levels : mapping of str to bool
        By factor out of `hvshare.simulation.design.GUEST_FACTORS`; others stay as they are.
    on : OnLevels
        What they are like where they are on.

    Returns
    -------
    Request
    """
    if "aslr" in levels:
        request = dataclasses.replace(request, aslr=levels["aslr"])
    if "prefetch" in levels:
        request = dataclasses.replace(request, prefetch=on.prefetch if levels["prefetch"] else "off")
    if "guest-large-pages" in levels:
        request = dataclasses.replace(
            request,
            guest_large_pages=on.guest_large_pages if levels["guest-large-pages"] else 0,
            apps=max(request.apps, on.guest_large_pages),
        )
    return request

"""The full factorial: every factor off and on, in all combinations."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from hvshare.units import LARGE_FRAME_SIZE, PAGE_SIZE

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

GUEST_FACTORS: Final = ("aslr", "prefetch", "guest-large-pages")
"""Factors for which guests are made anew."""

HOST_FACTOR: Final = "host-large-pages"
"""The host's frame size, 4 KB or 2 MB, which is measured in the same guests."""

FACTORS: Final = (*GUEST_FACTORS, HOST_FACTOR)
"""All factors of the full factorial."""


@dataclass(frozen=True)
class Cell:
    """One setting of all factors.

    Attributes
    ----------
    levels : mapping of str to bool
        By factor, whether it is on.
    """

    levels: Mapping[str, bool]

    @property
    def host_page_bytes(self) -> int:
        """Frame size of the host."""
        return LARGE_FRAME_SIZE if self.levels[HOST_FACTOR] else PAGE_SIZE


def settings_of(factors: Sequence[str]) -> Iterator[dict[str, bool]]:
    """List all settings of some factors, in Yates's standard order: the first one changes fastest.

    Yields
    ------
    dict of str to bool
        By factor, whether it is on.

    Examples
    --------
    >>> [tuple(levels.values()) for levels in settings_of(("a", "b"))]
    [(False, False), (True, False), (False, True), (True, True)]
    """
    for levels in itertools.product((False, True), repeat=len(factors)):
        yield dict(zip(factors, reversed(levels), strict=True))


def cells(guest_factors: Sequence[str] = GUEST_FACTORS) -> list[Cell]:
    """List the cells of the design: all settings of the guests at 4 KB, and then the same ones at 2 MB."""
    return [Cell(levels) for levels in settings_of((*guest_factors, HOST_FACTOR))]

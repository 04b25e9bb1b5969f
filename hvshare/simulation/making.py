"""What experiments ask of whoever makes guests."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple, Protocol, Self

from hvshare.errors import PresetError
from hvshare.units import LARGE_FRAME_SIZE, PAGE_SIZE, format_frame_size, format_size

if TYPE_CHECKING:
    from collections.abc import Sequence
    from fractions import Fraction

    from hvshare.images.image import GuestImage
    from hvshare.synth.preset import Preset


@dataclass(frozen=True)
class Request:
    """One guest, before it is made.

    Attributes
    ----------
    preset : Preset
        Its description, scaled already.
    memory_bytes : int
        Its memory.
    template : int
        Seed of what the guests of one template have in common.
    vm : int
        Seed of what is the guest's own, and number of its boot: no two guests of an experiment share a boot.
    aslr : bool
        Whether addresses are randomized.
    prefetch : str or Fraction
        ``off``, the kind of a prefetcher, or the share of free memory to fill.
    guest_large_pages : int
        Bytes that the guest allocates in large pages.
    apps : int
        Bytes of further programs.
    fragmentation, diversity : Fraction
        As in `Preset` and its prefetcher.
    """

    preset: Preset
    memory_bytes: int
    template: int
    vm: int
    aslr: bool
    prefetch: str | Fraction
    guest_large_pages: int
    apps: int
    fragmentation: Fraction
    diversity: Fraction

    @property
    def application_bytes(self) -> int:
        """Bytes that applications allocate, in large pages and in small ones."""
        return max(self.apps, -(-self.guest_large_pages // LARGE_FRAME_SIZE) * LARGE_FRAME_SIZE)

    @classmethod
    def of(cls, preset: Preset) -> Self:
        """Ask for the first guest of a preset as it is described, without large pages of its own."""
        return cls(
            preset,
            preset.memory,
            template=1,
            vm=1,
            aslr=preset.aslr.kind != "none",
            prefetch=preset.prefetch,
            guest_large_pages=0,
            apps=0,
            fragmentation=preset.fragmentation,
            diversity=preset.prefetcher.diversity,
        )


class LargePages(NamedTuple):
    """Large pages that a guest has of its own, or several guests together.

    Attributes
    ----------
    had, asked : int
        How many were to be had, and how many it asked for.
    """

    had: int = 0
    asked: int = 0

    @classmethod
    def total(cls, each: Sequence[LargePages]) -> LargePages:
        """Add up those of several guests."""
        return cls(sum(one.had for one in each), sum(one.asked for one in each))


class MadeGuest(NamedTuple):
    """A guest whose pages can be read.

    Attributes
    ----------
    image : GuestImage
        Makes its pages on demand; whoever asked closes it.
    used_bytes, cache_bytes, free_bytes : int
        Memory that is in use, of the file cache, and of nobody. What was read into the cache is in use, too,
        as Windows counts its working set; what was only prefetched is not.
    large_pages : LargePages
        Of its own.
    """

    image: GuestImage
    used_bytes: int
    cache_bytes: int
    free_bytes: int
    large_pages: LargePages = LargePages()


class Maker(Protocol):
    """Whoever makes guests."""

    def __call__(self, request: Request, name: str) -> MadeGuest:
        """Plan a guest, and give it under a name that reports call it by.

        Raises
        ------
        PresetError
            If there can be no such guest.
        """

    def check(self, requests: Sequence[Request]) -> None:
        """See that there can be all of some guests of one template, without making a page.

        Raises
        ------
        PresetError
            If there can be no such guest.
        """


def most_demanding(requests: Sequence[Request]) -> list[Request]:
    """Choose requests so that there is memory for all if there is for these.

    What a guest demands of its memory is its preset's, but for applications: neither ASLR, prefetching nor
    fragmentation changes it. More memory has more page tables, by far less than it adds.
    """
    chosen: dict[Preset, list[Request]] = {}
    for request in sorted(requests, key=lambda each: (each.memory_bytes, -each.application_bytes)):
        of_preset = chosen.setdefault(request.preset, [])
        if all(each.application_bytes < request.application_bytes for each in of_preset):
            of_preset.append(request)
    return [request for of_preset in chosen.values() for request in of_preset]


def scaled_size(size: int, scale: Fraction, unit: int = PAGE_SIZE) -> int:
    """Scale bytes that a user gives beside a preset, to whole units; nothing stays nothing.

    Parameters
    ----------
    size : int
        Bytes of a guest of full size.
    scale : Fraction
        How many times as large the guest is.
    unit : int
        Bytes: of a page, or of a large frame, which is what memory and large pages come in. What is less than
        a page takes one.

    Raises
    ------
    PresetError
        If it is less than a large frame: one would be as much as many times the size that was given.

    Examples
    --------
    >>> from fractions import Fraction
    >>> [scaled_size(size, Fraction(1, 16)) >> 10 for size in (1 << 30, 1 << 20, 1 << 10, 0)]
    [65536, 64, 4, 0]
    """
    if not size:
        return 0
    units = int(size * scale / unit)
    if not units and unit > PAGE_SIZE:
        raise PresetError(
            f"{format_size(size)} at a scale of {scale} is less than {format_frame_size(unit)}",
            advice="give more, or a larger --scale",
        )
    return max(units, 1) * unit

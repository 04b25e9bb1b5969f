"""What experiments ask of whoever makes guests."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple, Protocol, Self

from hvshare.units import LARGE_FRAME_SIZE

if TYPE_CHECKING:
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


class MadeGuest(NamedTuple):
    """A guest whose pages can be read.

    Attributes
    ----------
    image : GuestImage
        Makes its pages on demand; whoever asked closes it.
    used_bytes, cache_bytes, free_bytes : int
        Memory that is in use, of the file cache, and of nobody. What was read into the cache is in use, too,
        as Windows counts its working set; what was only prefetched is not.
    """

    image: GuestImage
    used_bytes: int
    cache_bytes: int
    free_bytes: int


class Maker(Protocol):
    """Whoever makes guests."""

    def __call__(self, request: Request, name: str) -> MadeGuest:
        """Plan a guest, and give it under a name that reports call it by.

        Raises
        ------
        PresetError
            If there can be no such guest.
        """


def scaled_size(size: int, scale: Fraction) -> int:
    """Scale bytes that a user gives beside a preset, to whole large frames; nothing stays nothing.

    Examples
    --------
    >>> from fractions import Fraction
    >>> [scaled_size(size, Fraction(1, 16)) >> 20 for size in (1 << 30, 1 << 20, 0)]
    [64, 2, 0]
    """
    if not size:
        return 0
    return max(int(size * scale / LARGE_FRAME_SIZE), 1) * LARGE_FRAME_SIZE

"""The results of measuring sharing: frozen, and plain numbers only."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from hvshare.units import PAGE_SIZE

if TYPE_CHECKING:
    from collections.abc import Mapping

    from hvshare.caveats import Caveat
    from hvshare.fingerprint.fingerprints import Fingerprints
    from hvshare.sharing.counts import Counts
    from hvshare.sharing.memory_map import MemoryMap


@dataclass(frozen=True)
class ImageSharing:
    """What one image holds and what it could share with itself.

    Attributes
    ----------
    name, path, format : str
        As in `GuestImage`.
    size_bytes : int
        Memory of the guest that the image describes: present and absent.
    present_bytes : int
        Pages whose contents are known, zero pages among them.
    zero_bytes : int
        Zero pages, whether stored or holes.
    absent_bytes : int
        Pages that the guest has and the image has not.
    counts : mapping of int to Counts
        By frame size, for this VM alone.
    """

    name: str
    path: str
    format: str
    size_bytes: int
    present_bytes: int
    zero_bytes: int
    absent_bytes: int
    counts: Mapping[int, Counts]

    @classmethod
    def of(cls, fingerprints: Fingerprints, counts: Mapping[int, Counts]) -> ImageSharing:
        """Put together what is known of an image, and its counts by frame size."""
        return cls(
            fingerprints.name,
            fingerprints.path,
            fingerprints.format,
            fingerprints.size_bytes,
            fingerprints.size_bytes - fingerprints.absent_bytes,
            counts[PAGE_SIZE].zero * PAGE_SIZE,
            fingerprints.absent_bytes,
            counts,
        )

    @property
    def nonzero_pages(self) -> int:
        """Pages that are known and not zero."""
        return (self.present_bytes - self.zero_bytes) // PAGE_SIZE


@dataclass(frozen=True)
class CopiesBin:
    """Contents, zero apart, that occur between so many and so many times.

    Attributes
    ----------
    fewest, most : int
        Copies of a content.
    contents, pages : int
        Contents in this bin, and the pages that hold them.
    """

    fewest: int
    most: int
    contents: int
    pages: int


@dataclass(frozen=True)
class DescribedContent:
    """One of the most frequent contents.

    Attributes
    ----------
    copies : int
        Pages that hold it, over all VMs.
    digest : int
        Its XXH3-64.
    image : str
        Name of the first image that holds it.
    gfn : int
        Where that image first holds it.
    description : str
        What it looks like.
    first_bytes : bytes
        How it starts; empty if the image cannot be read again.
    """

    copies: int
    digest: int
    image: str
    gfn: int
    description: str
    first_bytes: bytes


@dataclass(frozen=True)
class SharingReport:
    """What sharing would free in some images, taken as one sharing domain.

    Attributes
    ----------
    images : tuple of ImageSharing
        One an image, in the order given.
    pooled : mapping of int to Counts
        By frame size, over all images.
    caveats : tuple of Caveat
        What to know before trusting the figures.
    maps : tuple of MemoryMap
        One an image, if they were asked for.
    copies : tuple of CopiesBin
        How often contents occur at 4 KB.
    frequent : tuple of DescribedContent
        The most frequent contents at 4 KB, zero apart.
    """

    images: tuple[ImageSharing, ...]
    pooled: Mapping[int, Counts]
    caveats: tuple[Caveat, ...]
    maps: tuple[MemoryMap, ...] = ()
    copies: tuple[CopiesBin, ...] = ()
    frequent: tuple[DescribedContent, ...] = ()

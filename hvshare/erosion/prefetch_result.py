"""What prefetching takes away from sharing: frozen, and plain numbers only."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

from hvshare.units import PAGE_SIZE

if TYPE_CHECKING:
    from hvshare.caveats import Caveat
    from hvshare.erosion.report import Kind
    from hvshare.sharing.counts import Counts


class Basis(StrEnum):
    """What the figures rest on."""

    COLD = "cold"
    DISK = "disk"
    NONE = "none"


@dataclass(frozen=True)
class Whereabouts:
    """Some pages of one VM, by where else their content is now; the three parts add up to `pages`.

    Attributes
    ----------
    pages : int
        All of them; none is zero.
    between_vms : int
        Their content is in another VM, too, however often in their own.
    within_vm : int
        Their content is in no other VM, and more than once in their own.
    unique : int
        Their content is nowhere else.
    """

    pages: int
    between_vms: int
    within_vm: int
    unique: int


@dataclass(frozen=True)
class ColdPair:
    """A VM beside a cold image, page by page: what was at the same guest frame number before.

    Attributes
    ----------
    image, cold_image : str
        Names of the images.
    pages : int
        Pages that both know.
    cold_zero_pages, zero_pages : int
        Zero pages among them, in the cold image and in that of the VM.
    lost : Whereabouts
        Pages that are zero in the cold image and not in that of the VM.
    lost_held_before : int
        Pages among them whose content the cold image held already, at another place.
    lost_file_pages : int or None
        Pages among them that equal a block of a disk; None where no disk was named.
    gained_pages : int
        Pages that are zero in the image of the VM and not in the cold one.
    same_pages, changed_pages : int
        Pages that are zero in neither, with the same content in both, and with another one.
    contents_in_common, cold_contents : int
        Contents other than zero that both hold, and that the cold image holds.
    cold_alone, alone : Counts
        What each could share with itself, in frames of 4 KB.
    """

    image: str
    cold_image: str
    pages: int
    cold_zero_pages: int
    zero_pages: int
    lost: Whereabouts
    lost_held_before: int
    lost_file_pages: int | None
    gained_pages: int
    same_pages: int
    changed_pages: int
    contents_in_common: int
    cold_contents: int
    cold_alone: Counts
    alone: Counts


@dataclass(frozen=True)
class ColdComparison:
    """Images beside those of the same guests before their cache was warm.

    Attributes
    ----------
    vms : tuple of ColdPair
        One a VM.
    warm : Counts
        What the VMs could share at 4 KB, over the pages that cold images know as well.
    cold : Counts or None
        The same before their cache was warm; None where one cold image stands for several VMs, since what
        these had in common then cannot be known.
    cold_saved_zero, cold_saved_self : int
        The parts of it that are known in any case.
    cold_saved_inter_lower, cold_saved_inter_upper : int
        The part that is known if there is a cold image for each VM: then they are equal.
    """

    vms: tuple[ColdPair, ...]
    warm: Counts
    cold: Counts | None
    cold_saved_zero: int
    cold_saved_self: int
    cold_saved_inter_lower: int
    cold_saved_inter_upper: int


@dataclass(frozen=True)
class DiskBlocks:
    """What was read of a disk, in blocks of 4 KB.

    Attributes
    ----------
    name : str
        Of the disk image.
    blocks : int
        Whole blocks.
    zero_blocks : int
        Blocks that are zero, holes among them.
    contents_found : int
        Contents of blocks, zero apart, that some VM holds.
    """

    name: str
    blocks: int
    zero_blocks: int
    contents_found: int


@dataclass(frozen=True)
class VmFilePages:
    """File pages of a VM: pages other than zero that equal a block of a disk.

    Attributes
    ----------
    image : str
        Name of the image.
    nonzero_pages : int
        Pages of the VM that are known and not zero.
    file_pages : Whereabouts
        The file pages among them.
    contents : int
        Different contents of these file pages.
    """

    image: str
    nonzero_pages: int
    file_pages: Whereabouts
    contents: int


@dataclass(frozen=True)
class FilePages:
    """File pages of all VMs, and what dropping them all would do.

    Attributes
    ----------
    disks : tuple of DiskBlocks
        One a disk.
    vms : tuple of VmFilePages
        One a VM.
    pages : int
        File pages of all VMs, which would be zero pages if they were dropped.
    contents : int
        Different contents of file pages over all VMs.
    dropped : Counts
        What sharing would save at 4 KB if all file pages were dropped, and zero.
    """

    disks: tuple[DiskBlocks, ...]
    vms: tuple[VmFilePages, ...]
    pages: int
    contents: int
    dropped: Counts


@dataclass(frozen=True)
class BalanceStep:
    """Zero sharing lost against cache sharing gained, for the first so many VMs in the order given.

    Attributes
    ----------
    vms : int
        How many VMs.
    image : str
        Name of the last of them.
    zero_lost : int
        Frames that sharing zero pages saves less; on the basis of disks, that it would save more if all file
        pages were dropped.
    cache_saved_lower, cache_saved_upper : int
        Frames that sharing of pages other than zero saves more, within and between VMs; on the basis of
        disks, that it would save less without all file pages. Equal where it is known.
    net_lower, net_upper : int
        What that leaves as lost: zero frames less frames of the cache. On the basis of disks from none, where
        no page could be dropped.
    """

    vms: int
    image: str
    zero_lost: int
    cache_saved_lower: int
    cache_saved_upper: int
    net_lower: int
    net_upper: int


@dataclass(frozen=True)
class Prefetch:
    """What prefetching takes away from what the VMs, pooled, would save at 4 KB.

    Attributes
    ----------
    basis : Basis
        What the figures rest on; cold images go before disks.
    kind : Kind
        MEASURED with a cold image for each VM, BOUNDED otherwise.
    lower_frames, upper_frames : int
        Frames of 4 KB, net of what the cache itself shares; negative where prefetching adds to sharing.
    pooled : Counts
        What the VMs would save now.
    cold : ColdComparison or None
        None where no cold image was named.
    disk : FilePages or None
        None where no disk was named.
    balance : tuple of BalanceStep
        One for each number of VMs; empty where nothing is known of the cache.
    caveats : tuple of Caveat
        What to know before trusting the figures.
    """

    basis: Basis
    kind: Kind
    lower_frames: int
    upper_frames: int
    pooled: Counts
    cold: ColdComparison | None
    disk: FilePages | None
    balance: tuple[BalanceStep, ...]
    caveats: tuple[Caveat, ...]

    @property
    def lower_bytes(self) -> int:
        """`lower_frames` in bytes."""
        return self.lower_frames * PAGE_SIZE

    @property
    def upper_bytes(self) -> int:
        """`upper_frames` in bytes."""
        return self.upper_frames * PAGE_SIZE

"""VMs whose disks are known: their file pages, and what dropping them would do."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hvshare.caveats import Caveat
from hvshare.erosion.prefetch_contents import (
    is_among,
    repeated_of,
    savings_as_added,
    whereabouts,
)
from hvshare.erosion.prefetch_result import BalanceStep, FilePages, VmFilePages
from hvshare.sharing.counts import count_domain
from hvshare.units import PAGE_SIZE

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np
    from numpy.typing import NDArray

    from hvshare.erosion.disk_pages import DiskContents
    from hvshare.erosion.prefetch_vms import HeldContents
    from hvshare.sharing.counts import Counts


class DiskSection:
    """File pages of VMs.

    Parameters
    ----------
    held : HeldContents
        What the VMs hold.
    disk : DiskContents
        Those of their contents that blocks of disks have.

    Attributes
    ----------
    result : FilePages
        What was found.
    balance : tuple of BalanceStep
        Zero sharing against cache sharing, if all file pages were dropped, as VMs are added.
    lower_frames, upper_frames : int
        What sharing would save more if file pages were dropped: the least and the most over all choices of
        pages.
    caveats : list of Caveat
        What to know before trusting it.

    Raises
    ------
    UnsupportedImageError
        If a disk is not that of a VM.

    Notes
    -----
    A file page that is dropped becomes a zero page. The number of frames stays, so what is saved changes by
    the number of contents that are dropped altogether; a first zero page is a new content. A content that
    several pages hold is freed once, whatever the number of its pages.
    """

    def __init__(self, held: HeldContents, disk: DiskContents) -> None:
        file_contents = [contents[is_among(contents, disk.contents)] for contents in held.contents]
        between = held.between()
        vms = []
        for vm, each in enumerate(held.fingerprints):
            of_files = each.digests[disk.file_pages(each.digests)]
            where = whereabouts(of_files, between, repeated_of(each.digests))
            vms.append(VmFilePages(each.name, held.nonzero_of[vm], where, len(file_contents[vm])))
        self.caveats = [*disk.caveats, *disk.check_belongs(vms), _not_found()]
        pages_of = [vm.file_pages.pages for vm in vms]
        # As if the VMs held nothing but their file pages.
        files = savings_as_added(file_contents, [0] * len(vms), pages_of)
        dropped = _dropped_as_added(held, file_contents, files)
        self.result = FilePages(disk.disks, tuple(vms), files[-1].frames, files[-1].distinct, dropped[-1])
        self.balance = tuple(_balance(held, dropped))
        self.upper_frames = max(0, dropped[-1].saved - held.pooled.saved)
        self.lower_frames = least_saved_more(held.pooled, files[-1])


def least_saved_more(now: Counts, droppable: Counts) -> int:
    """Tell what sharing saves more at the least if some pages become zero, in frames.

    Parameters
    ----------
    now, droppable : Counts
        Of all VMs, and of the pages other than zero that may be dropped.

    Returns
    -------
    int
        0, for none may be; or -1 where there is no zero page yet, since the first one is a new content, and a
        copy of the page that was dropped may stay.
    """
    repeated = droppable.saved_self + droppable.saved_inter
    return -1 if repeated and not now.zero else 0


def _dropped_as_added(
    held: HeldContents, file_contents: Sequence[NDArray[np.uint64]], files: Sequence[Counts]
) -> list[Counts]:
    """Count what the first VM would save, the first two, and so on, if all file pages were zero."""
    left_of = [len(of_vm) - len(of_disk) for of_vm, of_disk in zip(held.contents, file_contents, strict=True)]
    return [
        count_domain(
            PAGE_SIZE,
            partial_frames=0,
            zero=now.zero + dropped.frames,
            nonzero=now.frames - now.zero - dropped.frames,
            distinct_of=left_of[: vm + 1],
            distinct=now.distinct - (now.zero > 0) - dropped.distinct,
        )
        for vm, (now, dropped) in enumerate(zip(held.as_added, files, strict=True))
    ]


def _balance(held: HeldContents, dropped: list[Counts]) -> list[BalanceStep]:
    steps = []
    for vm, (now, after) in enumerate(zip(held.as_added, dropped, strict=True)):
        zero_lost = after.saved_zero - now.saved_zero
        cache_saved = now.saved_self + now.saved_inter - after.saved_self - after.saved_inter
        steps.append(
            BalanceStep(
                vm + 1,
                held.fingerprints[vm].name,
                zero_lost,
                cache_saved,
                cache_saved,
                0,
                zero_lost - cache_saved,
            )
        )
    return steps


def mapped_pages() -> Caveat:
    """Tell why dropping file pages gives a bound and no measurement."""
    return Caveat(
        "mapped-file-pages",
        "pages that equal a block of the disk count as cache that could be dropped; those that programs "
        "have mapped could not, so what zero pages would return lies between nothing and all of them",
        "take a cold image of the guest, and name it with --cold, to measure it",
    )


def _not_found() -> Caveat:
    return Caveat(
        "file-pages-not-found",
        "cached pages are not found where the disk holds other bytes: written since, encrypted, "
        "compressed, packed with others into a block, or not 4 KB-aligned",
        "take the disk at the time of the dump, or a snapshot of it",
    )

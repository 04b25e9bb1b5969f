"""File pages: pages of memory that equal a 4 KB-aligned block of a disk."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np

from hvshare.caveats import Caveat
from hvshare.erosion.disk_alignment import sector_offset
from hvshare.erosion.prefetch_contents import held_by_any, is_among
from hvshare.erosion.prefetch_result import DiskBlocks
from hvshare.errors import UnsupportedImageError
from hvshare.fingerprint.pages import ZERO_DIGEST
from hvshare.units import PAGE_SIZE, format_share, format_size

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from hvshare.erosion.disk_reading import DiskReading
    from hvshare.erosion.prefetch_result import VmFilePages

LEAST_TO_TELL: Final = 256
"""Pages below which nothing is said about whether a disk is that of a guest."""

_FOREIGN_SHARE: Final = 100  # one page in so many
_FEW_SHARE: Final = 10
_ENOUGH_PAGES: Final = 1 << 14


class DiskContents:
    """The contents of memory that some disks hold, found as the blocks come in.

    Parameters
    ----------
    reading : DiskReading
        The disks; it is read to its end.
    vms : sequence of ndarray of uint64
        The contents of each VM, ascending, each once, zero apart.

    Attributes
    ----------
    contents : ndarray of uint64
        Those that a block of a disk has: ascending, each once.
    disks : tuple of DiskBlocks
        One a disk.
    caveats : list of Caveat
        What was odd about the disks.

    Notes
    -----
    Memory is 8 bytes a content of memory, 1 a disk, and a constant, however large the disks are.
    """

    def __init__(self, reading: DiskReading, vms: Sequence[NDArray[np.uint64]]) -> None:
        self._reading = reading
        self._of_memory = of_memory = held_by_any(vms)
        disks = range(len(reading.names))
        found = [np.zeros(len(of_memory), bool) for _ in disks]
        blocks, zero_blocks = [0 for _ in disks], [0 for _ in disks]
        for disk, digests in reading:
            blocks[disk] += len(digests)
            nonzero = digests[digests != np.uint64(ZERO_DIGEST)]
            zero_blocks[disk] += len(digests) - len(nonzero)
            if len(of_memory):
                nonzero.sort()  # neighbours are looked up side by side, in the caches
                at = np.searchsorted(of_memory, nonzero)
                np.minimum(at, len(of_memory) - 1, out=at)
                found[disk][at[of_memory[at] == nonzero]] = True
        self.contents = of_memory[np.logical_or.reduce(found)]
        self.disks = tuple(
            DiskBlocks(
                reading.names[disk],
                blocks[disk] + reading.holes[disk],
                zero_blocks[disk] + reading.holes[disk],
                int(np.count_nonzero(found[disk])),
            )
            for disk in disks
        )
        self.caveats = list(reading.caveats)

    def file_pages(self, digests: NDArray[np.uint64]) -> NDArray[np.bool_]:
        """Tell which pages of a VM equal a block of a disk, zero pages apart."""
        return is_among(digests, self.contents)

    def check_belongs(self, vms: Sequence[VmFilePages]) -> list[Caveat]:
        """Refuse disks that are not those of the VMs, and tell of those that may not be.

        Parameters
        ----------
        vms : sequence of VmFilePages
            What was found of each.

        Raises
        ------
        UnsupportedImageError
            If a VM has next to no pages in common with any of the disks.

        Notes
        -----
        Guests that ran one workload from their own disks have 13 to 56 % of their non-zero pages in common
        with them, and 0.2 to 4.4 % with the disk of another release of the same distribution, where all files
        under /usr were read; measured on Debian 12 and 13.
        """
        caveats = []
        for vm in vms:
            pages, of_all = vm.file_pages.pages, vm.nonzero_pages
            if of_all < LEAST_TO_TELL or pages >= _ENOUGH_PAGES or pages * _FEW_SHARE >= of_all:
                continue
            found = f"{pages:,} of the {of_all:,} pages other than zero of {vm.image}"
            found = f"{found} ({format_share(pages, of_all)}) equal a block of "
            if pages * _FOREIGN_SHARE < of_all:
                raise self._does_not_belong(found)
            caveats.append(
                Caveat(
                    "few-file-pages",
                    f"only {found}the disk, where a tenth or more is usual",
                    "check that all disks are named that the guest runs from, and are its own",
                    vm.image,
                )
            )
        caveats.extend(self._disks_without_pages())
        return caveats

    def _does_not_belong(self, found: str) -> UnsupportedImageError:
        paths = self._reading.paths
        disks = "it" if len(paths) == 1 else "any of the disks"
        for number in range(len(paths)):
            if offset := self._sector_offset(number):
                return UnsupportedImageError(
                    f"only {found}{disks}, but blocks that start {offset:,} bytes behind multiples of 4 KB "
                    "do: its partitions are not 4 KB-aligned",
                    path=paths[number],
                    advice="name the device of the partition, which `losetup --find --show --partscan "
                    "--read-only` makes",
                )
        return UnsupportedImageError(
            f"only {found}{disks}, where a tenth or more is usual",
            path=paths[0],
            advice="name the disk that this guest runs from, unencrypted and with file systems that do not "
            "compress; if it is, leave --disk out",
        )

    def _disks_without_pages(self) -> list[Caveat]:
        caveats = []
        for number, disk in enumerate(self.disks):
            if disk.contents_found or disk.blocks - disk.zero_blocks < LEAST_TO_TELL:
                continue
            offset = self._sector_offset(number)
            why = (
                f", but blocks that start {offset:,} bytes behind multiples of 4 KB do: its partitions are "
                "not 4 KB-aligned"
                if offset
                else ""
            )
            caveats.append(
                Caveat(
                    "disk-without-file-pages",
                    f"none of its {disk.blocks - disk.zero_blocks:,} blocks other than zero "
                    f"({format_size((disk.blocks - disk.zero_blocks) * PAGE_SIZE)}) equals a page of "
                    f"memory{why}",
                    "name the device of the partition, which `losetup --find --show --partscan --read-only` "
                    "makes"
                    if offset
                    else "check that it is a disk of one of the guests, neither encrypted nor compressed",
                    disk.name,
                )
            )
        return caveats

    def _sector_offset(self, number: int) -> int | None:
        image = self._reading.images[number]
        if image is None or image.runs is None:
            return None
        return sector_offset(image, self._of_memory)

"""A folder of real guests, read in the plainest way: no numpy, and nothing of hvshare."""

from __future__ import annotations

import gzip
import hashlib
import struct
from itertools import combinations
from pathlib import Path
from typing import Final

PAGE: Final = 4096
ZERO_PAGE: Final = bytes(PAGE)
DISK: Final = "disk"
_ANON, _LRU, _SLAB, _BUDDY, _SWAP_BACKED, _NO_PAGE, _PAGE_TABLE = 12, 5, 7, 10, 14, 20, 26
_MAPPED_TO_DISK, _PRIVATE = 34, 35


def digest(page: bytes) -> bytes:
    """Stand for a page by BLAKE2b, in 16 bytes."""
    return hashlib.blake2b(page, digest_size=16).digest()


ZERO: Final = digest(ZERO_PAGE)
"""What stands for the zero page."""


class Lab:
    """Guests by name, such as ``aslr-a``: a group, and a letter for each member.

    Parameters
    ----------
    folder : Path
        Holds NAME.raw and NAME.kpageflags.gz of each guest, and disk.raw, as far as they are there.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._pages: dict[str, list[bytes]] = {}

    def members(self, group: str) -> list[str]:
        """List the guests of a group that are there."""
        return [f"{group}-{letter}" for letter in "abcdefgh" if self.has(f"{group}-{letter}")]

    def pairs(self, group: str) -> list[tuple[str, ...]]:
        """List all pairs of members of a group."""
        return list(combinations(self.members(group), 2))

    def has(self, name: str) -> bool:
        """Tell whether there is memory of a guest, or a disk."""
        return (self.folder / f"{name}.raw").is_file()

    def pages(self, name: str) -> list[bytes]:
        """Give a digest for each whole page of 4 KB, in order."""
        if name not in self._pages:
            with (self.folder / f"{name}.raw").open("rb") as file:
                read = iter(lambda: file.read(PAGE), b"")
                self._pages[name] = [
                    ZERO if page == ZERO_PAGE else digest(page) for page in read if len(page) == PAGE
                ]
        return self._pages[name]

    def kernel_flags(self, name: str) -> list[int] | None:
        """Give what the guest's kernel said of each page.

        Returns
        -------
        list of int or None
            By page frame number; None where the kernel was not asked.

        Notes
        -----
        The bits are those of ``/proc/kpageflags`` (Linux, Documentation/admin-guide/mm/pagemap.rst, and
        include/linux/kernel-page-flags.h for those from 32 on).
        """
        path = self.folder / f"{name}.kpageflags.gz"
        if not path.is_file():
            return None
        return [flags for (flags,) in struct.iter_unpack("<Q", gzip.decompress(path.read_bytes()))]


def is_file_cache(flags: int) -> bool:
    """Tell whether a kernel has a page as page cache of a file, block devices among them."""
    of_others = (_BUDDY, _NO_PAGE, _SLAB, _PAGE_TABLE, _ANON, _SWAP_BACKED)
    return _has(flags, _LRU) and not any(_has(flags, bit) for bit in of_others)


def is_as_on_disk(flags: int) -> bool:
    """Tell whether a page of the cache was read from disk as a whole; those written since have buffers."""
    return _has(flags, _MAPPED_TO_DISK) and not _has(flags, _PRIVATE)


def _has(flags: int, bit: int) -> bool:
    return bool(flags >> bit & 1)

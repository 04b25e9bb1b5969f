"""What a guest uses a page for."""

from __future__ import annotations

from enum import IntEnum


class Owner(IntEnum):
    """What a page is used for."""

    FREE = 0
    """Free, and zero."""
    DIRTY = 1
    """Free, and not cleared yet."""
    FIRMWARE = 2
    KERNEL = 3
    DRIVERS = 4
    KERNEL_DATA = 5
    PAGE_TABLES = 6
    PROGRAMS = 7
    """Executables, as all processes see them."""
    LIBRARIES = 8
    """The same of libraries."""
    IMAGE_DATA = 9
    """Pages of executables and libraries that a process has for itself, since it wrote to them."""
    HEAPS = 10
    STACKS = 11
    LARGE_PAGES = 12
    FILE_CACHE = 13
    PREFETCHED = 14

    @property
    def title(self) -> str:
        """The name for people."""
        return self.name.lower().replace("_", " ")

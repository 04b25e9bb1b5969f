"""The mappings of a process, as ``/proc/PID/maps`` lists them.

Source: Linux, ``Documentation/filesystems/proc.rst`` (section 1.1, "maps") and ``fs/proc/task_mmu.c``.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Final, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

_DELETED: Final = " (deleted)"


class Mapping(NamedTuple):
    """Addresses of a process that are mapped alike.

    Attributes
    ----------
    start, end : int
        First virtual address, and the one behind the last.
    permissions : str
        Such as ``rw-p``.
    offset : int
        Byte of the file that is mapped at `start`.
    inode : int
        Of that file; 0 where there is none.
    name : str
        Path of the file, a name in brackets that the kernel gives, or nothing. A file that has no name any
        more ends in `` (deleted)``.
    """

    start: int
    end: int
    permissions: str
    offset: int
    inode: int
    name: str

    @property
    def size(self) -> int:
        """Bytes."""
        return self.end - self.start

    @property
    def is_shared(self) -> bool:
        """Whether what is written goes to the file, or to other processes."""
        return self.permissions[3] == "s"

    @property
    def is_anonymous(self) -> bool:
        """Whether it is private memory without a file, and none that the kernel makes itself.

        Special mappings such as ``[vdso]`` and ``[vvar]`` have no file either.
        """
        return (
            not self.is_shared
            and not self.inode
            and (self.name in {"", "[heap]", "[stack]"} or self.name.startswith(("[anon:", "[stack:")))
        )

    @property
    def is_readable(self) -> bool:
        """Whether the process itself may read it."""
        return self.permissions[0] == "r"

    @property
    def is_reserved(self) -> bool:
        """Whether the process may not touch it, as with guard pages and address space for later."""
        return self.permissions.startswith("---")

    @property
    def file_name(self) -> str:
        """Path of the file, as it was before anybody deleted it."""
        return self.name.removesuffix(_DELETED)

    def continues(self, other: Mapping) -> bool:
        """Whether it lies right behind another mapping and is of the same kind."""
        return (
            self.start == other.end
            and (self.permissions, self.inode, self.name) == (other.permissions, other.inode, other.name)
            and (not self.inode or self.offset == other.offset + other.size)
        )


def parse_maps(text: bytes) -> list[Mapping]:
    """Read ``/proc/PID/maps``.

    Parameters
    ----------
    text : bytes
        The whole file.

    Returns
    -------
    list of Mapping
        Ascending, without overlaps: the kernel gives the file in parts, between which mappings may change.

    Raises
    ------
    ValueError
        If a line is none of that file.

    Examples
    --------
    >>> line = b"7f0000000000-7f0000002000 rw-s 00001000 00:01 1027    /memfd:guest ram (deleted)"
    >>> (mapping,) = parse_maps(line)
    >>> mapping.size, mapping.is_shared, mapping.offset, mapping.inode, mapping.file_name
    (8192, True, 4096, 1027, '/memfd:guest ram')
    """
    mappings: list[Mapping] = []
    end = 0
    for line in text.splitlines():
        addresses, permissions, offset, _device, inode, *name = os.fsdecode(line).split(maxsplit=5)
        low, high = (int(each, 16) for each in addresses.split("-"))
        if low >= end:
            mappings.append(
                Mapping(low, high, permissions, int(offset, 16), int(inode), name[0] if name else "")
            )
            end = high
    return mappings


def joined(mappings: Iterable[Mapping]) -> Iterator[tuple[Mapping, ...]]:
    """Put mappings together that are one block of memory, which advice to the kernel may have split.

    Parameters
    ----------
    mappings : iterable of Mapping
        Ascending.

    Yields
    ------
    tuple of Mapping
        Neighbours of one kind.

    Examples
    --------
    >>> text = b"1000-2000 rw-p 0 00:00 0\\n2000-3000 rw-p 0 00:00 0\\n3000-4000 ---p 0 00:00 0\\n"
    >>> [len(each) for each in joined(parse_maps(text))]
    [2, 1]
    """
    block: list[Mapping] = []
    for each in mappings:
        if block and not each.continues(block[-1]):
            yield tuple(block)
            block = []
        block.append(each)
    if block:
        yield tuple(block)

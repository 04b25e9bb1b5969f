"""The RAM of a guest among the mappings of its QEMU.

Source: QEMU, ``util/mmap-alloc.c`` (RAM is mapped at a large alignment, with a page behind it that nobody may
touch), ``softmmu/physmem.c`` (advice such as mergeable and huge pages; the name ``qemu_back_mem.NAME.XXXXXX``
of files that it makes in a folder) and ``backends/hostmem-*.c``.
"""

from __future__ import annotations

import os
from itertools import groupby
from typing import TYPE_CHECKING, Final, NamedTuple

from hvshare.errors import UnsupportedImageError
from hvshare.images.live.maps import Mapping, joined
from hvshare.units import format_size

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from hvshare.images.live.qemu_command import Backend

_ALIGNMENT: Final = 2 << 20
_PAGE_SIZES: Final = (4096, 2 << 20, 1 << 30)
"""Of file systems that round the size of a file up."""


class RamBlock(NamedTuple):
    """A part of the guest's RAM in the memory of the process.

    Attributes
    ----------
    start : int
        Virtual address of its first byte.
    size : int
        Bytes.
    mappings : tuple of Mapping
        That it lies in, ascending.
    """

    start: int
    size: int
    mappings: tuple[Mapping, ...]


class FoundRam(NamedTuple):
    """All parts of the RAM.

    Attributes
    ----------
    blocks : tuple of RamBlock
        In the order of the backends.
    order_inferred : bool
        Whether parts of one size are told apart by the order in which QEMU maps them, and by nothing else.
    """

    blocks: tuple[RamBlock, ...]
    order_inferred: bool


def find_ram(backends: Sequence[Backend], mappings: Sequence[Mapping], path: str) -> FoundRam:
    """Find the mapping of each part of the RAM.

    Parameters
    ----------
    backends : sequence of Backend
        What QEMU was told to get.
    mappings : sequence of Mapping
        Of the process, ascending.
    path : str
        The image, for errors.

    Returns
    -------
    FoundRam

    Raises
    ------
    UnsupportedImageError
        If there is none, or more than one that could be it.
    """
    found: dict[int, RamBlock] = {}
    inferred = False
    order = sorted(
        range(len(backends)), key=lambda number: (_traits(backends[number]), backends[number].number)
    )
    for _, group in groupby(order, key=lambda number: _traits(backends[number])):
        numbers = list(group)
        for number in list(numbers):
            named = [
                each for each in _candidates(backends[number], mappings) if _is_named(each, backends[number])
            ]
            if len(named) == 1:
                found[number] = named[0]
                numbers.remove(number)
        if not numbers:
            continue
        taken = {each.start for each in found.values()}
        backend = backends[numbers[0]]
        candidates = [each for each in _candidates(backend, mappings) if each.start not in taken]
        if len(candidates) != len(numbers):
            raise _not_found(backend, len(numbers), candidates, path)
        inferred |= len(numbers) > 1
        # The kernel gives out addresses downwards, and leaves no gap that the RAM of a guest would fit in.
        found |= zip(numbers, reversed(candidates), strict=True)
    return FoundRam(tuple(found[number] for number in range(len(backends))), inferred)


def _candidates(backend: Backend, mappings: Sequence[Mapping]) -> list[RamBlock]:
    """List what a backend can be, surest ways of recognising it first."""
    blocks = [each for each in joined(mappings) if _is_memory(each[0])]
    fitting = [each for each in blocks if _is_of_kind(each[0], backend)]
    for some in (fitting, blocks):
        singles = [(each,) for block in some for each in block]
        for ways in (singles, some):
            found = {
                _contents(way): RamBlock(way[0].start, backend.size, way)
                for way in reversed(ways)
                if way[-1].end - way[0].start in _sizes(backend)
            }
            if found:
                return sorted(found.values())
    return list(_tails(backend, fitting, mappings))


def _tails(
    backend: Backend, blocks: Iterable[tuple[Mapping, ...]], mappings: Iterable[Mapping]
) -> Iterator[RamBlock]:
    """Find RAM that the kernel has joined with other memory in front of it."""
    guards = {each.start for each in mappings if each.is_reserved}
    for block in blocks:
        end = block[-1].end
        start = end - backend.size
        if block[0].is_anonymous and start > block[0].start and end in guards and not start % _ALIGNMENT:
            yield RamBlock(start, backend.size, tuple(each for each in block if each.end > start))


def _contents(way: tuple[Mapping, ...]) -> tuple[int, int]:
    """Tell mappings of the same part of one file to be the same."""
    first = way[0]
    return (first.inode, first.offset) if first.inode else (0, first.start)


def _is_memory(mapping: Mapping) -> bool:
    return mapping.permissions.startswith("rw-") and (bool(mapping.inode) or mapping.is_anonymous)


def _is_of_kind(mapping: Mapping, backend: Backend) -> bool:
    if mapping.is_shared != backend.shared:
        return False
    in_memory = mapping.name.startswith("/memfd:")
    match backend.kind:
        case "file":
            return mapping.file_name == backend.path or mapping.file_name.startswith(
                backend.path.rstrip("/") + "/"
            )
        case "memfd":
            return in_memory
        case _:
            return mapping.is_anonymous or (
                backend.shared and (in_memory or mapping.file_name == "/dev/zero")
            )


def _is_named(block: RamBlock, backend: Backend) -> bool:
    """Whether the file of a block has the name of the backend in it, or is its alone."""
    if backend.kind != "file":
        return False
    name = os.path.basename(block.mappings[0].file_name)  # noqa: PTH119
    return f".{backend.name}." in name or f"_{backend.name}." in name


def _sizes(backend: Backend) -> set[int]:
    return {backend.size + -backend.size % each for each in _PAGE_SIZES[: 1 if backend.kind == "ram" else 3]}


def _traits(backend: Backend) -> tuple[str, int, bool, str]:
    """Give what a mapping shows of a backend."""
    return backend.kind, backend.size, backend.shared, backend.path


def _not_found(
    backend: Backend, count: int, candidates: Sequence[RamBlock], path: str
) -> UnsupportedImageError:
    wanted = f"{format_size(backend.size)} ({backend.description})"
    if count > 1:
        wanted = f"{count} times {wanted}"
    pid = path.partition(":")[2]
    if not candidates:
        problem = f"its command line gives the guest {wanted}, and no mapping of the process is of that size"
    else:
        places = ", ".join(f"{each.start:#x}" for each in candidates[:8])
        problem = (
            f"its command line gives the guest {wanted}, and {len(candidates)} mappings of the process could "
            f"be that, at {places}"
        )
    return UnsupportedImageError(
        problem,
        path=path,
        advice=f"take a dump (dump-guest-memory), or name pid:{pid} for all private memory of the process",
    )

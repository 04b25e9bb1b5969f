"""What a guest allocates: the rows of pages for each owner."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

import numpy as np

from hvshare.synth.address_spaces import BOOT, FIRST_PROCESS, HEAP, KERNEL, MODULES, ON_DISK, PROGRAM, STACK
from hvshare.synth.contents.kinds import Kind, Pages
from hvshare.synth.disk import image_pages
from hvshare.synth.draws import below
from hvshare.synth.owners import Owner
from hvshare.units import LARGE_FRAME_SIZE, PAGE_SIZE

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from fractions import Fraction

    from numpy.typing import NDArray

    from hvshare.synth.draws import Draws
    from hvshare.synth.layouts import Process
    from hvshare.synth.template import Template

_TABLE_ENTRIES: Final = 512
_UPPER_TABLES: Final = 4
"""Tables of a process above those that map its pages."""

_HEAP_KINDS: Final = 4
"""Of so many pages of a heap one holds records without addresses."""


class Allocation(NamedTuple):
    """Pages of one owner.

    Attributes
    ----------
    owner : Owner
        What they are used for.
    pages : Pages
        What they hold.
    """

    owner: Owner
    pages: Pages


class Allocations:
    """What a guest allocates, owner by owner.

    Parameters
    ----------
    template : Template
        What it is made from.
    processes : sequence of Process
        What runs; those of the preset first.
    vm, boot : Draws
        What is drawn for the VM and for this boot.
    """

    def __init__(self, template: Template, processes: Sequence[Process], vm: Draws, boot: Draws) -> None:
        self._template = template
        self._processes = processes
        self._vm = vm
        self._boot = boot
        preset = template.preset
        self._narrow = preset.architecture == "i386"
        self._relocates_once = preset.aslr.kind != "linux"

    def kernel(self) -> Iterator[Allocation]:
        """Give what lies where the boot loader puts it: firmware and kernel."""
        preset, draws = self._template.preset, self._template.draws
        keys = draws.child("firmware").words(_pages(preset.kernel.firmware))
        yield Allocation(Owner.FIRMWARE, rows(Kind.DATA, keys))
        yield Allocation(Owner.KERNEL, self._kernel_image("kernel", preset.kernel.image, KERNEL))

    def system(self, memory_pages: int) -> Iterator[Allocation]:
        """Give what the kernel allocates: drivers, its data, and the tables that map all memory."""
        preset, draws = self._template.preset, self._template.draws
        yield Allocation(Owner.DRIVERS, self._kernel_image("drivers", preset.kernel.drivers, MODULES))
        count = _pages(preset.kernel.data)
        common = below(draws.child("kernel data").words(count), preset.kernel.common.denominator)
        is_common = common < preset.kernel.common.numerator
        kind = Kind.KERNEL_DATA_I386 if self._narrow else Kind.KERNEL_DATA_X86_64
        kinds = np.where(is_common, Kind.DATA, kind).astype(np.uint8)
        keys = np.where(
            is_common,
            draws.child("common kernel data").words(count),
            self._boot.child("kernel data").words(count),
        )
        yield Allocation(Owner.KERNEL_DATA, rows(kinds, keys, space=BOOT, region=KERNEL))
        tables = _UPPER_TABLES + memory_pages // (_TABLE_ENTRIES * _TABLE_ENTRIES)
        yield self._page_tables("kernel", tables)

    def images(self) -> tuple[NDArray[np.int64], list[Allocation]]:
        """Give pages of executables and libraries.

        Returns
        -------
        disk_pages : ndarray of int64
            What programs map of the disk, each page once however many map it.
        allocations : list of Allocation
            These pages as they are in memory, and those that a process has for itself: on Linux all that hold
            addresses and all that are written to, on Windows the latter.
        """
        template, processes = self._template, self._processes
        programs = sorted({process.program for process in processes})
        libraries = sorted({int(file) for process in processes for file in process.libraries})
        found = []
        for owner, files in ((Owner.PROGRAMS, programs), (Owner.LIBRARIES, libraries)):
            pages = template.pages_of_files(files)
            # On Windows a page is relocated once for all processes; on Linux the file's page stays as it is.
            space = BOOT if self._relocates_once else ON_DISK
            found.append(Allocation(owner, self.on_disk(pages, space)))
        for space, process in enumerate(processes, FIRST_PROCESS):
            found.append(self._written(process, space))
        return template.pages_of_files([*programs, *libraries]), found

    def processes(self, large_pages: int) -> Iterator[Allocation]:
        """Give what each process allocates for itself; of applications so many pages in large ones."""
        applications = FIRST_PROCESS + len(self._template.processes)
        for space, process in enumerate(self._processes, FIRST_PROCESS):
            program = process.name.rpartition(" ")[0]
            heap = self._heap(program, process, space)
            large = min(large_pages, len(heap)) if space >= applications else 0
            large_pages -= large
            yield Allocation(Owner.LARGE_PAGES, heap[:large])
            yield Allocation(Owner.HEAPS, heap[large:])
            yield Allocation(Owner.STACKS, self._stack(program, process, space))
            mapped = (
                process.heap
                + process.stack
                + int(self._template.disk.image_sizes[[process.program, *process.libraries]].sum())
            )
            yield self._page_tables(process.name, _UPPER_TABLES + mapped // LARGE_FRAME_SIZE)

    def on_disk(self, pages: NDArray[np.int64], space: int = ON_DISK) -> Pages:
        """Give pages of the disk as an address space has them."""
        disk = self._template.disk
        return rows(disk.kinds[pages], disk.keys[pages], space=space, region=disk.regions[pages])

    def cached(self, pages: NDArray[np.int64]) -> Pages:
        """Give pages of the cache: of the disk, and from its end on files that no other guest has."""
        known = len(self._template.disk)
        if not known:
            return self._own_files(pages)
        return choose(pages < known, self.on_disk(np.minimum(pages, known - 1)), self._own_files(pages))

    def _own_files(self, pages: NDArray[np.int64]) -> Pages:
        known = len(self._template.disk)
        keys = self._vm.child("own files").words(int(pages.max(initial=0)) + 1 - known)
        own = keys[np.maximum(pages - known, 0)] if len(keys) else np.zeros(len(pages), np.uint64)
        kinds = np.where(own & np.uint64(64), Kind.TEXT, Kind.DATA).astype(np.uint8)
        return rows(kinds, own)

    def stale(self, count: int) -> Pages:
        """Give free pages that still hold what they were used for: files, and heaps of ended processes."""
        draws = self._boot.child("stale")
        disk, processes = self._template.disk, self._processes
        words = draws.words(count)
        first = int(disk.starts[disk.documents.start])
        pages = first + below(words, max(1, len(disk) - first)).astype(np.int64)
        kind = Kind.HEAP_I386 if self._narrow else Kind.HEAP_X86_64
        space = FIRST_PROCESS + below(words, len(processes)).astype(np.int32) if processes else BOOT
        of_heaps = rows(kind, draws.child("heaps").words(count), space=space, region=HEAP)
        if not len(disk):
            return of_heaps
        of_files = self.on_disk(np.minimum(pages, len(disk) - 1))
        return choose(words & np.uint64(1) == 0, of_files, of_heaps)

    def _kernel_image(self, name: str, size: int, region: int) -> Pages:
        count = _pages(size)
        keys = self._template.draws.child(name).words(count)
        place = np.arange(count)
        kinds, _, writable = image_pages(
            self._template.preset, place, np.full(count, count), np.zeros(count, np.uint64), keys
        )
        if not self._relocates_once:
            kinds[kinds == Kind.CODE_X86_64] = Kind.KERNEL_CODE_X86_64
        few = self._boot.child(name).words(count) | np.uint64(1)
        return rows(kinds, keys, private=np.where(writable, few, np.uint64(0)), space=BOOT, region=region)

    def _written(self, process: Process, space: int) -> Allocation:
        """Give the pages of images that a process has for itself."""
        disk = self._template.disk
        pages = self._template.pages_of_files([process.program, *process.libraries])
        written = disk.writable[pages]
        chosen = written if self._relocates_once else written | disk.relocated[pages]
        pages = pages[chosen]
        few = self._boot.child("written", process.name).words(len(pages)) | np.uint64(1)
        private = np.where(disk.writable[pages] & (few & np.uint64(2) == 0), few, np.uint64(0))
        kinds, keys, regions = disk.kinds[pages], disk.keys[pages], disk.regions[pages]
        return Allocation(Owner.IMAGE_DATA, rows(kinds, keys, private=private, space=space, region=regions))

    def _heap(self, program: str, process: Process, space: int) -> Pages:
        """Give a heap: pages alike in all processes of a program, alike but for a few words, and private."""
        count = process.heap // PAGE_SIZE
        heaps = self._template.preset.heaps
        common = self._template.draws.child("heap", program)
        own = self._boot.child("heap", process.name)
        place = common.child("kinds").words(count)
        private = ~_drawn(place, heaps.common + heaps.near)
        near = ~private & ~_drawn(place, heaps.common)
        keys = np.where(private, own.words(count), common.words(count))
        kind = Kind.HEAP_I386 if self._narrow else Kind.HEAP_X86_64
        plain = place & np.uint64(_HEAP_KINDS - 1) == 0
        kinds = np.where(plain, Kind.DATA, kind).astype(np.uint8)
        few = np.where(near, own.child("few words").words(count) | np.uint64(1), np.uint64(0))
        return rows(kinds, keys, private=few, space=space, region=HEAP)

    def _stack(self, program: str, process: Process, space: int) -> Pages:
        count = process.stack // PAGE_SIZE
        keys = self._template.draws.child("stack", program).words(count)
        few = self._boot.child("stack", process.name).words(count) | np.uint64(1)
        kind = Kind.STACK_I386 if self._narrow else Kind.STACK_X86_64
        return rows(kind, keys, private=few, space=space, region=STACK)

    def _page_tables(self, name: str, count: int) -> Allocation:
        return Allocation(
            Owner.PAGE_TABLES, rows(Kind.PAGE_TABLE_PAE, self._boot.child("page tables", name).words(count))
        )


def rows(
    kinds: NDArray[np.uint8] | int,
    keys: NDArray[np.uint64],
    *,
    private: NDArray[np.uint64] | int = 0,
    space: NDArray[np.int32] | int = ON_DISK,
    region: NDArray[np.int32] | int = PROGRAM,
) -> Pages:
    """Put pages together; what is one number is the same for all."""
    shape = keys.shape
    return Pages(
        np.broadcast_to(np.asarray(kinds, np.uint8), shape),
        keys,
        np.broadcast_to(np.asarray(private, np.uint64), shape),
        np.broadcast_to(np.asarray(space, np.int32), shape),
        np.broadcast_to(np.asarray(region, np.int32), shape),
    )


def choose(which: NDArray[np.bool_], one: Pages, other: Pages) -> Pages:
    """Take rows of one where it is asked for, and of the other elsewhere."""
    return Pages(
        np.where(which, one.kinds, other.kinds),
        np.where(which, one.keys, other.keys),
        np.where(which, one.private, other.private),
        np.where(which, one.spaces, other.spaces),
        np.where(which, one.regions, other.regions),
    )


def _pages(size: int) -> int:
    return -(-size // PAGE_SIZE)


def _drawn(words: NDArray[np.uint64], share: Fraction) -> NDArray[np.bool_]:
    return np.asarray(below(words, share.denominator) < np.uint64(share.numerator))

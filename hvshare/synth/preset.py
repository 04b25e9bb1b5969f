"""What a guest is like."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from fractions import Fraction
from typing import Annotated, Any, Literal, TypeVar

from hvshare.units import LARGE_FRAME_SIZE, PAGE_SIZE

T = TypeVar("T")

Size = Annotated[int, "size"]
"""Bytes; a preset file has them as text, such as "64 MiB"."""
Share = Annotated[Fraction, "share"]
"""From 0 to 1, exact."""
Count = Annotated[int, "count"]
Address = Annotated[int, "address"]
Line = Annotated[str, "line"]
Architecture = Literal["i386", "x86-64"]
RandomizationKind = Literal["none", "windows", "linux"]
PrefetcherKind = Literal["superfetch", "preload"]
DefaultPrefetch = Literal["off", "superfetch", "preload"]


@dataclass(frozen=True)
class Kernel:
    """The kernel of a guest.

    Attributes
    ----------
    image, drivers, data, firmware : int
        Bytes of its image, of its drivers or modules, of what it allocates, and of what the firmware leaves.
    common : Fraction
        Share of its data that is alike in all guests of a template.
    """

    image: Size
    drivers: Size
    data: Size
    common: Share
    firmware: Size


@dataclass(frozen=True)
class Images:
    """What executables, libraries and drivers consist of.

    Attributes
    ----------
    relocated : Fraction
        Share of their pages that hold an address to relocate.
    code, constants, writable : Fraction
        Shares of their pages that are machine code, constants, and data that programs write to; the rest is
        resources.
    """

    relocated: Share
    code: Share
    constants: Share
    writable: Share


@dataclass(frozen=True)
class DiskContents:
    """What is on the disk of a template, beside the kernel and the programs that run.

    Attributes
    ----------
    libraries : int
        Bytes of the libraries.
    library_files : int
        How many they are.
    installed : int
        Bytes of programs that are installed and do not run.
    installed_programs : int
        How many they are.
    text, media, records : int
        Bytes of files of that kind.
    repeated : Fraction
        Share of the pages of such files that occur elsewhere on the disk, too.
    """

    libraries: Size
    library_files: Count
    installed: Size
    installed_programs: Count
    text: Size
    media: Size
    records: Size
    repeated: Share


@dataclass(frozen=True)
class Cache:
    """The file cache of a guest without prefetching.

    Attributes
    ----------
    template : int
        Bytes of the template's files that every guest has read.
    own : int
        Bytes of files that no other guest has, such as logs.
    """

    template: Size
    own: Size


@dataclass(frozen=True)
class Heaps:
    """What programs allocate.

    Attributes
    ----------
    common, near : Fraction
        Shares of pages that are alike in all processes of a program but for addresses, and of those that
        differ in a few words besides. The rest is private.
    """

    common: Share
    near: Share


@dataclass(frozen=True)
class Program:
    """A program that runs.

    Attributes
    ----------
    name : str
        Its name.
    processes : int
        How many run; each is started on its own.
    image : int
        Bytes of its executable.
    libraries : int
        How many libraries it loads.
    heap, stack : int
        Bytes that each process allocates.
    """

    name: Line
    processes: Count
    image: Size
    libraries: Count
    heap: Size
    stack: Size


@dataclass(frozen=True)
class Randomization:
    """What the address space layout is randomized like.

    Attributes
    ----------
    kind : str
        Out of `RANDOMIZATIONS`.
    user_end : int
        Address behind the last one of a program: where libraries are packed downward from.
    heap_places : int
        Number of places, 64 KB apart, of a heap on Windows; 1 leaves it alone.
    """

    kind: RandomizationKind
    user_end: Address
    heap_places: Count = 1


@dataclass(frozen=True)
class Prefetcher:
    """What fills free memory ahead of demand.

    Attributes
    ----------
    kind : str
        Out of `PREFETCHERS`: what ``--prefetch FRACTION`` fills so much of free memory with.
    diversity : Fraction
        How much of the use of programs is a guest's own: with 0 all guests of a template use them alike.
    hour : int
        Of the week, from 0 on Monday at midnight to 167: what programs are wanted for then comes first.
    """

    kind: PrefetcherKind
    diversity: Share
    hour: Count


@dataclass(frozen=True)
class Free:
    """Memory that nobody uses.

    Attributes
    ----------
    dirty : Fraction
        Share of its pages that still hold what they were used for; the others are zero.
    """

    dirty: Share


@dataclass(frozen=True)
class Preset:
    """A kind of guest.

    Attributes
    ----------
    name, title, source : str
        What it is called, what it is, and where its figures come from.
    architecture : str
        Out of `ARCHITECTURES`.
    memory : int
        Bytes, a multiple of 2 MB.
    prefetch : str
        What prefetching is like by default: ``off`` or the prefetcher's kind.
    fragmentation : Fraction
        Share of the blocks of 2 MB that are broken up when memory is allocated.
    """

    name: Line
    title: Line
    source: Line
    architecture: Architecture
    memory: Size
    prefetch: DefaultPrefetch
    fragmentation: Share
    kernel: Kernel
    images: Images
    disk: DiskContents
    cache: Cache
    heaps: Heaps
    free: Free
    aslr: Randomization
    prefetcher: Prefetcher
    programs: tuple[Program, ...]

    def scaled(self, scale: Fraction) -> Preset:
        """Return the same with every size so many times as large, in whole pages; shares and counts stay."""
        return _scaled(self, scale) if scale != 1 else self


def _scaled(table: T, scale: Fraction) -> T:
    values: dict[str, Any] = {}
    for each in dataclasses.fields(table):  # type: ignore[arg-type]
        value = getattr(table, each.name)
        if each.type == "Size":  # as text, since annotations are not evaluated
            unit = LARGE_FRAME_SIZE if each.name == "memory" else PAGE_SIZE
            values[each.name] = max(unit, int(value * scale / unit) * unit) if value else 0
        elif isinstance(value, tuple):
            values[each.name] = tuple(_scaled(item, scale) for item in value)
        elif dataclasses.is_dataclass(value):
            values[each.name] = _scaled(value, scale)
    return dataclasses.replace(table, **values)  # type: ignore[type-var]

"""Guests that are booted from one disk again and again, with and without ASLR, so that the truth is known."""

from __future__ import annotations

import enum
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

import hvshare
from hvshare.erosion.aslr import measure_aslr
from hvshare.erosion.aslr_contents import Contents
from hvshare.erosion.aslr_result import Aslr
from hvshare.erosion.aslr_slides import Votes
from hvshare.erosion.page_store import PageStore
from hvshare.fingerprint.fingerprints import Fingerprints
from tests.guests import ZERO, MemoryImage
from tests.oracle import PAGE, Vm, count

Words = NDArray[np.uint64]
Numbers = NDArray[np.int64]

WORDS: Final = PAGE // 8
MB: Final = 1 << 20
_ZERO_PAGES: Final = 20
_PRIVATE_PAGES: Final = 40


class Region(enum.IntEnum):
    """What moves as one: a process has a heap, an area of mappings and a stack of its own."""

    TEXT, MODULES, DIRECT, HEAP, MMAP, STACK, SECOND_HEAP, SECOND_MMAP, SECOND_STACK = range(9)


_PROCESS: Final = (Region.HEAP, Region.MMAP, Region.STACK)
_USER_BASES: Final = [0x0150_0000, 0x7FFF_F700_0000, 0x7FFF_FFF0_0000]
BASES: Final = np.array(
    [0xFFFF_FFFF_8100_0000, 0xFFFF_FFFF_C000_0000, 0xFFFF_8880_0000_0000, *_USER_BASES, *_USER_BASES],
    np.uint64,
)
"""Where regions are without ASLR: in all processes at the same addresses."""


class Form(enum.IntEnum):
    """How an address, or what depends on one, is written."""

    POINTER, PAGE_NUMBER, SAFE_LINK, HASH, FIELD, RELATIVE = range(6)


class Addresses(NamedTuple):
    """Addresses in pages, wherever they start in the page.

    Attributes
    ----------
    rows, bytes_in : ndarray of int64
        The page, and the first byte in it.
    forms, regions, offsets : ndarray of int64
        How it is written, and where it points to.
    """

    rows: Numbers
    bytes_in: Numbers
    forms: Numbers
    regions: Numbers
    offsets: Numbers

    def __add__(self, other: object) -> Addresses:
        assert isinstance(other, Addresses)
        return Addresses(*(np.concatenate(both) for both in zip(self, other, strict=True)))

    def chosen(self, which: NDArray[np.bool_]) -> Addresses:
        """Keep some of them."""
        return Addresses(*(column[which] for column in self))

    def below(self, rows: int) -> Addresses:
        """Move them down by some pages."""
        return self._replace(rows=self.rows + rows)

    def elsewhere(self, regions: dict[Region, Region]) -> Addresses:
        """Let them point into other regions."""
        table = np.arange(len(Region))
        table[list(regions)] = list(regions.values())
        return self._replace(regions=table[self.regions])

    @classmethod
    def none(cls) -> Addresses:
        """Give none."""
        return cls(*(np.empty(0, np.int64) for _ in range(5)))


class Part(NamedTuple):
    """Pages with addresses in them, as programs mean them."""

    words: Words
    addresses: Addresses

    def __add__(self, other: object) -> Part:
        assert isinstance(other, Part)
        return Part(
            np.concatenate((self.words, other.words)), self.addresses + other.addresses.below(len(self.words))
        )

    def with_addresses(self, addresses: Addresses) -> Part:
        """Write further addresses over what is there."""
        return Part(self.words, self.addresses + addresses)

    def for_second_process(self) -> Part:
        """Give the same pages of a second process."""
        second = (Region.SECOND_HEAP, Region.SECOND_MMAP, Region.SECOND_STACK)
        return self._replace(addresses=self.addresses.elsewhere(dict(zip(_PROCESS, second, strict=True))))

    def at(self, bases: Words) -> list[bytes]:
        """Write the pages as they are with regions at some addresses."""
        content = self.words.view(np.uint8).reshape(-1, PAGE).copy()
        each = self.addresses
        address = bases[each.regions] + each.offsets.astype(np.uint64)
        page = address >> np.uint64(12)
        written = [
            address,
            page,
            address ^ page,
            (address >> np.uint64(4)) | (address << np.uint64(60)),
            address,
            address - bases[Region.TEXT],
        ]
        for form in Form:
            of_form = each.forms == form
            data = written[form][of_form].view(np.uint8).reshape(-1, 8)
            for byte in range(8 if form < Form.FIELD else 4):
                content[each.rows[of_form], each.bytes_in[of_form] + byte] = data[:, byte]
        return [page.tobytes() for page in content]


def slides(seed: int | None, *, user: bool = True, kernel: bool = True) -> Words:
    """Say where regions are after a boot; without a seed ASLR is off."""
    if seed is None:
        return BASES
    random = np.random.default_rng((seed, 1))
    bases = BASES.copy()
    for region in Region:
        pages = int(random.integers(1, 1 << 17))
        if region == Region.TEXT and kernel:
            bases[region] += np.uint64((1 + pages % 255) * 2 * MB)
        elif region == Region.DIRECT and kernel:
            bases[region] += np.uint64((1 + pages % 1000) << 30)
        elif region == Region.MODULES and kernel:
            bases[region] += np.uint64((1 + pages % 1023) * PAGE)
        elif region in {Region.HEAP, Region.SECOND_HEAP} and user:
            bases[region] += np.uint64(pages * PAGE)
        elif region > Region.DIRECT and user:
            bases[region] -= np.uint64((pages * 1021 + int(random.integers(1, 1000))) * PAGE)
    return bases


def data(random: np.random.Generator, pages: int) -> Words:
    """Make words as data structures have them: nothing, small numbers, and a few of any size."""
    words = random.integers(0, 1 << 64, (pages, WORDS), dtype=np.uint64)
    kind = random.random((pages, WORDS))
    words[kind < 0.9] >>= np.uint64(56)
    words[kind < 0.5] = 0
    return words


def pointers(
    random: np.random.Generator, pages: int, share: float, targets: dict[Region, tuple[int, int]]
) -> Addresses:
    """Point from a share of the words into regions, at offsets between two bounds each."""
    row, column = np.nonzero(random.random((pages, WORDS)) < share)
    regions = random.choice(list(targets), len(row))
    bounds = np.array([targets.get(region, (0, 0)) for region in Region])
    offsets = random.integers(bounds[regions, 0], bounds[regions, 1]) & ~7
    return Addresses(row, column * 8, np.full(len(row), Form.POINTER), regions, offsets)


def scattered(
    random: np.random.Generator, rows: Sequence[int], each: int, form: Form, region: Region, size: int
) -> Addresses:
    """Put some addresses into each of some pages; those of 64 bits are aligned, fields are not."""
    row = np.repeat(np.asarray(rows), each)
    step = 8 if form < Form.FIELD else 13
    places = np.concatenate([random.choice(PAGE // step - 1, each, replace=False) for _ in rows])
    offsets = random.integers(0, size, len(row)) & ~7
    if form == Form.HASH:
        offsets &= ~15
    return Addresses(row, places * step, np.full(len(row), form), np.full(len(row), region), offsets)


def process(random: np.random.Generator, heap_pages: int = 160) -> Part:
    """Make the memory of a process: its heap, the data of two libraries, and its stack."""
    into = {
        Region.HEAP: (0, heap_pages * PAGE),
        Region.MMAP: (0, 5 * MB),
        Region.STACK: (0, 8 * PAGE),
    }
    heap = Part(data(random, heap_pages), pointers(random, heap_pages, 0.2, into))
    libraries = Part(data(random, 24), pointers(random, 24, 0.3, {Region.MMAP: (0, 5 * MB)}))
    stack = Part(data(random, 8), pointers(random, 8, 0.3, into))
    return heap + libraries + stack


def kernel(random: np.random.Generator) -> Part:
    """Make a kernel: data with pointers, and code with fields of 32 bits, absolute and relative ones."""
    into = {Region.TEXT: (0, 6 * MB), Region.MODULES: (0, 2 * MB), Region.DIRECT: (0, 64 * MB)}
    of_data = Part(data(random, 60), pointers(random, 60, 0.2, into))
    code = Part(random.integers(0, 1 << 64, (40, WORDS), dtype=np.uint64), Addresses.none())
    for form, region in ((Form.FIELD, Region.TEXT), (Form.RELATIVE, Region.MODULES)):
        # Odd and even pages, so that neither kind writes over the other.
        rows = range(int(form == Form.FIELD), 40, 2)
        code = code.with_addresses(scattered(random, rows, 30, form, region, 2 * MB))
    return of_data + code


def alike_pages(random: np.random.Generator, start: int, pages: int) -> Part:
    """Make an array in a heap: pages that are alike but for addresses in themselves."""
    columns, offsets = random.choice(WORDS, 6, replace=False), random.integers(0, PAGE, 6) & ~7
    rows = np.repeat(np.arange(pages), 6)
    return Part(
        np.repeat(data(random, 1), pages, axis=0),
        Addresses(
            rows,
            np.tile(columns * 8, pages),
            np.full(len(rows), Form.POINTER),
            np.full(len(rows), Region.HEAP),
            np.tile(offsets, pages) + (start + rows) * PAGE,
        ),
    )


def displaced(heap: Part, by: int) -> Part:
    """Move what is in a heap some bytes up, with all that points there."""
    each = heap.addresses
    at = each.rows * PAGE + each.bytes_in + by
    kept = each.chosen(at < heap.words.size * 8)
    at = at[at < heap.words.size * 8]
    offsets = np.where(kept.regions == Region.HEAP, kept.offsets + by, kept.offsets)
    moved = kept._replace(rows=at // PAGE, bytes_in=at % PAGE, offsets=offsets)
    return Part(np.roll(heap.words, by // 8), moved)


class Disk:
    """What all guests run, made from a seed.

    Parameters
    ----------
    seed : int
        Other numbers make other programs.
    processes : int
        How many processes run that one program, 1 or 2.
    """

    def __init__(self, seed: int = 1, processes: int = 1) -> None:
        random = np.random.default_rng(seed)
        program = process(random)
        self.part = kernel(random) + program
        if processes == 2:
            self.part += program.for_second_process()
        words = random.integers(0x2020_2020_2020_2020, 0x7A7A_7A7A_7A7A_7A7A, (30, WORDS), dtype=np.uint64)
        self.text = [page.tobytes() for page in words]

    def boot(self, vm: int, seed: int | None, *, user: bool = True, kernel: bool = True) -> list[bytes]:
        """Boot a VM; what is private to it does not depend on ASLR."""
        return booted(self.part, vm, slides(seed, user=user, kernel=kernel), self.text)


def booted(part: Part, vm: int, bases: Words, text: Sequence[bytes] = ()) -> list[bytes]:
    """Put the pages of a VM together, in an order of its own, with zero pages and some that are its own."""
    random = np.random.default_rng((vm, 2))
    private = random.integers(0, 1 << 64, (_PRIVATE_PAGES, WORDS), dtype=np.uint64)
    pages = [*part.at(bases), *text, *(page.tobytes() for page in private), *[ZERO] * _ZERO_PAGES]
    return [pages[place] for place in random.permutation(len(pages)).tolist()]


class Truth(NamedTuple):
    """Frames that sharing saves further without ASLR."""

    saved: int
    saved_self: int
    saved_inter: int

    @classmethod
    def of(cls, off: Sequence[Vm], on: Sequence[Vm]) -> Truth:
        """Count raw bytes without ASLR and with it."""
        without, with_it = count(off, 1), count(on, 1)
        own, inter = (without[name] - with_it[name] for name in ("saved_self", "saved_inter"))
        return cls(own + inter, own, inter)


def images_of(vms: Sequence[Vm], *, zero_runs: bool = True) -> list[MemoryImage]:
    """Make images in memory."""
    return [MemoryImage(f"vm{index}", vm, zero_runs=zero_runs) for index, vm in enumerate(vms)]


def find(vms: Sequence[Vm], jobs: int = 1) -> Aslr:
    """Search for what ASLR takes away from some VMs, and check that the counts add up."""
    images = images_of(vms)
    found = measure_aslr(images, hvshare.fingerprint_images(images, jobs=1), jobs=jobs)
    check_sums(found, vms)
    return found


def check_sums(found: Aslr, vms: Sequence[Vm]) -> None:
    """Hold the counts against each other, and those of pages against raw bytes."""
    copies = Counter(page for vm in vms for page in vm if page is not None and page != ZERO)
    assert found.nonzero_pages == sum(copies.values())
    assert found.unmatched_pages == sum(times == 1 for times in copies.values())
    assert found.explained_saved_self + found.explained_saved_inter == found.explained_saved_frames
    assert found.explained_saved_frames + found.near_saved_frames == found.upper_saved_frames
    assert found.near_saved_frames >= 0
    # Of the different contents at least one stays.
    assert found.upper_saved_frames <= max(len(copies) - 1, 0)
    assert sum(layer.saved_frames for layer in found.layers) == found.explained_saved_frames
    assert sum(layer.pages for layer in found.layers) == found.explained_pages
    remainder = {each.name: each.pages for each in found.remainder}
    assert sum(remainder.values()) + found.explained_pages == found.unmatched_pages
    assert remainder.get("near", 0) == found.near_pages


def kept(vms: Sequence[Vm]) -> tuple[PageStore, Contents, list[Fingerprints]]:
    """Keep a page of each content of some VMs; the store is the caller's to close."""
    images = images_of(vms, zero_runs=False)
    fingerprints = hvshare.fingerprint_images(images, jobs=1)
    contents = Contents.of(fingerprints)
    store = PageStore(contents)
    store.fill(images, fingerprints)
    return store, contents, fingerprints


def to_page(words: Sequence[int] | Words) -> bytes:
    """Make a page that starts with some words and is zero behind them."""
    return np.array(words, np.uint64).tobytes().ljust(PAGE, b"\0")


@contextmanager
def stored(vms: Sequence[Vm]) -> Iterator[tuple[PageStore, Contents]]:
    """Keep a page of each content of some VMs for a while."""
    store, contents, _ = kept(vms)
    with store:
        yield store, contents


def array(values: Sequence[int]) -> Words:
    """Make words of numbers."""
    return np.array(values, np.uint64)


def numbers(values: Sequence[int]) -> Numbers:
    """Make an array of numbers."""
    return np.array(values, np.int64)


def votes_of(rows: Sequence[tuple[int, int, int]], twins: int = 9) -> Votes:
    """Make votes of two VMs, a place and a distance each, that as many twins bear out."""
    spaces, places, distances = ([row[at] for row in rows] for at in range(3))
    ones = np.full(len(rows), twins)
    return Votes(numbers(spaces), array(places), array(distances), ones, ones)

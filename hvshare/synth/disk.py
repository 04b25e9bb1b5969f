"""What is on the disk of a template: the files that all its guests have."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np

from hvshare.synth.address_spaces import LIBRARIES
from hvshare.synth.contents.kinds import Kind
from hvshare.synth.draws import below, numbered
from hvshare.units import PAGE_SIZE

if TYPE_CHECKING:
    from collections.abc import Sequence
    from fractions import Fraction

    from numpy.typing import NDArray

    from hvshare.synth.draws import Draws
    from hvshare.synth.mapped.image import MappedImage
    from hvshare.synth.preset import Preset

_LEAST_FILE_PAGES: Final = 16
"""There are no more files than leave each so many pages on average, so that scaled disks have fewer files."""
_DOCUMENT_PAGES: Final = 48
_REPEATED_CONTENTS: Final = 64
_ROUNDING_BITS: Final = 12


@dataclass(frozen=True)
class Disk:
    """A template's disk: files one after another, images first, each in whole pages.

    Attributes
    ----------
    kinds : ndarray of uint8, shape (pages,)
        What each page looks like, out of `Kind`; ZERO for gaps in real images, which nobody reads.
    keys : ndarray of uint64, shape (pages,)
        Which content of its kind it holds.
    regions : ndarray of int32, shape (pages,)
        The region that a page of an image lies in once it is loaded; 0 for other files.
    relocated, writable : ndarray of bool, shape (pages,)
        Whether a page of an image holds an address, and whether programs write to it.
    starts : ndarray of int64, shape (files + 1,)
        First page of each file, and the number of all pages.
    libraries, programs, installed, documents : range
        Files: libraries, executables of programs that run in the order of the preset, of programs that do
        not, and all others.
    preferred : ndarray of uint64, shape (images,)
        Where images were linked to lie, if they are real ones; else 0.
    """

    kinds: NDArray[np.uint8]
    keys: NDArray[np.uint64]
    regions: NDArray[np.int32]
    relocated: NDArray[np.bool_]
    writable: NDArray[np.bool_]
    starts: NDArray[np.int64]
    libraries: range
    programs: range
    installed: range
    documents: range
    preferred: NDArray[np.uint64]

    def __len__(self) -> int:
        return len(self.kinds)

    def pages_of(self, file: int) -> NDArray[np.int64]:
        """Return the numbers of the pages of a file."""
        return np.arange(self.starts[file], self.starts[file + 1])

    @property
    def image_sizes(self) -> NDArray[np.int64]:
        """Bytes of each image: library, program or installed program."""
        return np.diff(self.starts[: self.documents.start + 1]) * PAGE_SIZE


def make_disk(preset: Preset, template: Draws, mapped: Sequence[MappedImage] = ()) -> Disk:
    """Lay out the disk of a template.

    Parameters
    ----------
    preset : Preset
        Scaled already.
    template : Draws
        What is on it follows from these.
    mapped : sequence of MappedImage, optional
        Real images, which take the place of the libraries.

    Returns
    -------
    Disk
    """
    draws = template.child("disk")
    contents = preset.disk
    libraries = (
        np.array([len(each.pages) for each in mapped], np.int64)
        if mapped
        else _cut(contents.libraries, contents.library_files, draws.child("libraries"))
    )
    programs = np.array([_pages(each.image) for each in preset.programs], np.int64)
    installed = _cut(contents.installed, contents.installed_programs, draws.child("installed"))
    documents = [
        _cut(size, _pages(size) // _DOCUMENT_PAGES + 1, draws.child(name))
        for name, size in (("text", contents.text), ("media", contents.media), ("records", contents.records))
    ]
    sizes = np.concatenate([libraries, programs, installed, *documents])
    images = len(libraries) + len(programs) + len(installed)
    starts = np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64)
    files = np.repeat(np.arange(len(sizes)), sizes)
    place = np.arange(starts[-1]) - starts[files]
    of_files = draws.child("contents").words(len(sizes))
    keys = numbered(of_files[files], place.astype(np.uint64))
    kinds = np.repeat(
        np.array([Kind.DATA, Kind.TEXT, Kind.MEDIA, Kind.DATA], np.uint8),
        [starts[images], *(each.sum() for each in documents)],
    )
    relocated, writable = np.zeros(len(kinds), bool), np.zeros(len(kinds), bool)
    of_images = slice(0, int(starts[images]))
    kinds[of_images], relocated[of_images], writable[of_images] = image_pages(
        preset, place[of_images], sizes[files[of_images]], of_files[files[of_images]], keys[of_images]
    )
    preferred = np.zeros(images, np.uint64)
    if mapped:
        real = slice(0, int(starts[len(mapped)]))
        is_there = np.concatenate([each.mapped for each in mapped])
        kinds[real] = np.where(is_there, Kind.MAPPED, Kind.ZERO)
        keys[real] = np.arange(real.stop, dtype=np.uint64)
        relocated[real] = np.concatenate([each.relocated_pages for each in mapped])
        writable[real] = _written(
            np.concatenate([each.writable for each in mapped]), preset.images.writable, draws.child("written")
        )
        preferred[: len(mapped)] = [each.preferred_base for each in mapped]
    _repeat(keys[of_images.stop :], contents.repeated, draws.child("repeated"))
    regions = np.where(files < images, LIBRARIES + files, 0).astype(np.int32)
    first, second, third = len(libraries), len(libraries) + len(programs), images
    return Disk(
        kinds,
        keys,
        regions,
        relocated,
        writable,
        starts,
        range(first),
        range(first, second),
        range(second, third),
        range(third, len(sizes)),
        preferred,
    )


def image_pages(
    preset: Preset,
    place: NDArray[np.int64],
    sizes: NDArray[np.int64],
    rounding: NDArray[np.uint64],
    keys: NDArray[np.uint64],
) -> tuple[NDArray[np.uint8], NDArray[np.bool_], NDArray[np.bool_]]:
    """Tell what pages of images look like: code, constants, data that is written, resources.

    Parameters
    ----------
    preset : Preset
        Says how much of each there is, and how many pages hold addresses.
    place : ndarray of int64, shape (pages,)
        Number of each page within its image.
    sizes : ndarray of int64, shape (pages,)
        Pages of that image.
    rounding : ndarray of uint64, shape (pages,)
        The same drawn word for all pages of an image: parts of it are rounded up or down by it.
    keys : ndarray of uint64, shape (pages,)
        What is drawn follows from these.

    Returns
    -------
    kinds : ndarray of uint8, shape (pages,)
    relocated, writable : ndarray of bool, shape (pages,)
    """
    images = preset.images
    narrow = preset.architecture == "i386"
    place = (place << _ROUNDING_BITS) + (rounding >> np.uint64(64 - _ROUNDING_BITS)).astype(np.int64)
    before_constants, before_data, before_resources = (
        place * share.denominator < (sizes << _ROUNDING_BITS) * share.numerator
        for share in (
            images.code,
            images.code + images.constants,
            images.code + images.constants + images.writable,
        )
    )
    code, constants = before_constants, before_data & ~before_constants
    writable = before_resources & ~before_data
    kinds = np.full(len(place), Kind.DATA, np.uint8)
    kinds[~before_resources & (keys & np.uint64(3) != 0)] = Kind.MEDIA
    kinds[~before_resources & (keys & np.uint64(3) == 0)] = Kind.TEXT
    kinds[code] = Kind.CODE_I386 if narrow else Kind.CODE_X86_64
    holders, share = (code, images.code) if narrow else (constants, images.constants)
    relocated = holders & _drawn(keys, images.relocated / share if share else share)
    kinds[relocated] = Kind.MOVED_CODE_I386 if narrow else Kind.POINTERS_X86_64
    return kinds, relocated, writable


def _pages(size: int) -> int:
    return -(-size // PAGE_SIZE)


def _cut(size: int, count: int, draws: Draws) -> NDArray[np.int64]:
    """Cut bytes into files, many small ones and few large ones; the sizes are in pages."""
    pages = _pages(size)
    count = min(count, -(-pages // _LEAST_FILE_PAGES))
    if not count:
        return np.zeros(0, np.int64)
    weights = (1 + below(draws.words(count), 16).astype(np.int64)) ** 2
    ends = np.cumsum(weights) * (pages - count) // int(weights.sum())
    return np.diff(ends, prepend=0) + 1


def _written(writable: NDArray[np.bool_], share: Fraction, draws: Draws) -> NDArray[np.bool_]:
    """Choose among pages that may be written those that are: no more than a share of all pages."""
    places = np.flatnonzero(writable)
    chosen = np.zeros(len(writable), bool)
    chosen[places[draws.permutation(len(places))[: int(len(writable) * share)]]] = True
    return chosen


def _drawn(keys: NDArray[np.uint64], share: Fraction) -> NDArray[np.bool_]:
    """Draw a share of things by their keys."""
    return np.asarray(below(numbered(keys, np.zeros(1, np.uint64)), share.denominator) < share.numerator)


def _repeat(keys: NDArray[np.uint64], share: Fraction, draws: Draws) -> None:
    """Have a share of pages hold contents out of few, in place."""
    rows = np.flatnonzero(_drawn(keys, share))
    few = draws.words(_REPEATED_CONTENTS)
    keys[rows] = few[below(draws.child("which").words(len(rows)), _REPEATED_CONTENTS).astype(np.int64)]

"""Pages of real programs and libraries, as each is at the address at which a guest loads it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np

from hvshare.synth.mapped.image import PAGE

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from hvshare.synth.mapped.image import MappedImage

_WIDTHS: Final = (4, 8)


class _Fields:
    """Fields of one width, by the page that they are looked at in.

    Parameters
    ----------
    places : ndarray of int64, shape (fields,)
        Byte of all pages at which a field starts.
    values : ndarray of uint64, shape (fields,)
        What it holds at the preferred base.
    pages : ndarray of int64, shape (fields,)
        The page, ascending: that in which a field starts, or the one behind.
    count : int
        Number of pages.
    """

    def __init__(
        self, places: NDArray[np.int64], values: NDArray[np.uint64], pages: NDArray[np.int64], count: int
    ) -> None:
        self._starts = np.searchsorted(pages, np.arange(count + 1))
        self._within = (places - pages * PAGE).astype(np.int16)
        self._values = values

    def of(
        self, numbers: NDArray[np.int64], slides: NDArray[np.uint64]
    ) -> tuple[NDArray[np.int64], NDArray[np.int16], NDArray[np.uint64]]:
        """Give the fields of pages that moved.

        Returns
        -------
        tuple of ndarray of int64, ndarray of int16, ndarray of uint64
            Which of the pages each is in; the byte of the page, below 0 where it starts in the page before;
            what it holds now.
        """
        first = self._starts[numbers]
        counts = self._starts[numbers + 1] - first
        rows = np.repeat(np.arange(len(numbers)), counts)
        entries = np.arange(len(rows)) + np.repeat(first + counts - np.cumsum(counts), counts)
        return rows, self._within[entries], self._values[entries] + slides[rows]


class MappedPages:
    """The pages of several images, one image after another.

    Parameters
    ----------
    images : sequence of MappedImage
        At least one.

    Attributes
    ----------
    first_page : ndarray of int64, shape (images,)
        Number of the first page of each image.
    has_fields : ndarray of bool, shape (pages,)
        Whether a page is another one where its image is loaded at another base.
    """

    def __init__(self, images: Sequence[MappedImage]) -> None:
        counts = np.array([len(image.pages) for image in images], np.int64)
        self.first_page: NDArray[np.int64] = np.cumsum(counts) - counts
        self.has_fields: NDArray[np.bool_] = np.concatenate([image.relocated_pages for image in images])
        self._pages = np.concatenate([image.pages for image in images])
        self._preferred = np.array([image.preferred_base for image in images], np.uint64)
        places = np.concatenate(
            [image.offsets + first * PAGE for image, first in zip(images, self.first_page, strict=True)]
        )
        values = np.concatenate([image.values for image in images])
        widths = np.concatenate([image.widths for image in images])
        cut = (places % PAGE) + widths > PAGE
        self._whole = {width: self._fields(places, values, (widths == width) & ~cut) for width in _WIDTHS}
        self._cut = {width: self._cut_fields(places, values, (widths == width) & cut) for width in _WIDTHS}

    def __len__(self) -> int:
        return len(self._pages)

    def _fields(
        self, places: NDArray[np.int64], values: NDArray[np.uint64], chosen: NDArray[np.bool_]
    ) -> _Fields:
        places = places[chosen]
        return _Fields(places, values[chosen], places // PAGE, len(self))

    def _cut_fields(
        self, places: NDArray[np.int64], values: NDArray[np.uint64], chosen: NDArray[np.bool_]
    ) -> _Fields:
        # Each is in two pages. These ascend, since fields do not overlap and a page has room for many.
        places, values = np.repeat(places[chosen], 2), np.repeat(values[chosen], 2)
        pages = places // PAGE
        pages[1::2] += 1
        return _Fields(places, values, pages, len(self))

    def fill(self, out: NDArray[np.uint64], numbers: NDArray[np.int64], bases: NDArray[np.uint64]) -> None:
        """Make pages as they are in memory.

        Parameters
        ----------
        out : ndarray of uint64, shape (n, 512)
            Overwritten.
        numbers : ndarray of int64, shape (n,)
            Which pages, of all images.
        bases : ndarray of uint64, shape (n,)
            Where the image of each is loaded; 0 for its preferred base.

        Raises
        ------
        IndexError
            If there is no such page.
        """
        if not len(numbers):
            return
        if numbers.min() < 0 or numbers.max() >= len(self):
            raise IndexError(f"there are {len(self):,} pages, numbered from 0")
        if not out.flags.c_contiguous:
            made = np.empty(out.shape, np.uint64)
            self.fill(made, numbers, bases)
            out[...] = made
            return
        # With another mode, numpy makes the pages elsewhere first, since it may find a number too high.
        np.take(self._pages, numbers, axis=0, out=out, mode="clip")
        preferred = self._preferred[np.searchsorted(self.first_page, numbers, side="right") - 1]
        slides = np.where(bases == 0, np.uint64(0), bases - preferred)
        moved = np.flatnonzero((slides != 0) & self.has_fields[numbers])
        numbers, slides = numbers[moved], slides[moved]
        flat = out.reshape(-1).view(np.uint8)
        for width in _WIDTHS:
            rows, within, values = self._whole[width].of(numbers, slides)
            _put(flat, moved[rows] * PAGE + within, values, width)
            rows, within, values = self._cut[width].of(numbers, slides)
            _put_cut(flat, moved[rows] * PAGE, within, values, width)


def _put(flat: NDArray[np.uint8], places: NDArray[np.int64], values: NDArray[np.uint64], width: int) -> None:
    """Write numbers at any bytes: through a view with one at each byte, twice as fast as byte by byte."""
    number = np.dtype(f"<u{width}")
    at_each_byte = np.ndarray((len(flat) - width + 1,), number, flat.data, strides=(1,))
    at_each_byte[places] = values.astype(number)


def _put_cut(
    flat: NDArray[np.uint8],
    pages: NDArray[np.int64],
    within: NDArray[np.int16],
    values: NDArray[np.uint64],
    width: int,
) -> None:
    """Write what lies in its page of numbers that the end of a page cuts."""
    for number in range(width):
        at = within + number
        here = (at >= 0) & (at < PAGE)
        flat[pages[here] + at[here]] = (values[here] >> np.uint64(8 * number)).astype(np.uint8)

"""Where in guest-physical memory pages of each kind lie."""

from __future__ import annotations

import enum
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np

from hvshare.fingerprint.coverage import Coverage
from hvshare.images.runs import RunKind
from hvshare.sharing.grouping import PageClass
from hvshare.units import PAGE_SIZE

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from hvshare.fingerprint.fingerprints import Fingerprints


class PageKind(enum.Enum):
    """What a map tells of a page."""

    ZERO = "zero"
    SELF = "repeated within"
    INTER = "in another VM"
    UNIQUE = "unique"
    ABSENT = "absent"
    NONE = "no memory"


_CLASSES = ((PageClass.ZERO, PageKind.ZERO), (PageClass.SELF, PageKind.SELF),
            (PageClass.INTER, PageKind.INTER), (PageClass.UNIQUE, PageKind.UNIQUE))  # fmt: skip


@dataclass(frozen=True)
class MemoryMap:
    """The pages of one image by kind, in all and along guest-physical memory.

    Attributes
    ----------
    image : str
        Name of the image.
    end_gpa : int
        Guest physical address at which the map ends; it starts at 0.
    pages : mapping of PageKind to int
        Pages of each kind in the whole image.
    cells : tuple of PageKind
        Memory cut into equal cells: the kind that most pages of each cell are of.
    """

    image: str
    end_gpa: int
    pages: Mapping[PageKind, int]
    cells: tuple[PageKind, ...]


def map_memory(fingerprints: Fingerprints, classes: NDArray[np.uint8], cells: int) -> MemoryMap:
    """Sum up the classes of pages along guest-physical memory.

    Parameters
    ----------
    fingerprints : Fingerprints
        Of the image.
    classes : ndarray of uint8, shape (PRESENT pages,)
        The `PageClass` of each PRESENT page.
    cells : int
        Cells of the map; fewer where the guest has fewer pages.

    Returns
    -------
    MemoryMap
    """
    runs = fingerprints.runs
    end = runs.end_gfn
    cells = min(cells, end)
    bounds = np.arange(cells + 1, dtype=np.int64) * end // cells
    positions = Coverage(runs, (RunKind.PRESENT,)).below(bounds).tolist()
    of_class = np.array(
        [np.bincount(classes[low:high], minlength=len(PageClass)) for low, high in pairwise(positions)]
    )
    pages = {kind: of_class[:, each] for each, kind in _CLASSES}
    pages[PageKind.ZERO] = pages[PageKind.ZERO] + np.diff(Coverage(runs, (RunKind.ZERO,)).below(bounds))
    pages[PageKind.ABSENT] = np.diff(Coverage(runs, (RunKind.ABSENT,)).below(bounds))
    pages[PageKind.NONE] = np.diff(bounds) - sum(pages.values())
    kinds = tuple(pages)
    most = np.argmax(np.array([pages[kind] for kind in kinds]), axis=0)
    return MemoryMap(
        fingerprints.name,
        end * PAGE_SIZE,
        {kind: int(pages[kind].sum()) for kind in kinds if kind is not PageKind.NONE},
        tuple(kinds[index] for index in most.tolist()),
    )

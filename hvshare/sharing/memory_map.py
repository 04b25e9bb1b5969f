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


_SPARSE = 16
"""Where less than one in so many addresses is memory, a map of all addresses would show next to nothing."""


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
    span : int
        Bytes that the cells share out: from guest physical address 0 to the end of memory, or memory alone
        where `without_gaps`.
    without_gaps : bool
        Whether what is no memory was left out, because it is most of the addresses, as in a process.
    pages : mapping of PageKind to int
        Pages of each kind in the whole image.
    cells : tuple of PageKind
        Memory cut into equal cells: the kind that most pages of each cell are of.
    """

    image: str
    span: int
    without_gaps: bool
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
    without_gaps = runs.pages * _SPARSE < runs.end_gfn
    span = runs.pages if without_gaps else runs.end_gfn
    cells = min(cells, span)
    bounds = np.arange(cells + 1, dtype=np.int64) * span // cells
    if without_gaps:
        memory = Coverage(runs, tuple(RunKind))
        starts = [memory.gfns(low, low + 1) for low in bounds[:-1].tolist()]
        bounds = np.concatenate([*starts, np.array([runs.end_gfn])])
    positions = Coverage(runs, (RunKind.PRESENT,)).below(bounds).tolist()
    of_class = np.array(
        [np.bincount(classes[low:high], minlength=len(PageClass)) for low, high in pairwise(positions)]
    )
    pages = {kind: of_class[:, each] for each, kind in _CLASSES}
    pages[PageKind.ZERO] = pages[PageKind.ZERO] + np.diff(Coverage(runs, (RunKind.ZERO,)).below(bounds))
    pages[PageKind.ABSENT] = np.diff(Coverage(runs, (RunKind.ABSENT,)).below(bounds))
    pages[PageKind.NONE] = np.zeros(cells) if without_gaps else np.diff(bounds) - sum(pages.values())
    kinds = tuple(pages)
    most = np.argmax(np.array([pages[kind] for kind in kinds]), axis=0)
    return MemoryMap(
        fingerprints.name,
        span * PAGE_SIZE,
        without_gaps,
        {kind: int(pages[kind].sum()) for kind in kinds if kind is not PageKind.NONE},
        tuple(kinds[index] for index in most.tolist()),
    )

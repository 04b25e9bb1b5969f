"""What sharing would save further at 4 KB without ASLR, found in images alone.

The steps, each in a module of its own:

1. One page of each content is kept (`page_store`), and who holds it (`aslr_contents`).
2. Pages that may be twins are found by sketches that slides leave alone (`aslr_sketches`).
3. What moved in their pairs votes for slides (`aslr_moves`, `aslr_slides`), against what did not move
   (`aslr_stays`) and within the areas that pages point into (`aslr_spaces`).
4. A pair is explained if every byte that differs belongs to an address that moved by the slide of where it
   points, or is derived from one (`aslr_twins`).
5. What has no twin at the same place in the page may have one some bytes further on (`aslr_displaced`,
   `aslr_drifts`).
6. Where address spaces have 32 bits, 2 to 4 are done with words of 32 bits once more.
7. Contents of explained pairs are taken for one (`aslr_classes`), and counted as all sharing is. That is the
   lower bound; with the pairs in which little else differs it is the upper one.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np

from hvshare.erosion.aslr_classes import in_company, join_classes
from hvshare.erosion.aslr_constants import most_borne_out
from hvshare.erosion.aslr_contents import Contents
from hvshare.erosion.aslr_displaced import Displaced, displaced_candidates
from hvshare.erosion.aslr_drifts import elect_drifts, judge
from hvshare.erosion.aslr_remainder import is_page_table
from hvshare.erosion.aslr_result import Aslr, AslrLayer, AslrRemainder
from hvshare.erosion.aslr_search import NEAR_WORDS, Twins, layer_between, search_same_place
from hvshare.erosion.aslr_spaces import Areas
from hvshare.erosion.page_store import NarrowWords, PageStore
from hvshare.fingerprint.workers import default_jobs

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray

    from hvshare.erosion.aslr_result import AslrConstant
    from hvshare.erosion.aslr_search import SamePlace
    from hvshare.erosion.aslr_slides import Votes
    from hvshare.erosion.page_store import PageWords
    from hvshare.erosion.passes import Passes
    from hvshare.fingerprint.fingerprints import Fingerprints
    from hvshare.images.image import GuestImage

BOOKKEEPING_WORDS: Final = 12
"""Words of displaced twins that may differ otherwise: what an allocator writes at the start of a page stays
there while objects move up."""

_LEAST_MOVED: Final = 4
"""Words of displaced twins that a slide moved: without any, they are displaced for other reasons."""


def measure_aslr(
    images: Sequence[GuestImage],
    fingerprints: Sequence[Fingerprints],
    *,
    jobs: int | None = None,
    progress: Passes | None = None,
) -> Aslr:
    """Bound what sharing would save further at 4 KB without ASLR.

    Parameters
    ----------
    images : sequence of GuestImage
        Opened; they are read once again.
    fingerprints : sequence of Fingerprints
        Of these images, in the same order.
    jobs : int, optional
        Processes at the most; one a processor by default.
    progress : Passes, optional
        Told of the passes.

    Returns
    -------
    Aslr

    Raises
    ------
    ImageError
        If an image cannot be read again or has changed.
    ResourceError
        If there is no room for a temporary file with a page of each content.
    WorkerError
        If a process ends without having done its work.
    """
    contents = Contents.of(fingerprints)
    if not len(contents):
        nothing = np.empty(0, np.int64)
        return _result(contents, nothing, (), nothing, (), (), contents.vms)
    with PageStore(contents) as store:
        present = sum(len(each.digests) for each in fingerprints)
        store.fill(images, fingerprints, _pass(progress, "Keeping pages", present))
        return _Search(store, contents, fingerprints, jobs or default_jobs(), progress).run()


def _pass(progress: Passes | None, name: str, total: int) -> Callable[[int], None] | None:
    if progress is None:
        return None
    progress.start(name, total)
    return progress.advance


class _Search:
    """The search for twins among kept pages."""

    def __init__(
        self,
        store: PageStore,
        contents: Contents,
        fingerprints: Sequence[Fingerprints],
        jobs: int,
        progress: Passes | None,
    ) -> None:
        self._store = store
        self._contents = contents
        self._fingerprints = fingerprints
        self._jobs = jobs
        self._progress = progress

    def run(self) -> Aslr:
        store, contents = self._store, self._contents
        areas = Areas.of(store, contents, self._jobs, self._pass("Finding areas pointed into", len(contents)))
        found = [self._same_place(store, areas)]
        if not areas.wide.all():
            found.append(self._same_place(NarrowWords(store), Areas.none(contents.vms, areas.wide)))
        classes = np.arange(len(contents))
        layers: list[AslrLayer] = []
        for each in found:
            classes, further = each.join(contents, classes)
            layers = [*further] if not layers else list(map(AslrLayer.__add__, layers, further))
        displaced = self._displaced(classes, found[0].slides, areas)
        joined = join_classes(classes, *displaced.up_to(BOOKKEEPING_WORDS))
        layers.append(layer_between("displaced", contents, classes, joined))
        near, seen = joined, np.zeros(len(contents), bool)
        for twins in (*(each.twins for each in found), displaced):
            near = join_classes(near, *twins.up_to(NEAR_WORDS))
        for each in found:
            seen[each.twins.first], seen[each.twins.second] = True, True
        return _result(
            contents,
            joined,
            tuple(layers),
            near,
            most_borne_out(each.constants for each in found),
            self._remainder(joined, near, seen),
            int(np.count_nonzero(areas.wide)),
        )

    def _same_place(self, pages: PageWords, areas: Areas) -> SamePlace:
        names = [each.name for each in self._fingerprints]
        return search_same_place(pages, self._contents, areas, names, self._jobs, self._pass)

    def _pass(self, name: str, total: int) -> Callable[[int], None] | None:
        return _pass(self._progress, name, total)

    def _displaced(self, classes: NDArray[np.int64], slides: Votes, areas: Areas) -> Twins:
        """Find twins at different places in the page, of pages that have no copy."""
        store, contents, jobs = self._store, self._contents, self._jobs
        # Of words of 32 bits, two that moved look like one of 64 that moved otherwise.
        alone = np.flatnonzero((contents.pages == 1) & areas.wide[contents.first_vm])
        found = displaced_candidates(store, alone, classes, jobs, self._pass("Marking pages", len(alone)))
        first, second, spaces = contents.spaces(found.first, found.second)
        pairs = Displaced(first, second, np.where(first == found.first, found.words, -found.words))
        passes = self._pass("Finding displaced slides", len(first))
        drifts = elect_drifts(store, pairs, spaces, slides, areas, contents.vms, jobs, passes)
        passes = self._pass("Explaining displaced pairs", len(first))
        judged = judge(store, pairs, spaces, drifts, jobs, passes)
        left = np.where(judged.moved >= _LEAST_MOVED, judged.left, NEAR_WORDS + 1)
        # Nothing is displaced at the same place in the page: a number that differs is the program's.
        counts = (pairs.words == 0) & (judged.numbers > 0)
        left[counts] = np.maximum(left[counts], BOOKKEEPING_WORDS + 1)
        if contents.vms == 1:
            # Programs of one VM differ in their arguments and are displaced without ASLR, too; among
            # several VMs each has its like in another.
            left = np.maximum(left, BOOKKEEPING_WORDS + 1)
        return Twins(first, second, left)

    def _remainder(
        self, explained: NDArray[np.int64], near: NDArray[np.int64], seen: NDArray[np.bool_]
    ) -> tuple[AslrRemainder, ...]:
        """Tell apart what has no copy and is not explained."""
        open_ = (self._contents.pages == 1) & ~in_company(explained)
        is_near = open_ & in_company(near)
        rest = np.flatnonzero(open_ & ~is_near)
        table = np.zeros(len(open_), bool)
        table[rest] = is_page_table(
            self._store, rest, max(int(each.runs.end_gfn) for each in self._fingerprints)
        )
        other = open_ & ~is_near & ~table
        return tuple(
            AslrRemainder(name, int(np.count_nonzero(rows)))
            for name, rows in (
                ("near", is_near),
                ("page table", table),
                ("differs otherwise", other & seen),
                ("no twin", other & ~seen),
            )
        )


def _result(
    contents: Contents,
    explained: NDArray[np.int64],
    layers: tuple[AslrLayer, ...],
    near: NDArray[np.int64],
    constants: tuple[AslrConstant, ...],
    remainder: tuple[AslrRemainder, ...],
    wide_vms: int,
) -> Aslr:
    saved_self, saved_inter = contents.saved(explained)
    upper = sum(contents.saved(near))
    alone = contents.pages == 1
    together, further = in_company(explained), in_company(near)
    return Aslr(
        nonzero_pages=int(contents.pages.sum()),
        unmatched_pages=int(np.count_nonzero(alone)),
        explained_pages=int(np.count_nonzero(alone & together)),
        explained_saved_frames=saved_self + saved_inter,
        explained_saved_self=saved_self,
        explained_saved_inter=saved_inter,
        near_pages=int(np.count_nonzero(alone & further & ~together)),
        near_saved_frames=upper - saved_self - saved_inter,
        upper_saved_frames=upper,
        layers=layers,
        constants=constants,
        remainder=remainder,
        wide_vms=wide_vms,
    )

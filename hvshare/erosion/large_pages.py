"""Fingerprints to what large pages take away from sharing."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from hvshare.caveats import Caveat
from hvshare.erosion.large_bloat import count_bloat
from hvshare.erosion.large_curve import break_curve
from hvshare.erosion.large_frames import collect_large_frames
from hvshare.erosion.large_links import link_frames
from hvshare.erosion.large_pages_result import BreakPoint, Knee, LargePages, Policy, Price, Target
from hvshare.erosion.page_tables import lay_out_tables, nested_walks
from hvshare.erosion.processors import SERIES_QUOTES, tlb_reach
from hvshare.sharing.measure import measure
from hvshare.units import LARGE_FRAME_SIZE, MAX_FRAME_SIZE, PAGE_SIZE, format_size

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from hvshare.erosion.page_tables import TableLayout
    from hvshare.fingerprint.fingerprints import Fingerprints
    from hvshare.sharing.counts import Counts

LADDER_SIZES: Final = tuple(PAGE_SIZE << step for step in range(10))
"""Bytes: each power of two from 4 KB to 2 MB."""


def measure_large_pages(
    fingerprints: Sequence[Fingerprints], *, target_bytes: int | None = None
) -> LargePages:
    """Measure what large pages take away from sharing, and what breaking them costs.

    Parameters
    ----------
    fingerprints : sequence of Fingerprints
        One a VM, all in one sharing domain.
    target_bytes : int, optional
        How much is to be freed.

    Returns
    -------
    LargePages
        Identical large frames are shared whole. Each frame that is left may be broken into its pages, for
        all its copies at once; what is not broken is kept whole, and its pages are shared with nothing. Pages
        in no whole large frame are pages of 4 KB from the start: they are the first step of the curve. So the
        curve starts at the savings of 2 MB and ends at those of 4 KB.
    """
    frames = collect_large_frames(fingerprints, LARGE_FRAME_SIZE)
    copies, outside_pages = frames.copies, frames.outside_pages
    outside_saved = (outside_pages - len(frames.outside)) * PAGE_SIZE
    curve = break_curve(link_frames(frames.contents, frames.outside), copies)
    whole_saved = (frames.frames - len(copies)) * LARGE_FRAME_SIZE
    points = [
        BreakPoint(broken, mappings, *(whole_saved + outside_saved + pages * PAGE_SIZE for pages in saved))
        for broken, (mappings, *saved) in enumerate(
            zip(curve.mappings.tolist(), curve.saved.tolist(), curve.most.tolist(), strict=True)
        )
    ]
    steps = [BreakPoint(0, 0, whole_saved, whole_saved)] if outside_pages else []
    layout = lay_out_tables(fingerprints)
    return LargePages(
        LARGE_FRAME_SIZE,
        _ladder(fingerprints),
        frames.frames,
        len(copies),
        outside_pages,
        outside_saved,
        (*steps, *points),
        find_knee(points),
        _policies(points, find_knee(points), layout),
        None if target_bytes is None else find_target(points, target_bytes),
        Price(
            layout.with_broken(0),
            layout.with_broken(frames.frames),
            tlb_reach(),
            nested_walks(),
            SERIES_QUOTES,
        ),
        count_bloat(frames.frames_by_pages),
    )


def _ladder(fingerprints: Sequence[Fingerprints]) -> Mapping[int, Counts]:
    huge = [MAX_FRAME_SIZE] if any(each.frames(MAX_FRAME_SIZE).frames for each in fingerprints) else []
    return measure(fingerprints, [*LADDER_SIZES, *huge]).pooled


def find_knee(points: Sequence[BreakPoint]) -> Knee:
    """Find where a break curve bends: the point that lies highest above its chord.

    Parameters
    ----------
    points : sequence of BreakPoint
        One for each number of broken frames, from 0 on.

    Returns
    -------
    Knee
        With both axes scaled to run from 0 to 1, as in Satopää et al., "Finding a 'Kneedle' in a Haystack:
        Detecting Knee Points in System Behavior" (ICDCS workshops, 2011), without smoothing. The first of
        several such points; the start of a curve that never rises above its chord.

    Examples
    --------
    >>> saved = (0, 70, 90, 95, 100)
    >>> find_knee([BreakPoint(broken, broken, each, each) for broken, each in enumerate(saved)])
    Knee(broken_frames=1, broken_mappings=1, saved_bytes=70, distance=0.45)
    """
    last, start = points[-1], points[0].saved_bytes
    rise = last.saved_bytes - start

    def above(point: BreakPoint) -> int:
        return (point.saved_bytes - start) * last.broken_frames - point.broken_frames * rise

    knee = max(points, key=above)
    scale = rise * last.broken_frames
    return Knee(*knee[:3], above(knee) / scale if scale else 0.0)


def find_target(points: Sequence[BreakPoint], target_bytes: int) -> Target:
    """Find how many large frames have to be broken to free so much.

    Parameters
    ----------
    points : sequence of BreakPoint
        One for each number of broken frames, from 0 on.
    target_bytes : int
        How much is to be freed, all in all.

    Returns
    -------
    Target

    Examples
    --------
    >>> find_target([BreakPoint(0, 0, 10, 10), BreakPoint(1, 3, 15, 15)], 12).broken_mappings
    3
    """
    reached = next((point for point in points if point.saved_bytes >= target_bytes), None)
    return Target(
        target_bytes,
        points[0].saved_bytes,
        points[-1].saved_bytes,
        None if reached is None else reached.broken_frames,
        None if reached is None else reached.broken_mappings,
        None if reached is None else reached.saved_bytes,
        next((point.broken_frames for point in points if point.most_saved_bytes >= target_bytes), None),
    )


def _policies(points: Sequence[BreakPoint], knee: Knee, layout: TableLayout) -> tuple[Policy, ...]:
    all_saved = points[-1].saved_bytes
    # What a frame saves in the company of all others is lost without it, so this is all that have any part.
    repeats = next(point for point in points if point.saved_bytes == all_saved)
    chosen = (
        ("break nothing", "Hyper-V R2 keeps large pages whole, and shares no pages itself", points[0]),
        (
            "break to the knee",
            "ESX breaks cold large pages early, by how much it expects them to share (Guo et al., VEE 2015)",
            knee,
        ),
        ("break what repeats", "KSM splits a transparent huge page of which a page finds a match", repeats),
        ("break all", "KSM where all transparent huge pages are split", points[-1]),
    )
    return tuple(
        Policy(
            name,
            practised_by,
            point.broken_frames,
            point.broken_mappings,
            point.saved_bytes,
            layout.with_broken(point.broken_mappings),
            point.saved_bytes - point.broken_mappings * PAGE_SIZE,
        )
        for name, practised_by, point in chosen
    )


def large_pages_caveats(section: LargePages) -> tuple[Caveat, ...]:
    """Say what to know before trusting figures of large pages.

    Parameters
    ----------
    section : LargePages
        The results.

    Returns
    -------
    tuple of Caveat
    """
    caveats = []
    open_points = [point for point in section.curve if point.saved_bytes < point.most_saved_bytes]
    if open_points:
        gap = max(point.most_saved_bytes - point.saved_bytes for point in open_points)
        caveats.append(
            Caveat(
                "break-order-bounded",
                f"which frames are best to break is not proven for {len(open_points):,} of "
                f"{section.distinct_frames:,} numbers of broken frames: up to {format_size(gap)} more "
                "might be saved there",
                "take saved_bytes of the curve as what can be had, and most_saved_bytes as the bound",
            )
        )
    if section.frames:
        caveats.append(
            Caveat(
                "page-tables-modelled",
                "page tables are counted for x86-64, one set a guest, with every known page mapped; time is "
                "not measured",
                "watch page-walk cycles (perf stat) on the host before and after a change",
            )
        )
    return tuple(caveats)

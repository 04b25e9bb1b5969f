"""The sections of erosion put together: one report, and the waterfall through it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from hvshare.erosion.aslr import measure_aslr
from hvshare.erosion.caveats import aslr_caveats, aslr_needs_bytes, one_vm
from hvshare.erosion.disk_reading import DiskReading
from hvshare.erosion.large_pages import large_pages_caveats, measure_large_pages
from hvshare.erosion.prefetch import measure_prefetch
from hvshare.erosion.report import ErosionReport, Kind, WaterfallStep
from hvshare.sharing.measure import measure
from hvshare.units import LARGE_FRAME_SIZE, PAGE_SIZE

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from hvshare.caveats import Caveat
    from hvshare.erosion.aslr_result import Aslr
    from hvshare.erosion.passes import Passes
    from hvshare.erosion.prefetch_result import Prefetch
    from hvshare.fingerprint.fingerprints import Fingerprints
    from hvshare.fingerprint.inputs import Input
    from hvshare.images.image import GuestImage
    from hvshare.sharing.counts import Counts


SECTIONS: Final = ("large-pages", "aslr", "prefetch")
"""The factors, by the names of their sections."""


def measure_erosion(
    fingerprints: Sequence[Fingerprints],
    images: Sequence[GuestImage] = (),
    *,
    sections: Sequence[str] = SECTIONS,
    target_bytes: int | None = None,
    cold: Sequence[Fingerprints] = (),
    disks: Sequence[Input] = (),
    jobs: int | None = None,
    progress: Passes | None = None,
    further_caveats: Sequence[Caveat] = (),
) -> ErosionReport:
    """Measure what large pages, ASLR and prefetching take away from sharing, in one sharing domain.

    Parameters
    ----------
    fingerprints : sequence of Fingerprints
        One a VM.
    images : sequence of GuestImage
        The images that they were made of, opened and in the same order, which are read again for ASLR.
        Without them ASLR is left out, and a caveat says so.
    sections : sequence of str
        Out of `SECTIONS`. Only with all of them there is a waterfall.
    target_bytes : int, optional
        What is to be freed by breaking large frames.
    cold : sequence of Fingerprints
        The same guests before their caches were warm: one a VM, or one for all.
    disks : sequence of GuestImage or StoredFingerprints
        The disks that the guests read files from, opened by `hvshare.erosion.disk.open_disks`.
    jobs : int, optional
        Processes at the most; one a processor by default.
    progress : Passes, optional
        Told of the passes over images and disks.
    further_caveats : sequence of Caveat
        Facts that are known to the caller.

    Returns
    -------
    ErosionReport

    Raises
    ------
    ImageError
        If an image cannot be read again, or what stands for it does not fit.
    """
    sharing = measure(fingerprints, further_caveats=further_caveats)
    caveats = list(sharing.caveats)
    if len(fingerprints) == 1:
        caveats.append(one_vm())
    large_pages, aslr, prefetch = None, None, None
    if "large-pages" in sections:
        large_pages = measure_large_pages(fingerprints, target_bytes=target_bytes)
        caveats.extend(large_pages_caveats(large_pages))
    if "prefetch" in sections:
        prefetch = _prefetch(fingerprints, cold, disks, jobs, progress)
        caveats.extend(prefetch.caveats)
    if "aslr" in sections and not images:
        caveats.append(aslr_needs_bytes())
    elif "aslr" in sections:
        aslr = measure_aslr(images, fingerprints, jobs=jobs, progress=progress)
        caveats.extend(aslr_caveats(aslr, len(fingerprints)))
    steps: tuple[WaterfallStep, ...] = ()
    if prefetch is not None and set(SECTIONS) <= set(sections):
        steps = waterfall(sharing.pooled, aslr, prefetch)
    return ErosionReport(sharing.images, sharing.pooled, large_pages, aslr, prefetch, steps, tuple(caveats))


def _prefetch(
    fingerprints: Sequence[Fingerprints],
    cold: Sequence[Fingerprints],
    disks: Sequence[Input],
    jobs: int | None,
    progress: Passes | None,
) -> Prefetch:
    if not disks:
        return measure_prefetch(fingerprints, cold=cold)
    with DiskReading(disks, jobs=jobs) as reading:
        if progress is not None:
            progress.start("Reading disks", sum(disk.source_bytes or 0 for disk in disks) // PAGE_SIZE)
            reading.on_progress = lambda _disk, count: progress.advance(count // PAGE_SIZE)
        return measure_prefetch(fingerprints, cold=cold, disks=reading)


def waterfall(
    pooled: Mapping[int, Counts], aslr: Aslr | None, prefetch: Prefetch
) -> tuple[WaterfallStep, ...]:
    """Put the factors between the sharing that would be possible and what is left of it.

    Parameters
    ----------
    pooled : mapping of int to Counts
        Of all images, at 4 KB and at 2 MB.
    aslr : Aslr or None
        Its step is absent where nothing is known of it.
    prefetch : Prefetch
        What prefetching takes away at 4 KB.

    Returns
    -------
    tuple of WaterfallStep
        ``possible``, ``prefetch``, ``aslr``, ``large-pages`` and ``left``. Each column adds up: ``possible``
        is the sum of all others.

    Notes
    -----
    A frame is freed once, whatever frees it. So what prefetching takes away at the most, where that is a
    bound, is no more here than what is there, but for one frame, once all is freed that ASLR may take away.
    """
    pages, large = pooled[PAGE_SIZE], pooled[LARGE_FRAME_SIZE]
    loss = pages.saved_bytes - large.saved_bytes
    steps = [
        WaterfallStep("large-pages", Kind.MEASURED, loss, loss),
        WaterfallStep("left", Kind.MEASURED, large.saved_bytes, large.saved_bytes),
    ]
    by_aslr = 0
    if aslr is not None:
        by_aslr = aslr.upper_saved_frames
        steps.insert(0, _step("aslr", Kind.BOUNDED, aslr.explained_saved_frames, by_aslr))
    lower, upper = prefetch.lower_frames, prefetch.upper_frames
    if prefetch.kind is Kind.BOUNDED:
        upper = min(upper, max(pages.distinct - 1 - by_aslr, 0))
        lower = min(lower, upper)
    steps.insert(0, _step("prefetch", prefetch.kind, lower, upper))
    kind = Kind.MEASURED if all(step.kind is Kind.MEASURED for step in steps) else Kind.BOUNDED
    lowest, highest = sum(step.lower_bytes for step in steps), sum(step.upper_bytes for step in steps)
    return (WaterfallStep("possible", kind, lowest, highest), *steps)


def _step(factor: str, kind: Kind, lower_frames: int, upper_frames: int) -> WaterfallStep:
    return WaterfallStep(factor, kind, lower_frames * PAGE_SIZE, upper_frames * PAGE_SIZE)

"""What prefetching takes away from sharing: measured with cold images, bounded without.

Prefetching, or reading files ahead, fills free memory with pages of files: zero pages are lost, and what
takes their place may itself be repeated between VMs (J. Woolsey, Dynamic Memory Coming to Hyper-V, parts 3
and 4, 2010).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from hvshare.caveats import Caveat
from hvshare.erosion.disk_pages import DiskContents
from hvshare.erosion.disk_reading import DiskReading
from hvshare.erosion.prefetch_cold import ColdImages
from hvshare.erosion.prefetch_disk import DiskSection, least_saved_more, mapped_pages
from hvshare.erosion.prefetch_result import Basis, Prefetch
from hvshare.erosion.prefetch_vms import HeldContents
from hvshare.erosion.report import Kind

if TYPE_CHECKING:
    from collections.abc import Sequence

    from hvshare.fingerprint.fingerprints import Fingerprints
    from hvshare.fingerprint.inputs import Input


def measure_prefetch(
    fingerprints: Sequence[Fingerprints],
    *,
    cold: Sequence[Fingerprints] = (),
    disks: DiskReading | Sequence[Input | Fingerprints] = (),
) -> Prefetch:
    """Tell what prefetching takes away from what VMs, taken as one sharing domain, save at 4 KB.

    Parameters
    ----------
    fingerprints : sequence of Fingerprints
        One a VM.
    cold : sequence of Fingerprints
        Images of the same guests before their cache was warm: one a VM, in the same order, or one for all.
    disks : DiskReading, or sequence of GuestImage, StoredFingerprints or Fingerprints
        The disks of the guests, each for all of them, opened by `hvshare.erosion.disk.open_disk`. A reading
        that was started is read to its end.

    Returns
    -------
    Prefetch
        With cold images, these give the figures, and disks tell file pages among what zero pages became.

    Raises
    ------
    SizeError
        If there are neither as many cold images as VMs nor one.
    UnsupportedImageError
        If a cold image is of another guest or of other memory, or the disks are not those of a VM.
    HvshareError
        If a disk cannot be read.

    Notes
    -----
    Frames saved are frames less distinct contents, so as long as a guest's memory stays, what prefetching
    takes away is the number of contents that it has added. A cached page that is repeated costs nothing
    beyond its first copy: the zero page that it took would have been freed, and it is freed itself.
    """
    held = HeldContents.of(fingerprints)
    before = ColdImages(held, cold) if cold else None
    contents = _disk_contents(held, disks)
    disk = None if contents is None else DiskSection(held, contents)
    if before is not None:
        return _from_cold(held, before, contents, disk)
    if disk is not None:
        return Prefetch(
            Basis.DISK,
            Kind.BOUNDED,
            disk.lower_frames,
            disk.upper_frames,
            held.pooled,
            None,
            disk.result,
            disk.balance,
            (mapped_pages(), *disk.caveats),
        )
    return _unaided(held)


def prefetch_from_cold(fingerprints: Sequence[Fingerprints], cold: Sequence[Fingerprints]) -> Prefetch:
    """Measure what prefetching takes away, with cold images; see `measure_prefetch`."""
    return measure_prefetch(fingerprints, cold=cold)


def prefetch_from_disk(
    fingerprints: Sequence[Fingerprints], disks: DiskReading | Sequence[Input | Fingerprints]
) -> Prefetch:
    """Bound what prefetching takes away, with the disks of the guests; see `measure_prefetch`."""
    return measure_prefetch(fingerprints, disks=disks)


def prefetch_unaided(fingerprints: Sequence[Fingerprints]) -> Prefetch:
    """Bound what prefetching takes away from contents alone; see `measure_prefetch`.

    Notes
    -----
    Any page that is not zero may be one of a cache, so sharing would save all frames but one at the most.
    """
    return _unaided(HeldContents.of(fingerprints))


def _disk_contents(
    held: HeldContents, disks: DiskReading | Sequence[Input | Fingerprints]
) -> DiskContents | None:
    if isinstance(disks, DiskReading):
        return DiskContents(disks, held.contents)
    if not disks:
        return None
    with DiskReading(disks) as reading:
        return DiskContents(reading, held.contents)


def _from_cold(
    held: HeldContents, before: ColdImages, contents: DiskContents | None, disk: DiskSection | None
) -> Prefetch:
    comparison, balance = before.compare(contents), before.balance()
    kind = Kind.MEASURED if comparison.cold is not None else Kind.BOUNDED
    caveats = before.caveats(comparison.vms)
    return Prefetch(
        Basis.COLD,
        kind,
        balance[-1].net_lower,
        balance[-1].net_upper,
        held.pooled,
        comparison,
        None if disk is None else disk.result,
        balance,
        (*caveats, *(disk.caveats if disk else ())),
    )


def _unaided(held: HeldContents) -> Prefetch:
    pooled = held.pooled
    caveat = Caveat(
        "cache-not-told",
        "contents alone do not tell cache from other memory: any page that is not zero could be one of a "
        "file that was read ahead, so what prefetching takes away lies between nothing and all that is not "
        "saved",
        "name the disks of the guests with --disk for a closer bound, or with --cold images of the same "
        "guests before their cache was warm to measure it",
    )
    least, most = least_saved_more(pooled, pooled), max(pooled.distinct - 1, 0)
    return Prefetch(Basis.NONE, Kind.BOUNDED, least, most, pooled, None, None, (), (caveat,))

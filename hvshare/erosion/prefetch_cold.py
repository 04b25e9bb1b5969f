"""What prefetching has done to VMs of which there are images from before their cache was warm."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np

from hvshare.caveats import Caveat
from hvshare.erosion.prefetch_axes import SideBySide, side_by_side
from hvshare.erosion.prefetch_contents import is_among, repeated_of, whereabouts
from hvshare.erosion.prefetch_result import BalanceStep, ColdComparison, ColdPair
from hvshare.erosion.prefetch_vms import HeldContents
from hvshare.errors import SizeError, UnsupportedImageError
from hvshare.fingerprint.pages import ZERO_DIGEST
from hvshare.units import format_share

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from hvshare.erosion.disk_pages import DiskContents
    from hvshare.fingerprint.fingerprints import Fingerprints

LEAST_TO_TELL: Final = 256
"""Contents below which nothing is said about whether two images are of one guest."""

_FOREIGN_SHARE: Final = 10  # one content in so many
_SAME_BOOT_SHARE: Final = 2  # one page in so many


class ColdImages:
    """VMs beside their cold images.

    Parameters
    ----------
    now : HeldContents
        What the VMs hold.
    cold : sequence of Fingerprints
        One a VM, in the same order, or one for all.

    Attributes
    ----------
    one_for_all : bool
        Whether one cold image stands for several VMs.
    pairs : list of SideBySide
        One a VM.
    warm, cold : HeldContents
        What the VMs hold now and what their cold images hold, over the pages that both know.

    Raises
    ------
    SizeError
        If there are neither as many cold images as VMs nor one.
    UnsupportedImageError
        If the memory of a cold image is another than that of its VM, or it is of another guest.
    """

    def __init__(self, now: HeldContents, cold: Sequence[Fingerprints]) -> None:
        fingerprints = now.fingerprints
        if len(cold) not in {1, len(fingerprints)}:
            raise SizeError(
                f"there are {len(cold)} cold images for {len(fingerprints)} images",
                advice="name one for all, or one for each, in the order of the images",
            )
        self.one_for_all = len(cold) < len(fingerprints)
        of_each = list(cold) * len(fingerprints) if self.one_for_all else list(cold)
        self.pairs = [side_by_side(*both) for both in zip(of_each, fingerprints, strict=True)]
        is_cut = any(pair.in_one_only for pair in self.pairs)
        self.warm = HeldContents.of([pair.warm for pair in self.pairs]) if is_cut else now
        self.cold = HeldContents.of([pair.cold for pair in self.pairs])
        self._check_kinship()

    def _check_kinship(self) -> None:
        """Refuse a cold image of another guest.

        Notes
        -----
        Two boots of one disk have 37 to 78 % of the contents in common of the one that holds fewer, with
        address randomization on and off; guests of two releases of one distribution 0.2 to 2.2 %. Measured on
        Debian 12 and 13, guests of 512 MiB.
        """
        for vm, pair in enumerate(self.pairs):
            before, now = self.cold.contents[vm], self.warm.contents[vm]
            fewer = min(len(before), len(now))
            common = int(np.count_nonzero(is_among(before, now)))
            if fewer >= LEAST_TO_TELL and common * _FOREIGN_SHARE < fewer:
                raise UnsupportedImageError(
                    f"it is no cold image of {pair.warm.name}: it has {common:,} contents in common with "
                    f"it, {format_share(common, fewer)} of the {fewer:,} of the one that holds fewer, where "
                    "boots of one guest have a third or more",
                    path=pair.cold.path,
                    advice="name a dump of the same guest that was taken before its cache was warm",
                )

    def compare(self, disk: DiskContents | None = None) -> ColdComparison:
        """Tell what zero pages became, and what sharing was before and is now.

        Parameters
        ----------
        disk : DiskContents, optional
            To tell file pages among those that were zero.
        """
        between = self.warm.between()
        vms = tuple(self._pair(vm, between, disk) for vm in range(len(self.pairs)))
        cold, warm = self.cold.pooled, self.warm.pooled
        lower, upper = self._inter_bounds()[-1]
        return ColdComparison(
            vms, warm, None if self.one_for_all else cold, cold.saved_zero, cold.saved_self, lower, upper
        )

    def _pair(self, vm: int, between: NDArray[np.uint64], disk: DiskContents | None) -> ColdPair:
        pair, zero = self.pairs[vm], np.uint64(ZERO_DIGEST)
        now_lost, gained, same, changed = [np.empty(0, np.uint64)], 0, 0, 0
        for before, now in pair.windows():
            was_zero, is_zero = before == zero, now == zero
            now_lost.append(now[was_zero & ~is_zero])
            gained += int(np.count_nonzero(is_zero & ~was_zero))
            both = ~was_zero & ~is_zero
            alike = int(np.count_nonzero(both & (before == now)))
            same += alike
            changed += int(np.count_nonzero(both)) - alike
        lost = np.concatenate(now_lost)
        held, holds = self.cold.contents[vm], self.warm.contents[vm]
        return ColdPair(
            pair.warm.name,
            pair.cold.name,
            pair.pages,
            self.cold.zero_of[vm],
            self.warm.zero_of[vm],
            whereabouts(lost, between, repeated_of(pair.warm.digests)),
            int(np.count_nonzero(is_among(lost, held))),
            None if disk is None else int(np.count_nonzero(disk.file_pages(lost))),
            gained,
            same,
            changed,
            int(np.count_nonzero(is_among(held, holds))),
            len(held),
            self.cold.alone(vm),
            self.warm.alone(vm),
        )

    def _inter_bounds(self) -> list[tuple[int, int]]:
        """Bound what was saved between the first VM, the first two, and so on, before the cache was warm.

        Notes
        -----
        With a cold image for each VM it is measured. With one for all, the VMs may have had nothing in common
        then. At the most, a VM had all contents of the cold image in common with those before it, and no more
        than it has in common with them now: filling a cache takes zero pages, and no others.
        """
        if not self.one_for_all:
            return [(counts.saved_inter, counts.saved_inter) for counts in self.cold.as_added]
        bounds, upper = [(0, 0)], 0
        for vm in range(1, len(self.pairs)):
            saved = [self.warm.as_added[count].saved_inter for count in (vm - 1, vm)]
            upper += min(len(self.cold.contents[vm]), saved[1] - saved[0])
            bounds.append((0, upper))
        return bounds

    def balance(self) -> tuple[BalanceStep, ...]:
        """Set zero sharing lost against cache sharing gained, for the first VM, the first two, and so on."""
        steps = []
        for vm, (lower, upper) in enumerate(self._inter_bounds()):
            before, now = self.cold.as_added[vm], self.warm.as_added[vm]
            zero_lost = before.saved_zero - now.saved_zero
            saved = now.saved_self + now.saved_inter - before.saved_self
            steps.append(
                BalanceStep(
                    vm + 1,
                    self.pairs[vm].warm.name,
                    zero_lost,
                    saved - upper,
                    saved - lower,
                    zero_lost - saved + lower,
                    zero_lost - saved + upper,
                )
            )
        return tuple(steps)

    def caveats(self, vms: Sequence[ColdPair]) -> list[Caveat]:
        """Tell what to know before trusting a comparison."""
        caveats = [caveat for each in _once(self.pairs) for caveat in each.cold.caveats]
        if self.one_for_all:
            caveats.append(
                Caveat(
                    "one-cold-image",
                    f"one cold image stands for {len(self.pairs)} VMs: its zero pages and self-sharing are "
                    "taken for those of each, and what they then had in common is bounded",
                    "name a cold image for each image, in the same order, to measure it",
                )
            )
        for pair, each in zip(self.pairs, vms, strict=True):
            caveats.extend(_of_pair(pair, each))
        return [*caveats, *_other_boots(vms)]


def _once(pairs: Sequence[SideBySide]) -> list[SideBySide]:
    """Take one pair for each cold image."""
    return list({pair.cold.path + "\0" + pair.cold.name: pair for pair in pairs}.values())


def _of_pair(pair: SideBySide, each: ColdPair) -> list[Caveat]:
    caveats = []
    if pair.in_one_only:
        caveats.append(
            Caveat(
                "pages-in-one-only",
                f"{pair.in_one_only:,} pages are known in it or in its cold image {each.cold_image}, and "
                "not in both; they are in no figure of prefetching",
                "take both dumps in the same way to count them",
                each.image,
            )
        )
    if each.cold_zero_pages < each.zero_pages:
        caveats.append(
            Caveat(
                "cold-is-fuller",
                f"its cold image {each.cold_image} has {each.cold_zero_pages:,} zero pages and itself "
                f"{each.zero_pages:,}: no cache was filled",
                "check that the two were not exchanged",
                each.image,
            )
        )
    if not each.lost.pages + each.gained_pages + each.changed_pages:
        caveats.append(
            Caveat(
                "cold-is-the-same",
                f"its cold image {each.cold_image} holds the same contents at the same places",
                "name a dump that was taken before its cache was warm",
                each.image,
            )
        )
    return caveats


def _other_boots(vms: Sequence[ColdPair]) -> list[Caveat]:
    """Tell of VMs whose memory was placed differently when their cold images were taken."""
    shares = []
    for each in vms:
        of_both = each.same_pages + each.changed_pages
        if each.same_pages * _SAME_BOOT_SHARE < of_both:
            shares.append((each.same_pages / of_both, format_share(each.same_pages, of_both), each.image))
    if not shares:
        return []
    (_, least, image), (_, most, _) = min(shares), max(shares)
    what = least if least == most else f"from {least} to {most}"
    return [
        Caveat(
            "cold-of-another-boot",
            f"of the pages that are zero neither before nor now, {what} are the "
            f"same{'' if len(vms) == 1 else f' in {len(shares):,} of {len(vms):,} VMs'}, as in another "
            "boot, which places memory differently: how many zero pages were lost holds, which ones is "
            "partly chance",
            "for pages followed one by one, take the cold image from the same boot",
            image if len(vms) == 1 else None,
        )
    ]

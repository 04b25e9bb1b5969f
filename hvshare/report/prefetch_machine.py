"""What prefetching takes away, for programs."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hvshare.report.machine import counts_by_size
from hvshare.report.text import encodable

if TYPE_CHECKING:
    from hvshare.erosion.prefetch_result import (
        ColdComparison,
        ColdPair,
        FilePages,
        Prefetch,
        VmFilePages,
        Whereabouts,
    )
    from hvshare.sharing.counts import Counts


def prefetch_fields(prefetch: Prefetch) -> dict[str, object]:
    """Give what prefetching takes away, as JSON has it.

    Returns
    -------
    dict
        ``cold`` and ``disk`` are null where no such image was named. Frames and pages are of 4 KB.
    """
    return {
        "basis": str(prefetch.basis),
        "kind": str(prefetch.kind),
        "lower_frames": prefetch.lower_frames,
        "upper_frames": prefetch.upper_frames,
        "lower_bytes": prefetch.lower_bytes,
        "upper_bytes": prefetch.upper_bytes,
        "cold": None if prefetch.cold is None else _cold_fields(prefetch.cold),
        "disk": None if prefetch.disk is None else _disk_fields(prefetch.disk),
        "balance": [
            {
                "vms": step.vms,
                "image": encodable(step.image),
                "zero_lost_frames": step.zero_lost,
                "cache_saved_lower_frames": step.cache_saved_lower,
                "cache_saved_upper_frames": step.cache_saved_upper,
                "net_lower_frames": step.net_lower,
                "net_upper_frames": step.net_upper,
            }
            for step in prefetch.balance
        ],
    }


def _cold_fields(cold: ColdComparison) -> dict[str, object]:
    return {
        "warm": _counts_fields(cold.warm),
        "cold": None if cold.cold is None else _counts_fields(cold.cold),
        "cold_saved_zero": cold.cold_saved_zero,
        "cold_saved_self": cold.cold_saved_self,
        "cold_saved_inter_lower": cold.cold_saved_inter_lower,
        "cold_saved_inter_upper": cold.cold_saved_inter_upper,
        "vms": [_pair_fields(vm) for vm in cold.vms],
    }


def _pair_fields(vm: ColdPair) -> dict[str, object]:
    return {
        "image": encodable(vm.image),
        "cold_image": encodable(vm.cold_image),
        "pages": vm.pages,
        "cold_zero_pages": vm.cold_zero_pages,
        "zero_pages": vm.zero_pages,
        "lost": _whereabouts_fields(vm.lost),
        "lost_held_before_pages": vm.lost_held_before,
        "lost_file_pages": vm.lost_file_pages,
        "gained_pages": vm.gained_pages,
        "same_pages": vm.same_pages,
        "changed_pages": vm.changed_pages,
        "contents_in_common": vm.contents_in_common,
        "cold_contents": vm.cold_contents,
        "cold_alone": _counts_fields(vm.cold_alone),
        "alone": _counts_fields(vm.alone),
    }


def _disk_fields(disk: FilePages) -> dict[str, object]:
    return {
        "disks": [
            {
                "name": encodable(each.name),
                "blocks": each.blocks,
                "zero_blocks": each.zero_blocks,
                "contents_found": each.contents_found,
            }
            for each in disk.disks
        ],
        "vms": [_vm_fields(vm) for vm in disk.vms],
        "file_pages": disk.pages,
        "contents": disk.contents,
        "dropped": _counts_fields(disk.dropped),
    }


def _vm_fields(vm: VmFilePages) -> dict[str, object]:
    return {
        "image": encodable(vm.image),
        "nonzero_pages": vm.nonzero_pages,
        "file_pages": _whereabouts_fields(vm.file_pages),
        "contents": vm.contents,
    }


def _whereabouts_fields(of: Whereabouts) -> dict[str, object]:
    return {
        "pages": of.pages,
        "between_vms": of.between_vms,
        "within_vm": of.within_vm,
        "unique": of.unique,
    }


def _counts_fields(counts: Counts) -> object:
    return counts_by_size({counts.frame_size: counts})[str(counts.frame_size)]

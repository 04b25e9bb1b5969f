"""The counts of sharing held against a Counter over raw bytes, which knows neither numpy nor xxhash."""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import hvshare
from hvshare.fingerprint import workers
from hvshare.sharing import grouping
from hvshare.sharing.counts import Counts
from tests.guests import MemoryImage, content, full_vms, vms_with_gaps, write_raw
from tests.oracle import PAGE, Vm, count

FRAME_PAGES = (1, 2, 4, 16)


def fields(counts: Counts) -> dict[str, int]:
    names = ("frames", "partial_frames", "zero", "distinct", "saved_zero", "saved_self", "saved_inter")
    return {name: getattr(counts, name) for name in names}


def report_of(images: list[hvshare.GuestImage]) -> hvshare.SharingReport:
    return hvshare.measure(
        hvshare.fingerprint_images(images, jobs=1), [PAGE * pages for pages in FRAME_PAGES]
    )


def check(report: hvshare.SharingReport, vms: list[Vm]) -> None:
    for pages in FRAME_PAGES:
        pooled = report.pooled[PAGE * pages]
        assert fields(pooled) == count(vms, pages)
        assert pooled.saved == pooled.frames - pooled.distinct
        assert pooled.saved_bytes == pooled.saved * PAGE * pages
        for image, vm in zip(report.images, vms, strict=True):
            assert fields(image.counts[PAGE * pages]) == count([vm], pages)


@given(st.lists(vms_with_gaps, min_size=1, max_size=4), st.booleans(), st.booleans())
def test_every_kind_of_run(vms: list[list[bytes | None]], zero_runs: bool, gaps: bool) -> None:
    images = [MemoryImage(str(number), vm, zero_runs=zero_runs, gaps=gaps) for number, vm in enumerate(vms)]
    report = report_of(list(images))
    check(report, list(vms))
    for image, vm in zip(report.images, vms, strict=True):
        known = [page for page in vm if page is not None]
        assert image.present_bytes == len(known) * PAGE
        assert image.zero_bytes == sum(not any(page) for page in known) * PAGE
        assert image.absent_bytes == (0 if gaps else (len(vm) - len(known)) * PAGE)
        assert image.size_bytes == image.present_bytes + image.absent_bytes


@given(st.lists(full_vms, min_size=1, max_size=3))
@settings(max_examples=40)
def test_raw_files(vms: list[list[bytes]]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        paths = [write_raw(Path(folder, f"{number}.raw"), vm) for number, vm in enumerate(vms)]
        images = hvshare.open_images([str(path) for path in paths])
        check(report_of(images), list(vms))
        for image in images:
            image.close()


@pytest.mark.skipif(sys.platform != "linux", reason="workers are forked on Linux only")
@given(st.lists(full_vms, min_size=1, max_size=3), st.integers(1, 9))
@settings(max_examples=25, deadline=None)
def test_raw_files_read_by_several_processes(vms: list[list[bytes]], task_pages: int) -> None:
    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        patch.setattr(workers, "_WORTH_FORKING", 0)
        patch.setattr(workers, "_BATCH_PAGES", task_pages)
        paths = [write_raw(Path(folder, f"{number}.raw"), vm) for number, vm in enumerate(vms)]
        images = hvshare.open_images([str(path) for path in paths])
        fingerprints = hvshare.fingerprint_images(images, jobs=3)
        check(hvshare.measure(fingerprints, [PAGE * pages for pages in FRAME_PAGES]), list(vms))
        for image in images:
            image.close()


@given(st.lists(vms_with_gaps, min_size=2, max_size=4), st.randoms(use_true_random=False))
def test_order_of_vms_changes_nothing(vms: list[list[bytes | None]], random: Random) -> None:
    images: list[hvshare.GuestImage] = [MemoryImage(str(number), vm) for number, vm in enumerate(vms)]
    pooled = report_of(images).pooled
    random.shuffle(images)
    assert report_of(images).pooled == pooled


@given(st.lists(full_vms, min_size=1, max_size=3))
def test_one_vm_shares_with_itself_alone(vms: list[list[bytes]]) -> None:
    for number, vm in enumerate(vms):
        counts = report_of([MemoryImage(str(number), vm)]).pooled[PAGE]
        assert counts.saved_inter == 0
    # Pooling the same pages as one VM moves savings from inter to self, and frees as much.
    apart = report_of([MemoryImage(str(number), vm) for number, vm in enumerate(vms)]).pooled[PAGE]
    joined = report_of([MemoryImage("all", [page for vm in vms for page in vm])]).pooled[PAGE]
    assert (apart.saved, apart.distinct) == (joined.saved, joined.distinct)


def test_small_ranges_give_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    vms: list[Vm] = [[content((number * step) % 251) for number in range(300)] for step in (1, 3, 7)]
    images = [MemoryImage(str(number), vm) for number, vm in enumerate(vms)]
    fingerprints = hvshare.fingerprint_images(images)
    whole = hvshare.measure(fingerprints, map_cells=10, top=9)
    monkeypatch.setattr(grouping, "_RANGE_DIGESTS", 1)
    monkeypatch.setattr(grouping, "_CHUNK", 7)
    in_ranges = hvshare.measure(fingerprints, map_cells=10, top=9)
    assert in_ranges == whole
    check(report_of(list(images)), vms)


def test_identity_is_checked() -> None:
    with pytest.raises(ValueError, match="do not add up"):
        Counts(
            PAGE, frames=4, partial_frames=0, zero=0, distinct=2, saved_zero=0, saved_self=1, saved_inter=0
        )

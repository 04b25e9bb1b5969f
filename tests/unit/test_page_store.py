"""One page of each content in a temporary file, and what happens where that has no room."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import hvshare
from hvshare.erosion import page_store
from hvshare.erosion.aslr import measure_aslr
from hvshare.erosion.aslr_contents import Contents
from hvshare.erosion.page_store import WORDS, PageStore
from hvshare.errors import ImageChangedError, ImageError, ResourceError
from hvshare.images.image import GuestImage, PageBlock
from tests.aslr_guests import images_of, to_page
from tests.guests import MemoryImage, vms_with_gaps, write_raw
from tests.oracle import Vm


def first_of_contents(vms: Sequence[Vm]) -> list[bytes]:
    return list(dict.fromkeys(page for vm in vms for page in vm if page is not None and any(page)))


@given(st.lists(vms_with_gaps, min_size=1, max_size=3), st.booleans(), st.integers(1, 7))
@settings(max_examples=60)
def test_each_content_is_kept_once_in_the_order_of_contents(
    vms: list[list[bytes | None]], zero_runs: bool, buffer_pages: int
) -> None:
    images = images_of(vms, zero_runs=zero_runs)
    fingerprints = hvshare.fingerprint_images(images, jobs=1)
    contents, read = Contents.of(fingerprints), [0]
    if not len(contents):
        return
    with pytest.MonkeyPatch.context() as patch, PageStore(contents) as store:
        patch.setattr(page_store, "_BUFFER_PAGES", buffer_pages)
        store.fill(images, fingerprints, read.append)
        expected = first_of_contents(vms)
        assert store.pages == len(expected)
        assert [page.tobytes() for page in store.rows(np.arange(len(expected)))] == expected
        assert [page.tobytes() for page in store.slice(1, len(expected))] == expected[1:]
        chosen = np.arange(len(expected))[::-2]
        assert [page.tobytes() for page in store.rows(chosen)] == [expected[at] for at in chosen.tolist()]
        assert sum(read) == sum(len(each.digests) for each in fingerprints)


def test_pages_are_copies() -> None:
    images = images_of([[to_page([number]) for number in range(1, 9)]])
    fingerprints = hvshare.fingerprint_images(images, jobs=1)
    with PageStore(Contents.of(fingerprints)) as store:
        store.fill(images, fingerprints)
        for words in (store.rows(np.array([2])), store.slice(2, 3)):
            assert words.shape == (1, WORDS)
            words[:] = 5
        assert store.rows(np.array([2]))[0, 0] == 3


class Grown(MemoryImage):
    """An image that gives another number of pages than it says."""

    def __init__(self, name: str, pages: Vm, given: Vm) -> None:
        super().__init__(name, pages)
        self.given = given

    def blocks(self, buffer: memoryview, span: tuple[int, int] | None = None) -> Iterator[PageBlock]:
        return MemoryImage(self.name, self.given).blocks(buffer, span)


@pytest.mark.parametrize("pages", [0, 3, 5])
def test_an_image_of_another_size_than_before_is_told(pages: int) -> None:
    before, now = ([to_page([number + 1]) for number in range(count)] for count in (4, pages))
    images: list[GuestImage] = [MemoryImage("steady", before), Grown("changed", [to_page([9])] * 4, now)]
    fingerprints = hvshare.fingerprint_images(images_of([before, [to_page([9])] * 4]), jobs=1)
    with pytest.raises(ImageChangedError, match=f"4 pages when it was hashed and has {pages} now") as error:
        measure_aslr(images, fingerprints, jobs=1)
    assert error.value.path == "/changed"
    assert error.value.advice


@pytest.mark.parametrize("size", [0, 4096, 3 * 4096 + 5])
def test_a_file_that_was_cut_in_the_meantime_is_told(tmp_path: Path, size: int) -> None:
    path = write_raw(tmp_path / "guest.raw", [to_page([number + 1]) for number in range(40)])
    with hvshare.open_image(str(path)) as image:
        fingerprints = hvshare.fingerprint_images([image], jobs=1)
        os.truncate(path, size)
        with pytest.raises(ImageError) as error:
            measure_aslr([image], fingerprints, jobs=1)
    assert error.value.path == str(path)


def measure_where(patch: pytest.MonkeyPatch, temporary: object, pages: int) -> None:
    images = images_of([[to_page([number + 1]) for number in range(pages)]])
    fingerprints = hvshare.fingerprint_images(images, jobs=1)
    patch.setattr(tempfile, "TemporaryFile", temporary)
    measure_aslr(images, fingerprints, jobs=1)


def full(**_: object) -> IO[bytes]:
    """Give a file on a file system that is full; what is left in its buffer cannot be written either."""
    return open("/dev/full", "w+b")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs the device that is always full")
@pytest.mark.parametrize(
    "pages",
    [
        1,
        3,
        600,
    ],
)
def test_a_full_file_system_is_no_fault_of_an_image(monkeypatch: pytest.MonkeyPatch, pages: int) -> None:
    with pytest.raises(ResourceError, match=f"no room for {pages} pages.*No space left") as error:
        measure_where(monkeypatch, full, pages)
    assert "TMPDIR" in str(error.value.advice)


def test_no_place_for_temporary_files_is_no_fault_of_an_image(monkeypatch: pytest.MonkeyPatch) -> None:
    def nowhere(**_: object) -> IO[bytes]:
        raise FileNotFoundError(2, "No usable temporary directory found in ['/tmp']")

    with pytest.raises(ResourceError) as error:
        measure_where(monkeypatch, nowhere, 2)
    assert "TMPDIR" in str(error.value.advice)

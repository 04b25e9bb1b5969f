"""What benchmarks measure: one guest, the same in every format, with pages that compress like real ones."""

from __future__ import annotations

import zlib
from pathlib import Path

import numpy as np
import pytest

import hvshare
from tests.benchmarks.format_files import WRITERS, write_in_format
from tests.benchmarks.guest_files import BATCH_BYTES, GrowingGuestFile, compressible_pages
from tests.formats.harness import read_image


@pytest.fixture(scope="module")
def guest(tmp_path_factory: pytest.TempPathFactory) -> GrowingGuestFile:
    guest = GrowingGuestFile(tmp_path_factory.mktemp("guest") / "guest.raw", compressible_pages)
    guest.grow_to(2 * BATCH_BYTES)
    return guest


@pytest.mark.parametrize("name", WRITERS)
def test_a_file_has_every_page_of_the_guest(name: str, guest: GrowingGuestFile, tmp_path: Path) -> None:
    file = tmp_path / "guest"
    assert write_in_format(WRITERS[name], guest.path, file) == file.stat().st_size
    with hvshare.open_image(str(guest.path)) as raw, hvshare.open_image(str(file)) as image:
        assert image.format != "raw"
        assert read_image(image, 512).memory == read_image(raw, 512).memory


def test_pages_compress_like_those_of_a_guest() -> None:
    pages = compressible_pages(np.random.Generator(np.random.SFC64(1)), 2048)
    packed = np.array([len(zlib.compress(page.tobytes(), 1)) for page in pages])
    assert len(np.unique(pages, axis=0)) == len(pages)
    assert 2.7 < 4096 / packed.mean() < 3.4
    # Real ones are of all kinds.
    smallest, middle, largest = np.percentile(packed, [5, 50, 95])
    assert smallest < 400
    assert 900 < middle < 1500
    assert 2300 < largest < 4096

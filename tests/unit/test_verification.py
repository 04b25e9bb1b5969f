from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

import hvshare
from hvshare.errors import WorkerError
from hvshare.images.image import PageBlock
from tests.guests import MemoryImage, content, write_raw
from tests.oracle import PAGE


def test_pages_that_differ_in_spite_of_equal_digests_are_found(tmp_path: Path) -> None:
    """A collision cannot be made, so a page is changed between the digest and the comparison."""
    path = write_raw(tmp_path / "a.raw", [content(1)] * 5 + [content(2)] * 3 + [content(5)])
    with hvshare.open_image(str(path)) as image:
        fingerprints = hvshare.fingerprint_images([image])
        report = hvshare.measure(fingerprints)
        alike = hvshare.verify([image], fingerprints, report)
        assert (alike.contents, alike.all_contents, alike.pages, alike.unequal) == (2, 2, 6, 0)
        assert alike.caveat().code == "verified"
        with path.open("r+b") as file:
            file.seek(3 * PAGE + 4095)
            file.write(b"!")
        found = hvshare.verify([image], fingerprints, report)
    assert (found.pages, found.unequal) == (6, 1)
    codes = [caveat.code for caveat in found.noted_in(report).caveats]
    assert codes[-2:] == ["written-while-read", "unequal-pages"]
    assert "digests-only" not in codes


def test_larger_frames_that_differ_in_spite_of_equal_digests_are_found(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("hvshare.fingerprint.fingerprints.xxh3_64_intdigest", lambda _row: 1)
    image = MemoryImage("vm", [content(1 + number % 4) for number in range(8)] + [content(9)] * 4)
    fingerprints = hvshare.fingerprint_images([image])
    report = hvshare.measure(fingerprints, [4 * PAGE])
    assert report.pooled[4 * PAGE].distinct == 1
    found = hvshare.verify([image], fingerprints, report)
    # Of three frames that look alike, the second is like the first and the third is not.
    assert (found.frames, found.unequal, found.unequal_frames) == (2, 0, 1)
    assert found.caveat().code == "unequal-pages"


def test_an_image_that_is_never_complete_is_told() -> None:
    class Lacking(MemoryImage):
        def blocks(self, buffer: memoryview, span: tuple[int, int] | None = None) -> Iterator[PageBlock]:
            yield from list(super().blocks(buffer, span))[1:]

    with pytest.raises(WorkerError, match="not all of its pages"):
        hvshare.fingerprint_images([Lacking("lacking", [content(1), None, content(2)])])

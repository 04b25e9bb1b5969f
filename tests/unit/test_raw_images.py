from __future__ import annotations

import os
import threading
from pathlib import Path

import pytest

import hvshare
from hvshare.errors import (
    EmptyImageError,
    ImageChangedError,
    UnreadableImageError,
    UnsupportedImageError,
)
from hvshare.images.image import GuestImage
from hvshare.images.inspection import inspect
from hvshare.images.options import ReadingOptions
from hvshare.images.registry import default_names
from hvshare.images.runs import RunKind
from tests.guests import ZERO, content, supports_holes, write_raw, write_sparse
from tests.oracle import PAGE

MIB = 1 << 20


def read(image: GuestImage, block_pages: int = 3) -> bytes:
    """Give all PRESENT pages of an image."""
    buffer = memoryview(bytearray(block_pages * PAGE))
    return b"".join(bytes(buffer[: block.pages * PAGE]) for block in image.blocks(buffer))


def codes(image: GuestImage) -> list[str]:
    return [caveat.code for caveat in (*image.caveats, *image.finish())]


def test_raw_image_holds_its_pages(tmp_path: Path) -> None:
    pages = [content(number) for number in range(10)]
    with hvshare.open_image(str(write_raw(tmp_path / "a.raw", pages))) as image:
        assert (image.name, image.format, image.file_bytes) == ("a.raw", "raw", 10 * PAGE)
        assert read(image) == b"".join(pages)
        assert codes(image) == []


@pytest.mark.parametrize("tail", [1, 17, PAGE - 1])
def test_tail_is_left_out_and_told(tmp_path: Path, tail: int) -> None:
    path = tmp_path / "a.raw"
    path.write_bytes(content(7) * 2 + b"x" * tail)
    with hvshare.open_image(str(path)) as image:
        assert read(image) == content(7) * 2
        assert codes(image) == ["tail-left-out"]
        assert f"{tail:,} bytes" in image.caveats[0].message


@pytest.mark.parametrize("size", [0, 1, PAGE - 1])
def test_less_than_a_page_is_an_error(tmp_path: Path, size: int) -> None:
    path = tmp_path / "a.raw"
    path.write_bytes(b"x" * size)
    with pytest.raises(EmptyImageError, match=r"a\.raw"):
        hvshare.open_image(str(path))


def test_holes_are_zero_or_absent(tmp_path: Path) -> None:
    if not supports_holes(tmp_path):
        pytest.skip("the file system under the temporary folder tells no holes")
    path = write_sparse(tmp_path / "a.raw", 64 * MIB, {16 * MIB: content(7), 40 * MIB: content(8) * 2})
    with hvshare.open_image(str(path)) as image:
        assert read(image).replace(ZERO, b"") == content(7) + content(8) * 2
        assert image.runs is not None
        assert image.runs.pages == 64 * MIB // PAGE
        # Blocks of the file system may be larger than a page, but not than 64 KiB.
        assert image.runs.pages_of(RunKind.PRESENT) <= 2 * 16 + 1
        assert codes(image) == ["holes-are-zero"]
    with hvshare.open_image(str(path), options=ReadingOptions(holes=RunKind.ABSENT)) as image:
        assert image.runs is not None
        assert image.runs.pages_of(RunKind.ZERO) == 0
        assert image.runs.pages_of(RunKind.ABSENT) >= 64 * MIB // PAGE - 33
        assert codes(image) == []


def test_nothing_but_holes(tmp_path: Path) -> None:
    if not supports_holes(tmp_path):
        pytest.skip("the file system under the temporary folder tells no holes")
    path = str(write_sparse(tmp_path / "a.raw", 8 * MIB, {}))
    with hvshare.open_image(path) as image:
        counts = hvshare.measure(hvshare.fingerprint_images([image])).pooled
    assert (counts[PAGE].zero, counts[PAGE].distinct) == (2048, 1)
    assert (counts[2 * MIB].zero, counts[2 * MIB].distinct) == (4, 1)
    with pytest.raises(UnsupportedImageError, match="nothing but holes"):
        hvshare.open_image(path, options=ReadingOptions(holes=RunKind.ABSENT))


def test_a_terabyte_of_holes_is_not_read(tmp_path: Path) -> None:
    if not supports_holes(tmp_path):
        pytest.skip("the file system under the temporary folder tells no holes")
    data = {number << 30: content(1 + number % 250) * 3 for number in range(0, 1024, 64)}
    path = write_sparse(tmp_path / "a.raw", 1 << 40, data)
    with hvshare.open_image(str(path)) as image:
        assert image.source_bytes is not None
        assert image.source_bytes <= 16 * 128 * 1024
        counts = hvshare.measure(hvshare.fingerprint_images([image])).pooled
    pages = (1 << 40) // PAGE
    assert (counts[PAGE].frames, counts[PAGE].zero) == (pages, pages - 16 * 3)
    assert (counts[2 * MIB].frames, counts[2 * MIB].zero) == (pages // 512, pages // 512 - 16)


def test_extents_off_page_bounds_are_read_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # As on a file system with blocks of 1 KiB.
    path = write_raw(tmp_path / "a.raw", [content(number) for number in range(8)])
    extents = [(1024, 2048), (3072, 5120), (5 * PAGE + 100, 5 * PAGE + 200)]
    monkeypatch.setattr("hvshare.images.raw.data_extents", lambda _fd, _size: iter(extents))
    with hvshare.open_image(str(path)) as image:
        assert [tuple(run) for run in image.runs or ()] == [
            (0, 2, RunKind.PRESENT),
            (2, 3, RunKind.ZERO),
            (5, 1, RunKind.PRESENT),
            (6, 2, RunKind.ZERO),
        ]


def test_file_that_shrinks_while_it_is_read(tmp_path: Path) -> None:
    path = write_raw(tmp_path / "a.raw", [content(1)] * 8)
    with hvshare.open_image(str(path)) as image:
        os.truncate(path, 5 * PAGE)
        with pytest.raises(ImageChangedError, match="32,768 bytes when it was opened"):
            read(image)
        with pytest.raises(ImageChangedError):
            image.finish()


def test_file_that_grows_while_it_is_read(tmp_path: Path) -> None:
    path = write_raw(tmp_path / "a.raw", [content(1)] * 8)
    with hvshare.open_image(str(path)) as image:
        read(image)
        os.truncate(path, 9 * PAGE)
        with pytest.raises(ImageChangedError):
            image.finish()


def test_file_that_is_written_while_it_is_read(tmp_path: Path) -> None:
    path = write_raw(tmp_path / "a.raw", [content(1)] * 8)
    os.utime(path, ns=(0, 0))
    with hvshare.open_image(str(path)) as image:
        with path.open("r+b") as file:
            file.write(content(2))
        assert codes(image) == ["written-while-read"]


def test_pipe(tmp_path: Path) -> None:
    pages = [content(number % 250) for number in range(700)]
    fifo = tmp_path / "pipe"
    os.mkfifo(fifo)
    writer = threading.Thread(target=fifo.write_bytes, args=(b"".join(pages) + b"tail",))
    writer.start()
    with hvshare.open_image(str(fifo)) as image:
        assert (image.runs, image.source_bytes, image.can_reread) == (None, None, False)
        (fingerprints,) = hvshare.fingerprint_images([image])
    writer.join()
    assert len(fingerprints.digests) == 700
    assert [caveat.code for caveat in fingerprints.caveats] == ["tail-left-out"]


def test_what_is_no_image(tmp_path: Path) -> None:
    with pytest.raises(UnreadableImageError, match="no such file"):
        hvshare.open_image(str(tmp_path / "nothing"))
    with pytest.raises(UnreadableImageError, match="directory"):
        hvshare.open_image(str(tmp_path))
    with pytest.raises(UnreadableImageError, match="character device"):
        hvshare.open_image("/dev/zero")


def test_names_tell_images_apart(tmp_path: Path) -> None:
    assert default_names(["/a/x/mem", "/a/y/mem", "/b/y/mem"]) == ["x/mem", "a/y/mem", "b/y/mem"]
    assert default_names(["x", "./x", "x"]) == ["x", "./x", "x (2)"]
    assert default_names(["x", "x", "x (2)"]) == ["x", "x (2)", "x (2) (2)"]
    assert default_names(["-", "stdin"]) == ["stdin", "stdin (2)"]


def test_an_image_given_twice_is_told(tmp_path: Path) -> None:
    path = write_raw(tmp_path / "a.raw", [content(1)] * 8)
    (tmp_path / "b.raw").symlink_to(path)
    images = hvshare.open_images([str(path), str(tmp_path / "b.raw")])
    assert [codes(image) for image in images] == [[], ["same-image-twice"]]
    for image in images:
        image.close()


def test_inspection_reads_streams_and_nothing_else(tmp_path: Path) -> None:
    path = write_raw(tmp_path / "a.raw", [content(number) for number in range(9)])
    with hvshare.open_image(str(path)) as image:
        found = inspect(image)
    assert (found.size_bytes, found.file_bytes, found.compression) == (9 * PAGE, 9 * PAGE, None)
    assert [tuple(run) for run in found.runs] == [(0, 9, RunKind.PRESENT)]


def test_a_pipe_that_is_named_twice(tmp_path: Path) -> None:
    # Each of both would get a part of what comes through it, and no error.
    read_end, write_end = os.pipe()
    try:
        os.write(write_end, content(1) * 4)
        os.close(write_end)
        (tmp_path / "a.raw").symlink_to(f"/dev/fd/{read_end}")
        names = [f"/dev/fd/{read_end}", str(tmp_path / "a.raw")]
        with pytest.raises(UnreadableImageError, match="named twice") as caught:
            hvshare.open_images(names)
        assert caught.value.path == names[1]
    finally:
        os.close(read_end)


@pytest.mark.parametrize("name", ["a\0b", "\ud800"])
def test_names_that_no_file_can_have(name: str) -> None:
    with pytest.raises(UnreadableImageError, match="no file can be named so") as caught:
        hvshare.open_image(name)
    assert caught.value.path == name

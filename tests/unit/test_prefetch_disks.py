from __future__ import annotations

import gzip
import os
from pathlib import Path

import pytest

import hvshare
from hvshare.erosion.disk import open_disk, open_disks
from hvshare.erosion.disk_reading import DiskReading
from hvshare.erosion.prefetch import prefetch_from_disk
from hvshare.errors import ImageError, UnreadableImageError, UnsupportedImageError
from hvshare.fingerprint.files import write_fingerprints
from hvshare.fingerprint.fingerprints import Fingerprints
from hvshare.fingerprint.pages import ZERO_DIGEST
from hvshare.images.options import ReadingOptions
from hvshare.images.runs import RunKind
from tests.guests import MemoryImage, supports_holes, write_raw, write_sparse
from tests.oracle import PAGE

SECTOR = 512


def content(number: int) -> bytes:
    return (number.to_bytes(8, "little") * (PAGE // 8))[:PAGE]


CONTENTS = [content(number) for number in range(1, 301)]


def memory() -> list[Fingerprints]:
    return hvshare.fingerprint_images([MemoryImage("vm", CONTENTS)])


HEADS = {
    "qcow2": b"QFI\xfb\0\0\0\3",
    "QED": b"QED\0",
    "VHDX": b"vhdxfile",
    "VHD": b"conectix",
    "VMDK": b"KDMV",
    "VDI": b"<<< Oracle VM VirtualBox Disk Image >>>\n",
    "Parallels": b"WithoutFreeSpace",
}


@pytest.mark.parametrize("name", HEADS)
def test_disk_formats_are_refused_with_the_conversion(tmp_path: Path, name: str) -> None:
    path = tmp_path / "a disk.img"
    path.write_bytes(HEADS[name] + bytes(2 * PAGE))
    with pytest.raises(UnsupportedImageError, match=f"it is a {name} disk image") as caught:
        open_disk(str(path))
    source = "-f vpc " if name == "VHD" else ""
    assert f"`qemu-img convert {source}-O raw '{path}' '{path}.raw'`" in str(caught.value)


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("VHD", bytes(2 * PAGE) + b"conectix" + bytes(SECTOR - 8)),
        ("DMG", bytes(2 * PAGE) + b"koly" + bytes(SECTOR - 4)),
        ("VMDK", b"# Disk DescriptorFile\nversion=1\n" + bytes(PAGE)),
        ("VMDK", b"COWD" + bytes(PAGE)),
        (
            "VDI",
            b"<<< CloneVDI VirtualBox Disk Image >>>\n".ljust(64, b"\0") + b"\x7f\x10\xda\xbe" + bytes(PAGE),
        ),
    ],
)
def test_disk_formats_are_told_by_what_stands_elsewhere(tmp_path: Path, name: str, data: bytes) -> None:
    path = tmp_path / "disk.img"
    path.write_bytes(data)
    with pytest.raises(UnsupportedImageError, match=f"it is a {name} disk image"):
        open_disk(str(path))


def test_what_is_no_disk_is_refused(tmp_path: Path) -> None:
    encrypted, core = tmp_path / "luks.raw", tmp_path / "dump.lime"
    encrypted.write_bytes(b"LUKS\xba\xbe\0\2" + bytes(2 * PAGE))
    core.write_bytes(b"EMiL" + bytes(2 * PAGE))
    for path, problem in (
        (str(encrypted), "encrypted disk"),
        (str(core), "recognised as: LiME dump, which holds memory"),
        (str(tmp_path), "it is a directory"),
        ("qemu:1", "a running guest"),
        (str(tmp_path / "none"), "no such file"),
    ):
        with pytest.raises(ImageError, match=problem):
            open_disk(path)


def test_several_disks_are_closed_if_one_cannot_be_opened(tmp_path: Path) -> None:
    one = write_raw(tmp_path / "disk.raw", CONTENTS)
    with pytest.raises(UnreadableImageError):
        open_disks([str(one), str(tmp_path / "none")])
    disks = open_disks([str(one), str(one)])
    assert [disk.name for disk in disks] == ["disk.raw", "disk.raw (2)"]
    for disk in disks:
        disk.close()


def digests_of(path: Path) -> list[int]:
    with open_disk(str(path)) as disk, DiskReading([disk], jobs=1) as reading:
        found = sorted(int(digest) for _, digests in reading for digest in digests)
        return found + [ZERO_DIGEST] * reading.holes[0]


def test_blocks_are_the_same_raw_sparse_compressed_and_kept(tmp_path: Path) -> None:
    size = 400 * PAGE
    raw = tmp_path / "disk.raw"
    raw.write_bytes(b"".join(CONTENTS).ljust(size, b"\0"))
    packed = tmp_path / "disk.raw.gz"
    packed.write_bytes(gzip.compress(raw.read_bytes(), 1))
    sparse = write_sparse(tmp_path / "sparse.raw", size, {0: b"".join(CONTENTS)})
    kept = tmp_path / "disk.hvs"
    with (
        hvshare.open_image(str(sparse), options=ReadingOptions(image_format="raw")) as image,
        kept.open("wb") as file,
    ):
        write_fingerprints(hvshare.fingerprint_images([image])[0], file)
    expected = digests_of(raw)
    assert len(expected) == 400
    for path in (packed, sparse, kept):
        assert sorted(digests_of(path)) == sorted(expected)
        with open_disk(str(path)) as disk:
            found = prefetch_from_disk(memory(), [disk])
        assert found.disk is not None
        assert found.disk.pages == 300
        assert (found.disk.disks[0].blocks, found.disk.disks[0].zero_blocks) == (400, 100)
        assert not {caveat.code for caveat in found.caveats} & {"holes-are-zero", "read-as-raw"}


def test_holes_of_a_disk_are_zero_whatever_holes_of_memory_are(tmp_path: Path) -> None:
    if not supports_holes(tmp_path):
        pytest.skip("the file system tells no holes")
    sparse = write_sparse(tmp_path / "sparse.raw", 64 << 20, {0: b"".join(CONTENTS)})
    with open_disk(str(sparse), options=ReadingOptions(holes=RunKind.ABSENT)) as disk:
        assert disk.format == "raw"
        with DiskReading([disk]) as reading:
            assert sum(len(digests) for _, digests in reading) < 16384
            assert reading.holes[0] > 0


@pytest.mark.parametrize("sectors", [1, 7, 63])
def test_partitions_that_are_not_aligned_are_told_from_a_strange_disk(tmp_path: Path, sectors: int) -> None:
    path = tmp_path / "disk.raw"
    path.write_bytes(bytes(sectors * SECTOR) + b"".join(CONTENTS) + bytes(PAGE))
    offset = sectors * SECTOR % PAGE
    with (
        open_disk(str(path)) as disk,
        pytest.raises(UnsupportedImageError, match="not 4 KB-aligned") as caught,
    ):
        prefetch_from_disk(memory(), [disk])
    assert f"blocks that start {offset:,} bytes behind" in str(caught.value)
    aligned = write_raw(tmp_path / "aligned.raw", CONTENTS)
    with open_disk(str(aligned)) as good, open_disk(str(path)) as bad:
        found = prefetch_from_disk(memory(), [good, bad])
    told = [caveat for caveat in found.caveats if caveat.code == "disk-without-file-pages"]
    assert [caveat.image for caveat in told] == ["disk.raw"]
    assert f"start {offset:,} bytes behind" in told[0].message
    strange = write_raw(tmp_path / "strange.raw", [content(number) for number in range(1000, 1300)])
    with (
        open_disk(str(strange)) as disk,
        pytest.raises(UnsupportedImageError, match="only 0 of the 300") as caught,
    ):
        prefetch_from_disk(memory(), [disk])
    assert "aligned" not in str(caught.value)


def test_a_few_blocks_that_fit_elsewhere_are_no_matter_of_alignment(tmp_path: Path) -> None:
    strange = [content(number) for number in range(1000, 1300)]
    shifted = bytes(SECTOR) + b"".join(CONTENTS[10:30]) + bytes(PAGE - SECTOR)
    path = tmp_path / "disk.raw"
    path.write_bytes(b"".join([CONTENTS[0], CONTENTS[1], *strange]) + shifted + CONTENTS[2])
    guest = hvshare.fingerprint_images(
        [MemoryImage("vm", [*CONTENTS, *[content(n) for n in range(2000, 2100)]])]
    )
    with (
        open_disk(str(path)) as disk,
        pytest.raises(UnsupportedImageError, match="only 3 of the 400") as caught,
    ):
        prefetch_from_disk(guest, [disk])
    assert "aligned" not in str(caught.value)


def test_a_disk_that_is_written_while_it_is_read_is_told(tmp_path: Path) -> None:
    path = write_raw(tmp_path / "disk.raw", CONTENTS)
    with open_disk(str(path)) as disk:
        os.utime(path, ns=(1, 1))
        found = prefetch_from_disk(memory(), [disk])
    assert "written-while-read" in {caveat.code for caveat in found.caveats}


def test_a_disk_that_shrinks_while_it_is_read_is_an_error(tmp_path: Path) -> None:
    path = write_raw(tmp_path / "disk.raw", CONTENTS)
    with open_disk(str(path)) as disk:
        path.write_bytes(CONTENTS[0])
        with pytest.raises(ImageError, match="changed its size"):
            prefetch_from_disk(memory(), [disk])


def test_progress_counts_all_bytes(tmp_path: Path) -> None:
    path = write_raw(tmp_path / "disk.raw", CONTENTS)
    told: list[tuple[int, int]] = []
    with open_disk(str(path)) as disk:
        with DiskReading([disk], on_progress=lambda index, count: told.append((index, count))) as reading:
            prefetch_from_disk(memory(), reading)
        assert sum(count for _, count in told) == disk.source_bytes

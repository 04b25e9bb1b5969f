from __future__ import annotations

import gzip
import io
import json
import struct
import tracemalloc
import zipfile
import zlib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import pytest
import xxhash
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

import hvshare
from hvshare.caveats import Caveat
from hvshare.errors import (
    DamagedImageError,
    ImageError,
    TruncatedImageError,
    UnsupportedImageError,
)
from hvshare.fingerprint import container, file_reader, files
from hvshare.fingerprint.fingerprints import Fingerprints
from hvshare.fingerprint.pages import ZERO_DIGEST
from hvshare.fingerprint.provenance import Provenance
from hvshare.images.image import LeftOut
from hvshare.images.runs import RunKind, Runs
from tests.formats.harness import piped
from tests.guests import MemoryImage, vms_with_gaps
from tests.oracle import PAGE

MEMBERS = ["hvshare_fingerprints", "first_gfns", "lengths", "kinds", "zero_pages", "digests", "checksums"]
Change = Callable[[dict[str, Any], dict[str, NDArray[Any]]], None]
KINDS = {RunKind.PRESENT: 0, RunKind.ZERO: 1, RunKind.ABSENT: 2}

digests_of_pages = st.one_of(st.just(ZERO_DIGEST), st.integers(0, 5), st.integers(0, (1 << 64) - 1))


@st.composite
def any_fingerprints(draw: st.DrawFn) -> Fingerprints:
    """Runs of all kinds, with gaps, up to the end of 64-bit addresses, and digests for what is PRESENT."""
    runs = Runs()
    at = draw(st.sampled_from([0, 1, 1 << 20, (1 << 52) - 600]))
    for gap, pages, kind in draw(
        st.lists(st.tuples(st.integers(0, 9), st.integers(1, 25), st.sampled_from(RunKind)), max_size=12)
    ):
        runs.append(at + gap, pages, kind)
        at += gap + pages
    present = runs.pages_of(RunKind.PRESENT)
    digests = draw(st.lists(digests_of_pages, min_size=present, max_size=present))
    text = st.text(st.characters(), max_size=8)
    caveats = draw(st.lists(st.builds(Caveat, st.just("odd"), text, text, st.just("name")), max_size=2))
    return Fingerprints("name", draw(text), "raw", runs, np.array(digests, np.uint64), tuple(caveats))


def packed(fingerprints: Fingerprints, provenance: Provenance | None = None) -> bytes:
    file = io.BytesIO()
    hvshare.write_fingerprints(fingerprints, file, provenance or Provenance())
    return file.getvalue()


def unpacked(data: bytes, folder: Path) -> Fingerprints:
    path = folder / "x.hvs"
    path.write_bytes(data)
    return hvshare.read_fingerprints(str(path))


class Bytes:
    """The stream of some bytes, which come in parts of some size."""

    def __init__(self, data: bytes, step: int = 1 << 20) -> None:
        self._data = memoryview(data)
        self._step = step
        self.source_bytes = 0

    def readinto(self, buffer: memoryview) -> int:
        part = self._data[self.source_bytes : self.source_bytes + min(len(buffer), self._step)]
        buffer[: len(part)] = part
        self.source_bytes += len(part)
        return len(part)


def read(data: bytes, step: int = 1 << 20) -> Fingerprints:
    return file_reader.FingerprintReader(Bytes(data, step), "x.hvs").read()


def check_equal(found: Fingerprints, written: Fingerprints) -> None:
    assert found.runs == written.runs
    assert found.digests.dtype == np.uint64
    assert found.digests.tolist() == written.digests.tolist()
    assert (found.name, found.path, found.format) == (written.name, written.path, written.format)
    assert found.caveats == written.caveats
    assert found.identity == written.identity


@pytest.fixture(scope="module")
def example() -> Fingerprints:
    runs = Runs()
    runs.append(0, 20, RunKind.PRESENT)
    runs.append(20, 5, RunKind.ZERO)
    runs.append(25, 7, RunKind.ABSENT)
    runs.append(64, 3, RunKind.PRESENT)
    digests = np.array([ZERO_DIGEST, 1, 2, 2, 3] * 4 + [ZERO_DIGEST, 9, 9], np.uint64)
    return Fingerprints("a", "/a", "raw", runs, digests, (Caveat("odd", "it is odd", "look", "a"),))


@given(any_fingerprints(), st.integers(1, 9), st.sampled_from([8, 16, 64]))
def test_what_is_written_is_read(written: Fingerprints, step: int, chunk: int) -> None:
    data = packed(written)
    check_equal(read(data, 1 + step * 37), written)
    with (
        mock.patch.object(files, "CHUNK_PAGES", chunk),
        mock.patch.object(file_reader, "CHUNK_PAGES", chunk),
        mock.patch.object(container, "CHUNK_BYTES", chunk),
    ):
        check_equal(read(data), written)
        check_equal(read(packed(written)), written)


@given(st.lists(vms_with_gaps, min_size=1, max_size=3), st.booleans(), st.booleans())
def test_counts_are_those_of_the_images(vms: list[Any], zero_runs: bool, gaps: bool) -> None:
    images = [MemoryImage(f"vm{n}", vm, zero_runs=zero_runs, gaps=gaps) for n, vm in enumerate(vms)]
    fingerprints = hvshare.fingerprint_images(images)
    stored = [read(packed(each)) for each in fingerprints]
    sizes = (PAGE, 4 * PAGE)
    expected, found = hvshare.measure(fingerprints, sizes), hvshare.measure(stored, sizes)
    assert found == expected


@given(any_fingerprints())
def test_numpy_and_zip_open_it_by_themselves(written: Fingerprints) -> None:
    data = packed(written)
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        assert archive.testzip() is None
        entries = archive.infolist()
        assert [each.filename for each in entries] == [f"{name}.npy" for name in MEMBERS]
        assert {each.compress_type for each in entries} == {zipfile.ZIP_STORED}
    arrays: dict[str, NDArray[Any]] = dict(np.load(io.BytesIO(data), allow_pickle=False))
    metadata = json.loads(bytes(arrays["hvshare_fingerprints"]))
    present = metadata["present_pages"]
    zero = np.unpackbits(arrays["zero_pages"], count=present, bitorder="little").astype(bool)
    digests = np.full(present, int(metadata["zero_digest"], 16), np.uint64)
    digests[~zero] = arrays["digests"]
    assert digests.tolist() == written.digests.tolist()
    runs = zip(*(arrays[name].tolist() for name in MEMBERS[1:4]), strict=True)
    assert list(runs) == [(run.first_gfn, run.pages, KINDS[run.kind]) for run in written.runs]
    assert [xxhash.xxh3_64_intdigest(arrays[name].tobytes()) for name in MEMBERS[:-1]] == arrays[
        "checksums"
    ].tolist()
    for entry in entries:
        name_and_extra = struct.unpack_from("<2H", data, entry.header_offset + 26)
        items = entry.header_offset + 30 + sum(name_and_extra)
        items += 10 + struct.unpack_from("<H", data, items + 8)[0]
        assert items % 64 == 0  # so that it can be mapped


def test_provenance_is_kept(example: Fingerprints, tmp_path: Path) -> None:
    left_out = (LeftOut(None, 5, "ROM"), LeftOut(1, 2, "x"))
    details = {"machine": "q35"}
    changed = "2020-01-01T00:00:00Z"
    provenance = Provenance("layout", "gzip", "zlib", "tool", True, details, left_out, 77, changed)
    data = packed(example, provenance)
    found = file_reader.FingerprintReader(Bytes(data), "x").provenance
    assert found.written
    assert found.written.endswith("Z")
    assert found.written_by == f"hvshare {hvshare.__version__}"
    assert found == replace(provenance, written=found.written, written_by=found.written_by)
    assert packed(example, found) == data
    assert unpacked(data, tmp_path).caveats == (Caveat("odd", "it is odd", "look", "x.hvs"),)


@pytest.mark.parametrize("code", ["same-image-twice", "spooled"])
def test_caveats_that_are_not_about_the_digests_are_not_kept(example: Fingerprints, code: str) -> None:
    noted = replace(example, caveats=(*example.caveats, Caveat(code, "", "", "a")))
    assert read(packed(noted)).caveats == example.caveats


def test_size(example: Fingerprints) -> None:
    runs = Runs()
    runs.append(0, 100_000, RunKind.PRESENT)
    digests = np.full(100_000, ZERO_DIGEST, np.uint64)
    digests[::2] = np.arange(50_000, dtype=np.uint64)
    data = packed(Fingerprints("a", "/a", "raw", runs, digests))
    assert len(data) < 8 * 50_000 + 100_000 // 8 + 4096


def test_through_pipes_and_compressed(example: Fingerprints, tmp_path: Path) -> None:
    data = packed(example)
    with piped(data) as name:
        assert hvshare.read_fingerprints(name).identity == example.identity
    with piped(gzip.compress(data)) as name:
        assert hvshare.read_fingerprints(name).identity == example.identity
    assert unpacked(gzip.compress(data), tmp_path).digests.tolist() == example.digests.tolist()


def test_members_and_offsets_beyond_4_gib(monkeypatch: pytest.MonkeyPatch) -> None:
    # What zip64 is for takes 2 TiB of guest; so the limit comes down instead.
    monkeypatch.setattr(container, "_ZIP_64_FROM", 2000)
    runs = Runs()
    runs.append(0, 500, RunKind.PRESENT)
    written = Fingerprints("a", "/a", "raw", runs, np.arange(500, dtype=np.uint64))
    data = packed(written)
    assert data.count(b"PK\x06\x06") == 1
    check_equal(read(data), written)
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        assert archive.testzip() is None
        assert [each.filename for each in archive.infolist()] == [f"{name}.npy" for name in MEMBERS]
        assert archive.infolist()[-1].header_offset > 2000
    assert np.load(io.BytesIO(data))["digests"].tolist() == list(range(500))


def test_cut_at_every_offset(example: Fingerprints, tmp_path: Path) -> None:
    data = packed(example)
    for length in range(len(data)):
        with pytest.raises(TruncatedImageError, match=r"x\.hvs: at byte") as error:
            read(data[:length])
        assert error.value.offset == length
        assert error.value.advice
    path = tmp_path / "cut.hvs"
    for length in (0, 1, 3, 4, 29, 30, 53, 54, 55, 200, len(data) - 1):
        path.write_bytes(data[:length])
        for opened in (hvshare.open_inputs, hvshare.open_images):
            with pytest.raises(ImageError, match=r"cut\.hvs"):
                hvshare.fingerprint_images(opened([str(path)]))


def test_every_flipped_byte_is_found(example: Fingerprints, tmp_path: Path) -> None:
    data = bytearray(packed(example))
    path = tmp_path / "flipped.hvs"
    for offset in range(len(data)):
        for flip in (0xFF, 0x01, 0x80):
            data[offset] ^= flip
            with pytest.raises((DamagedImageError, UnsupportedImageError)):
                read(bytes(data))
            if offset < 64:  # where it is told what it is: nothing else may be made of it
                path.write_bytes(data)
                with pytest.raises(ImageError, match=r"flipped\.hvs"):
                    hvshare.open_inputs([str(path)])
            data[offset] ^= flip


def test_bytes_behind_the_end(example: Fingerprints) -> None:
    with pytest.raises(DamagedImageError, match="behind its end"):
        read(packed(example) + b"\0")


def test_packed_anew(example: Fingerprints, tmp_path: Path) -> None:
    for compression in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        path = tmp_path / "again.hvs"
        with (
            zipfile.ZipFile(io.BytesIO(packed(example))) as old,
            zipfile.ZipFile(path, "w", compression) as new,
        ):
            for entry in old.infolist():
                new.writestr(entry.filename, old.read(entry))
        with pytest.raises(DamagedImageError, match="packed anew"):
            hvshare.read_fingerprints(str(path))


def forged(example: Fingerprints, change: Change) -> bytes:
    """Write a file whose checksums fit, out of changed metadata and arrays."""
    arrays = dict(np.load(io.BytesIO(packed(example))))
    metadata = json.loads(bytes(arrays.pop("hvshare_fingerprints")))
    arrays.pop("checksums")
    change(metadata, arrays)
    text = metadata.pop("as text", None) or json.dumps(metadata)
    arrays = {"hvshare_fingerprints": np.frombuffer(text.encode(), np.uint8), **arrays}
    file = io.BytesIO()
    writer = container.ContainerWriter(file.write)
    for name, array in arrays.items():
        data = array.tobytes()
        writer.add(
            container.Member(name, array.dtype.str, len(array)),
            lambda data=data: iter([data]),  # type: ignore[misc]
        )
    writer.end()
    return file.getvalue()


def told(**fields: object) -> Change:
    return lambda metadata, _arrays: metadata.update(fields)


def of_image(**fields: object) -> Change:
    return lambda metadata, _arrays: metadata["image"].update(fields)


def with_array(**changed: NDArray[Any]) -> Change:
    return lambda _metadata, arrays: arrays.update(changed)


def with_items(name: str, *items: int) -> Change:
    def change(_metadata: dict[str, Any], arrays: dict[str, NDArray[Any]]) -> None:
        arrays[name] = np.array(items, arrays[name].dtype)

    return change


def test_what_is_forged_well_is_read(example: Fingerprints) -> None:
    check_equal(read(forged(example, lambda _metadata, _arrays: None)), example)
    check_equal(read(forged(example, told(further="a field of a later writer"))), example)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (told(version=2, written_by="hvshare 9.9"), "version 2, written by hvshare 9.9.*use a newer hvshare"),
        (told(algorithm="MD5"), "its algorithm is MD5, not XXH3-64"),
        (told(page_size=65536), "its page size is 65536, not 4096"),
        (told(zero_digest="0"), "its zero digest is 0"),
    ],
)
def test_of_another_kind(example: Fingerprints, change: Change, words: str) -> None:
    with pytest.raises(UnsupportedImageError, match=words):
        read(forged(example, change))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (told(**{"as text": "{"}), "metadata cannot be used"),
        (told(**{"as text": "[" * 100_000}), "metadata cannot be used"),
        (told(**{"as text": "[]"}), "the metadata is no dict"),
        (told(**{"as text": '{"runs": 1' + "0" * 5000 + "}"}), "metadata cannot be used"),
        (told(format="something"), "does not say that it holds fingerprints"),
        (told(version=True), "version is no int"),
        (told(version=None), "version is no int"),
        (told(image=None), "image is no dict"),
        (told(caveats=[1]), "a caveat is no dict"),
        (told(written=5), "written is no str"),
        (told(nonzero_pages=99), "more pages than there can be"),
        (told(present_pages=1 << 60), "more pages than there can be"),
        (told(runs=-1), "runs is negative"),
        (of_image(name=5), "name is no str"),
        (of_image(details={"a": 5}), "a is no str"),
        (of_image(left_out=[{"address": None}]), "size_bytes is no int"),
        (of_image(size_bytes=8192), "and its metadata says 23, of 2"),
        # first_gfns are 0, 20, 25, 64 and lengths 20, 5, 7, 3
        (with_items("first_gfns", 0, 19, 25, 64), "one behind the other"),
        (with_items("first_gfns", 20, 0, 25, 64), "one behind the other"),
        (with_items("first_gfns", -5, 20, 25, 64), "one behind the other"),
        (with_items("first_gfns", 0, 20, 25, (1 << 52) - 2), "beyond 64-bit addresses"),
        (with_items("first_gfns", 0, 20, 25, (1 << 63) - 2), "one behind the other"),
        (with_items("lengths", 20, 5, 7, 0), "empty"),
        (with_items("lengths", 20, 5, 7, -3), "empty"),
        (with_items("lengths", 20, 5, 6, 3), "its runs have 23 pages with a digest, of 34"),
        (with_items("lengths", 19, 5, 7, 3), "its runs have 22 pages"),
        (with_items("kinds", 0, 1, 3, 0), "of no kind"),
        (with_items("kinds", 0, 1, -1, 0), "of no kind"),
        (with_items("kinds", 0, 0, 2, 0), "its runs have 28 pages"),
        (with_items("zero_pages", 0, 0, 0), "its bitmap has 0 zero pages"),
        (with_items("zero_pages", 255, 255, 255), "its bitmap has 24 zero pages"),
        (with_items("zero_pages", 0, 0, 0xF8), "its bitmap has 5 zero pages"),
        (told(nonzero_pages=17), "its bitmap has 5 zero pages, and its metadata says 6 of 23"),
        (with_items("digests", *[ZERO_DIGEST] * 18), "the digest of the zero page"),
        (with_items("digests", *range(17)), "the header of its digests"),
        (told(runs=3), "the header of its first_gfns"),
        (with_array(digests=np.array([b"pickled!"] * 18, "|S8")), "the header of its digests"),
    ],
)  # fmt: skip
def test_contradictions(example: Fingerprints, change: Change, words: str) -> None:
    with pytest.raises(DamagedImageError, match=words):
        read(forged(example, change))


def test_pickled_members_are_not_even_looked_at(example: Fingerprints, tmp_path: Path) -> None:
    path = tmp_path / "pickled.hvs"
    with zipfile.ZipFile(path, "w") as archive:
        member = io.BytesIO()
        np.save(member, np.array([{"an": "object"}]), allow_pickle=True)
        archive.writestr("hvshare_fingerprints.npy", member.getvalue())
    with pytest.raises(DamagedImageError, match=r"pickled\.hvs"):
        hvshare.read_fingerprints(str(path))


@pytest.mark.parametrize("member", [0, 4, 5])
def test_xxh3_finds_what_crc_does_not(example: Fingerprints, member: int) -> None:
    """Change a byte and make its CRC-32 fit again, in both places where zip has it."""
    data = bytearray(packed(example))
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        entries = archive.infolist()
        entry = entries[member]
    name_and_extra = struct.unpack_from("<2H", data, entry.header_offset + 26)
    start = entry.header_offset + 30 + sum(name_and_extra)
    at = start + entry.file_size - 3
    if member == 0:
        at = data.index(b"it is odd")
    data[at] ^= 3 if member == 4 else 1  # in the bitmap, another page is the zero one
    crc = struct.pack("<I", zlib.crc32(data[start : start + entry.file_size]))
    central = data.index(b"PK\x01\x02")
    for _ in range(member):
        central = data.index(b"PK\x01\x02", central + 4)
    data[entry.header_offset + 14 : entry.header_offset + 18] = crc
    data[central + 16 : central + 20] = crc
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        assert archive.testzip() is None
    with pytest.raises(DamagedImageError, match="XXH3-64 checksums do not fit"):
        read(bytes(data))


@pytest.mark.parametrize("field", ["runs", "present_pages"])
def test_more_than_the_machine_has(example: Fingerprints, field: str) -> None:
    with pytest.raises(UnsupportedImageError, match="of memory, and this machine has"):
        read(forged(example, told(**{field: 1 << 51})))


def test_declared_sizes_allocate_nothing(example: Fingerprints) -> None:
    """Members that a file does not have cost no memory, however large they are said to be."""
    runs = 1 << 24
    data = forged(example, told(runs=runs))
    huge = container.Member("first_gfns", "<i8", runs)
    at = data.index(huge.file_name) - 30
    cut = data[:at] + huge.local_header(at, 0) + huge.npy_header + bytes(3 << 20)
    tracemalloc.start()
    with pytest.raises(TruncatedImageError, match="it ends within its first_gfns"):
        read(cut)
    assert tracemalloc.get_traced_memory()[1] < 12 << 20
    tracemalloc.stop()


def test_metadata_has_a_limit(example: Fingerprints, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(file_reader, "_MOST_METADATA", 100)
    with pytest.raises(DamagedImageError, match="its first member"):
        read(packed(example))


def test_images_and_files_together(tmp_path: Path) -> None:
    pages = [bytes(PAGE), b"a" * PAGE, b"b" * PAGE, b"a" * PAGE]
    raw = tmp_path / "a.raw"
    raw.write_bytes(b"".join(pages))
    with hvshare.open_image(str(raw)) as image:
        (whole,) = hvshare.fingerprint_images([image])
    (tmp_path / "a.hvs").write_bytes(packed(whole))
    bad = tmp_path / "bad.hvs"
    bad.write_bytes(packed(whole)[:-10])
    paths = [str(tmp_path / "a.hvs"), str(raw), str(bad), str(tmp_path / "a.hvs")]
    with pytest.raises(TruncatedImageError, match=r"bad\.hvs"):
        hvshare.fingerprint_images(hvshare.open_inputs(paths))
    failed: list[ImageError] = []
    progress: dict[int, int] = {}
    inputs = hvshare.open_inputs(paths)
    with hvshare.Hashing(
        inputs, on_error=failed.append, on_progress=lambda index, count: progress.update({index: count})
    ) as hashing:
        found = dict(hashing)
    assert sorted(found) == [0, 1, 3]
    assert [error.path for error in failed] == [str(bad)]
    assert progress == {0: len(packed(whole)), 1: 4 * PAGE, 3: len(packed(whole))}
    assert [found[index].name for index in (0, 1, 3)] == ["a.hvs", "a.raw", "a.hvs (2)"]
    assert found[0].format == "fingerprints"
    assert [caveat.code for caveat in found[3].caveats] == ["same-image-twice"]
    report = hvshare.measure([found[index] for index in (0, 1, 3)])
    assert report.pooled[PAGE].saved == 12 - 3
    twins = [(each.code, each.image) for each in report.caveats if each.code.startswith("same-")]
    assert twins == [("same-image-twice", "a.hvs (2)"), ("same-contents-twice", "a.raw")]
    for each in inputs:
        each.close()


@given(any_fingerprints(), any_fingerprints())
def test_identity_tells_contents_apart(one: Fingerprints, other: Fingerprints) -> None:
    alike = one.runs == other.runs and one.digests.tolist() == other.digests.tolist()
    assert (one.identity == other.identity) == alike


def test_what_is_no_fingerprint_file(tmp_path: Path) -> None:
    raw = tmp_path / "a.raw"
    raw.write_bytes(bytes(2 * PAGE))
    with pytest.raises(UnsupportedImageError, match=r"no fingerprint file.*hvshare fingerprint"):
        hvshare.read_fingerprints(str(raw))


def test_file_that_changes_while_it_is_read(example: Fingerprints, tmp_path: Path) -> None:
    path = tmp_path / "x.hvs"
    path.write_bytes(packed(example))
    (stored,) = hvshare.open_inputs([str(path)])
    assert isinstance(stored, hvshare.StoredFingerprints)
    with path.open("ab") as file:
        file.write(b"more")
    with stored, pytest.raises(ImageError, match=r"x\.hvs"):
        stored.read()

from __future__ import annotations

import bz2
import gzip
import lzma
import struct
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import hvshare
from hvshare.errors import DamagedImageError, TruncatedImageError, UnsupportedImageError
from hvshare.images.options import ReadingOptions
from tests.formats.harness import check_cut_anywhere, check_flipped, memories, read_back
from tests.formats.qemu_migration_writer import COMMON, XML, Record, libvirt_save, mapped, migration
from tests.guests import content

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

HEADER = 92
PACKERS: dict[int, Callable[[bytes], bytes]] = {
    0: bytes,
    1: gzip.compress,
    2: bz2.compress,
    3: lambda data: lzma.compress(data, preset=0),
    5: zstd.compress,
}


def stream(memory: dict[int, bytes | None], machine: str | None = "pc-q35-6.2") -> bytes:
    pages = max(memory) + 1
    sent: list[Record] = [("pc.ram", gfn, page) for gfn, page in memory.items() if page is not None]
    return migration({"pc.ram": pages, **COMMON}, sent, machine=machine)


FULL: dict[int, bytes | None] = {gfn: content(gfn) for gfn in range(5)}


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(memory=memories(absent=True), compressed=st.sampled_from(list(PACKERS)), as_stream=st.booleans())
def test_what_is_written_is_read(
    tmp_path: Path, memory: dict[int, bytes | None], compressed: int, as_stream: bool
) -> None:
    path = tmp_path / "a.save"
    path.write_bytes(libvirt_save(PACKERS[compressed](stream(memory)), compressed=compressed))
    found = read_back(path, as_stream=as_stream)
    assert found.memory == {gfn: memory.get(gfn) for gfn in range(max(memory) + 1)}
    codes = {"pages-never-sent"} if None in found.memory.values() else set()
    assert found.caveats == codes | ({"spooled"} if compressed or as_stream else set())


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("version", [1, 2])
def test_what_a_person_would_check(tmp_path: Path, order: str, version: int) -> None:
    path = tmp_path / "a.save"
    data = libvirt_save(gzip.compress(stream(FULL)), compressed=1, order=order, version=version, running=0)
    path.write_bytes(data)
    with hvshare.open_image(str(path)) as image:
        assert (image.format, image.tool) == ("libvirt-save", "libvirt")
        assert image.details["domain"] == "web & mail"
        assert image.details["guest was"] == "paused"
        assert image.details["format of the stream"] == "gzip"
        assert image.details["machine type"] == "pc-q35-6.2"


def test_the_machine_type_of_the_domain_counts_where_the_stream_has_none(tmp_path: Path) -> None:
    path = tmp_path / "a.save"
    path.write_bytes(libvirt_save(stream(FULL, machine=None)))
    found = read_back(path)
    assert found.memory == FULL
    assert found.caveats == frozenset()
    path.write_bytes(libvirt_save(stream(FULL, machine=None), xml=b"<domain/>\0"))
    assert read_back(path).caveats == {"addresses-inferred"}


def test_compressed_outside_as_well(tmp_path: Path) -> None:
    path = tmp_path / "a.save.gz"
    path.write_bytes(gzip.compress(libvirt_save(zstd.compress(stream(FULL)), compressed=5)))
    assert read_back(path).memory == FULL
    with pytest.raises(UnsupportedImageError, match="spool limit"):
        read_back(path, ReadingOptions(spool_limit=100))


def test_a_long_description(tmp_path: Path) -> None:
    path = tmp_path / "a.save"
    long = XML + bytes((3 << 20) + 5)
    for compressed in (0, 1):
        path.write_bytes(libvirt_save(PACKERS[compressed](stream(FULL)), compressed=compressed, xml=long))
        assert read_back(path).memory == FULL


@pytest.mark.parametrize("aligned", [False, True])
@pytest.mark.parametrize("as_stream", [False, True])
def test_sparse_saves(tmp_path: Path, aligned: bool, as_stream: bool) -> None:
    path = tmp_path / "a.save"
    stored = {3: content(1), 70: content(2)}
    start = 4096 if aligned else HEADER + len(XML)
    head = libvirt_save(b"", compressed=6)
    data = mapped({"pc.ram": (80, stored), "pc.bios": (1, {0: content(3)})}, base=start)
    path.write_bytes(head + data[len(head) :])
    found = read_back(path, as_stream=as_stream)
    assert found.memory == {gfn: stored.get(gfn, content(0)) for gfn in range(80)}


def test_what_cannot_be(tmp_path: Path) -> None:
    path = tmp_path / "a.save"
    good = stream(FULL)

    def check(data: bytes, words: str, error: type[Exception] = DamagedImageError) -> None:
        path.write_bytes(data)
        for as_stream in (False, True):
            with pytest.raises(error, match=words):
                read_back(path, as_stream=as_stream)

    check(libvirt_save(good, magic=b"LibvirtQemudPart"), "never finished", UnsupportedImageError)
    check(libvirt_save(b"\x89LZO", compressed=4), r"lzop.*tail -c \+\d+ FILE", UnsupportedImageError)
    check(libvirt_save(good, version=3), "version other than 2", UnsupportedImageError)
    check(libvirt_save(good, compressed=7), "format 7")
    check(libvirt_save(good, running=2), "state 2")
    check(libvirt_save(good, cookie=1 << 20), "cookie at 1,048,576")
    check(libvirt_save(good, xml=b""), "0 bytes of description")
    check(libvirt_save(good)[:50], "header of 92 bytes", TruncatedImageError)
    check(libvirt_save(b"")[:-5], "description of the domain", TruncatedImageError)
    check(libvirt_save(b"", compressed=1)[:-5], "description of the domain", TruncatedImageError)
    check(libvirt_save(b"", compressed=1)[:HEADER], "description of the domain", TruncatedImageError)
    check(libvirt_save(good, compressed=1), "gzip stream should be here, and it is none")
    check(libvirt_save(gzip.compress(good), compressed=3), "xz stream should be here, and it is gzip")
    check(libvirt_save(gzip.compress(good)), "raw stream should be here, and it is gzip")
    check(libvirt_save(b"abcdefgh"), "migration stream should start here")
    check(libvirt_save(gzip.compress(b"abcdefgh"), compressed=1), "migration stream should start here")
    check(
        libvirt_save(gzip.compress(good)[:-20], compressed=1),
        "gzip stream ends too early",
        TruncatedImageError,
    )
    hostile = bytearray(libvirt_save(good))
    struct.pack_into("<I", hostile, 20, 0xFFFF_FFFF)
    check(bytes(hostile), "4,294,967,295 bytes of description")
    struct.pack_into("<I", hostile, 20, 60 << 20)
    check(bytes(hostile), "description of the domain", TruncatedImageError)


@pytest.mark.parametrize("compressed", [0, 1])
def test_cut_anywhere(tmp_path: Path, compressed: int) -> None:
    path = tmp_path / "a.save"
    memory: dict[int, bytes | None] = {0: content(1), 1: content(2)}
    path.write_bytes(libvirt_save(PACKERS[compressed](stream(memory)), compressed=compressed))
    size = path.stat().st_size
    step = 1 if compressed else 13
    check_cut_anywhere(path, [*range(0, size, step), *range(HEADER + 20)])


@pytest.mark.parametrize("compressed", [0, 1])
def test_flipped_headers(tmp_path: Path, compressed: int) -> None:
    path = tmp_path / "a.save"
    path.write_bytes(libvirt_save(PACKERS[compressed](stream(FULL)), compressed=compressed))
    check_flipped(path, range(len(b"LibvirtQemudSave"), HEADER + len(XML)))


def test_xml_that_begins_a_tag_again_and_again(tmp_path: Path) -> None:
    # Each beginning searched to the end of the XML would take longer than any test may.
    path = tmp_path / "a.save"
    path.write_bytes(
        libvirt_save(migration({"pc.ram": 1}, [("pc.ram", 0, content(1))]), xml=b"<type " * (1 << 20))
    )
    assert read_back(path).memory == {0: content(1)}

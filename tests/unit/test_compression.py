"""Compressed streams: what goes in comes out, and a cut or a flipped byte never passes unnoticed."""

from __future__ import annotations

import bz2
import gzip
import hashlib
import lzma
import struct
import sys
from collections.abc import Callable
from pathlib import Path

import lz4.frame
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import hvshare
from hvshare.errors import DamagedImageError, EmptyImageError, TruncatedImageError, UnsupportedImageError
from hvshare.images.compression import COMPRESSIONS
from hvshare.images.image import GuestImage
from hvshare.images.options import ReadingOptions
from tests.guests import content
from tests.oracle import PAGE

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

Compress = Callable[[bytes], bytes]


def zstd_compress(data: bytes) -> bytes:
    return zstd.compress(data, options={zstd.CompressionParameter.checksum_flag: 1})


def lz4_compress(data: bytes) -> bytes:
    packed: bytes = lz4.frame.compress(data, content_checksum=True, store_size=False)
    return packed


COMPRESSORS: dict[str, Compress] = {
    "gzip": lambda data: gzip.compress(data, mtime=0),
    "bzip2": bz2.compress,
    "xz": lzma.compress,
    "zstd": zstd_compress,
    "lz4": lz4_compress,
}
every_compression = pytest.mark.parametrize("name", COMPRESSORS)
GUEST = b"".join(content(number) for number in range(12))


def read(image: GuestImage) -> bytes:
    buffer = memoryview(bytearray(2 * PAGE))
    return b"".join(bytes(buffer[: block.pages * PAGE]) for block in image.blocks(buffer))


def read_file(path: Path, data: bytes) -> bytes:
    path.write_bytes(data)
    with hvshare.open_image(str(path)) as image:
        unpacked = read(image)
        image.finish()
    return unpacked


def test_every_compression_is_tested() -> None:
    assert list(COMPRESSORS) == [compression.name for compression in COMPRESSIONS]


@every_compression
def test_round_trip_twice(tmp_path: Path, name: str) -> None:
    path = tmp_path / "misleading.name"
    path.write_bytes(COMPRESSORS[name](GUEST))
    with hvshare.open_image(str(path)) as image:
        assert (image.format, image.compression, image.can_reread) == ("raw", name, True)
        assert read(image) == GUEST
        assert read(image) == GUEST


@every_compression
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=25, deadline=None)
@given(st.lists(st.binary(min_size=1, max_size=3 * PAGE), min_size=1, max_size=4), st.integers(0, 9))
def test_members_follow_each_other(tmp_path: Path, name: str, parts: list[bytes], padding: int) -> None:
    parts = [content(1), *parts]
    packed = bytes(4 * padding).join(COMPRESSORS[name](part) for part in parts) + bytes(4 * padding)
    whole = b"".join(parts)
    assert read_file(tmp_path / "a", packed) == whole[: len(whole) // PAGE * PAGE]


@every_compression
def test_cut_at_every_offset(tmp_path: Path, name: str) -> None:
    packed = COMPRESSORS[name](GUEST)
    magic = 10 if name == "bzip2" else 6
    for length in range(magic, len(packed)):
        with pytest.raises(TruncatedImageError, match=f"{name} stream ends too early") as caught:
            read_file(tmp_path / "a", packed[:length])
        assert caught.value.offset == length
        assert caught.value.path == str(tmp_path / "a")


@every_compression
def test_flipped_bytes_are_found(tmp_path: Path, name: str) -> None:
    # Random pages, so that every bit of the packed data matters. Headers have fields that do not.
    guest = hashlib.shake_128(b"guest").digest(4 * PAGE)
    packed = COMPRESSORS[name](guest)
    for offset in range(len(packed) // 4, len(packed) * 3 // 4, 997):
        damaged = bytearray(packed)
        damaged[offset] ^= 0x10
        with pytest.raises(DamagedImageError) as caught:
            read_file(tmp_path / "a", bytes(damaged))
        assert caught.value.offset is not None


@every_compression
def test_rubbish_behind_the_stream(tmp_path: Path, name: str) -> None:
    with pytest.raises(DamagedImageError):
        read_file(tmp_path / "a", COMPRESSORS[name](GUEST) + b"rubbish, and more of it")


@every_compression
def test_nothing_within(tmp_path: Path, name: str) -> None:
    with pytest.raises(EmptyImageError):
        read_file(tmp_path / "a", COMPRESSORS[name](b""))


@every_compression
def test_what_is_within_is_recognised(tmp_path: Path, name: str) -> None:
    (tmp_path / "a").write_bytes(COMPRESSORS[name](b"conectix".ljust(PAGE)))
    with pytest.raises(UnsupportedImageError, match="VHD"):
        hvshare.open_image(str(tmp_path / "a"))
    with hvshare.open_image(str(tmp_path / "a"), options=ReadingOptions(image_format="raw")) as image:
        assert [caveat.code for caveat in image.caveats] == ["read-as-raw"]
        assert read(image) == b"conectix".ljust(PAGE)
    (tmp_path / "a").write_bytes(COMPRESSORS[name](gzip.compress(GUEST)))
    with pytest.raises(UnsupportedImageError, match="gzip stream within a"):
        hvshare.open_image(str(tmp_path / "a"))


def test_skippable_frames_in_front(tmp_path: Path) -> None:
    skippable = struct.pack("<II", 0x184D2A5E, 12) + bytes(12)
    assert read_file(tmp_path / "a", skippable * 2 + zstd_compress(GUEST)) == GUEST


def test_streams_that_want_too_much_memory(tmp_path: Path) -> None:
    filters = [{"id": lzma.FILTER_LZMA2, "preset": 0, "dict_size": 1 << 30}]
    packed = lzma.LZMACompressor(lzma.FORMAT_XZ, filters=filters)
    data = packed.compress(GUEST) + packed.flush()
    with pytest.raises(UnsupportedImageError, match="more memory"):
        read_file(tmp_path / "a", data)


def test_a_bomb_unpacks_in_bounded_steps(tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.write_bytes(gzip.compress(bytes(64 << 20)))
    seen = 0
    with hvshare.open_image(str(path)) as image:
        for block in image.blocks(memoryview(bytearray(PAGE))):
            assert block.pages == 1
            seen += 1
    assert seen == 64 << 20 >> 12

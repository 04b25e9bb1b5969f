"""Pages that were compressed one by one, unpacked into exactly one page each."""

from __future__ import annotations

import sys
import zlib
from typing import TYPE_CHECKING, Final, NamedTuple

from hvshare.units import PAGE_SIZE

if TYPE_CHECKING:
    from collections.abc import Callable

MOST_COMPRESSED: Final = PAGE_SIZE
"""Writers keep a page as it is where compression does not make it smaller."""


class PageCodec(NamedTuple):
    """A way to compress a page.

    Attributes
    ----------
    name : str
        Of the compression.
    unpack : callable
        Takes the compressed bytes, at most `MOST_COMPRESSED` of them, and gives what they unpack to, cut
        short or in an error where that is more than a page as far as the library allows it.
    """

    name: str
    unpack: Callable[[memoryview], bytes | bytearray | memoryview]


def _zlib() -> PageCodec:
    try:
        from deflate import zlib_decompress
    except ImportError:  # not every machine has a wheel of it
        return PageCodec("zlib", _unpack_by_standard_library)

    def unpack(data: memoryview) -> bytearray:
        # It refuses what does not fit.
        return zlib_decompress(data, PAGE_SIZE)

    return PageCodec("zlib", unpack)


def _unpack_by_standard_library(data: memoryview) -> bytes:
    # One byte more than a page tells a page from what is longer, without unpacking that.
    return zlib.decompressobj().decompress(data, PAGE_SIZE + 1)


def _lzo() -> PageCodec:
    from lzallright import LZOCompressor

    def unpack(data: memoryview) -> bytes:
        # LZO packs at most 255 bytes into one, so this is never more than a megabyte.
        return LZOCompressor.decompress(bytes(data), PAGE_SIZE)

    return PageCodec("lzo", unpack)


def _snappy() -> PageCodec:
    from cramjam import snappy

    room = memoryview(bytearray(PAGE_SIZE))

    def unpack(data: memoryview) -> memoryview:
        # It refuses what does not fit, by the length that stands in front.
        return room[: snappy.decompress_raw_into(data, room)]

    return PageCodec("snappy", unpack)


def _zstd() -> PageCodec:
    if sys.version_info >= (3, 14):
        from compression import zstd
    else:
        from backports import zstd

    def unpack(data: memoryview) -> bytes:
        return zstd.ZstdDecompressor().decompress(data, PAGE_SIZE + 1)

    return PageCodec("zstd", unpack)


PAGE_CODECS: Final = {"zlib": _zlib, "lzo": _lzo, "snappy": _snappy, "zstd": _zstd}
"""What makes each codec, so that its library is imported only where it is needed."""

"""Saves of libvirt: ``virsh save``, ``virsh managedsave``, and the memory of snapshots.

Source: libvirt, ``src/qemu/qemu_saveimage.h`` and ``qemu_saveimage.c``: 16 bytes of magic, then version (2),
bytes that follow the header, whether the guest was running, format of the stream (0 raw, 1 gzip, 2 bzip2,
3 xz, 4 lzop, 5 zstd, 6 sparse), offset of a cookie, 14 reserved; 32-bit numbers in the order of the host.
Then the description of the domain as XML, up to the stream of QEMU. Plain ``virsh dump`` writes that stream
alone.
"""

from __future__ import annotations

import html
import re
import struct
from typing import TYPE_CHECKING, Final, NamedTuple

from hvshare.errors import DamagedImageError, TruncatedImageError, UnsupportedImageError
from hvshare.images.compression import COMPRESSIONS, DecompressedStream, recognise_compression
from hvshare.images.qemu.migration import read_stream
from hvshare.images.source import HEAD_BYTES, read_part
from hvshare.images.streams import HeadedStream, fill, read_stream_part

if TYPE_CHECKING:
    from hvshare.images.image import GuestImage
    from hvshare.images.opening import Opening
    from hvshare.images.source import Source
    from hvshare.images.streams import ByteStream

_MAGIC: Final = b"LibvirtQemudSave"
_PARTIAL: Final = b"LibvirtQemudPart"
_FIELDS: Final = "16s19I"
HEADER_BYTES: Final = struct.calcsize("<" + _FIELDS)
_VERSION: Final = 2
_FORMATS: Final = ("raw", "gzip", "bzip2", "xz", "lzop", "zstd", "sparse")
_MOST_XML: Final = 64 << 20
_MOST_SHOWN: Final = 1 << 20
_SPARSE_ALIGNMENTS: Final = (1, 4 << 10, 64 << 10, 1 << 20)
_QEVM: Final = b"QEVM"


class _Header(NamedTuple):
    """What the header of a save tells."""

    xml_bytes: int
    was_running: bool
    format: str

    @property
    def end(self) -> int:
        """Where the stream of QEMU starts."""
        return HEADER_BYTES + self.xml_bytes


def read(opening: Opening) -> GuestImage:
    """Make an image of a save; see `hvshare.images.formats.Format.read`."""
    header = _parse_header(opening.head, opening.path)
    if header.format in ("raw", "sparse"):
        source = opening.positioned()
        xml = read_part(source, HEADER_BYTES, header.xml_bytes, "the description of the domain")
        base = _stream_start(source, header)
    else:
        stream = opening.stream()
        xml = _read_xml(stream, header, opening.path)
        source, base = opening.spool(_decompressed(stream, header, opening.path)), 0
    machine = _first(rb"<type\b[^<>]*\bmachine='([^'<>]{1,255})'", xml)
    image = read_stream(opening, source, base, machine)
    image.format, image.tool = "libvirt-save", "libvirt"
    image.details["guest was"] = "running" if header.was_running else "paused"
    if name := _first(rb"<name>([^<]{1,255})</name>", xml):
        image.details["domain"] = name
    if header.format != "raw":
        image.details["format of the stream"] = header.format
    return image


def _stream_start(source: Source, header: _Header) -> int:
    """Find the stream of QEMU, which a sparse save may put at the next border of blocks of a disk."""
    alignments = _SPARSE_ALIGNMENTS if header.format == "sparse" else (1,)
    for start in (-(-header.end // alignment) * alignment for alignment in alignments):
        head = read_part(source, start, min(HEAD_BYTES, max(source.end - start, 0)), "the stream of QEMU")
        if head.startswith(_QEVM):
            return start
        if found := recognise_compression(head):
            raise DamagedImageError(
                f"a {header.format} stream should be here, and it is {found.name}",
                path=source.path,
                offset=start,
                advice="copy or take the save again",
            )
    return header.end


def _first(pattern: bytes, xml: bytes) -> str | None:
    match = re.search(pattern, xml)
    return html.unescape(match[1].decode(errors="replace")) if match else None


def _parse_header(head: bytes, path: str) -> _Header:
    if head.startswith(_PARTIAL):
        raise UnsupportedImageError(
            "it is a libvirt save that was never finished, so RAM is missing in it",
            path=path,
            offset=0,
            advice="save the guest again, and wait until virsh save returns",
        )
    if len(head) < HEADER_BYTES:
        raise TruncatedImageError(
            f"a header of {HEADER_BYTES} bytes should be here, and the file ends at byte {len(head):,}",
            path=path,
            offset=0,
            advice="copy or take the save again",
        )
    for order in "<>":
        _, version, size, running, number, cookie, *_ = struct.unpack_from(order + _FIELDS, head)
        if version in (1, _VERSION):
            break
    else:
        raise UnsupportedImageError(
            f"the libvirt save is of a version other than {_VERSION}",
            path=path,
            offset=len(_MAGIC),
            advice="restore the guest and take an ELF core with virsh dump --memory-only",
        )
    if number >= len(_FORMATS) or running > 1 or cookie > size or not 0 < size <= _MOST_XML:
        raise DamagedImageError(
            f"its header tells format {number}, state {running}, {size:,} bytes of description and a cookie "
            f"at {cookie:,}, which cannot be",
            path=path,
            offset=len(_MAGIC),
            advice="copy or take the save again",
        )
    header = _Header(size, bool(running), _FORMATS[number])
    if header.format == "lzop":
        raise UnsupportedImageError(
            "its RAM is compressed with lzop, which cannot be read",
            path=path,
            offset=header.end,
            advice=f"unpack it (tail -c +{header.end + 1} FILE | lzop -dc > ram.migrate) and name that",
        )
    return header


def _read_xml(stream: ByteStream, header: _Header, path: str) -> bytes:
    """Read up to the stream of QEMU, and return the start of the description of the domain."""
    read_stream_part(stream, HEADER_BYTES, "the header", path, 0)
    shown = min(header.xml_bytes, _MOST_SHOWN)
    xml = _part(stream, shown, path, HEADER_BYTES)
    left = header.xml_bytes - shown
    while left:
        left -= len(_part(stream, min(left, _MOST_SHOWN), path, header.end - left))
    return xml


def _part(stream: ByteStream, size: int, path: str, at: int) -> bytes:
    part = read_stream_part(stream, size, "the description of the domain", path, at)
    if not part:
        raise TruncatedImageError(
            f"the description of the domain should go on for {size:,} bytes, and the file ends",
            path=path,
            offset=at,
            advice="copy or take the save again",
        )
    return part


def _decompressed(stream: ByteStream, header: _Header, path: str) -> ByteStream:
    head = bytearray(HEAD_BYTES)
    del head[fill(stream, memoryview(head)) :]
    found = recognise_compression(bytes(head))
    if found is None or found.name != header.format:
        raise DamagedImageError(
            f"a {header.format} stream should be here, and it is "
            f"{found.name if found else 'none that is known'}",
            path=path,
            offset=header.end,
            advice="copy or take the save again",
        )
    compression = next(each for each in COMPRESSIONS if each.name == header.format)
    return DecompressedStream(HeadedStream(stream, bytes(head)), compression, path)

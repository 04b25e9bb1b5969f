"""The container of fingerprint files: a zip archive of uncompressed ``.npy`` members, laid out in one way.

What precedes and follows the data of the members follows from their names, types and lengths, so a file is
written and read from front to back, and a reader accepts no other byte there than a writer puts there. The
last member holds the checksums of all others. Layouts from: PKWARE's APPNOTE.TXT 6.3.10, sections 4.3 and
4.5; numpy's ``numpy/lib/format.py``, version 1.0.
"""

from __future__ import annotations

import struct
import zlib
from typing import TYPE_CHECKING, Final, NamedTuple

from xxhash import xxh3_64

from hvshare.errors import DamagedImageError, TruncatedImageError
from hvshare.images.streams import fill

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from hvshare.images.streams import ByteStream

ALIGNMENT: Final = 64
"""Data of a member starts at a multiple of this, for those who map it."""

CHUNK_BYTES: Final = 1 << 20
"""Data is read and written in parts of this size, which is a multiple of every item's."""

MADE_AGAIN: Final = "copy it again, or make it again from its image"

_LOCAL: Final = struct.Struct("<4s5H3I2H")
_CENTRAL: Final = struct.Struct("<4s6H3I5H2I")
_END: Final = struct.Struct("<4s4H2IH")
_END_64: Final = struct.Struct("<4sQ2H2I4Q")
_LOCATOR_64: Final = struct.Struct("<4sIQI")
_LOCAL_MAGIC: Final = b"PK\x03\x04"
_FILE_MODE: Final = 0o100644 << 16
_UNIX: Final = 3 << 8
_TIME, _DATE = 0, 1 << 5 | 1  # 1980-01-01, the earliest: times are in the metadata
_ZIP_64_FROM = 0xFFFFFFFF
_PADDING_ID: Final = 0xD935  # what Android's zipalign pads with
_NPY_MAGIC: Final = b"\x93NUMPY\x01\x00"
_CHECKSUMS: Final = "checksums"


class Member(NamedTuple):
    """An array of one dimension in the container.

    Attributes
    ----------
    name : str
        As numpy names it.
    dtype : str
        Type of its items, as numpy writes it, such as ``<u8``.
    length : int
        How many items there are.
    """

    name: str
    dtype: str
    length: int

    @property
    def file_name(self) -> bytes:
        """Its name in the zip archive."""
        return f"{self.name}.npy".encode("ascii")

    @property
    def data_bytes(self) -> int:
        """Bytes of its items."""
        return int(self.dtype[2:]) * self.length

    @property
    def npy_header(self) -> bytes:
        """What stands before its items, as numpy writes it."""
        text = f"{{'descr': '{self.dtype}', 'fortran_order': False, 'shape': ({self.length},), }}".encode(
            "ascii"
        )
        padding = -(len(_NPY_MAGIC) + 2 + len(text) + 1) % ALIGNMENT
        text += b" " * padding + b"\n"
        return _NPY_MAGIC + struct.pack("<H", len(text)) + text

    @property
    def size(self) -> int:
        """Bytes of the member in the zip archive."""
        return len(self.npy_header) + self.data_bytes

    def local_header(self, offset: int, crc: int) -> bytes:
        """Give what stands before the member at an offset, padded so that its items are aligned."""
        large = self.size >= _ZIP_64_FROM
        extra = struct.pack("<2H2Q", 1, 16, self.size, self.size) if large else b""
        unpadded = offset + _LOCAL.size + len(self.file_name) + len(extra) + 4
        padding = -unpadded % ALIGNMENT
        extra += struct.pack("<2H", _PADDING_ID, padding) + bytes(padding)
        size = 0xFFFFFFFF if large else self.size
        version = 45 if large else 20
        fixed = _LOCAL.pack(
            _LOCAL_MAGIC, version, 0, 0, _TIME, _DATE, crc, size, size, len(self.file_name), len(extra)
        )
        return fixed + self.file_name + extra

    def central_header(self, offset: int, crc: int) -> bytes:
        """Give its entry in the directory at the end of the archive."""
        extra = b"" if self.size < _ZIP_64_FROM else struct.pack("<2Q", self.size, self.size)
        if offset >= _ZIP_64_FROM:
            extra += struct.pack("<Q", offset)
        if extra:
            extra = struct.pack("<2H", 1, len(extra)) + extra
        size = self.size if self.size < _ZIP_64_FROM else 0xFFFFFFFF
        version = 45 if extra else 20
        fixed = _CENTRAL.pack(
            b"PK\x01\x02", _UNIX | version, version, 0, 0, _TIME, _DATE, crc, size, size,
            len(self.file_name), len(extra), 0, 0, 0, _FILE_MODE,
            offset if offset < _ZIP_64_FROM else 0xFFFFFFFF,
        )  # fmt: skip
        return fixed + self.file_name + extra


class Placed(NamedTuple):
    """A member, where its header starts, and the CRC-32 of its bytes."""

    member: Member
    offset: int
    crc: int


def starts_container(head: bytes, first: Member) -> bool:
    """Whether a file starts with a member of that name; its magic is checked when it is read."""
    return head.startswith(first.file_name, _LOCAL.size)


def directory(placed: Sequence[Placed], offset: int) -> bytes:
    """Give what stands behind the last member, at an offset: the directory of the archive, and its end."""
    entries = b"".join(each.member.central_header(each.offset, each.crc) for each in placed)
    count = len(placed)
    end = b""
    if offset >= _ZIP_64_FROM:
        end += _END_64.pack(
            b"PK\x06\x06", _END_64.size - 12, _UNIX | 45, 45, 0, 0, count, count, len(entries), offset
        )
        end += _LOCATOR_64.pack(b"PK\x06\x07", 0, offset + len(entries), 1)
    shown = offset if offset < _ZIP_64_FROM else 0xFFFFFFFF
    end += _END.pack(b"PK\x05\x06", 0, 0, count, count, len(entries), shown, 0)
    return entries + end


class ContainerWriter:
    """Writes members one after another, and the directory at the end.

    Parameters
    ----------
    write : callable
        Takes the next bytes of the file.
    """

    def __init__(self, write: Callable[[bytes], object]) -> None:
        self._write = write
        self._placed: list[Placed] = []
        self._checksums: list[int] = []
        self._offset = 0

    def add(self, member: Member, parts: Callable[[], Iterator[bytes]]) -> None:
        """Write a member whose items are given in parts, twice: a CRC-32 stands before them."""
        crc, checksum = zlib.crc32(member.npy_header), xxh3_64()
        for part in parts():
            crc = zlib.crc32(part, crc)
            checksum.update(part)
        self._checksums.append(checksum.intdigest())
        self._placed.append(Placed(member, self._offset, crc))
        header = member.local_header(self._offset, crc) + member.npy_header
        self._write(header)
        for part in parts():
            self._write(part)
        self._offset += len(header) + member.data_bytes

    def end(self) -> None:
        """Write the checksums and the directory."""
        member, packed = _checksums_member(self._checksums)
        self.add(member, lambda: iter([packed]))
        self._write(directory(self._placed, self._offset))


class ContainerReader:
    """Reads members one after another, and the directory at the end.

    Parameters
    ----------
    stream : ByteStream
        All bytes of the file.
    path : str
        Named in errors.
    """

    def __init__(self, stream: ByteStream, path: str) -> None:
        self._stream = stream
        self._path = path
        self._placed: list[Placed] = []
        self._checksums: list[int] = []
        self._offset = 0

    @property
    def source_bytes(self) -> int:
        """Bytes taken from the file so far."""
        return self._stream.source_bytes

    def first(self, name: str, dtype: str, most: int) -> bytes:
        """Read the first member, which alone tells its length.

        Parameters
        ----------
        name, dtype : str
            Of the member; items of one byte.
        most : int
            Bytes that it may have.

        Raises
        ------
        DamagedImageError
            If it is no such member.
        """
        start = self._take(_LOCAL.size, name)
        size = _LOCAL.unpack(start)[7]
        length = size - len(Member(name, dtype, size).npy_header)
        # The header of an array is as long for every length that is allowed.
        if not 0 <= length <= most:
            raise self._damaged(f"its first member, {name}, has {size:,} bytes", 0)
        member = Member(name, dtype, length)
        return b"".join(self.read(member, start))

    def read(self, member: Member, start: bytes = b"") -> Iterator[bytes]:
        """Read a member whose length is known.

        Parameters
        ----------
        member : Member
            What has to be there.
        start : bytes
            What was read of it already.

        Yields
        ------
        bytes
            Its items, in parts of `CHUNK_BYTES`, the last one apart.

        Raises
        ------
        TruncatedImageError
            If the file ends before it does.
        DamagedImageError
            If something else is there, or its CRC-32 does not fit, which shows at its end.
        """
        offset = self._offset - len(start)
        start += self._take(_LOCAL.size - len(start), member.name)
        crc = _LOCAL.unpack(start)[6]
        self._expect(member.local_header(offset, crc) + member.npy_header, start, member.name)
        found, checksum = zlib.crc32(member.npy_header), xxh3_64()
        left = member.data_bytes
        while left:
            part = self._take(min(left, CHUNK_BYTES), member.name)
            found = zlib.crc32(part, found)
            checksum.update(part)
            left -= len(part)
            yield part
        if found != crc:
            raise self._damaged(f"the CRC-32 of its member {member.name} does not fit", offset)
        self._placed.append(Placed(member, offset, crc))
        self._checksums.append(checksum.intdigest())

    def end(self) -> None:
        """Read the checksums and the directory, behind which there must be nothing.

        Raises
        ------
        DamagedImageError
            If they do not fit the members, or if there is something.
        """
        member, packed = _checksums_member(self._checksums)
        offset = self._offset
        if b"".join(self.read(member)) != packed:
            raise self._damaged("its XXH3-64 checksums do not fit its members", offset)
        self._expect(directory(self._placed, self._offset), b"", "directory")
        if self._stream.readinto(memoryview(bytearray(1))):
            raise self._damaged("there are bytes behind its end", self._offset)

    def _expect(self, expected: bytes, start: bytes, what: str) -> None:
        at = self._offset - len(start)
        found = start + self._take(len(expected) - len(start), what)
        if found != expected:
            differs = next(i for i, (a, b) in enumerate(zip(found, expected, strict=True)) if a != b)
            raise self._damaged(
                f"the header of its {what} is not what hvshare writes there, as if packed anew", at + differs
            )

    def _take(self, size: int, what: str) -> bytes:
        part = bytearray(size)
        filled = fill(self._stream, memoryview(part))
        if filled < size:
            raise TruncatedImageError(
                f"it ends within its {what}", path=self._path, offset=self._offset + filled, advice=MADE_AGAIN
            )
        self._offset += size
        return bytes(part)

    def _damaged(self, problem: str, offset: int) -> DamagedImageError:
        return DamagedImageError(problem, path=self._path, offset=offset, advice=MADE_AGAIN)


def _checksums_member(checksums: list[int]) -> tuple[Member, bytes]:
    return Member(_CHECKSUMS, "<u8", len(checksums)), struct.pack(f"<{len(checksums)}Q", *checksums)

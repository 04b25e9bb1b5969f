"""Crash dumps of 64-bit Windows: a header of 8 KiB, and pages behind it.

Sources: ``DUMP_HEADER64``, ``PHYSICAL_MEMORY_DESCRIPTOR64``, ``DUMP_TYPE`` and ``DUMP_FILE_ATTRIBUTES`` of
the Windows SDK (``minidumpdef.h``); QEMU, ``include/qemu/win_dump_defs.h`` and ``dump/win_dump.c``, which
writes complete dumps. The fields of the header are little-endian; those that its writer did not fill repeat
``PAGE``.

A complete dump (type 1) has the pages of the runs of memory that the header describes, one run after the
other. For other types see `hvshare.images.windows.bitmap` and `hvshare.images.windows.ranges`.
"""

from __future__ import annotations

import struct
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from typing import TYPE_CHECKING, Final, NamedTuple

from hvshare.errors import DamagedImageError, TruncatedImageError, UnsupportedImageError
from hvshare.images.segments import Segment, check_address, lay_out
from hvshare.images.source import read_part
from hvshare.images.stored import StoredImage
from hvshare.images.streamed import StreamedRange, StreamedRanges
from hvshare.images.streams import LimitedStream, read_stream_part
from hvshare.images.windows.bitmap import read_bitmap
from hvshare.images.windows.ranges import read_ranges
from hvshare.units import PAGE_SIZE

if TYPE_CHECKING:
    from collections.abc import Iterator

    from hvshare.images.image import GuestImage
    from hvshare.images.opening import Opening
    from hvshare.images.source import Source
    from hvshare.images.streams import ByteStream

HEADER_SIZE: Final = 0x2000
MOST_RUNS: Final = 43
"""Runs of memory that the header has room for: 704 bytes, 16 of them for their number."""

_UNFILLED: Final = 0x45474150
_MACHINE, _DESCRIPTOR, _DUMP_TYPE, _COMMENT, _ATTRIBUTES = 0x30, 0x88, 0xF98, 0xFB0, 0x1050
_COMPLETE, _WITH_BITMAP, _WITH_RANGES, _ALL_IN_RANGES = 1, (5, 6, 7), (8, 9, 10), 10
_ENCRYPTED: Final = 1 << 8

_TYPES: Final = {
    1: "complete",
    5: "complete or active, with a bitmap",
    6: "kernel or live, with a bitmap",
    7: "automatic, with a bitmap",
    8: "kernel, with a list of ranges",
    9: "kernel and user, with a list of ranges",
    10: "complete, with a list of ranges",
}
_REFUSED_TYPES: Final = {
    2: "a kernel memory dump of Windows 7 or older (dump type 2)",
    3: "a dump of a header alone (dump type 3)",
    4: "a small memory dump, also called minidump (dump type 4)",
}
_MACHINES: Final = {0x8664: "x86-64", 0xAA64: "AArch64"}


class Header(NamedTuple):
    """What a crash dump says of itself.

    Attributes
    ----------
    dump_type : int
        Of `DUMP_TYPE`.
    memory : tuple of Segment or None
        The runs of the guest's memory, in ascending order, as if all were stored one behind the other in the
        order of the header; None where the header does not describe them.
    details : dict of str to str
        What a person would check.
    """

    dump_type: int
    memory: tuple[Segment, ...] | None
    details: dict[str, str]


def read(opening: Opening) -> GuestImage:
    """Make an image of a Windows crash dump; see `hvshare.images.formats.Format.read`."""
    image: GuestImage
    header = parse_header(opening.head, opening.path)
    if header.dump_type == _COMPLETE and not opening.is_positioned:
        image = StreamedRanges(opening, _ranges)
        image.layout = "runs of pages behind the header"
    else:
        source = opening.positioned()
        header = parse_header(read_part(source, 0, HEADER_SIZE, "the header"), opening.path)
        image = _positioned(opening.name, source, header)
    image.format = "windows-dump"
    image.details.update(header.details)
    return image


def _positioned(name: str, source: Source, header: Header) -> GuestImage:
    if header.dump_type == _COMPLETE:
        layout = lay_out(_runs_of_complete_dump(header, source.path), source)
        image = StoredImage(name, source, layout.runs, layout.extents)
        image.layout = "runs of pages behind the header"
        return image
    memory = None if header.memory is None else [(run.address, run.size) for run in header.memory]
    if header.dump_type in _WITH_BITMAP:
        pages = read_bitmap(source, memory)
    else:
        pages = read_ranges(source, memory, all_of_them=header.dump_type == _ALL_IN_RANGES)
    image = StoredImage(name, source, pages.runs, pages.extents)
    image.layout = pages.layout
    image.caveats += pages.caveats(name, _TYPES[header.dump_type])
    return image


def _ranges(stream: ByteStream, path: str) -> Iterator[StreamedRange]:
    header = parse_header(read_stream_part(stream, HEADER_SIZE, "the header", path, 0), path)
    for run in sorted(_runs_of_complete_dump(header, path), key=lambda run: run.offset):
        yield StreamedRange(run.address, run.size, LimitedStream(stream, run.size), run.told_at)


def _runs_of_complete_dump(header: Header, path: str) -> tuple[Segment, ...]:
    if header.memory is None:
        raise DamagedImageError(
            "its header does not say where the guest has memory, and a complete dump needs that",
            path=path,
            offset=_DESCRIPTOR,
            advice="take the dump again",
        )
    return header.memory


def parse_header(header: bytes, path: str) -> Header:
    """Read the header of a crash dump.

    Parameters
    ----------
    header : bytes
        `HEADER_SIZE` of them, or the first 4,096, which do not tell whether the dump is encrypted.
    path : str
        The file, for errors.

    Raises
    ------
    TruncatedImageError
        If it is shorter.
    UnsupportedImageError
        If it is of a type, for a machine, or encrypted, so that it cannot be read.
    DamagedImageError
        If it contradicts itself.
    """
    if len(header) < PAGE_SIZE:
        raise TruncatedImageError(
            f"its header of {HEADER_SIZE:,} bytes ends after {len(header):,}",
            path=path,
            offset=len(header),
            advice="copy or take the dump again",
        )
    build, machine, processors, bug_check = struct.unpack_from("<12xI32x3I", header)
    dump_type, _, _, system_time = struct.unpack_from("<IIQQ", header, _DUMP_TYPE)
    _refuse(header, dump_type, machine, path)
    details = {
        "dump type": f"{_TYPES[dump_type]} ({dump_type})",
        "machine": _MACHINES[machine],
        "processors": str(processors),
        "Windows build": str(build),
        "bug check": f"{bug_check:#x}",
        "system time": _time(system_time),
        "comment": _text(header[_COMMENT : _COMMENT + 128]),
    }
    unfilled = {str(_UNFILLED), f"{_UNFILLED:#x}", ""}
    details = {key: value for key, value in details.items() if value not in unfilled}
    return Header(dump_type, _memory(header, path), details)


def _refuse(header: bytes, dump_type: int, machine: int, path: str) -> None:
    problem = advice = ""
    offset = _DUMP_TYPE
    if dump_type not in _TYPES:
        known = _REFUSED_TYPES.get(dump_type, f"a Windows crash dump of the unknown type {dump_type:#x}")
        problem = f"it is {known}, which does not hold the guest's memory or not in a known way"
        advice = "take a complete or an active memory dump, or let the hypervisor dump the guest"
    elif machine not in _MACHINES:
        problem = f"it is a Windows crash dump of machine type {machine:#x}, which is not known"
        advice = "let the hypervisor dump the guest"
        offset = _MACHINE
    elif len(header) >= HEADER_SIZE:
        (attributes,) = struct.unpack_from("<I", header, _ATTRIBUTES)
        if attributes & _ENCRYPTED and attributes != _UNFILLED:
            problem = "it is an encrypted Windows crash dump"
            advice = "decrypt it with KernelDumpDecrypt.exe of the Debugging Tools for Windows"
            offset = _ATTRIBUTES
    if problem:
        raise UnsupportedImageError(problem, path=path, offset=offset, advice=advice)


def _memory(header: bytes, path: str) -> tuple[Segment, ...] | None:
    number, pages = struct.unpack_from("<I4xQ", header, _DESCRIPTOR)
    if not number or number > MOST_RUNS or pages == _UNFILLED << 32 | _UNFILLED:
        return None
    runs = []
    told_at, offset = _DESCRIPTOR + 16, HEADER_SIZE
    for base, count in struct.iter_unpack("<QQ", header[told_at : told_at + 16 * number]):
        check_address(base * PAGE_SIZE, count * PAGE_SIZE, path, told_at)
        runs.append(Segment(base * PAGE_SIZE, count * PAGE_SIZE, offset, told_at=told_at))
        told_at += 16
        offset += count * PAGE_SIZE
    listed = (offset - HEADER_SIZE) // PAGE_SIZE
    if listed != pages:
        raise DamagedImageError(
            f"its header lists {number:,} runs of memory of {listed:,} pages in all, and says {pages:,}",
            path=path,
            offset=_DESCRIPTOR,
            advice="take the dump again",
        )
    runs = sorted(run for run in runs if run.size)
    for before, run in pairwise(runs):
        if run.address < before.end:
            raise DamagedImageError(
                f"the run of memory at {run.address:#x} overlaps the one before it, which ends at "
                f"{before.end:#x}",
                path=path,
                offset=run.told_at,
                advice="take the dump again",
            )
    return tuple(runs)


def _time(filetime: int) -> str:
    """Show a number of 100 ns since 1601, if it is of a year that Windows has been in."""
    try:
        time = datetime(1601, 1, 1, tzinfo=UTC) + timedelta(microseconds=filetime // 10)
    except OverflowError:
        return ""
    return time.isoformat(sep=" ", timespec="seconds") if 1990 <= time.year < 2200 else ""


def _text(field: bytes) -> str:
    """Show a comment, unless its writer left the pattern of the header in it."""
    text = field.split(b"\0")[0]
    if set(text) <= set(b"PAGE"):
        return ""
    return "".join(chr(byte) for byte in text if 32 <= byte < 127).strip()

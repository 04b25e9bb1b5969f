"""Programs and libraries of Windows: PE files, mapped and relocated as Windows does.

Source: Microsoft, "PE Format", sections "Section Table" and "The .reloc Section". pefile reads the headers,
and is given no more than these; sections and relocations are read here, checked against file and image.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import numpy as np

from hvshare.errors import ResourceError
from hvshare.images.source import read_part
from hvshare.synth.mapped.image import MOST_IMAGE_BYTES, PAGE, Canvas, UnusableError, looks_packed

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from hvshare.images.source import Source
    from hvshare.synth.mapped.image import Architecture, MappedImage

MAGIC: Final = b"MZ"

_HEADER_BYTES: Final = 1 << 16
_DOS_HEADER_BYTES: Final = 64
_FILE_HEADER_BYTES: Final = 24
_SECTION_BYTES: Final = 40
_MACHINES: Final[dict[int, tuple[Architecture, int]]] = {0x14C: ("i386", 0x10B), 0x8664: ("x86-64", 0x20B)}
_RELOCATIONS_STRIPPED, _DLL = 0x0001, 0x2000
_EXECUTE, _WRITE, _DISCARDABLE = 0x20000000, 0x80000000, 0x02000000
_DEBUG: Final = ("/", ".debug", ".stab")
"""How names of debug information start; names of more than 8 bytes are a slash and a number."""
_GUI, _CONSOLE = 2, 3
_RELOCATION_DIRECTORY: Final = 5
_BLOCK_HEADER_BYTES: Final = 8
_MOST_BLOCKS: Final = 4
"""For each page; linkers write one."""
_ABSOLUTE: Final = 0
_WIDTHS: Final = {3: 4, 10: 8}
"""Of IMAGE_REL_BASED_HIGHLOW and IMAGE_REL_BASED_DIR64."""
_SECTOR: Final = 512
_PACKERS: Final = ("UPX", ".aspack", ".MPRESS", ".petite", ".vmp", ".nsp")


class _Section(NamedTuple):
    name: str
    address: int
    size: int
    stored_at: int
    stored: int
    flags: int

    @property
    def is_debug(self) -> bool:
        """Whether it is for debuggers, which read it from the file; it is never in memory."""
        return bool(self.flags & _DISCARDABLE) and self.name.startswith(_DEBUG)


def read_pe(source: Source, name: str, architecture: Architecture, most_pages: int) -> MappedImage:
    """Map a PE file.

    Parameters
    ----------
    source : Source
        The file.
    name : str
        What the image is called.
    architecture : str
        The only one that is wanted.
    most_pages : int
        How many pages are wanted.

    Raises
    ------
    UnusableError
        If it is no image that a guest can have.
    OverBudgetError
        If it has more pages than are wanted.
    ResourceError
        If pefile is not installed.
    """
    headers = _read_headers(source)
    found, magic = _MACHINES.get(headers.FILE_HEADER.Machine, ("", 0))
    if found != architecture:
        raise UnusableError("other architecture")
    optional, flags = headers.OPTIONAL_HEADER, headers.FILE_HEADER.Characteristics
    if optional.Magic != magic or len(headers.sections) != headers.FILE_HEADER.NumberOfSections:
        raise UnusableError("damaged")
    sections = [_section(each) for each in headers.sections]
    if any(each.name.startswith(_PACKERS) for each in sections):
        raise UnusableError("packed")
    canvas = Canvas(_checked_size(optional, sections), most_pages)
    _map(source, canvas, optional, [each for each in sections if not each.is_debug])
    if flags & _RELOCATIONS_STRIPPED or len(optional.DATA_DIRECTORY) <= _RELOCATION_DIRECTORY:
        raise UnusableError("without relocations")
    directory = optional.DATA_DIRECTORY[_RELOCATION_DIRECTORY]
    offsets, widths, unresolved = _relocations(canvas, directory.VirtualAddress, directory.Size)
    canvas.check_fields(offsets, widths)
    values = np.empty(len(offsets), np.uint64)
    for width in _WIDTHS.values():
        values[widths == width] = canvas.words(offsets[widths == width], width)
    return canvas.finish(
        name,
        architecture,
        (offsets, values, widths),
        is_program=not flags & _DLL and optional.Subsystem in (_GUI, _CONSOLE),
        preferred_base=optional.ImageBase,
        unresolved=unresolved,
    )


def _read_headers(source: Source) -> Any:  # noqa: ANN401  # pefile has no types
    try:
        import pefile
    except ImportError as error:
        raise ResourceError(
            "reading programs of Windows takes pefile, which is not installed",
            path=source.path,
            advice="pip install 'hvshare[synth]', or name a directory of ELF files",
        ) from error
    head = read_part(source, 0, min(source.end, _HEADER_BYTES), "its headers")
    if len(head) < _DOS_HEADER_BYTES:
        raise UnusableError("damaged")
    at = struct.unpack_from("<I", head, 60)[0]
    signature = head[at : at + 4]
    if len(signature) == 4 and signature != b"PE\0\0":
        raise UnusableError("no program or library")
    # pefile would find that out, too, and then collect garbage, which takes longer than all headers.
    if at + _FILE_HEADER_BYTES > len(head):
        raise UnusableError("damaged")
    sections, optional = struct.unpack_from("<6xH12xH", head, at)
    if at + _FILE_HEADER_BYTES + optional + sections * _SECTION_BYTES > len(head):
        raise UnusableError("damaged")
    try:
        # Not closed: nothing is open, and closing collects garbage.
        return pefile.PE(data=head, fast_load=True)
    except Exception as error:
        raise UnusableError("damaged") from error


def _section(header: Any) -> _Section:  # noqa: ANN401  # pefile has no types
    return _Section(
        header.Name.rstrip(b"\0").decode("latin-1"),
        header.VirtualAddress,
        header.Misc_VirtualSize or header.SizeOfRawData,
        header.PointerToRawData,
        header.SizeOfRawData,
        header.Characteristics,
    )


def _rounded(size: int, unit: int) -> int:
    return -(-size // unit) * unit


def _unit(optional: Any) -> int:  # noqa: ANN401  # pefile has no types
    """Bytes that sections are a multiple of: those of a page, less in drivers, which lie as in the file."""
    alignment: int = optional.SectionAlignment
    if not alignment or alignment & (alignment - 1):
        raise UnusableError("damaged")
    return min(alignment, PAGE)


def _checked_size(optional: Any, sections: Sequence[_Section]) -> int:  # noqa: ANN401
    """Bytes up to the last section that is in memory, after the headers were held against the sections."""
    if optional.SizeOfImage > MOST_IMAGE_BYTES:
        raise UnusableError("too large")
    unit = _unit(optional)
    end = kept = _rounded(optional.SizeOfHeaders, unit)
    for each in sections:
        if each.address % unit or each.address < end:
            raise UnusableError("damaged")
        end = each.address + _rounded(each.size, unit)
        kept = kept if each.is_debug else end
    most = _rounded(end, max(optional.SectionAlignment, PAGE))
    if not _rounded(end, PAGE) <= _rounded(optional.SizeOfImage, PAGE) <= most:
        raise UnusableError("damaged")
    return kept


def _map(source: Source, canvas: Canvas, optional: Any, sections: Sequence[_Section]) -> None:  # noqa: ANN401
    unit = _unit(optional)
    canvas.read(source, 0, 0, optional.SizeOfHeaders)
    canvas.add_section("headers", 0, optional.SizeOfHeaders, executable=False, writable=False)
    for each in sections:
        # Windows takes whole sectors, whatever the header says.
        stored_at = each.stored_at - (each.stored_at % _SECTOR if unit == PAGE else 0)
        stored = min(each.stored, _rounded(each.size, unit)) if each.stored_at else 0
        executable, writable = bool(each.flags & _EXECUTE), bool(each.flags & _WRITE)
        canvas.read(source, stored_at, each.address, stored)
        end = each.address + each.size
        canvas.add_section(each.name, each.address, end, executable=executable, writable=writable)
        held = canvas.bytes[each.address : each.address + stored]
        if executable and writable and looks_packed(held, each.size):
            raise UnusableError("packed")


def _relocations(canvas: Canvas, start: int, size: int) -> tuple[NDArray[np.int64], NDArray[np.uint8], int]:
    """List the fields of the blocks of the base relocation table, and count what is no field of an address.

    Returns
    -------
    tuple of ndarray of int64, ndarray of uint8, int
        Offsets, ascending, and widths of fields; how many entries have another type.
    """
    entries = canvas.table(start, size, np.dtype("<u2"))
    blocks: list[tuple[int, int, int]] = []
    most_blocks = _MOST_BLOCKS * len(canvas.pages)
    at = start
    # Where a block starts is known from the one before, so they are gone through one by one.
    while at + _BLOCK_HEADER_BYTES <= start + size:
        base, length = struct.unpack_from("<II", canvas.bytes.data, at)
        if length < _BLOCK_HEADER_BYTES or length % 2 or at + length > start + size:
            raise UnusableError("damaged")
        if len(blocks) > most_blocks:
            raise UnusableError("damaged")
        first = at - start + _BLOCK_HEADER_BYTES
        blocks.append((base, first // 2, (length - _BLOCK_HEADER_BYTES) // 2))
        at += length
    bases, firsts, counts = np.array(blocks, np.int64).reshape(-1, 3).T
    behind = np.cumsum(counts)
    words = entries[np.arange(counts.sum()) + np.repeat(firsts + counts - behind, counts)]
    kinds = words >> 12
    offsets = np.repeat(bases, counts) + (words & 0xFFF)
    widths = np.zeros(16, np.uint8)
    for kind, width in _WIDTHS.items():
        widths[kind] = width
    widths = widths[kinds]
    fields = widths > 0
    order = np.argsort(offsets[fields], kind="stable")
    unresolved = int(np.count_nonzero(~fields & (kinds != _ABSOLUTE)))
    return offsets[fields][order], widths[fields][order], unresolved

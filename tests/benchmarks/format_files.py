"""One guest in files of several formats, of any size: each is written part by part from the raw image."""

from __future__ import annotations

import os
import struct
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import BinaryIO, Final

import numpy as np

from hvshare.units import PAGE_SIZE
from tests.benchmarks.guest_files import BATCH_BYTES, settle
from tests.formats import avml_writer, qemu_migration_writer
from tests.formats.elf_writer import Load, elf_core
from tests.formats.kdump_writer import COMPRESSIONS, kdump
from tests.guests import ZERO

_DESCRIPTOR: Final = np.dtype([("offset", "<i8"), ("size", "<u4"), ("flags", "<u4"), ("page_flags", "<u8")])


class RawGuest:
    """A raw image that is read in parts.

    Parameters
    ----------
    path : Path
        A file of whole parts.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self.size = path.stat().st_size
        self.pages = self.size // PAGE_SIZE

    def parts(self, size: int = BATCH_BYTES) -> Iterator[tuple[int, bytes]]:
        """Read all of it, part by part.

        Parameters
        ----------
        size : int
            Bytes of each part but the last.

        Yields
        ------
        tuple of int and bytes
            Address of a part, and what is there.
        """
        with self._path.open("rb") as file:
            for address in range(0, self.size, size):
                yield address, file.read(size)

    def pages_at(self, address: int) -> list[bytes]:
        """Read the pages of the part of `BATCH_BYTES` at an address."""
        with self._path.open("rb") as file:
            file.seek(address)
            part = file.read(BATCH_BYTES)
        return [part[at : at + PAGE_SIZE] for at in range(0, len(part), PAGE_SIZE)]


Writer = Callable[[RawGuest, BinaryIO], None]


def write_in_format(writer: Writer, guest: Path, path: Path) -> int:
    """Write a guest.

    Parameters
    ----------
    writer : callable
        One of `WRITERS`.
    guest, path : Path
        The raw image, and the file to make.

    Returns
    -------
    int
        Bytes of the file.
    """
    with path.open("wb") as file:
        writer(RawGuest(guest), file)
        settle(file)
        return os.fstat(file.fileno()).st_size


def _write_elf(guest: RawGuest, file: BinaryIO) -> None:
    """Write one PT_LOAD segment whose offset is no multiple of a page, as QEMU does."""
    data_at = len(elf_core([Load(0, b"")]))
    # Bytes that nobody looks at take no memory: the writer wants their number alone.
    file.write(elf_core([Load(0, bytes(guest.size), offset=data_at)]))
    file.writelines(part for _, part in guest.parts())


def _write_lime(guest: RawGuest, file: BinaryIO) -> None:
    file.write(struct.pack("<IIQQQ", 0x4C694D45, 1, 0, guest.size - 1, 0))
    file.writelines(part for _, part in guest.parts())


def _write_avml(guest: RawGuest, file: BinaryIO) -> None:
    file.writelines(avml_writer.block(address, part) for address, part in guest.parts(avml_writer.BLOCK))


def _write_migration(guest: RawGuest, file: BinaryIO) -> None:
    """Write what QEMU sends of a stopped guest: each page once, zero pages as one byte."""
    writer = qemu_migration_writer
    blocks = writer.block_list({"pc.ram": guest.pages})
    file.write(struct.pack(">II", 0x5145564D, 3) + writer.configuration())
    file.write(writer.section(1, blocks + writer.END_OF_SECTION))
    for address in range(0, guest.size, BATCH_BYTES):
        records = writer.records(
            ("pc.ram", gfn, 0 if page == ZERO else page)
            for gfn, page in enumerate(guest.pages_at(address), address // PAGE_SIZE)
        )
        file.write(writer.section(2, records + writer.END_OF_SECTION))
    file.write(writer.section(3, writer.END_OF_SECTION))


def _write_kdump(compression: str, guest: RawGuest, file: BinaryIO) -> None:
    """Write every page, the zero pages as one that is not compressed, as QEMU does."""
    flag = COMPRESSIONS[compression][0]
    headers = kdump({0: ZERO}, compression, max_mapnr=guest.pages)[: 2 * PAGE_SIZE]
    bits = np.packbits(np.ones(guest.pages, np.bool_), bitorder="little").tobytes()
    bitmap = bits.ljust(-(-len(bits) // PAGE_SIZE) * PAGE_SIZE, b"\0")
    file.write(headers + 2 * bitmap)
    descriptors_at = file.tell()
    data_at = descriptors_at + guest.pages * _DESCRIPTOR.itemsize
    descriptors = np.zeros(guest.pages, _DESCRIPTOR)
    descriptors["offset"], descriptors["size"] = data_at, PAGE_SIZE
    file.seek(data_at)
    file.write(ZERO)
    gfn, offset = 0, file.tell()
    with ThreadPoolExecutor(os.cpu_count()) as threads:
        packed_pages = threads.map(
            partial(_pack_pages, compression, guest), range(0, guest.size, BATCH_BYTES)
        )
        for packed in (page for pages in packed_pages for page in pages):
            if packed:
                descriptors[gfn] = offset, len(packed), flag if len(packed) < PAGE_SIZE else 0, 0
                offset += file.write(packed)
            gfn += 1
    file.seek(descriptors_at)
    file.write(descriptors.tobytes())


def _pack_pages(compression: str, guest: RawGuest, address: int) -> list[bytes]:
    """Compress pages that become smaller by it; zero pages become nothing."""
    compress = COMPRESSIONS[compression][1]
    return [b"" if page == ZERO else min(compress(page), page, key=len) for page in guest.pages_at(address)]


WRITERS: Final[Mapping[str, Writer]] = {
    "ELF core": _write_elf,
    "LiME": _write_lime,
    "AVML": _write_avml,
    "QEMU migration stream": _write_migration,
    **{f"kdump-{name}": partial(_write_kdump, name) for name in COMPRESSIONS},
}
"""What writes a guest in each format, by the name that the benchmark gives the format."""

"""A QEMU migration stream up to the end of RAM: sections, the list of blocks, and the records of pages.

Source: QEMU, ``migration/qemu-file-types.h`` and ``migration/savevm.h`` (magic 0x5145564d, version 3, types
of sections), ``migration/savevm.c`` (configuration, commands, section headers and footers) and
``migration/ram.c`` (flags in the low 12 bits of an offset: 0x02 a page that repeats one byte, 0x04 list of
blocks, 0x08 page, 0x10 end of section, 0x20 same block as before, 0x40 XBZRLE, 0x80 RDMA, 0x100 compressed
page, 0x200 multifd). All numbers are big-endian.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from hvshare.errors import DamagedImageError, UnsupportedImageError
from hvshare.images.qemu.blocks import RamBlock
from hvshare.images.qemu.cursor import Cursor
from hvshare.images.qemu.mapped import MappedBlock, read_mapped_block
from hvshare.images.qemu.records import PageRecords
from hvshare.images.segments import ADDRESS_LIMIT
from hvshare.units import PAGE_SIZE

if TYPE_CHECKING:
    from hvshare.images.source import Positioned

_MAGIC: Final = 0x5145_564D
_VERSION: Final = 3
_RAM_VERSION: Final = 4
_EOF, _START, _PART, _END, _FULL, _SUBSECTION, _DESCRIPTION, _CONFIGURATION, _COMMAND = range(9)
_FOOTER: Final = 0x7E
_MOST_BLOCKS: Final = 4096

ZERO, MEM_SIZE, PAGE, EOS, CONTINUE = 0x02, 0x04, 0x08, 0x10, 0x20
_REFUSED: Final = {
    0x40: ("XBZRLE", "pages are sent as differences to what was sent before"),
    0x80: ("RDMA", "pages went another way"),
    0x100: ("the compress capability", "pages are compressed"),
    0x200: ("multifd", "pages went through other channels"),
}
_FLAGS: Final = PAGE_SIZE - 1
RECORD: Final = 8 + PAGE_SIZE
"""Bytes of the record of a page whose block is that of the record before."""

# Commands that say nothing about RAM: return path, ping, and that the guest is about to be stopped.
_HARMLESS_COMMANDS: Final = frozenset({1, 2, 11})
_COMMANDS: Final = {**dict.fromkeys((3, 4, 5, 6, 7, 9, 10), "postcopy"), 8: "COLO"}
_RETAKE: Final = "take it again with the capability off, as virsh save and plain migrate exec: do"


class MigrationStream:
    """RAM in a migration stream, as far as it can be told without addresses.

    Parameters
    ----------
    data : Positioned
        What holds the stream.
    base : int
        Where in it the stream starts.

    Attributes
    ----------
    machine : str or None
        Machine type; None if the stream has no configuration section.
    blocks : list of RamBlock
        As the stream lists them.
    records : PageRecords
        Which record holds each page.
    mapped : dict of str to MappedBlock
        By name of the block, if pages have fixed places in the file (mapped-ram).
    uuid : str or None
        Of the guest, if it is told.

    Raises
    ------
    DamagedImageError
        If the stream contradicts the format, or is too short.
    UnsupportedImageError
        If it was taken in a way that cannot be read.
    """

    def __init__(self, data: Positioned, base: int = 0) -> None:
        self.machine: str | None = None
        self.blocks: list[RamBlock] = []
        self.records = PageRecords(RECORD)
        self.mapped: dict[str, MappedBlock] = {}
        self.uuid: str | None = None
        self._by_name: dict[str, RamBlock] = {}
        self._is_mapped = False
        self._ram_section: int | None = None
        self._block: RamBlock | None = None
        self._cursor = Cursor(data, base)
        self._data = data
        self._read()

    def _damaged(self, problem: str, at: int) -> DamagedImageError:
        return DamagedImageError(
            problem, path=self._data.path, offset=at, advice="copy or take the save again"
        )

    def _unsupported(self, problem: str, at: int, advice: str = _RETAKE) -> UnsupportedImageError:
        return UnsupportedImageError(problem, path=self._data.path, offset=at, advice=advice)

    def _read(self) -> None:
        cursor = self._cursor
        at = cursor.at
        if cursor.be32() != _MAGIC:
            raise self._damaged("a QEMU migration stream should start here, and does not", at)
        version = cursor.be32()
        if version != _VERSION:
            raise self._unsupported(
                f"it is a migration stream of version {version}, and this reader knows version {_VERSION}",
                at,
                "take it again with a newer QEMU",
            )
        if cursor.peek() == _CONFIGURATION:
            self._read_configuration()
        while self._read_section():
            pass

    def _read_configuration(self) -> None:
        cursor = self._cursor
        cursor.byte()
        self.machine = cursor.text(cursor.be32(), "the name of the machine type")
        while cursor.peek() == _SUBSECTION:
            at = cursor.at
            cursor.byte()
            name = cursor.text(cursor.byte(), "the name of a subsection")
            version = cursor.be32()
            if version != 1:
                raise self._unsupported(f"its {name} is of version {version}, which is not known here", at)
            if name == "configuration/target-page-bits":
                if (bits := cursor.be32()) != PAGE_SIZE.bit_length() - 1:
                    raise self._unsupported(f"its guest has pages of 2^{bits} bytes", at, "convert it to raw")
            elif name == "configuration/capabilities":
                for _ in range(cursor.be32()):
                    self._note_capability(cursor.text(cursor.byte(), "the name of a capability"), at)
            elif name == "configuration/uuid":
                self.uuid = cursor.take(16, "a UUID").hex()
            else:
                raise self._unsupported(f"its {name} is not known here", at)

    def _note_capability(self, name: str, at: int) -> None:
        if name == "x-ignore-shared":
            raise self._unsupported(
                "it was taken with ignore-shared, so RAM that is a shared file is not in it",
                at,
                "name the file that is the guest's memory backend instead",
            )
        if name != "mapped-ram":
            raise self._unsupported(f"it was taken with the capability {name}, which is not known here", at)
        self._is_mapped = True

    def _read_section(self) -> bool:
        """Read one section; False behind the one that ends RAM."""
        cursor = self._cursor
        at = cursor.at
        kind = cursor.byte()
        if kind == _COMMAND:
            self._read_command(at)
            return True
        if kind == _EOF:
            raise self._damaged("the stream ends before all RAM was sent", at)
        if kind not in (_START, _PART, _END, _FULL):
            raise self._damaged(f"a section should start here, and its type is {kind:#x}", at)
        section = cursor.be32()
        if kind in (_START, _FULL):
            self._start_section(kind, section, at)
        elif section != self._ram_section:
            raise self._damaged(f"a part of section {section} comes here, which is not that of RAM", at)
        self._read_records()
        if cursor.more and cursor.peek() == _FOOTER:
            at = cursor.at
            cursor.byte()
            if (closed := cursor.be32()) != section:
                raise self._damaged(f"section {section} ends here, and the footer names {closed}", at)
        return kind != _END

    def _start_section(self, kind: int, section: int, at: int) -> None:
        cursor = self._cursor
        name = cursor.text(cursor.byte(), "the name of a section")
        cursor.be32()  # which of several devices of that name
        version = cursor.be32()
        if name != "ram" or kind == _FULL:
            raise self._unsupported(
                f"the section {name!r} comes before the end of RAM, and its length is not told",
                at,
                "take the save without block migration, VFIO and virtio-mem, or an ELF core with "
                "virsh dump --memory-only",
            )
        if self._ram_section is not None:
            raise self._damaged("RAM starts a second time", at)
        if version != _RAM_VERSION:
            raise self._unsupported(f"its RAM section is of version {version}, which is not known here", at)
        self._ram_section = section

    def _read_command(self, at: int) -> None:
        command, size = self._cursor.be16(), self._cursor.be16()
        if command not in _HARMLESS_COMMANDS:
            what = _COMMANDS.get(command, f"command {command}")
            raise self._unsupported(f"it was taken with {what}, which is not read here", at)
        self._cursor.take(size, "the content of a command")

    def _read_records(self) -> None:
        """Read the records of pages up to the end of a section."""
        cursor = self._cursor
        while True:
            at = cursor.at
            header = cursor.be64()
            flags, offset = header & _FLAGS, header & ~_FLAGS
            if flags == PAGE | CONTINUE or flags == ZERO | CONTINUE:
                if self._block is None:
                    raise self._damaged("a page of the same block as before comes first", at)
                cursor.read_pages(header, self._block, self.records)
            elif flags in (PAGE, ZERO):
                self._block = self._find_block(at)
                if offset >= self._block.size:
                    raise self._damaged(f"a page lies behind the end of its block {self._block.name}", at)
                page = self._block.first + offset // PAGE_SIZE
                if flags == PAGE:
                    self.records.append(page, 1, cursor.at)
                    cursor.skip(PAGE_SIZE, "a page")
                else:
                    self.records.append(page, 1, -1 - cursor.byte())
            elif flags == MEM_SIZE:
                self._read_blocks(offset, at)
            elif flags == EOS:
                return
            else:
                raise self._unknown_record(flags, at)

    def _unknown_record(self, flags: int, at: int) -> Exception:
        for flag, (name, what) in _REFUSED.items():
            if flags & ~CONTINUE == flag:
                return self._unsupported(f"it was taken with {name}: {what}", at)
        return self._damaged(f"a record of RAM should be here, and its flags are {flags:#x}", at)

    def _find_block(self, at: int) -> RamBlock:
        name = self._cursor.text(self._cursor.byte(), "the name of a block")
        block = self._by_name.get(name)
        if block is None:
            raise self._damaged(
                f"a page of the block {name!r} comes here, which the stream does not list", at
            )
        return block

    def _read_blocks(self, total: int, at: int) -> None:
        if self.blocks:
            raise self._damaged("the list of blocks comes a second time", at)
        if total > ADDRESS_LIMIT:
            raise self._damaged(f"it has {total:,} bytes of RAM, more than addresses can tell", at)
        cursor = self._cursor
        done = 0
        while done < total:
            at = cursor.at
            name = cursor.text(cursor.byte(), "the name of a block")
            size = cursor.be64()
            is_odd = size % PAGE_SIZE or size > total - done or len(self.blocks) >= _MOST_BLOCKS
            if is_odd or name in self._by_name:
                raise self._damaged(f"the block {name!r} of {size:,} bytes does not fit into the list", at)
            block = RamBlock(name, size, done // PAGE_SIZE)
            self.blocks.append(block)
            self._by_name[name] = block
            if self._is_mapped:
                self.mapped[name] = mapped = read_mapped_block(cursor, size, self._data)
                cursor.move(mapped.pages_offset + size)
            done += size

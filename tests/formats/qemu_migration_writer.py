"""Writes QEMU migration streams and libvirt saves: QEMU, ``migration/savevm.c`` and ``ram.c``; libvirt,
``src/qemu/qemu_saveimage.h``."""

from __future__ import annotations

import struct
from collections.abc import Iterable, Mapping, Sequence
from itertools import pairwise

from tests.oracle import PAGE

Record = tuple[str, int, bytes | int]
"""Name of a block, number of a page in it, and its content, or the byte that it repeats."""

RAM_ID = 2
COMMON = {"/rom@etc/acpi/tables": 2, "pc.bios": 1}


def name(text: str) -> bytes:
    """Write a name behind its length."""
    return bytes([len(text)]) + text.encode()


def configuration(machine: str = "pc-i440fx-7.2", *subsections: bytes) -> bytes:
    """Write the configuration section."""
    return b"\x07" + struct.pack(">I", len(machine)) + machine.encode() + b"".join(subsections)


def subsection(title: str, content: bytes, version: int = 1) -> bytes:
    """Write a subsection of the configuration."""
    return b"\x05" + name(f"configuration/{title}") + struct.pack(">I", version) + content


def capabilities(*names: str) -> bytes:
    """Write the subsection that lists capabilities."""
    return subsection("capabilities", struct.pack(">I", len(names)) + b"".join(map(name, names)))


def section(kind: int, content: bytes, *, number: int = RAM_ID, footer: int | None = RAM_ID) -> bytes:
    """Write a section of RAM: kind 1 starts it, 2 is a part, 3 ends it."""
    head = struct.pack(">BI", kind, number)
    if kind in (1, 4):
        head += name("ram") + struct.pack(">II", 0, 4)
    return head + content + (b"" if footer is None else struct.pack(">BI", 0x7E, footer))


def flag(flags: int, offset: int = 0) -> bytes:
    """Write an offset with flags in its low bits."""
    return struct.pack(">Q", offset | flags)


END_OF_SECTION = flag(0x10)


def block_list(blocks: Mapping[str, int], total: int | None = None) -> bytes:
    """List blocks, given by their pages."""
    pages = sum(blocks.values()) if total is None else total
    listed = (name(each) + struct.pack(">Q", count * PAGE) for each, count in blocks.items())
    return flag(0x04, pages * PAGE) + b"".join(listed)


def records(sent: Iterable[Record]) -> bytes:
    """Write records of pages, of which those of the block before do not name it again."""
    written = bytearray()
    last = ""
    for block, page, content in sent:
        kind = 0x02 if isinstance(content, int) else 0x08
        written += flag(kind | (0x20 if block == last else 0), page * PAGE)
        written += b"" if block == last else name(block)
        written += bytes([content]) if isinstance(content, int) else content
        last = block
    return bytes(written)


def migration(
    blocks: Mapping[str, int],
    sent: Sequence[Record],
    *,
    machine: str | None = "pc-i440fx-7.2",
    subsections: Sequence[bytes] = (),
    footers: bool = True,
    cuts: Iterable[int] = (),
    between: bytes = b"",
    tail: bytes = b"\x04 the state of devices comes here",
) -> bytes:
    """Write a stream.

    Parameters
    ----------
    blocks
        Pages of each block.
    sent
        Records in order.
    cuts
        Numbers of records before which another section starts. QEMU names the block again there only if
        it is another one.
    between
        What comes before the last section, such as a command.
    """
    footer = RAM_ID if footers else None
    body = struct.pack(">II", 0x5145564D, 3)
    if machine is not None:
        body += configuration(machine, *subsections)
    body += section(1, block_list(blocks) + END_OF_SECTION, footer=footer)
    borders = [0, *sorted(cuts), len(sent)]
    whole = records(sent)
    lengths = [len(records(sent[:border])) for border in borders]
    parts = [whole[low:high] for low, high in pairwise(lengths)]
    for part in parts[:-1]:
        body += section(2, part + END_OF_SECTION, footer=footer)
    body += between
    return body + section(3, parts[-1] + END_OF_SECTION, footer=footer) + tail


def mapped(
    blocks: Mapping[str, tuple[int, Mapping[int, bytes]]],
    *,
    base: int = 0,
    page_size: int = PAGE,
    version: int = 1,
) -> bytes:
    """Write a stream with a fixed place for each page: pages of each block, and those that are stored."""
    head = bytes(base) + struct.pack(">II", 0x5145564D, 3)
    body = bytearray(head + configuration("pc-q35-9.1", capabilities("mapped-ram")))
    body += struct.pack(">BI", 1, RAM_ID) + name("ram") + struct.pack(">II", 0, 4)
    body += flag(0x04, sum(count for count, _ in blocks.values()) * PAGE)
    for block, (count, stored) in blocks.items():
        body += name(block) + struct.pack(">Q", count * PAGE)
        bitmap_at = len(body) + 28
        bitmap = bytearray(-(-count // 64) * 8)
        pages_at = -(-(bitmap_at + len(bitmap)) // (1 << 20)) << 20
        body += struct.pack(">IQQQ", version, page_size, bitmap_at, pages_at)
        pages = bytearray(count * PAGE)
        for page, content in stored.items():
            bitmap[page // 8] |= 1 << page % 8
            pages[page * PAGE : (page + 1) * PAGE] = content
        body += bitmap
        body += bytes(pages_at - len(body)) + pages
    body += END_OF_SECTION + struct.pack(">BI", 0x7E, RAM_ID)
    return bytes(body) + section(3, END_OF_SECTION)


XML = (
    b"<domain type='kvm'><name>web &amp; mail</name>"
    b"<os><type arch='x86_64' machine='pc-q35-6.2'>hvm</type></os></domain>\0"
)


def libvirt_save(
    stream: bytes,
    *,
    compressed: int = 0,
    magic: bytes = b"LibvirtQemudSave",
    version: int = 2,
    running: int = 1,
    cookie: int = 0,
    xml: bytes = XML,
    order: str = "<",
) -> bytes:
    """Write a save of libvirt around a stream that is compressed already."""
    numbers = (version, len(xml), running, compressed, cookie, *[0] * 14)
    return struct.pack(order + "16s19I", magic, *numbers) + xml + stream

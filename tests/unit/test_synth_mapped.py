from __future__ import annotations

import ctypes
import os
import platform
import struct
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hvshare.errors import PresetError, ResourceError
from hvshare.synth.draws import Draws
from hvshare.synth.mapped.image import Architecture, MappedImage
from hvshare.synth.mapped.pages import MappedPages
from hvshare.synth.mapped.reading import Found, holds, read_images
from tests.formats import elf_shared_writer as elf
from tests.formats import pe_writer as pe
from tests.formats.elf_shared_writer import ElfRelocation, ElfSymbol, elf_shared
from tests.formats.pe_writer import PeSection, pe_file

PAGE = 4096
MOST = 64
ORDER = Draws.of("order", 1)
PLENTY = 1 << 16
ARCHITECTURES: tuple[Architecture, ...] = ("i386", "x86-64")
MACHINES = {"i386": (pe.I386, 32, pe.HIGHLOW, 4), "x86-64": (pe.X86_64, 64, pe.DIR64, 8)}


def noise(count: int, key: int = 1) -> bytes:
    return Draws.of("noise", key).words(-(-count // 8)).tobytes()[:count]


CONTENTS = noise(64)


def padded(count: int) -> int:
    return -(-count // PAGE) * PAGE


def loaded_pe(file: bytes, base: int | None = None) -> bytes:
    """Map and relocate a PE file byte by byte."""
    (at,) = struct.unpack_from("<I", file, 60)
    (count,) = struct.unpack_from("<H", file, at + 6)
    (optional_size, _, magic) = struct.unpack_from("<HHH", file, at + 20)
    wide = magic == 0x20B
    preferred = struct.unpack_from("<Q" if wide else "<I", file, at + (48 if wide else 52))[0]
    size, headers = struct.unpack_from("<II", file, at + 80)
    image = bytearray(size)
    image[:headers] = file[:headers]
    for number in range(count):
        section = at + 24 + optional_size + 40 * number
        virtual, address, stored, stored_at = struct.unpack_from("<4I", file, section + 8)
        part = file[stored_at : stored_at + min(stored, padded(virtual or stored))]
        image[address : address + len(part)] = part
    block, length = struct.unpack_from("<II", file, at + 24 + (112 if wide else 96) + 40)
    end = block + length
    slide = 0 if base is None else base - preferred
    while block < end:
        page, length = struct.unpack_from("<II", image, block)
        for entry in struct.unpack_from(f"<{(length - 8) // 2}H", image, block + 8):
            width = {3: 4, 10: 8}.get(entry >> 12, 0)
            field = slice(page + entry % PAGE, page + entry % PAGE + width)
            value = (int.from_bytes(image[field], "little") + slide) % 256**width
            image[field] = value.to_bytes(width, "little")
        block += length
    return bytes(image)


class LoadedElf:
    """Maps and relocates an ELF shared object byte by byte; base is where its first page lies."""

    def __init__(self, file: bytes, base: int | None = None) -> None:
        self.wide = file[4] == 2
        self.word = 8 if self.wide else 4
        headers = list(self.headers(file))
        loads = [each[1:] for each in headers if each[0] == 1]
        self.first = loads[0][1] // PAGE * PAGE
        self.slide = 0 if base is None else base - self.first
        self.image = bytearray(padded(loads[-1][1] + loads[-1][3] - self.first))
        for offset, address, stored, memory in loads:
            start, at = address // PAGE * PAGE - self.first, offset // PAGE * PAGE
            part = file[at : padded(offset + stored)] if stored == memory else file[at : offset + stored]
            self.image[start : start + len(part)] = part
        ((_, _, dynamic, _, size),) = [each for each in headers if each[0] == 2]
        self.tags: dict[int, int] = {}
        for at in range(dynamic, dynamic + size, 2 * self.word):
            self.tags.setdefault(self.number(at), self.number(at + self.word))
        for table, length in ((7, 8) if self.wide else (17, 18), (23, 2)):
            self.follow(self.tags.get(table, 0), self.tags.get(length, 0))
        self.follow_relr(self.tags.get(36, 0), self.tags.get(35, 0))

    def headers(self, file: bytes) -> Iterator[tuple[int, int, int, int, int]]:
        """Type, offset, address, bytes in the file, bytes in memory."""
        (table,) = struct.unpack_from("<Q" if self.wide else "<I", file, 32 if self.wide else 28)
        size, count = struct.unpack_from("<HH", file, 54 if self.wide else 42)
        for at in range(table, table + size * count, size):
            if self.wide:
                kind, _, offset, address, _, stored, memory, _ = struct.unpack_from("<IIQQQQQQ", file, at)
            else:
                kind, offset, address, _, stored, memory, _, _ = struct.unpack_from("<8I", file, at)
            yield kind, offset, address, stored, memory

    def number(self, address: int, size: int = 0) -> int:
        at = address - self.first
        return int.from_bytes(self.image[at : at + (size or self.word)], "little")

    def write(self, address: int, value: int) -> None:
        at = address - self.first
        field = (value + self.slide) % 256**self.word
        self.image[at : at + self.word] = field.to_bytes(self.word, "little")

    def symbol(self, number: int) -> int | None:
        """Its address, if it is here."""
        if self.wide:
            at = self.tags[6] + 24 * number
            value, section, info = self.number(at + 8), self.number(at + 6, 2), self.number(at + 4, 1)
        else:
            at = self.tags[6] + 16 * number
            value, section, info = self.number(at + 4), self.number(at + 14, 2), self.number(at + 12, 1)
        return None if section in {0, 0xFFF1} or info % 16 in {6, 10} else value

    def follow(self, table: int, length: int) -> None:
        for at in range(table, table + length, 3 * self.word if self.wide else 2 * self.word):
            place, info = self.number(at), self.number(at + self.word)
            kind, number = (info & 0xFFFFFFFF, info >> 32) if self.wide else (info & 0xFF, info >> 8)
            addend = self.number(at + 16) if self.wide else self.number(place)
            symbol = self.symbol(number)
            if kind == 8:
                self.write(place, addend)
            elif kind == 7:
                self.write(place, self.number(place))
            elif kind in {1, 6} and symbol is not None:
                self.write(place, symbol + (addend if kind == 1 else 0))

    def follow_relr(self, table: int, length: int) -> None:
        where = 0
        for at in range(table, table + length, self.word):
            entry = self.number(at)
            if entry % 2 == 0:
                self.write(entry, self.number(entry))
                where = entry + self.word
                continue
            for bit in range(1, 8 * self.word):
                if entry >> bit & 1:
                    place = where + (bit - 1) * self.word
                    self.write(place, self.number(place))
            where += (8 * self.word - 1) * self.word


def loaded_elf(file: bytes, base: int | None = None) -> bytes:
    return bytes(LoadedElf(file, base).image)


def loaded(file: bytes, base: int | None = None) -> bytes:
    return loaded_pe(file, base) if file[:2] == b"MZ" else loaded_elf(file, base)


def a_pe(
    architecture: Architecture,
    key: int = 1,
    *,
    base: int = 0x1000_0000,
    flags: int = pe.DLL,
    subsystem: int = 2,
    size_of_image: int | None = None,
) -> bytes:
    """A DLL with fields that the end of a page cuts at several bytes, and some that end with a page."""
    machine, _, kind, width = MACHINES[architecture]
    fields = [(PAGE, kind), (2 * PAGE - width + 1 + key % (width - 1), kind), (3 * PAGE - width, kind)]
    fields += [(3 * PAGE + 40, kind), (5 * PAGE - 1, kind), (5 * PAGE + 700 - width, kind), (PAGE + 100, 0)]
    sections = [
        PeSection(b".text", noise(2 * PAGE + 300, key), pe.CODE),
        PeSection(b".rdata", noise(PAGE + 700, key + 1), pe.READ_ONLY),
        PeSection(b".bss", b"", pe.BSS, 2 * PAGE),
    ]
    return pe_file(
        sections,
        fields,
        machine=machine,
        base=base,
        flags=flags,
        subsystem=subsystem,
        size_of_image=size_of_image,
    )


def an_elf(architecture: Architecture, key: int = 1, base: int = 0) -> bytes:
    bits = MACHINES[architecture][1]
    relocations = [
        ElfRelocation(0, addend=0x1234),
        ElfRelocation(PAGE - 3, addend=0x5678),
        ElfRelocation(40, elf.DIRECT, 5, symbol=1),
        ElfRelocation(48, elf.DIRECT, 5, symbol=2),
        ElfRelocation(56, elf.DATA_SLOT, symbol=1),
        ElfRelocation(64, elf.DATA_SLOT, symbol=2),
        ElfRelocation(72, elf.DATA_SLOT, symbol=3),
        ElfRelocation(80, elf.DATA_SLOT, symbol=4),
        ElfRelocation(88, elf.COPY, symbol=2),
        ElfRelocation(0, 0),
        ElfRelocation(-PAGE + 9, addend=0x99),
    ]
    return elf_shared(
        noise(PAGE + 20, key),
        noise(2 * PAGE + 5, key + 1),
        relocations,
        bits=bits,
        base=base,
        bss=PAGE,
        symbols=[
            ElfSymbol(base + 0x1010),
            ElfSymbol(0, section=0),
            ElfSymbol(7, section=0xFFF1),
            ElfSymbol(base + 0x1020, info=0x1A),
        ],
        slots=[ElfRelocation(104, elf.JUMP_SLOT, symbol=2), ElfRelocation(112, elf.JUMP_SLOT, symbol=1)],
        relr=[200, 0b1011, (1 << bits) - 1, PAGE + 80, 0b101, 0b11],
    ).file


WRITERS: Mapping[str, Callable[[Architecture], bytes]] = {"PE": a_pe, "ELF": an_elf}
KINDS = [(kind, architecture) for kind in WRITERS for architecture in ARCHITECTURES]


def put(folder: Path, **files: bytes) -> Path:
    for name, data in files.items():
        folder.joinpath(name).write_bytes(data)
    return folder


def found(folder: Path, architecture: Architecture, most_pages: int = PLENTY, order: Draws = ORDER) -> Found:
    return read_images(folder, architecture=architecture, most_pages=most_pages, order=order)


def image_of(folder: Path, file: bytes, architecture: Architecture) -> MappedImage:
    (image,) = found(put(folder, file=file), architecture).images
    return image


@pytest.mark.parametrize(("kind", "architecture"), KINDS)
def test_an_image_is_what_a_loader_makes_of_the_file(
    tmp_path: Path, kind: str, architecture: Architecture
) -> None:
    file = WRITERS[kind](architecture)
    image = image_of(tmp_path, file, architecture)
    assert image.pages.tobytes() == loaded(file)[: len(image.pages) * PAGE]
    assert len(image.pages) * PAGE == len(loaded(file))
    assert image.mapped.all()
    assert image.architecture == architecture
    assert not image.is_program


@pytest.mark.parametrize(("kind", "architecture"), KINDS)
def test_fields_are_where_bytes_change_with_the_base(
    tmp_path: Path, kind: str, architecture: Architecture
) -> None:
    file = WRITERS[kind](architecture)
    image = image_of(tmp_path, file, architecture)
    here, there = (np.frombuffer(loaded(file, base), np.uint8) for base in (0x1111_1000, 0x2222_0000))
    width = MACHINES[architecture][3]
    assert set(image.widths.tolist()) == {width}
    covered = {byte for at in image.offsets.tolist() for byte in range(at, at + width)}
    assert set(np.flatnonzero(here != there).tolist()) <= covered
    starts = {at for at in image.offsets.tolist() if (here != there)[at : at + width].any()}
    assert starts == set(image.offsets.tolist())
    assert set(np.flatnonzero(image.relocated_pages).tolist()) == {byte // PAGE for byte in covered}
    values = [int.from_bytes(loaded(file)[at : at + width], "little") for at in image.offsets.tolist()]
    assert image.values.tolist() == values


def test_sections_tell_what_may_be_done(tmp_path: Path) -> None:
    image = image_of(tmp_path, a_pe("i386"), "i386")
    names = [image.section_names[number] for number in image.section]
    assert names == ["headers", *[".text"] * 3, *[".rdata"] * 2, *[".bss"] * 2, ".reloc"]
    assert np.flatnonzero(image.executable).tolist() == [1, 2, 3]
    assert np.flatnonzero(image.writable).tolist() == [6, 7]


def test_segments_tell_what_may_be_done(tmp_path: Path) -> None:
    image = image_of(tmp_path, an_elf("x86-64"), "x86-64")
    names = [image.section_names[number] for number in image.section]
    assert names == ["r--", "r-x", "r-x", *["rw-"] * 4]
    assert np.flatnonzero(image.executable).tolist() == [1, 2]
    assert np.flatnonzero(image.writable).tolist() == [3, 4, 5, 6]


def test_what_needs_other_images_is_counted_and_left(tmp_path: Path) -> None:
    image = image_of(tmp_path, an_elf("x86-64"), "x86-64")
    assert image.unresolved == 5
    fields = [(PAGE, pe.HIGHLOW), (PAGE + 8, 1), (PAGE + 12, 2)]
    file = pe_file([PeSection(b".text", noise(PAGE), pe.CODE)], fields)
    folder = tmp_path / "pe"
    folder.mkdir()
    assert image_of(folder, file, "i386").unresolved == 2


def test_the_addresses_of_an_elf_file_may_start_anywhere(tmp_path: Path) -> None:
    file = an_elf("x86-64", base=0x40_0000)
    image = image_of(tmp_path, file, "x86-64")
    assert image.preferred_base == 0x40_0000
    assert image.pages.tobytes() == loaded(file)
    out = np.zeros((len(image.pages), 512), np.uint64)
    base = 0x7F00_1234_5000
    MappedPages([image]).fill(out, np.arange(len(out)), np.full(len(out), base, np.uint64))
    assert out.tobytes() == loaded(file, base)


def test_debug_information_is_not_in_memory(tmp_path: Path) -> None:
    sections = [
        PeSection(b".text", noise(PAGE), pe.CODE),
        PeSection(b"/4", noise(PAGE, 2), pe.READ_ONLY),
        PeSection(b"/29", noise(PAGE, 3), pe.DEBUG),
    ]
    last = PeSection(b".debug_x", noise(2 * PAGE, 4), pe.DEBUG)
    image = image_of(tmp_path, pe_file(sections, [(PAGE, pe.HIGHLOW)], behind=[last]), "i386")
    assert image.section_names == ("", "headers", ".text", "/4", ".reloc")
    assert image.mapped.tolist() == [True, True, True, False, True]
    assert not image.pages[3].any()


def test_programs_are_told_from_libraries(tmp_path: Path) -> None:
    relocations = [ElfRelocation(0)]
    put(
        tmp_path,
        dll=a_pe("x86-64"),
        exe=a_pe("x86-64", flags=0),
        driver=a_pe("x86-64", flags=0, subsystem=1),
        shared=an_elf("x86-64"),
        pie=elf_shared(b"", bytes(16), relocations, tags=[(0x6FFFFFFB, elf.PIE)]).file,
        old_pie=elf_shared(b"", bytes(16), relocations, interpreter=True).file,
        libc=elf_shared(b"", bytes(16), relocations, interpreter=True, tags=[(14, 1)]).file,
    )
    programs = {image.name for image in found(tmp_path, "x86-64").images if image.is_program}
    assert programs == {"exe", "pie", "old_pie"}


PACKED = [
    pe_file([PeSection(b"UPX0", noise(PAGE), pe.SELF_WRITING)], [(PAGE, 3)]),
    pe_file([PeSection(b".text", noise(PAGE), pe.SELF_WRITING)], [(PAGE, 3)]),
    pe_file([PeSection(b".text", bytes(16), pe.SELF_WRITING, 1 << 16)], [(PAGE, 3)]),
    elf_shared(b"", bytes(16), [ElfRelocation(0)], bits=32, behind_headers=b"1234UPX!").file,
    elf_shared(noise(PAGE), bytes(16), [ElfRelocation(0)], bits=32, code_flags=7).file,
]
BARE = [
    a_pe("i386", flags=pe.DLL | pe.STRIPPED),
    pe_file([PeSection(b".text", noise(PAGE), pe.CODE)]),
    pe_file([PeSection(b".text", noise(PAGE), pe.CODE)], [(PAGE, pe.ABSOLUTE)]),
    elf_shared(noise(PAGE), bytes(16), [ElfRelocation(0)], bits=32, kind=elf.ET_EXEC).file,
    elf_shared(noise(PAGE), bytes(16), bits=32).file,
]
OTHER = [
    a_pe("x86-64"),
    an_elf("x86-64"),
    a_pe("i386").replace(struct.pack("<H", pe.I386), struct.pack("<H", pe.ARM64), 1),
    elf_shared(b"", bytes(16), [ElfRelocation(0)], machine=elf.EM_AARCH64).file,
]
NEITHER = [
    b"",
    b"text",
    b"MZ".ljust(60, b"\0") + struct.pack("<I", 64) + b"NE\0\0",
    elf_shared(b"", bytes(16), [ElfRelocation(0)], bits=32, kind=elf.ET_REL).file,
]


def block(*words: int) -> bytes:
    return pe_file(
        [PeSection(b".text", noise(PAGE), pe.CODE)], blocks=struct.pack(f"<II{len(words) - 2}H", *words)
    )


DAMAGED = [
    b"MZ",
    block(PAGE, 0),
    block(PAGE, 7, 0),
    block(PAGE, 4096, 0x3000),
    block(1 << 30, 10, 0x3000),
    block(PAGE, 12, 0x3000, 0x3002),
    a_pe("i386", size_of_image=64 << 20),
    a_pe("i386", size_of_image=PAGE),
    elf_shared(b"", bytes(16), [ElfRelocation(1 << 20)], bits=32).file,
    elf_shared(b"", bytes(16), [ElfRelocation(0), ElfRelocation(2)], bits=32).file,
    elf_shared(b"", bytes(16), [ElfRelocation(0, elf.DIRECT, 0, 1 << 20)], bits=32).file,
    elf_shared(b"", bytes(16), [], relr=[3], bits=32).file,
    elf_shared(b"", bytes(16), [ElfRelocation(0)], tags=[(17, 1 << 30)], bits=32).file,
]
TOO_LARGE = [a_pe("i386", size_of_image=0xFFFFF000), a_pe("i386", size_of_image=(512 << 20) + PAGE)]


@pytest.mark.parametrize(
    ("reason", "files"),
    [
        ("packed", PACKED),
        ("without relocations", BARE),
        ("other architecture", OTHER),
        ("no program or library", NEITHER),
        ("damaged", DAMAGED),
        ("too large", TOO_LARGE),
    ],
)
def test_what_gives_no_image_is_skipped_and_counted(tmp_path: Path, reason: str, files: list[bytes]) -> None:
    for number, file in enumerate(files):
        folder = tmp_path / str(number)
        folder.mkdir()
        put(folder, good=a_pe("i386"), other=file)
        result = found(folder, "i386")
        assert [image.name for image in result.images] == ["good"], number
        assert result.skipped == {reason: 1}, number


def test_files_of_many_bytes_are_not_read(tmp_path: Path) -> None:
    put(tmp_path, good=a_pe("i386"), large=a_pe("i386"))
    os.truncate(tmp_path / "large", (256 << 20) + 1)
    assert found(tmp_path, "i386").skipped == {"too large": 1}


def test_what_cannot_be_looked_at_is_counted(tmp_path: Path) -> None:
    put(tmp_path, good=a_pe("i386"))
    tmp_path.joinpath("dangling").symlink_to("nowhere")
    os.mkfifo(tmp_path / "pipe")
    result = found(tmp_path, "i386")
    assert len(result.images) == 1
    assert result.skipped == {"unreadable": 1}


@pytest.mark.parametrize(("kind", "architecture"), KINDS)
def test_cut_anywhere(tmp_path: Path, kind: str, architecture: Architecture) -> None:
    file = small(kind, architecture)
    whole = image_of(tmp_path, file, architecture)
    reasons = set()
    lengths = range(len(file)) if kind == "PE" else {*told(kind, file), *range(0, len(file), 16)}
    for length in sorted(lengths, reverse=True):
        os.truncate(tmp_path / "file", length)
        try:
            (image,) = found(tmp_path, architecture).images
        except PresetError as error:
            reasons.add(str(error).split("(")[1].split(":")[0])
        else:
            # What is behind the last byte of a section changes nothing.
            assert image.pages.tobytes() == whole.pages.tobytes(), length
            assert length > len(file) - 512
    assert reasons == {"damaged", "no program or library"}


@pytest.mark.parametrize(("kind", "architecture"), KINDS)
def test_each_byte_of_headers_and_tables_flipped(
    tmp_path: Path, kind: str, architecture: Architecture
) -> None:
    whole = small(kind, architecture)
    file = bytearray(whole)
    outcomes = set()
    for offset in told(kind, whole):
        for value in (whole[offset] ^ 0xFF, whole[offset] ^ 0x01)[offset % 2 :]:
            file[offset] = value
            tmp_path.joinpath("file").write_bytes(file)
            try:
                (image,) = found(tmp_path, architecture, MOST).images
            except PresetError as error:
                outcomes.add(str(error).split("(")[1].split(":")[0])
                continue
            outcomes.add("image")
            assert len(image.pages) <= MOST
            out = np.zeros((len(image.pages), 512), np.uint64)
            MappedPages([image]).fill(out, np.arange(len(out)), np.full(len(out), 0x6000, np.uint64))
            assert not ((out != image.pages).any(axis=1) & ~image.relocated_pages).any()
        file[offset] = whole[offset]
    assert {"image", "damaged", "other architecture", "without relocations"} <= outcomes


def small(kind: str, architecture: Architecture) -> bytes:
    machine, bits, field, _ = MACHINES[architecture]
    if kind == "PE":
        section = PeSection(b".text", CONTENTS, pe.CODE)
        return pe_file([section], [(PAGE, field), (PAGE + 20, field)], machine=machine)
    symbols = [ElfSymbol(0x1010)]
    relocations = [ElfRelocation(0), ElfRelocation(8, elf.DIRECT, 5, symbol=1)]
    return elf_shared(b"", CONTENTS, relocations, bits=bits, symbols=symbols, relr=[16, 3], bss=8).file


def told(kind: str, file: bytes) -> list[int]:
    """List the bytes of headers and tables: all that is neither contents nor padding."""
    if kind == "PE":
        table = pe.HEADERS + pe.SECTOR
        return [*range(file.index(bytes(32), 0x180)), *range(table, table + 12)]
    return [*range(file.index(b"\xbb\xbb")), *range(file.index(CONTENTS) + len(CONTENTS), len(file))]


def test_the_order_follows_from_names_and_draws_alone(tmp_path: Path) -> None:
    names = [f"{number}" for number in range(12)]
    orders = []
    for folder, listed in (("a", names), ("b", names[::-1])):
        tmp_path.joinpath(folder, "below").mkdir(parents=True)
        for name in listed:
            below = Path("below") if int(name) % 3 == 0 else Path()
            tmp_path.joinpath(folder, below, name).write_bytes(a_pe("i386", int(name)))
        orders.append([image.name for image in found(tmp_path / folder, "i386").images])
    assert orders[0] == orders[1]
    assert set(orders[0]) == {f"below/{name}" if int(name) % 3 == 0 else name for name in names}
    another = [image.name for image in found(tmp_path / "a", "i386", order=Draws.of("order", 2)).images]
    assert another != orders[0]
    assert sorted(another) == sorted(orders[0])


def test_a_file_with_several_names_is_taken_once(tmp_path: Path) -> None:
    put(tmp_path, b=a_pe("i386"))
    tmp_path.joinpath("a").symlink_to("b")
    tmp_path.joinpath("c").hardlink_to(tmp_path / "b")
    tmp_path.joinpath("loop").symlink_to(".")
    assert [image.name for image in found(tmp_path, "i386").images] == ["a"]


@given(st.integers(9, 60))
@settings(max_examples=15, deadline=None)
def test_no_more_pages_than_wanted(most_pages: int) -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for number in range(4):
            put(folder, **{f"pe{number}": a_pe("i386", number), f"elf{number}": an_elf("i386", number)})
        sizes = [len(image.pages) for image in found(folder, "i386").images]
        result = found(folder, "i386", most_pages)
        left, expected = most_pages, []
        for size in sizes:
            if size <= left:
                expected.append(size)
                left -= size
        assert [len(image.pages) for image in result.images] == expected
        assert result.passed_over == len(sizes) - len(expected)
        assert not result.skipped


def test_what_belongs_to_a_directory(tmp_path: Path) -> None:
    folder, beside = tmp_path / "dlls", tmp_path / "dlls2"
    (folder / "below").mkdir(parents=True)
    put(folder, one=b"1")
    put(tmp_path, dlls2=b"2", away=b"3")
    (folder / "link").symlink_to(tmp_path / "away")
    (tmp_path / "hard").hardlink_to(folder / "one")
    (tmp_path / "same").symlink_to(folder)
    for path in (
        "dlls",
        "dlls/one",
        "dlls/new",
        "dlls/no/new",
        "same/below/new",
        "hard",
        "away",
        "dlls/link",
    ):
        assert holds(folder, tmp_path / path), path
        assert holds(tmp_path / "same", tmp_path / path), path
    for other in (tmp_path, beside, tmp_path / "new", tmp_path / "dlls/../new", Path("/dev/null")):
        assert not holds(folder, other), other
    assert not holds(tmp_path / "none", tmp_path / "none")
    assert not holds(beside, beside)


def test_directories_without_images_are_refused(tmp_path: Path) -> None:
    with pytest.raises(PresetError, match="no file at all") as caught:
        found(tmp_path, "i386")
    assert caught.value.path == str(tmp_path)
    put(tmp_path, text=b"text", arm=OTHER[3], other=a_pe("x86-64"))
    with pytest.raises(PresetError, match="no program or library: 1, other architecture: 2"):
        found(tmp_path, "i386")
    with pytest.raises(PresetError, match="it is no directory"):
        found(tmp_path / "text", "i386")
    with pytest.raises(PresetError, match="No such file"):
        found(tmp_path / "nothing", "i386")
    with pytest.raises(PresetError, match="of more than 3 pages: 1"):
        found(tmp_path, "x86-64", 3)


def test_without_pefile_elf_files_can_be_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pefile", None)
    put(tmp_path, elf=an_elf("i386"))
    assert len(found(tmp_path, "i386").images) == 1
    put(tmp_path, pe=a_pe("i386"))
    with pytest.raises(ResourceError, match=r"pip install 'hvshare\[synth\]'"):
        found(tmp_path, "i386")


MIXED = [
    *(a_pe("i386", key, base=0x1000_0000 * key) for key in (1, 2)),
    pe_file([PeSection(b".text", noise(9), pe.CODE)], [(0x300, pe.HIGHLOW)], base=0x5555_0000),
    *(a_pe("x86-64", key, base=0x1_8000_0000) for key in (1, 2, 3, 4, 5, 6, 7)),
    an_elf("i386"),
    an_elf("x86-64", base=0x20_0000),
]


@pytest.fixture(scope="module")
def mixed(tmp_path_factory: pytest.TempPathFactory) -> list[MappedImage]:
    folders = [tmp_path_factory.mktemp("mixed") for _ in MIXED]
    architectures: list[Architecture] = [*["i386"] * 3, *["x86-64"] * 7, "i386", "x86-64"]  # type: ignore[list-item]
    return [image_of(*each) for each in zip(folders, MIXED, architectures, strict=True)]


bases = st.one_of(
    st.just(0), st.integers(1, (1 << 20) - 1), st.integers(1, (1 << 35) - 1), st.just((1 << 52) - 1)
).map(lambda page: page * PAGE)


def test_all_pages_of_all_images(mixed: list[MappedImage]) -> None:
    pages = MappedPages(mixed)
    sizes = [len(image.pages) for image in mixed]
    bases = [(1 << 20 | at << 4) * PAGE for at in range(len(mixed))]
    out = np.zeros((len(pages), 512), np.uint64)
    pages.fill(out, np.arange(len(pages)), np.repeat(np.array(bases, np.uint64), sizes))
    expected = [loaded(file, base) for file, base in zip(MIXED, bases, strict=True)]
    assert out.tobytes() == b"".join(expected)


@given(st.data())
@settings(max_examples=60, deadline=None)
def test_pages_are_those_of_the_image_at_its_base(mixed: list[MappedImage], data: st.DataObject) -> None:
    pages = MappedPages(mixed)
    sizes = [len(image.pages) for image in mixed]
    assert pages.first_page.tolist() == [sum(sizes[:at]) for at in range(len(sizes))]
    assert len(pages) == sum(sizes)
    wanted = data.draw(
        st.lists(st.tuples(st.integers(0, len(mixed) - 1), st.integers(0, 20), bases), max_size=20)
    )
    numbers = np.array([pages.first_page[at] + page % sizes[at] for at, page, _ in wanted], np.int64)
    out = np.full((len(wanted), 512), 7, np.uint64)
    pages.fill(out, numbers, np.array([base for *_, base in wanted], np.uint64))
    for row, (at, page, base) in enumerate(wanted):
        memory = loaded(MIXED[at], base or None)
        start = page % sizes[at] * PAGE
        assert out[row].tobytes() == memory[start : start + PAGE], (at, page, hex(base))
        assert pages.has_fields[numbers[row]] == mixed[at].relocated_pages[page % sizes[at]]


@given(
    st.sets(st.integers(0, 3 * PAGE - 8), max_size=300),
    st.sampled_from(ARCHITECTURES),
    st.integers(1, 1 << 19),
)
@settings(max_examples=40, deadline=None)
def test_any_fields(starts: set[int], architecture: Architecture, page: int) -> None:
    machine, _, kind, width = MACHINES[architecture]
    apart, end = [PAGE - 2], PAGE + width - 2
    for start in sorted(starts):
        if start >= end:
            apart.append(start)
            end = start + width
    section = PeSection(b".text", noise(3 * PAGE), pe.CODE)
    file = pe_file([section], [(PAGE + start, kind) for start in apart], machine=machine)
    with tempfile.TemporaryDirectory() as name:
        image = image_of(Path(name), file, architecture)
    out = np.zeros((2 * len(image.pages), 1024), np.uint64)[::2, ::2]
    MappedPages([image]).fill(out, np.arange(len(out)), np.full(len(out), page * PAGE, np.uint64))
    assert out.tobytes() == loaded(file, page * PAGE)


def test_page_numbers_are_checked(mixed: list[MappedImage]) -> None:
    pages = MappedPages(mixed)
    out = np.zeros((1, 512), np.uint64)
    for number in (-1, len(pages)):
        with pytest.raises(IndexError):
            pages.fill(out, np.array([number]), np.zeros(1, np.uint64))


def mapped_library() -> tuple[Path, int]:
    """The C library of this process, and where it is."""
    if platform.machine() != "x86_64" or not sys.platform.startswith("linux"):
        pytest.skip("reads what ld.so made of this process's own C library, on x86-64 Linux")
    ctypes.CDLL(None)
    for line in Path("/proc/self/maps").read_text().splitlines():
        fields = line.split(maxsplit=5)
        if len(fields) == 6 and Path(fields[5]).name == "libc.so.6" and int(fields[2], 16) == 0:
            return Path(fields[5]), int(fields[0].split("-")[0], 16)
    pytest.skip("this process has no libc.so.6 mapped: its C library is another one")


def test_ld_so_makes_the_same_of_the_c_library(tmp_path: Path) -> None:
    path, base = mapped_library()
    image = image_of(tmp_path, path.read_bytes(), "x86-64")
    out = np.zeros((len(image.pages), 512), np.uint64)
    MappedPages([image]).fill(out, np.arange(len(out)), np.full(len(out), base, np.uint64))
    memory = np.zeros_like(out)
    with Path("/proc/self/mem").open("rb", buffering=0) as file:
        for page in np.flatnonzero(image.mapped):
            file.seek(base + int(page) * PAGE)
            memory[page] = np.frombuffer(file.read(PAGE), np.uint64)
    still = image.mapped & ~image.writable
    assert (out[still] == memory[still]).all()
    fields = image.offsets[image.offsets % 8 == 0] // 8
    same = out.reshape(-1)[fields] == memory.reshape(-1)[fields]
    # Others were written to since: slots that were bound, and data.
    assert len(fields) > 100
    assert same.mean() > 0.9

from __future__ import annotations

import gzip
import io
import os
import struct
import tracemalloc
from pathlib import Path
from typing import Any

import pytest
from elftools.elf.elffile import ELFFile
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import hvshare
from hvshare.errors import (
    DamagedImageError,
    EmptyImageError,
    ImageError,
    TruncatedImageError,
    UnsupportedImageError,
)
from hvshare.images.runs import RunKind
from tests.formats.harness import check_cut_anywhere, check_flipped, memories, read_back
from tests.formats.xen_core_writer import INVALID, Section, note, xen_core
from tests.guests import ZERO, content, supports_holes
from tests.oracle import PAGE

PAGES = [(3, content(1)), (0, content(2)), (4, content(4)), (INVALID, ZERO), (1 << 20, content(7)), (9, ZERO)]


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    memory=memories(),
    data=st.data(),
    table=st.sampled_from([".xen_pfn", ".xen_p2m"]),
    bits=st.sampled_from([32, 64]),
    order=st.sampled_from(["<", ">"]),
    headers_last=st.booleans(),
)
def test_what_is_written_is_read(
    tmp_path: Path,
    memory: dict[int, bytes],
    data: st.DataObject,
    table: str,
    bits: int,
    order: str,
    headers_last: bool,
) -> None:
    unused = data.draw(st.integers(0, 2))
    pages = data.draw(st.permutations([*memory.items(), *[(INVALID, content(9))] * unused]))
    path = tmp_path / "a.core"
    path.write_bytes(xen_core(pages, table=table, bits=bits, order=order, headers_last=headers_last))
    found = read_back(path)
    assert found.memory == memory
    assert set(found.kinds.values()) == {RunKind.PRESENT}
    assert found.caveats == frozenset()


def test_what_the_file_tells(tmp_path: Path) -> None:
    path = tmp_path / "a.core"
    path.write_bytes(xen_core(PAGES))
    with hvshare.open_image(str(path)) as image:
        assert (image.format, image.layout) == ("xen-core", "pages by frame number from .xen_pfn")
        assert image.tool == "Xen 4.17.3-pre"
        assert image.details == {
            "guest": "fully virtualized",
            "virtual CPUs": "2",
            "entries without a page": "1",
        }
        assert image.runs is not None
        assert [tuple(run)[:2] for run in image.runs] == [(0, 1), (3, 2), (9, 1), (1 << 20, 1)]
    path.write_bytes(xen_core(PAGES[:2], table=".xen_p2m"))
    with hvshare.open_image(str(path)) as image:
        assert image.layout == "pages by frame number from .xen_p2m"
        assert image.details == {"guest": "paravirtualized", "virtual CPUs": "2"}


@pytest.mark.parametrize("bits", [32, 64])
@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("headers_last", [False, True])
def test_another_reader_sees_the_same_sections(bits: int, order: str, headers_last: bool) -> None:
    file = ELFFile(io.BytesIO(xen_core(PAGES, bits=bits, order=order, headers_last=headers_last)))
    assert file["e_type"] == "ET_CORE"
    assert file.num_segments() == 0
    names = [section.name for section in file.iter_sections()]
    assert sorted(names) == [
        "", ".note.Xen", ".shstrtab", ".xen_pages", ".xen_pfn", ".xen_prstatus", ".xen_shared_info",
    ]  # fmt: skip
    assert section_of(file, ".xen_pages").data() == b"".join(page for _, page in PAGES)
    frames = section_of(file, ".xen_pfn").data()
    assert struct.unpack(f"{order}6Q", frames) == tuple(pfn for pfn, _ in PAGES)
    notes = list(section_of(file, ".note.Xen").iter_notes())
    assert [(each["n_name"], each["n_type"], each["n_descsz"]) for each in notes] == [
        ("Xen", 0x2000000, 0),
        ("Xen", 0x2000001, 32),
        ("Xen", 0x2000002, 1280),
        ("Xen", 0x2000003, 8),
    ]


def test_streams_are_spooled(tmp_path: Path) -> None:
    path = tmp_path / "a.core"
    path.write_bytes(xen_core(PAGES))
    memory = read_back(path).memory
    assert memory == {pfn: page for pfn, page in PAGES if pfn != INVALID}
    streamed = read_back(path, as_stream=True)
    assert streamed.memory == memory
    assert streamed.caveats == {"spooled"}
    path.write_bytes(gzip.compress(path.read_bytes()))
    assert read_back(path).memory == memory


def test_many_pages_in_any_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from hvshare.images.elf import xen as reader

    monkeypatch.setattr(reader, "_WINDOW", 4)
    pages = [
        (pfn, pfn.to_bytes(8, "little") * 512)
        for pfn in (*range(20, 31), *range(11), 40, 39, 38, *range(11, 20))
    ]
    path = tmp_path / "a.core"
    path.write_bytes(xen_core(pages))
    assert read_back(path).memory == dict(pages)


def test_what_cannot_be(tmp_path: Path) -> None:
    path = tmp_path / "a.core"

    def check(data: bytes, error: type[Exception], words: str) -> None:
        path.write_bytes(data)
        with pytest.raises(error, match=words):
            read_back(path)

    twice = [*PAGES, (4, content(1))]
    for table in (".xen_pfn", ".xen_p2m"):
        check(xen_core(twice, table=table), DamagedImageError, "frame number 0x4 is there twice")
        check(
            xen_core([*PAGES, (1 << 40, ZERO)], table=table), DamagedImageError, "0x10000000000 goes beyond"
        )
        check(xen_core([*PAGES, (INVALID - 1, ZERO)], table=table), DamagedImageError, "goes beyond")
        check(xen_core([(INVALID, ZERO)], table=table), EmptyImageError, "no page")
    check(xen_core([]), EmptyImageError, "no page")
    check(xen_core(PAGES, page_size=16384), UnsupportedImageError, "pages are of 16,384 bytes")
    check(xen_core(PAGES, format_version=1 << 32), UnsupportedImageError, "version 1")
    check(xen_core(PAGES, magic=0xF00FEBEF), DamagedImageError, "0xf00febef is not one of Xen's")
    for nr_pages in (0, 5, 7, 1 << 40, INVALID):
        check(xen_core(PAGES, nr_pages=nr_pages), DamagedImageError, f"tell of {nr_pages:,} pages")
    check(
        xen_core(PAGES, without=[".xen_pfn"]),
        DamagedImageError,
        "one section .xen_pfn or .xen_p2m, and has 0",
    )
    check(xen_core(PAGES, without=[".note.Xen"]), DamagedImageError, "one section .note.Xen, and has 0")
    both = Section(".xen_p2m", 1, bytes(16 * len(PAGES)), 8, 16)
    check(xen_core(PAGES, more=[both]), DamagedImageError, "one section .xen_pfn or .xen_p2m, and has 2")
    second = Section(".xen_pages", 1, bytes(PAGE * len(PAGES)), PAGE, PAGE)
    check(xen_core(PAGES, more=[second]), DamagedImageError, "one section .xen_pages, and has 2")
    check(replaced_notes(note(0x2000000, b"", "<")), DamagedImageError, "how many")
    check(
        replaced_notes(struct.pack("<3I", 4, 1 << 31, 0x2000001) + b"Xen\0"),
        DamagedImageError,
        "note goes beyond",
    )
    check(
        replaced_notes(struct.pack("<3I", 1 << 31, 4, 0x2000001) + b"Xen\0"),
        DamagedImageError,
        "note goes beyond",
    )


def section_of(file: ELFFile, name: str) -> Any:  # noqa: ANN401  # pyelftools' own type
    """Give the section of a name."""
    section = file.get_section_by_name(name)
    assert section is not None
    return section


def replaced_notes(notes: bytes) -> bytes:
    """Write a core whose notes start with others; they end in zeros, which are an empty note of no name."""
    data = bytearray(xen_core(PAGES))
    section = section_of(ELFFile(io.BytesIO(data)), ".note.Xen")
    at, size = section["sh_offset"], section["sh_size"]
    data[at : at + size] = notes.ljust(size, b"\0")
    return bytes(data)


def with_section_field(name: str, field: str, value: int) -> bytes:
    """Write a core one of whose section headers says something else."""
    data = bytearray(xen_core(PAGES))
    file = ELFFile(io.BytesIO(data))
    number = next(at for at, section in enumerate(file.iter_sections()) if section.name == name)
    place = {"sh_offset": 24, "sh_size": 32, "sh_addralign": 48}[field]
    struct.pack_into("<Q", data, file["e_shoff"] + 64 * number + place, value)
    return bytes(data)


@pytest.mark.parametrize("name", [".xen_pages", ".xen_pfn", ".note.Xen"])
def test_sections_that_cannot_be_there(tmp_path: Path, name: str) -> None:
    path = tmp_path / "a.core"
    length = len(xen_core(PAGES))
    for value in (length - 8, length, 1 << 40, 1 << 63, (1 << 64) - PAGE):
        path.write_bytes(with_section_field(name, "sh_offset", value))
        with pytest.raises(TruncatedImageError, match=f"the section {name}"):
            read_back(path)
        path.write_bytes(with_section_field(name, "sh_size", value))
        with pytest.raises(DamagedImageError, match=f"section {name}|its notes"):
            read_back(path)


def test_sections_that_overlap(tmp_path: Path) -> None:
    path = tmp_path / "a.core"
    for name, offset, words in (
        (".xen_pages", 0, ".xen_pages and .note.Xen overlap"),
        (".xen_pages", PAGE, "overlap"),
        (".xen_pages", 2 * PAGE - 8, "no multiple of 4,096"),
        (".xen_pfn", 3 * PAGE, ".xen_pages and .xen_pfn overlap"),
        (".xen_pfn", 8 * PAGE + 4, "no multiple of 8"),
    ):
        path.write_bytes(with_section_field(name, "sh_offset", offset))
        with pytest.raises(DamagedImageError, match=words):
            read_back(path)


def test_hostile_counts_take_no_memory(tmp_path: Path) -> None:
    path = tmp_path / "a.core"
    good = xen_core(PAGES)
    huge = bytearray(good)
    struct.pack_into("<H", huge, 60, 0xFFFF)  # e_shnum
    no_number = bytearray(good)
    struct.pack_into("<H", no_number, 60, 0)  # then the first section header tells it
    struct.pack_into("<Q", no_number, 64 + 32, 1 << 60)
    for data in (
        huge,
        no_number,
        with_section_field(".xen_pages", "sh_size", 1 << 60),
        with_section_field(".note.Xen", "sh_size", 1 << 60),
    ):
        path.write_bytes(data)
        assert failing_peak(path) < 8 << 20


def failing_peak(path: Path) -> int:
    """Bytes that are allocated at the most until reading fails."""
    tracemalloc.start()
    try:
        with pytest.raises(ImageError):
            read_back(path)
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("headers_last", [False, True])
def test_cut_anywhere(tmp_path: Path, headers_last: bool) -> None:
    path = tmp_path / "a.core"
    path.write_bytes(xen_core(PAGES[:2], headers_last=headers_last))
    length = path.stat().st_size
    headers = {*range(700), *range(length - 700, length)}
    check_cut_anywhere(path, sorted(headers | {*range(0, length, 97)}))


def test_flipped_headers(tmp_path: Path) -> None:
    path = tmp_path / "a.core"
    data = xen_core(PAGES[:3])
    path.write_bytes(data)
    file = ELFFile(io.BytesIO(data))
    offsets = [*range(64 + 64 * file.num_sections())]
    # Behind the first two notes there are names of programs and machines.
    for name, size in ((".note.Xen", 100), (".xen_pfn", 24), (".shstrtab", 80)):
        start = section_of(file, name)["sh_offset"]
        offsets += range(start, start + min(size, section_of(file, name)["sh_size"]))
    check_flipped(path, offsets)


def test_frame_numbers_that_are_a_hole(tmp_path: Path) -> None:
    if not supports_holes(tmp_path):
        pytest.skip("the file system under the temporary folder tells no holes")
    # As many pages as a sparse file of 8 TiB has room for, and a table of them that is all zeros.
    count = 1 << 30
    data = bytearray(xen_core([], nr_pages=count))
    file = ELFFile(io.BytesIO(bytes(data)))
    for name, offset, size in ((".xen_pages", 1 << 36, count * PAGE), (".xen_pfn", 1 << 35, count * 8)):
        index = [each.name for each in file.iter_sections()].index(name)
        struct.pack_into("<QQ", data, 64 + 64 * index + 24, offset, size)
    path = tmp_path / "a.core"
    path.write_bytes(data)
    os.truncate(path, (1 << 36) + count * PAGE)
    with pytest.raises(DamagedImageError, match="guest frame number 0x0 is there twice") as caught:
        read_back(path)
    assert caught.value.offset == (1 << 35) + 8

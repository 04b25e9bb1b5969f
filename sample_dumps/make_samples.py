"""Make the sample dumps: memory of three guests that share a system, as bzip2-compressed raw images.

All randomness comes from hashes of a fixed seed and of what is being made, so the bytes are the same on
every machine and with every version of Python. The images are compressed with bzip2 since what libbz2
writes, unlike what zlib does, depends neither on its version nor on the machine.
"""

from __future__ import annotations

import argparse
import bz2
import enum
import hashlib
import itertools
import struct
import sys
from collections import Counter
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

T = TypeVar("T")

SEED: Final = "hvshare sample dumps, 1"
PAGE_SIZE: Final = 4096
FRAME_PAGES: Final = 512
"""Pages of a 2 MB frame."""
GUEST_PAGES: Final = 8 * FRAME_PAGES
EXTENT_PAGES: Final = 8
"""Pages that a guest allocates next to each other where its memory is fragmented."""
USABLE_LOW_PAGES: Final = 144
"""Pages of the first megabyte that the firmware leaves to the system."""
SUMS: Final = "SHA256SUMS"
RAW_SUMS: Final = "SHA256SUMS.raw"

ZERO_PAGE: Final = bytes(PAGE_SIZE)
ERASED_ROM_PAGE: Final = b"\xff" * PAGE_SIZE
DEBUG_FILL_PAGE: Final = b"\xcc" * PAGE_SIZE
BLANK_SCREEN_PAGE: Final = b" \x07" * (PAGE_SIZE // 2)

VOCABULARY: Final = (
    "the of to and in a for is on with from by not that as at be this an or it are if no was can time page "
    "file disk block cache read write user group name path size count start stop open close error retry "
    "service socket request reply queue lock memory thread process signal device driver module kernel mount "
    "volume table index key value record column cursor commit session client server address port route "
    "packet buffer stream timer event handler state mode flag option default limit version release build "
    "package library symbol section header footer image window font colour button panel layout theme"
)
WORDS: Final = tuple(VOCABULARY.split())

# Whole idioms in place of single instructions, since compilers repeat themselves.
IDIOMS: Final = (
    (bytes.fromhex("488b45"), 1),  # mov rax, [rbp+d]
    (bytes.fromhex("e8"), 4),  # call
    (bytes.fromhex("4889c7"), 0),  # mov rdi, rax
    (bytes.fromhex("488b5b10488b7b18"), 0),  # walk two fields of a structure
    (bytes.fromhex("c9c3"), 0),  # leave; ret
    (bytes.fromhex("554889e54157415641554154"), 0),  # frame and callee-saved registers
    (bytes.fromhex("4885c00f84"), 4),  # test rax, rax; jz
    (bytes.fromhex("4883ec"), 1),  # sub rsp, n
    (bytes.fromhex("488d3d"), 4),  # lea rdi, [rip+d]
    (bytes.fromhex("31c0"), 0),  # xor eax, eax
    (bytes.fromhex("85c00f88"), 4),  # test eax, eax; js
    (bytes.fromhex("4c89e64889df"), 0),  # mov rsi, r12; mov rdi, rbx
    (bytes.fromhex("837df8"), 1),  # cmp dword [rbp-8], n
    (bytes.fromhex("eb"), 1),  # jmp
    (bytes.fromhex("64488b042528000000"), 0),  # stack guard
    (bytes.fromhex("f30f1efa"), 0),  # landing pad
    (bytes.fromhex("8b431c39432075"), 1),  # compare two fields; jnz
    (bytes.fromhex("6690"), 0),  # two-byte nop
)
RETURN: Final = bytes.fromhex("c9c3")

HEAP_OBJECT: Final = struct.Struct("<QQQIIQ16s8x")  # type, next, previous, references, length, data, name
PAGE_TABLE_FLAGS: Final = 0x8000_0000_0000_0067  # no-execute, dirty, accessed, user, writable, present
KERNEL_TEXT_ADDRESS: Final = 0xFFFF_FFFF_8100_0000
DIRECT_MAP_ADDRESS: Final = 0xFFFF_8880_0000_0000
HEAP_ADDRESS: Final = 0x0000_5555_5000_0000


class Owner(enum.Enum):
    """What a guest uses a page for."""

    ZERO = "zero: free memory, and the graphics window"
    FIRMWARE = "firmware, low memory and the text screen"
    KERNEL = "kernel image: text and read-only data"
    KERNEL_DATA = "kernel data: slabs and page tables"
    LIBRARIES = "shared libraries"
    APPLICATION = "application: program, heaps, buffers"
    CACHE = "cache of disk files"


class Page(NamedTuple):
    """A page and what it is used for."""

    owner: Owner
    content: bytes


FREE: Final = Page(Owner.ZERO, ZERO_PAGE)


@dataclass(frozen=True)
class Guest:
    """What tells a guest from the others that run the same system.

    Attributes
    ----------
    name : str
        Its name, and that of its image without suffixes.
    address_shift : int
        Pages by which address space randomization moved its heaps and the kernel's direct map.
    lay_out : callable
        Returns its memory in order of gfn.
    """

    name: str
    address_shift: int
    lay_out: Callable[[Guest], list[Page]]

    def randomized(self, address: int) -> int:
        """Tell where an address lies in this guest."""
        return address + self.address_shift * PAGE_SIZE


@dataclass(frozen=True)
class DiskFile:
    """A file on a disk of a guest.

    Attributes
    ----------
    path : str
        Its path, from which its contents follow. That of a file which one guest alone has starts with the
        name of the guest.
    contents : callable
        Makes so many bytes for a path.
    pages : int
        Pages it takes in the cache; contents mostly end before the last one does.
    """

    path: str
    contents: Callable[[str, int], bytes]
    pages: int

    def read(self, owner: Owner = Owner.CACHE) -> list[Page]:
        """Return its pages as they are found in memory.

        Parameters
        ----------
        owner : Owner
            Who reads it: mapping a program or a library makes its pages theirs.
        """
        tail = next(draws(f"{self.path}/tail"))
        text = self.contents(self.path, self.pages * PAGE_SIZE - tail)
        return [Page(owner, content) for content in cut(text)]


def draws(label: str) -> Iterator[int]:
    """Yield bytes without end, always the same ones for a label."""
    for number in itertools.count():
        yield from hashlib.shake_128(f"{SEED}/{label}/{number}".encode()).digest(PAGE_SIZE)


def draw_skewed(source: Iterator[int], limit: int) -> int:
    """Draw a number below a limit of up to 65,536; small ones come up far more often."""
    return next(source) * next(source) * limit >> 16


def pick(source: Iterator[int], table: Sequence[T]) -> T:
    """Pick an element of a table, the first ones far more often."""
    return table[draw_skewed(source, len(table))]


def shuffled(items: Sequence[T], label: str) -> list[T]:
    """Put items into an order that follows from a label."""

    def rank(number: int) -> bytes:
        return hashlib.sha256(f"{SEED}/{label}/{number}".encode()).digest()

    return [items[number] for number in sorted(range(len(items)), key=rank)]


def cut(contents: bytes) -> list[bytes]:
    """Cut contents into pages, the last one filled up with zeros."""
    return [
        contents[start : start + PAGE_SIZE].ljust(PAGE_SIZE, b"\0")
        for start in range(0, len(contents), PAGE_SIZE)
    ]


def take(pieces: Iterable[bytes], size: int) -> bytes:
    """Join pieces until there are so many bytes."""
    joined = bytearray()
    for piece in pieces:
        joined += piece
        if len(joined) >= size:
            break
    return bytes(joined[:size])


@cache
def log(path: str, size: int) -> bytes:
    """Make a log file."""
    return take(_log_lines(path), size)


def _log_lines(path: str) -> Iterator[bytes]:
    source = draws(path)
    host = path.partition("/")[0]
    second = 0
    while True:
        second += draw_skewed(source, 20)
        clock = f"{second // 3600 % 24:02}:{second // 60 % 60:02}:{second % 60:02}"
        message = " ".join(pick(source, WORDS) for _ in range(4))
        yield f"Mar  3 {clock} {host} {pick(source, WORDS)}d[{400 + second % 7}]: {message}\n".encode()


@cache
def prose(path: str, size: int) -> bytes:
    """Make a text file, such as a manual."""
    return take(_prose_lines(path), size)


def _prose_lines(path: str) -> Iterator[bytes]:
    source = draws(path)
    while True:
        line = " ".join(pick(source, WORDS) for _ in range(8 + next(source) % 6))
        yield f"{line.capitalize()}.\n".encode()


@cache
def settings(path: str, size: int) -> bytes:
    """Make a file of settings."""
    return take(_settings_lines(path), size)


def _settings_lines(path: str) -> Iterator[bytes]:
    source = draws(path)
    while True:
        section = f"{pick(source, WORDS)}.{pick(source, WORDS)}"
        yield f"\n[{section}]\n# Settings of {section}; see the manual before changing them\n".encode()
        for _ in range(2 + next(source) % 4):
            key = f"{pick(source, WORDS)}_{pick(source, WORDS)}"
            yield f"{key} = {draw_skewed(source, 64) * 16}\n".encode()


@cache
def machine_code(path: str, size: int) -> bytes:
    """Make a program or a library: functions of idioms, each one aligned as compilers do."""
    return take(_functions(path), size)


def _functions(path: str) -> Iterator[bytes]:
    source = draws(path)
    function = bytearray()
    while True:
        idiom, operand_bytes = pick(source, IDIOMS)
        function += idiom
        # Targets and offsets are aligned, so their low bits are always zero.
        if operand_bytes == 1:
            function.append(draw_skewed(source, 16) * 8)
        elif operand_bytes == 4:
            function += (draw_skewed(source, 256) * 16).to_bytes(4, "little")
        if idiom == RETURN:
            yield bytes(function.ljust(-len(function) % 16 + len(function), b"\xcc"))
            function.clear()


@cache
def function_table(path: str, size: int) -> bytes:
    """Make a table of pointers into the kernel's text, which lies at the same address in all guests."""
    source = draws(path)
    pointers = (
        (KERNEL_TEXT_ADDRESS + (draw_skewed(source, 4096) + 16 * (number & 63)) * 16).to_bytes(8, "little")
        for number in itertools.count()
    )
    return take(pointers, size)


@cache
def media(path: str, size: int) -> bytes:
    """Make a file that is compressed already, such as a picture."""
    return hashlib.shake_128(f"{SEED}/{path}".encode()).digest(size)


def heap(label: str, address: int, pages: int) -> list[bytes]:
    """Make a heap of linked objects.

    Parameters
    ----------
    label : str
        What the structure follows from; the address does not change it.
    address : int
        Where the heap starts.
    pages : int
        Length.
    """
    return [heap_page(f"{label}/{number}", address, number) for number in range(pages)]


def heap_page(label: str, address: int, number: int) -> bytes:
    """Make a page of a heap, each object linked to its neighbours and to data elsewhere on the heap.

    Parameters
    ----------
    label : str
        What the structure follows from.
    address : int
        Where the heap starts.
    number : int
        Which page of the heap it is.
    """
    source = draws(label)
    here = address + number * PAGE_SIZE
    return b"".join(
        HEAP_OBJECT.pack(
            address + pick(source, range(0, 1024, 64)),
            here + (position + HEAP_OBJECT.size) % PAGE_SIZE,
            here + (position - HEAP_OBJECT.size) % PAGE_SIZE,
            1 + draw_skewed(source, 8),
            draw_skewed(source, 32) * 8,
            here + draw_skewed(source, 64) * 256,
            pick(source, WORDS).encode(),
        )
        for position in range(0, PAGE_SIZE, HEAP_OBJECT.size)
    )


def page_table(label: str) -> bytes:
    """Make a page table that maps short runs of successive pages, with gaps."""
    source = draws(label)
    entries: list[int] = []
    while len(entries) < FRAME_PAGES:
        first_gfn = (next(source) << 8 | next(source)) % GUEST_PAGES
        run = range(first_gfn, first_gfn + 8 + next(source) % 32)
        entries += [gfn % GUEST_PAGES * PAGE_SIZE | PAGE_TABLE_FLAGS for gfn in run]
        entries += [0] * (next(source) % 24)
    return struct.pack(f"<{FRAME_PAGES}Q", *entries[:FRAME_PAGES])


def database_page(number: int) -> bytes:
    """Make a page of a database table: header and row offsets from the start, rows from the end."""
    source = draws(f"database/{number}")
    rows = [
        f"{number * 64 + row:08}|{pick(source, WORDS)} {pick(source, WORDS)}|{pick(source, WORDS)}|"
        f"{draw_skewed(source, 100)}.{next(source) % 4 * 25:02}\n".encode()
        for row in range(40 + next(source) % 50)
    ]
    ends = itertools.accumulate((len(row) for row in rows), lambda end, size: end - size, initial=PAGE_SIZE)
    offsets = list(ends)[1:]
    head = struct.pack(
        f"<QIHH{len(offsets)}H", 0x1_0000_0000 + number * 224, number, len(rows), 8192, *offsets
    )
    return head + b"".join(reversed(rows)).rjust(PAGE_SIZE - len(head), b"\0")


def text_screen(guest: Guest) -> bytes:
    """Make a screen in text mode that asks to log in."""
    prompt = b"".join(bytes((sign, 7)) for sign in f"{guest.name} login: ".encode())
    return prompt + BLANK_SCREEN_PAGE[len(prompt) :]


LIBRARY_FILES: Final = (
    DiskFile("/usr/lib/libc.so", machine_code, 110),
    DiskFile("/usr/lib/libcrypto.so", machine_code, 80),
    DiskFile("/usr/lib/libm.so", machine_code, 50),
)
WEB_PROGRAM: Final = DiskFile("/usr/sbin/webserver", machine_code, 150)
DB_PROGRAM: Final = DiskFile("/usr/sbin/dbserver", machine_code, 130)
DESKTOP_PROGRAM: Final = DiskFile("/usr/bin/desktop", machine_code, 140)
SERVICES_FILES: Final = (
    DiskFile("/usr/lib/locale/archive", prose, 40),
    DiskFile("/etc/defaults", settings, 20),
)
WEB_FILES: Final = (DiskFile("/usr/share/mime", settings, 50), DiskFile("/usr/lib/scripts", prose, 60))
DB_FILES: Final = (DiskFile("/usr/share/collation", prose, 30), DiskFile("/usr/bin/admin", machine_code, 20))
BUNDLED_FILES: Final = (
    DiskFile("/opt/bundle/runtime", machine_code, 75),
    DiskFile("/opt/bundle/toolkit", machine_code, 75),
)
DESKTOP_FILES: Final = (
    DiskFile("/usr/bin/editor", machine_code, 180),
    DiskFile("/usr/share/doc", prose, 260),
    DiskFile("/usr/share/pictures", media, 40),
    DiskFile("/usr/lib/office", machine_code, 330),
    DiskFile("/usr/share/settings", settings, 370),
    DiskFile("/usr/share/manuals", prose, 250),
)


def system_libraries(guest: Guest) -> list[Page]:
    """Return the libraries, which all guests have, in the order in which this one happened to read them."""
    pages = [page for file in LIBRARY_FILES for page in file.read(Owner.LIBRARIES)]
    return shuffled(pages, f"{guest.name}/libraries")


def read_all(files: Iterable[DiskFile]) -> list[Page]:
    """Return the pages of several files in the cache."""
    return [page for file in files for page in file.read()]


def own_log(guest: Guest, pages: int) -> list[Page]:
    """Return a log that no other guest has."""
    return DiskFile(f"{guest.name}/var/log/messages", log, pages).read()


def application(contents: Iterable[bytes]) -> list[Page]:
    """Return pages of an application."""
    return [Page(Owner.APPLICATION, content) for content in contents]


def workers(guest: Guest, *, processes: int, pages: int) -> list[Page]:
    """Return the heaps of workers forked from one process, all at one address and still alike.

    Parameters
    ----------
    guest : Guest
        Where they run.
    processes : int
        How many.
    pages : int
        Of the heap of each.
    """
    once = heap(f"{guest.name}/workers", guest.randomized(HEAP_ADDRESS), pages)
    return application(once * processes)


def private_heap(guest: Guest, pages: int) -> list[Page]:
    """Return a heap and a few pages of a stack that a debug build filled and never used."""
    contents = heap("application", guest.randomized(HEAP_ADDRESS) + (1 << 24), pages)
    return application([*contents, *[DEBUG_FILL_PAGE] * 6])


def free(pages: int) -> list[Page]:
    """Return free memory that was never used."""
    return [FREE] * pages


def padded(pages: Sequence[Page], length: int) -> list[Page]:
    """Fill up with free memory.

    Raises
    ------
    ValueError
        If there are more pages than that.
    """
    if len(pages) > length:
        raise ValueError(f"{len(pages)} pages are laid out where {length} fit")
    return [*pages, *free(length - len(pages))]


def fragmented(pages: Sequence[Page], length: int, label: str) -> list[Page]:
    """Spread pages over a longer stretch of memory in extents, with free memory between them.

    Parameters
    ----------
    pages : sequence of Page
        What is spread.
    length : int
        Pages of the stretch.
    label : str
        What the order follows from.
    """
    stretch = padded(pages, length)
    extents = [stretch[start : start + EXTENT_PAGES] for start in range(0, length, EXTENT_PAGES)]
    return list(itertools.chain.from_iterable(shuffled(extents, label)))


def low_memory(guest: Guest, usable: Sequence[Page] = ()) -> list[Page]:
    """Lay out the first megabyte as PCs have it.

    Parameters
    ----------
    guest : Guest
        Whose.
    usable : sequence of Page
        What the part that the firmware leaves to the system holds.
    """
    tables = cut(machine_code("firmware/tables", 16 * PAGE_SIZE))
    screen = [text_screen(guest), *[BLANK_SCREEN_PAGE] * 7]
    video_rom = cut(machine_code("firmware/video", 8 * PAGE_SIZE))
    rom = cut(machine_code("firmware/rom", 32 * PAGE_SIZE))
    devices = [*screen, *video_rom, *[ERASED_ROM_PAGE] * 24, *rom]
    return [
        *(Page(Owner.FIRMWARE, content) for content in tables),
        *padded(usable, USABLE_LOW_PAGES),
        *free(24),
        *(Page(Owner.FIRMWARE, content) for content in devices),
    ]


def kernel_data(guest: Guest) -> list[Page]:
    """Lay out what the kernel allocates: alike in all guests, but with other addresses in each."""
    slabs = heap("slabs", guest.randomized(DIRECT_MAP_ADDRESS), 192)
    tables = [page_table(f"{guest.name}/page table/{number}") for number in range(64)]
    return [Page(Owner.KERNEL_DATA, content) for content in (*slabs, *tables)]


def kernel_image() -> list[Page]:
    """Lay out text and read-only data of the kernel, just one frame, the same in all guests."""
    text = cut(machine_code("/boot/kernel/text", 336 * PAGE_SIZE))
    messages = cut(prose("/boot/kernel/messages", 96 * PAGE_SIZE))
    tables = cut(function_table("/boot/kernel/tables", 80 * PAGE_SIZE))
    return [Page(Owner.KERNEL, content) for content in (*text, *messages, *tables)]


def system(guest: Guest, usable: Sequence[Page] = ()) -> list[Page]:
    """Lay out the first two frames, which the system alone uses."""
    return [*low_memory(guest, usable), *kernel_data(guest), *kernel_image()]


def lay_out_web(guest: Guest) -> list[Page]:
    """Lay out a web server: programs low, the cache at the top, free memory between them."""
    program = WEB_PROGRAM.read(Owner.APPLICATION)
    programs = [
        *system_libraries(guest),
        *fragmented(program, 176, f"{guest.name}/program"),
        *workers(guest, processes=3, pages=60),
        *fragmented(private_heap(guest, 100), 160, f"{guest.name}/heap"),
    ]
    pictures = DiskFile(f"{guest.name}/srv/pictures", media, 30).read()
    files = [*read_all(SERVICES_FILES + WEB_FILES), *own_log(guest, 50), *pictures]
    return [
        *system(guest),
        *padded(programs, 2 * FRAME_PAGES),
        *free(4 * FRAME_PAGES - 320),
        *fragmented(files, 320, f"{guest.name}/cache"),
    ]


def lay_out_db(guest: Guest) -> list[Page]:
    """Lay out a database server: its buffer pool first, the cache in the middle, programs at the top."""
    buffers = application(database_page(number) for number in range(230))
    pool = [*buffers, *workers(guest, processes=3, pages=40)]
    files = [*read_all(SERVICES_FILES + DB_FILES), *own_log(guest, 40)]
    programs = [*DB_PROGRAM.read(Owner.APPLICATION), *private_heap(guest, 40)]
    return [
        *system(guest),
        *padded(pool, FRAME_PAGES),
        *free(2 * FRAME_PAGES + FRAME_PAGES // 2),
        *fragmented(files, FRAME_PAGES // 2, f"{guest.name}/cache"),
        *padded(fragmented(programs, FRAME_PAGES // 2, f"{guest.name}/programs"), FRAME_PAGES),
        *free(FRAME_PAGES // 2),
        *padded(system_libraries(guest), FRAME_PAGES // 2),
    ]


def lay_out_prefetch(guest: Guest) -> list[Page]:
    """Lay out a desktop whose system reads ahead until no memory is free."""
    programs = [
        *DESKTOP_PROGRAM.read(Owner.APPLICATION),
        *workers(guest, processes=2, pages=60),
        *private_heap(guest, 110),
    ]
    others = [*SERVICES_FILES, *WEB_FILES, *DB_FILES, WEB_PROGRAM, DB_PROGRAM]
    # Four programs bring the same files along, each in a directory of its own.
    bundles = [page for file in BUNDLED_FILES for page in file.read() * 4]
    read_ahead = [*own_log(guest, 60), *bundles, *read_all(others), *read_all(DESKTOP_FILES)]
    low, high = read_ahead[:USABLE_LOW_PAGES], read_ahead[USABLE_LOW_PAGES:]
    used = [*system(guest, low), *system_libraries(guest), *programs]
    # A few pages stay free, since systems keep a reserve; what does not fit is not read ahead.
    return [*used, *high[: GUEST_PAGES - len(used) - 12], *free(12)]


GUESTS: Final = (
    Guest("guest-web", 0x1F3A, lay_out_web),
    Guest("guest-db", 0x1B52, lay_out_db),
    Guest("guest-prefetch", 0x2D07, lay_out_prefetch),
)


def image(pages: Iterable[Page]) -> bytes:
    """Return pages as a raw image."""
    return b"".join(page.content for page in pages)


def make_guests() -> dict[str, list[Page]]:
    """Make the memory of all guests, by their names.

    Raises
    ------
    ValueError
        If the pages of a guest do not fill just the memory that it has.
    """
    memory = {guest.name: guest.lay_out(guest) for guest in GUESTS}
    for name, pages in memory.items():
        if len(pages) != GUEST_PAGES or any(len(page.content) != PAGE_SIZE for page in pages):
            raise ValueError(f"{name} is laid out in {len(pages)} pages, not in {GUEST_PAGES} whole ones")
    return memory


def make_files(memory: Mapping[str, Sequence[Page]]) -> dict[str, bytes]:
    """Make the sample dumps and the lists of their checksums, by file name."""
    raw = {f"{name}.raw": image(pages) for name, pages in memory.items()}
    dumps = {f"{name}.bz2": bz2.compress(contents, 9) for name, contents in raw.items()}
    return {**dumps, SUMS: checksum_list(dumps), RAW_SUMS: checksum_list(raw)}


def checksum_list(files: Mapping[str, bytes]) -> bytes:
    """List SHA-256 checksums as sha256sum does."""
    return b"".join(
        f"{hashlib.sha256(contents).hexdigest()}  {name}\n".encode() for name, contents in files.items()
    )


def differences(files: Mapping[str, bytes], directory: Path) -> list[str]:
    """Tell how checksums of files just made differ from those listed in a directory.

    Parameters
    ----------
    files : mapping of str to bytes
        As `make_files` returns them.
    directory : Path
        Where the lists of checksums are.
    """
    found = []
    for name in (SUMS, RAW_SUMS):
        made = set(files[name].decode().splitlines())
        try:
            listed = set((directory / name).read_text(encoding="utf-8").splitlines())
        except OSError as error:
            found.append(f"{name}: cannot be read ({error.strerror})")
            continue
        found += [f"{name}: made here, but not listed: {line}" for line in sorted(made - listed)]
        found += [f"{name}: listed, but not made here: {line}" for line in sorted(listed - made)]
    return found


def describe(memory: Mapping[str, Sequence[Page]]) -> str:
    """Count the pages of each guest by owner, as a table in Markdown."""
    owners = {name: Counter(page.owner for page in pages) for name, pages in memory.items()}
    lines = [f"| Pages of | {' | '.join(owners)} |", f"|---|{'---:|' * len(owners)}"]
    for owner in Owner:
        shares = (f"{count[owner]:,} ({count[owner] / GUEST_PAGES:.1%})" for count in owners.values())
        lines.append(f"| {owner.value} | {' | '.join(shares)} |")
    lines.append(f"| all | {' | '.join(f'{count.total():,}' for count in owners.values())} |")
    return "\n".join(lines)


def main() -> int:
    """Do what the command line says, and return the exit status."""
    parser = argparse.ArgumentParser(description="Make the sample dumps: memory of three synthetic guests.")
    parser.add_argument(
        "--out", type=Path, default=Path(__file__).parent, metavar="DIR", help="where the files are or go"
    )
    task = parser.add_mutually_exclusive_group()
    task.add_argument("--check", action="store_true", help="write nothing; compare with the checksums in DIR")
    task.add_argument("--describe", action="store_true", help="write nothing; count pages by owner")
    options = parser.parse_args()
    directory: Path = options.out

    memory = make_guests()
    if options.describe:
        print(describe(memory))
        return 0
    files = make_files(memory)
    if options.check:
        found = differences(files, directory)
        print("\n".join(found) or "the sample dumps made here have the listed checksums")
        return 1 if found else 0
    directory.mkdir(parents=True, exist_ok=True)
    for name, contents in files.items():
        (directory / name).write_bytes(contents)
        print(f"{directory / name}: {len(contents):,} bytes")
    return 0


if __name__ == "__main__":
    sys.exit(main())

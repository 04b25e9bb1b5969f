"""Running processes: every page of a child whose memory is known, and what is told where none can be read."""

from __future__ import annotations

import contextlib
import json
import mmap
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import hvshare
from hvshare.errors import EmptyImageError, ImageChangedError, UnreadableImageError, UnsupportedImageError
from hvshare.images.options import ReadingOptions
from hvshare.images.runs import RunKind
from tests.formats.harness import ReadBack, read_image
from tests.guests import ZERO, content, write_raw
from tests.oracle import PAGE

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="needs /proc of Linux")

if sys.platform == "linux":
    import numpy as np

    from hvshare.images.live import rights as process_rights
    from hvshare.images.live.activity import running_guest
    from hvshare.images.live.backing_files import BackingFile
    from hvshare.images.live.image import _pause_command, _pieces
    from hvshare.images.live.maps import parse_maps
    from hvshare.images.live.memory import LivePages, LiveSource
    from hvshare.images.live.pagemap import Pagemap, PageState, decode
    from hvshare.images.live.process import Process, Thread
    from hvshare.images.live.qemu_command import Backend, parse_command
    from hvshare.images.live.qemu_ram import RamBlock, find_ram
    from hvshare.images.stored import StoredImage

_CHILD = """
import ctypes, json, mmap, sys
library = ctypes.CDLL(None, use_errno=True)
library.mmap.restype = ctypes.c_void_p
NO_HUGE_PAGES, GUARD = 15, 102
PAGE = 4096
blocks = {}

def block(pages, fd=-1, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS, access=3):
    # Between pages that nobody may touch, so that the kernel joins nothing to it.
    room = library.mmap(None, (pages + 2) * PAGE, 0, 0x4022, -1, 0)
    at = library.mmap(ctypes.c_void_p(room + PAGE), pages * PAGE, access, flags | 0x10, fd, 0)
    assert at == room + PAGE, ctypes.get_errno()
    library.madvise(ctypes.c_void_p(at), pages * PAGE, NO_HUGE_PAGES)
    return at

def put(at, page, data):
    ctypes.memmove(at + page * PAGE, data, len(data))

for command in sys.stdin:
    name, *arguments = json.loads(command)
    if name == "block":
        pages, kind, path, contents = arguments
        flags = {"private": mmap.MAP_PRIVATE, "shared": mmap.MAP_SHARED}[kind]
        if path:
            with open(path, "r+b") as file:
                at = block(pages, file.fileno(), flags)
        else:
            at = block(pages, -1, flags | mmap.MAP_ANONYMOUS)
        for page, data in contents:
            put(at, page, bytes.fromhex(data))
        answer = at
    elif name == "reserve":
        answer = block(arguments[0], -1, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS, 0)
    elif name == "protect":
        answer = library.mprotect(ctypes.c_void_p(arguments[0]), arguments[1] * PAGE, 0)
    elif name == "read":
        answer = ctypes.string_at(arguments[0], 1)[0]
    elif name == "guard":
        answer = library.madvise(ctypes.c_void_p(arguments[0]), PAGE, GUARD)
    elif name == "pageout":
        answer = library.madvise(ctypes.c_void_p(arguments[0]), arguments[1] * PAGE, 21)
    elif name == "unmap":
        answer = library.munmap(ctypes.c_void_p(arguments[0]), arguments[1] * PAGE)
    print(answer, flush=True)
"""


class Child:
    """A process that does with its memory what it is told."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-I", "-c", _CHILD], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        self.pid = self._process.pid
        self.path = f"pid:{self.pid}"

    def ask(self, *command: object) -> int:
        stdin, stdout = self._process.stdin, self._process.stdout
        assert stdin is not None
        assert stdout is not None
        stdin.write(json.dumps(command) + "\n")
        stdin.flush()
        return int(stdout.readline())

    def block(
        self, pages: int, contents: Mapping[int, bytes], kind: str = "private", path: Path | None = None
    ) -> int:
        """Map pages, write to some of them, and give the number of the first one."""
        written = [(page, data.hex()) for page, data in contents.items()]
        return self.ask("block", pages, kind, str(path or ""), written) // PAGE

    def resident(self) -> int:
        return int(Path(f"/proc/{self.pid}/statm").read_text().split()[1])

    def stop(self) -> None:
        os.kill(self.pid, signal.SIGSTOP)
        while Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()[0] != "T":
            time.sleep(0.001)

    def kill(self) -> None:
        """End it and leave it as a zombie, which still is in /proc."""
        os.kill(self.pid, signal.SIGKILL)
        os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOWAIT)

    def bury(self) -> None:
        self.kill()
        self._process.wait()

    def __enter__(self) -> Child:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.communicate()


@pytest.fixture
def child() -> Iterator[Child]:
    with Child() as process:
        yield process


def test_every_page_of_a_process(child: Child, tmp_path: Path) -> None:
    file = write_raw(tmp_path / "mapped", [content(200 + number) for number in range(8)])
    touched = {number: content(number % 7) for number in range(0, 40, 2)}  # every seventh is zero
    private = child.block(40, touched)
    shared = child.block(8, {2: content(3)}, "shared")
    copied = child.block(8, {3: content(9)}, "private", file)
    written = child.block(8, {5: content(8)}, "shared", file)
    reserved = child.ask("reserve", 16) // PAGE
    child.ask("read", copied * PAGE)
    before = child.resident()
    with hvshare.open_image(child.path) as image:
        found = read_image(image, 5)
        assert (image.name, image.format) == (child.path, "process")
        assert image.details["process"] == str(child.pid)
        assert Path(image.details["program"]).samefile(sys.executable)
    assert child.resident() == before
    assert {"not-paused", "untouched-pages"} <= found.caveats
    for number in range(40):
        expected = RunKind.PRESENT if number in touched else RunKind.ZERO
        assert found.kinds[private + number] == expected
        assert found.memory[private + number] == touched.get(number, ZERO)
    assert {number for number in range(8) if copied + number in found.kinds} == {3}
    assert found.memory[copied + 3] == content(9)
    for first, pages in ((shared, 8), (written, 8), (reserved, 16), (private - 1, 1), (private + 40, 1)):
        assert not found.kinds.keys() & set(range(first, first + pages))


def test_no_page_is_touched(child: Child) -> None:
    """A page table that has nothing stays so, and the zero page stays what it is."""
    first = child.block(600, {0: content(1)})
    child.ask("read", (first + 1) * PAGE)
    process = Process(str(child.pid), child.path)
    pagemap = Pagemap(process)
    before = list(pagemap.ranges(first * PAGE, (first + 600) * PAGE))
    with hvshare.open_image(child.path) as image:
        found = read_image(image)
    assert list(pagemap.ranges(first * PAGE, (first + 600) * PAGE)) == before
    assert [each.state for each in before] == [PageState.OWN, PageState.NOTHING]
    assert before[0].end == (first + 2) * PAGE
    assert found.kinds[first + 1] == RunKind.PRESENT
    assert found.memory[first + 1] == ZERO
    pagemap.close()
    process.close()


def test_guard_pages_are_no_memory(child: Child) -> None:
    first = child.block(4, {number: content(number + 1) for number in range(4)})
    if child.ask("guard", (first + 2) * PAGE):
        pytest.skip("this kernel has no guard pages (MADV_GUARD_INSTALL, Linux 6.13)")
    with hvshare.open_image(child.path) as image:
        found = read_image(image)
    # Before 6.15 the kernel shows them as swapped out.
    assert found.kinds.get(first + 2) in {None, RunKind.ABSENT}
    assert [found.memory[first + number] for number in (0, 1, 3)] == [content(1), content(2), content(4)]


def _swaps() -> bool:
    path = Path("/proc/swaps")
    return path.exists() and len(path.read_text().splitlines()) > 1


needs_swap = pytest.mark.skipif(not _swaps(), reason="this host has no swap")


@needs_swap
@pytest.mark.parametrize("read_swapped", [False, True])
def test_swapped_pages(child: Child, read_swapped: bool) -> None:
    contents = {number: content(number + 1) for number in range(64)}
    first = child.block(64, contents)
    assert child.ask("pageout", first * PAGE, 64) == 0
    with hvshare.open_image(child.path, options=ReadingOptions(read_swapped=read_swapped)) as image:
        found = read_image(image)
    kinds = {found.kinds[first + number] for number in contents}
    if read_swapped:
        assert kinds == {RunKind.PRESENT}
        assert [found.memory[first + number] for number in contents] == list(contents.values())
    else:
        assert RunKind.ABSENT in kinds
        assert "swapped-pages" in found.caveats


def _read_guest(child: Child, first: int, pages: int, options: ReadingOptions) -> tuple[ReadBack, LivePages]:
    """Read pages of a child as if they were all RAM of a guest, from address 0 on."""
    process = Process(str(child.pid), child.path)
    source = LiveSource(process)
    with LivePages(source, options) as found:
        for mapping in process.mappings():
            low, high = max(mapping.start, first * PAGE), min(mapping.end, (first + pages) * PAGE)
            if low < high:
                found.add(mapping, low, high, low - first * PAGE)
    with StoredImage("guest", source, found.runs, found.extents) as image:
        return read_image(image), found


@pytest.fixture
def file_in_memory() -> Iterator[Path]:
    path = Path(f"/dev/shm/hvshare-test-{os.getpid()}")  # noqa: S108
    if not path.parent.is_dir():
        pytest.skip("no file system in memory is mounted at /dev/shm")
    yield path
    path.unlink(missing_ok=True)


@pytest.mark.parametrize("kind", ["shared", "private"])
def test_guest_memory_in_a_file(child: Child, file_in_memory: Path, kind: str) -> None:
    """What another process wrote is not in the page table of this one; holes stay holes."""
    if kind == "shared" and os.geteuid():
        pytest.skip("needs root, to open the file of another process")
    contents = {number: content(number + 1) for number in (0, 1, 5, 9, 12)}
    with file_in_memory.open("wb") as file:
        for number, page in contents.items():
            os.pwrite(file.fileno(), page, number * PAGE)
        os.ftruncate(file.fileno(), 14 * PAGE)
    written = {1: content(77), 7: content(78), 8: ZERO}
    first = child.block(16, written, kind, file_in_memory)
    child.ask("read", (first + 9) * PAGE)
    before = file_in_memory.stat().st_blocks
    found, pages = _read_guest(child, first, 16, ReadingOptions())
    assert file_in_memory.stat().st_blocks == before
    expected = contents | written
    kinds = {number: RunKind.PRESENT if number in expected else RunKind.ZERO for number in range(14)}
    assert found.kinds == kinds | {14: RunKind.ABSENT, 15: RunKind.ABSENT}  # behind the end of the file
    assert found.memory == {
        number: expected.get(number, ZERO) if number < 14 else None for number in range(16)
    }
    assert (pages.swapped, pages.unseen) == (0, 0)


@pytest.mark.parametrize("kind", ["shared", "private"])
def test_file_that_may_not_be_opened(
    child: Child, file_in_memory: Path, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is not in the page table may be in the file, so it is absent and not zero."""
    monkeypatch.setattr("hvshare.images.live.memory.open_backing", lambda *_: None)
    write_raw(file_in_memory, [content(number + 1) for number in range(8)])
    first = child.block(8, {2: content(50)}, kind, file_in_memory)
    found, pages = _read_guest(child, first, 8, ReadingOptions())
    assert found.memory[2] == content(50)
    absent = {number for number, each in found.kinds.items() if each == RunKind.ABSENT}
    assert pages.unseen == len(absent)
    assert absent
    assert all(found.memory[number] == content(number + 1) for number in set(range(8)) - absent - {2})


@needs_swap
@pytest.mark.parametrize("kind", ["shared", "private"])
def test_swapped_pages_of_a_file_in_memory(child: Child, file_in_memory: Path, kind: str) -> None:
    contents = [content(number + 1) for number in range(64)]
    write_raw(file_in_memory, contents)
    first = child.block(64, dict(enumerate(contents)), kind, file_in_memory)
    with file_in_memory.open("r+b") as file, mmap.mmap(file.fileno(), 0) as window:
        assert child.ask("pageout", first * PAGE, 64) == 0
        window.madvise(21)  # MADV_PAGEOUT
    before = file_in_memory.stat().st_blocks
    found, pages = _read_guest(child, first, 64, ReadingOptions())
    # Those of shared memory stay in the cache of the swap until memory is scarce, and count as in memory.
    assert pages.swapped > 0 or kind == "shared"
    assert list(found.kinds.values()).count(RunKind.ABSENT) == pages.swapped
    assert all(page in {None, contents[number]} for number, page in found.memory.items())
    assert file_in_memory.stat().st_blocks == before
    found, _ = _read_guest(child, first, 64, ReadingOptions(read_swapped=True))
    assert list(found.memory.values()) == contents


def test_a_stopped_process_is_told_from_one_that_runs(child: Child) -> None:
    with hvshare.open_image(child.path) as image:
        (caveat,) = (each for each in image.caveats if each.code == "not-paused")
        assert f"kill -STOP {child.pid}" in caveat.advice
        assert image.finish() == []  # it was told
    child.stop()
    with hvshare.open_image(child.path) as image:
        assert "not-paused" not in {each.code for each in image.caveats}
        os.kill(child.pid, signal.SIGCONT)
        child.ask("read", child.block(1, {0: content(1)}) * PAGE)
        assert [each.code for each in image.finish()] == ["not-paused"]


AT_ONCE = pytest.mark.parametrize("at_once", [2, 16])
"""Pages that are read in one way or in another."""


@AT_ONCE
@pytest.mark.parametrize("shown", [False, True])
def test_pages_that_the_process_may_not_read(
    child: Child, at_once: int, shown: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    contents = [content(number + 1) for number in range(40)]
    first = child.block(40, dict(enumerate(contents)))
    assert child.ask("protect", first * PAGE, 40) == 0
    with hvshare.open_image(child.path) as image:
        hidden = image.runs is None or image.runs.present_below(first + 40) == image.runs.present_below(first)
    if not shown:
        monkeypatch.setattr(LiveSource, "shows", lambda *_: False)
    elif hidden:
        pytest.skip("this kernel does not let them be read (proc_mem.force_override)")
    with hvshare.open_image(child.path) as image:
        found = read_image(image, at_once)
    assert [found.memory[first + number] for number in range(40)] == (contents if shown else [None] * 40)
    assert ("forbidden-pages" in found.caveats) != shown


@AT_ONCE
@pytest.mark.parametrize("buried", [False, True])
def test_process_that_ends_while_it_is_read(child: Child, buried: bool, at_once: int) -> None:
    first = child.block(64, {number: content(number + 1) for number in range(64)})
    end = child.bury if buried else child.kill
    with hvshare.open_image(child.path) as image:
        blocks = image.blocks(memoryview(bytearray(at_once * PAGE)), (first, first + 64))
        next(blocks)
        end()
        with pytest.raises(ImageChangedError, match="the process has ended") as caught:
            list(blocks)
        assert caught.value.path == child.path
        assert caught.value.advice
        with pytest.raises(ImageChangedError, match="the process has ended"):
            image.finish()
    with pytest.raises((ImageChangedError, UnreadableImageError)):
        hvshare.open_image(child.path)


@AT_ONCE
def test_memory_that_goes_away_while_it_is_read(child: Child, at_once: int) -> None:
    first = child.block(64, {number: content(number + 1) for number in range(64)})
    with hvshare.open_image(child.path) as image:
        blocks = image.blocks(memoryview(bytearray(at_once * PAGE)), (first, first + 64))
        next(blocks)
        child.ask("unmap", first * PAGE, 64)
        with pytest.raises(ImageChangedError, match="went away") as caught:
            list(blocks)
    assert caught.value.offset == (first + at_once) * PAGE


@pytest.mark.parametrize("kind", ["qemu", "pid"])
def test_no_such_process(kind: str) -> None:
    with pytest.raises(UnreadableImageError, match="no such process") as caught:
        hvshare.open_image(f"{kind}:4194305")  # more than any kernel gives out
    assert caught.value.path == f"{kind}:4194305"


def test_no_qemu(child: Child) -> None:
    with pytest.raises(UnsupportedImageError, match="no qemu-system program") as caught:
        hvshare.open_image(f"qemu:{child.pid}")
    assert f"pid:{child.pid}" in caught.value.advice


@pytest.mark.skipif(os.geteuid() != 0, reason="needs a thread of the kernel that root may read")
def test_thread_of_the_kernel() -> None:
    if Path("/proc/2/maps").read_bytes() if Path("/proc/2/maps").exists() else True:
        pytest.skip("process 2 is no thread of the kernel here")
    with pytest.raises(EmptyImageError, match="no private memory"):
        hvshare.open_image("pid:2")


def test_no_permission(child: Child) -> None:
    if os.geteuid():
        pytest.skip("needs root, to become another user")
    pid = os.fork()
    if not pid:
        status = 1
        try:
            # Only now, as the interpreter may lie where other users may not go.
            with contextlib.suppress(PermissionError):
                os.seteuid(65534)
            hvshare.open_image(child.path)
        except UnreadableImageError as error:
            status = 0 if "no permission" in str(error) and "CAP_SYS_PTRACE" in error.advice else 2
        finally:
            os._exit(status)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0


def test_a_file_of_that_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_raw(tmp_path / "qemu:1", [content(4)])
    monkeypatch.chdir(tmp_path)
    with hvshare.open_image("./qemu:1") as image:
        assert (image.format, read_image(image).memory) == ("raw", {0: content(4)})


def test_one_process_given_twice(child: Child) -> None:
    child.stop()
    images = hvshare.open_images([child.path, child.path])
    try:
        codes = [{each.code for each in image.caveats} for image in images]
        assert codes[1] - codes[0] == {"same-image-twice"}
    finally:
        for image in images:
            image.close()


def test_nothing_stays_open(child: Child) -> None:
    before = len([*Path("/proc/self/fd").iterdir()])
    for path in (child.path, f"qemu:{child.pid}", "pid:4194305"):
        with contextlib.suppress(UnsupportedImageError, UnreadableImageError):
            hvshare.open_image(path).close()
    assert len([*Path("/proc/self/fd").iterdir()]) == before


# What the kernel says of pages ----------


@given(st.lists(st.tuples(st.integers(0, 63), st.integers(0, (1 << 55) - 1)), max_size=40))
def test_pagemap_words(words: list[tuple[int, int]]) -> None:
    """Against the bits as the documentation names them, one by one."""

    def state(flags: int) -> PageState:
        present, swapped, file, guard = (flags >> bit & 1 for bit in (5, 4, 3, 0))
        if present:
            return PageState.FILE if file else PageState.OWN
        if guard:
            return PageState.GUARD
        return PageState.SWAPPED if swapped else PageState.NOTHING

    packed = np.array([flags << 58 | low for flags, low in words], np.uint64)
    assert decode(packed).tolist() == [state(flags) for flags, _ in words]


class _FakeProcess:
    """A process whose pagemap is a file, so that its pages can be swapped."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def open(self, _name: str) -> int:
        return os.open(self._path, os.O_RDONLY)

    def ended(self) -> ImageChangedError:
        return ImageChangedError("the process has ended")


def test_pagemap_in_windows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hvshare.images.live.pagemap._WINDOW_PAGES", 4)
    words = [1 << 63, 1 << 63, 0, 1 << 62, 1 << 62, 5 << 61, 0, 0, 0, 0, 0, 0, 1 << 63]
    path = tmp_path / "pagemap"
    path.write_bytes(np.array(words, np.uint64).tobytes())
    pagemap = Pagemap(_FakeProcess(path))  # type: ignore[arg-type]
    found = [(low // PAGE, high // PAGE, state) for low, high, state in pagemap.ranges(PAGE, 13 * PAGE)]
    states = {at: state for low, high, state in found for at in range(low, high)}
    assert [found[0][0], *(high for _, high, _ in found)] == [low for low, _, _ in found] + [13]
    assert [states[at] for at in range(1, 13)] == decode(np.array(words[1:], np.uint64)).tolist()
    with pytest.raises(ImageChangedError):
        list(pagemap.ranges(0, 20 * PAGE))
    pagemap.close()


def test_page_that_only_moves_is_not_swapped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "pagemap"
    path.write_bytes(np.array([1 << 62, 1 << 62], np.uint64).tobytes())

    def move(_seconds: float) -> None:
        path.write_bytes(np.array([1 << 62, 1 << 63], np.uint64).tobytes())

    monkeypatch.setattr("hvshare.images.live.pagemap.time.sleep", move)
    pagemap = Pagemap(_FakeProcess(path))  # type: ignore[arg-type]
    assert [each.state for each in pagemap.ranges(0, 2 * PAGE)] == [PageState.SWAPPED, PageState.OWN]
    pagemap.close()


@settings(max_examples=40)
@given(st.sets(st.integers(0, 30)), st.integers(0, 34), st.integers(1, 40), st.booleans())
def test_parts_of_a_file(data: set[int], first: int, pages: int, in_memory: bool) -> None:
    fd = os.memfd_create("guest") if in_memory else os.open("/tmp", os.O_TMPFILE | os.O_RDWR)  # noqa: S108
    os.ftruncate(fd, 31 * PAGE)
    for page in data:
        os.pwrite(fd, b"x", page * PAGE + page)
    file = BackingFile(fd)
    kinds: dict[int, RunKind] = {}
    at = first * PAGE
    for part in file.parts(first * PAGE, (first + pages) * PAGE):
        assert part.start == at < part.end
        assert not part.swapped
        kinds |= dict.fromkeys(range(part.start // PAGE, part.end // PAGE), part.kind)
        at = part.end
    assert at == (first + pages) * PAGE
    file.close()
    for page, kind in kinds.items():
        if page > 30:
            assert kind == RunKind.ABSENT
        elif page in data:
            assert kind == RunKind.PRESENT
        elif in_memory:  # another file system may have larger blocks
            assert kind == RunKind.ZERO


def test_resident_pages_of_a_file_in_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    """With swap on the host, the pages of such a file are asked for, and are in memory here."""
    monkeypatch.setattr("hvshare.images.live.backing_files._host_swaps", lambda: True)
    monkeypatch.setattr("hvshare.images.live.backing_files._WINDOW", 2 * PAGE)
    fd = os.memfd_create("guest")
    os.pwrite(fd, b"x" * (5 * PAGE), PAGE)
    os.ftruncate(fd, 7 * PAGE + 100)
    file = BackingFile(fd)
    parts = [
        (each.start // PAGE, each.end // PAGE, each.kind, each.swapped) for each in file.parts(0, 8 * PAGE)
    ]
    assert [each for each in parts if each[2] != RunKind.PRESENT] == [
        (0, 1, RunKind.ZERO, False),
        (6, 8, RunKind.ZERO, False),
    ]
    assert sum(high - low for low, high, kind, _ in parts if kind == RunKind.PRESENT) == 5
    assert not any(swapped for *_, swapped in parts)
    monkeypatch.setattr(
        "hvshare.images.live.backing_files._resident",
        lambda _fd, at, size: np.array([at < 3 * PAGE] * (size // PAGE)),
    )
    swapped = [each for each in file.parts(0, 6 * PAGE) if each.swapped]
    assert [(each.start // PAGE, each.end // PAGE) for each in swapped] == [(3, 5), (5, 6)]
    file.close()


# Which mapping is the guest's RAM ----------

MIB = 1 << 20


@pytest.mark.parametrize(
    ("options", "machine", "backends"),
    [
        ([], "pc", [("ram", 128 * MIB, False)]),
        (["-m", "64"], "pc", [("ram", 64 * MIB, False)]),
        (["--m", "size=0.5G,slots=2,maxmem=8G"], "pc", [("ram", 512 * MIB, False)]),
        (["-m", "1G,slots=2", "-m", "maxmem=4G"], "pc", [("ram", 1024 * MIB, False)]),
        (["-m", "65536k", "-machine", "accel=tcg", "-M", "type=q35"], "q35", [("ram", 64 * MIB, False)]),
        (["-m", "1023b"], "pc", [("ram", 8192, False)]),
        (["-M", "pc-q35-7.2,memory.size=64M"], "pc-q35-7.2", [("ram", 64 * MIB, False)]),
        (["-m", "64", "-mem-path", "/dev/hugepages"], "pc", [("file", 64 * MIB, False)]),
        (
            ["-machine", "q35,memory-backend=m", "-object", "memory-backend-memfd,id=m,size=64M"],
            "q35",
            [("memfd", 64 * MIB, True)],
        ),
        (
            [
                "-machine",
                "pc-i440fx-6.2,usb=off,memory-backend=pc.ram",
                "-object",
                '{"qom-type":"memory-backend-file","id":"pc.ram","mem-path":"/a,b","share":true,"size":67108864}',
                "-object",
                "{not json",
            ],
            "pc-i440fx-6.2",
            [("file", 64 * MIB, True)],
        ),
        (
            [
                *(
                    "-object",
                    "memory-backend-ram,id=b,size=32M",
                    "-object",
                    "memory-backend-ram,id=a,size=16M",
                ),
                *(
                    "-numa",
                    "node,nodeid=1,memdev=b",
                    "-numa",
                    "node,nodeid=0,memdev=a",
                    "-numa",
                    "cpu,node-id=0",
                ),
            ],
            "pc",
            [("ram", 16 * MIB, False), ("ram", 32 * MIB, False)],
        ),
    ],
)
def test_command_lines(options: list[str], machine: str, backends: list[tuple[str, int, bool]]) -> None:
    command = parse_command("/usr/bin/qemu-system-x86_64", ["qemu-system-x86_64", *options], "qemu:1")
    assert command.machine == machine
    assert [(each.kind, each.size, each.shared) for each in command.backends] == backends
    assert command.ram_bytes == sum(size for _, size, _ in backends)


@pytest.mark.parametrize(
    "options",
    [
        ["-m", "lots"],
        ["-m", "64M2"],
        ["-machine", "pc,memory-backend=none"],
        ["-machine", "pc,memory-backend=m", "-object", "memory-backend-ram,id=m"],
        ["-machine", "pc,memory-backend=m", "-object", "memory-backend-epc,id=m,size=1M"],
        ["-numa", "node,memdev=m"],
        ["-numa", "node,nodeid=x,memdev=m"],
    ],
)
def test_command_lines_that_are_not_understood(options: list[str]) -> None:
    with pytest.raises(UnsupportedImageError, match="command line gives memory") as caught:
        parse_command("/usr/bin/qemu-system-x86_64", ["qemu-system-x86_64", *options], "qemu:17")
    assert "pid:17" in caught.value.advice


def test_what_else_a_command_line_tells() -> None:
    arguments = [
        *("/usr/libexec/qemu-kvm", "-name", "guest=it's mine,debug-threads=on", "-S"),
        *("-object", '{"qom-type":"secret","id":"masterKey0","file":"/var/lib/libvirt/qemu/key"}'),
        *("-m", "1024", "-object", "memory-backend-ram,id=dimm,size=256M", "-device", "pc-dimm,memdev=dimm"),
        *("-machine", "pc,max-ram-below-4g=1G"),
    ]
    command = parse_command("", arguments, "qemu:1")
    assert (command.program, command.guest, command.low_ram) == ("qemu-kvm", "it's mine", "1G")
    assert command.device_bytes == 256 * MIB
    assert _pause_command(command).startswith("""virsh suspend 'it'"'"'s mine',""")
    assert "stop in QEMU's monitor" in _pause_command(command._replace(by_libvirt=False))
    assert parse_command("/a/qemu-system-aarch64", ["q"], "").machine is None
    assert parse_command("/bin/wrapped", ["/usr/bin/kvm"], "").program == "kvm"


def _backend(
    size: int = 64 * MIB,
    kind: str = "ram",
    shared: bool = False,
    path: str = "",
    name: str = "m",
    number: int = 0,
) -> Backend:
    return Backend(name, number, kind, size, shared, path)


def _maps(*lines: tuple[int, int, str]) -> bytes:
    """Lines of a maps file: address and size in MiB (or pages, below zero), and the rest."""
    return b"".join(
        f"{at * MIB:x}-{at * MIB + (size * MIB if size > 0 else -size * PAGE):x} {rest}\n".encode()
        for at, size, rest in lines
    )


def _found(backends: Sequence[Backend], *lines: tuple[int, int, str]) -> list[int]:
    found = find_ram(backends, parse_maps(_maps(*lines)), "qemu:9")
    assert [each.size for each in found.blocks] == [each.size for each in backends]
    return [each.start // MIB for each in found.blocks]


ANON, GUARD = "rw-p 00000000 00:00 0", "---p 00000000 00:00 0"


def test_ram_is_found_by_its_size() -> None:
    others = [
        (2, 16, ANON),
        (40, -1, GUARD),
        (200, 1023, "rwxp 00000000 00:00 0"),
        (1300, 64, "r--p 0 00:00 0"),
    ]
    assert _found([_backend()], (100, 64, ANON), (164, -1, GUARD), *others) == [100]


def test_ram_that_is_split_is_joined() -> None:
    assert _found(
        [_backend()], (90, 8, "rw-p 0 00:00 0 [heap]"), (100, 20, ANON), (120, 44, ANON), (164, -1, GUARD)
    ) == [100]


def test_ram_that_is_joined_with_memory_before_it() -> None:
    assert _found([_backend()], (90, 74, ANON), (164, -1, GUARD)) == [100]
    with pytest.raises(UnsupportedImageError, match="no mapping of the process is of that size"):
        _found([_backend()], (90, 74, ANON))


def test_ram_in_files() -> None:
    memfd = "rw-s 00000000 00:01 {} /memfd:memory-backend-memfd (deleted)"
    shared = _backend(kind="memfd", shared=True)
    assert _found([shared], (100, 64, ANON), (200, 64, memfd.format(7)), (300, 64, memfd.format(7))) == [200]
    file = _backend(kind="file", shared=True, path="/mem/web")
    assert _found([file], (100, 64, "rw-s 0 00:01 9 /mem/web"), (200, 64, memfd.format(7))) == [100]
    # A folder of huge pages: sizes are rounded up, and names tell which is which.
    huge = "rw-p 00000000 00:0f {} /huge/qemu_back_mem._objects_node{}.a1B2c3 (deleted)"
    nodes = [_backend(63 * MIB, "file", False, "/huge/", f"node{number}") for number in (0, 1)]
    lines = [(100, 64, huge.format(5, 1)), (200, 64, huge.format(6, 0))]
    assert _found(nodes, *lines) == [200, 100]
    assert not find_ram(nodes, parse_maps(_maps(*lines)), "").order_inferred
    # A relative name, or one through a link, is not that of the mapping.
    assert _found([_backend(kind="file", path="web")], (100, 64, "rw-p 0 00:01 9 /mem/web")) == [100]


def test_equal_parts_are_told_by_their_order() -> None:
    """QEMU makes them in the order of its command line, and the kernel gives out addresses downwards."""
    backends = [_backend(number=2), _backend(32 * MIB, number=1), _backend(number=0)]
    mappings = parse_maps(_maps((100, 64, ANON), (200, 64, ANON), (300, 32, ANON)))
    found = find_ram(backends, mappings, "")
    assert [each.start // MIB for each in found.blocks] == [100, 300, 200]
    assert found.order_inferred


def test_two_mappings_that_could_be_the_ram() -> None:
    with pytest.raises(UnsupportedImageError, match="2 mappings of the process could be that") as caught:
        _found([_backend()], (100, 64, ANON), (200, 64, ANON))
    assert caught.value.path == "qemu:9"
    assert "pid:9" in caught.value.advice


@given(st.lists(st.lists(st.integers(1, 5), min_size=1, max_size=3), min_size=1, max_size=4), st.data())
def test_pieces_of_ram(shapes: list[list[int]], data: st.DataObject) -> None:
    """Blocks of mappings of so many pages each, against a list of all their pages."""
    blocks: list[RamBlock] = []
    pages: list[int] = []
    at = 0
    for shape in shapes:
        start, lines = at + 7, ""
        at = start
        for size in shape:
            lines += f"{at * PAGE:x}-{(at + size) * PAGE:x} rw-p 0 00:00 0\n"
            at += size
        # The last mapping may go on behind the block.
        blocks.append(RamBlock(start * PAGE, (at - start) * PAGE, tuple(parse_maps(lines.encode()))))
        pages += range(start, at)
    first = data.draw(st.integers(0, len(pages) - 1))
    count = data.draw(st.integers(1, len(pages) - first))
    found = [
        page
        for mapping, low, high in _pieces(blocks, first * PAGE, count * PAGE)
        for page in range(low // PAGE, high // PAGE)
        if mapping.start <= low < high <= mapping.end
    ]
    assert found == pages[first : first + count]


# Who may read, and what runs ----------


@pytest.mark.parametrize(
    ("uid", "own", "capable", "scope", "words"),
    [
        (64055, 1000, False, 0, ["user 64055", "1000", "CAP_SYS_PTRACE"]),
        (0, 1000, False, 1, ["user root (0)", "CAP_SYS_PTRACE"]),
        (1000, 1000, False, 2, ["kernel.yama.ptrace_scope is 2", "CAP_SYS_PTRACE"]),
        (1000, 0, True, 3, ["kernel.yama.ptrace_scope is 3", "take a dump"]),
        (1000, 0, True, 1, ["container", "SELinux"]),
        (1000, 1000, False, 0, ["PR_SET_DUMPABLE", "CAP_SYS_PTRACE"]),
    ],
)
def test_missing_rights(uid: int, own: int, capable: bool, scope: int, words: list[str]) -> None:
    advice = process_rights.advise(uid, own, capable=capable, ptrace_scope=scope)
    for word in words:
        assert word in advice


@pytest.mark.parametrize(
    ("before", "after", "code"),
    [
        # A virtual processor that took time, whatever else did.
        ([("CPU 0/KVM", "S", 5), ("qemu", "S", 1)], [("CPU 0/KVM", "S", 6), ("qemu", "S", 1)], "not-paused"),
        ([("CPU 0/KVM", "S", 5), ("qemu", "S", 1)], [("CPU 0/KVM", "S", 5), ("qemu", "S", 9)], None),
        # Its time is counted late, but it runs now.
        ([("CPU 0/TCG", "S", 5)], [("CPU 0/TCG", "R", 5)], "not-paused"),
        ([("CPU 0/TCG", "T", None)], [("CPU 0/TCG", "T", None)], None),
        ([("CPU 0/TCG", "R", 1)], [("CPU 0/TCG", "T", 2)], "not-paused"),
        # Without names, or without a clock, nobody knows.
        ([("qemu", "S", 5), ("qemu", "S", 7)], [("qemu", "S", 5), ("qemu", "S", 8)], "pause-unknown"),
        ([("qemu", "S", 5), ("qemu", "S", 7)], [("qemu", "S", 5), ("qemu", "S", 7)], None),
        ([("CPU 0/KVM", "S", None)], [("CPU 0/KVM", "S", None)], "pause-unknown"),
        ([("CPU 0/KVM", "S", 3)], [("CPU 0/KVM", "S", 3), ("CPU 1/KVM", "S", 3)], "pause-unknown"),
    ],
)
def test_what_runs(
    before: list[tuple[str, str, int | None]], after: list[tuple[str, str, int | None]], code: str | None
) -> None:
    threads = [{str(number): Thread(*each) for number, each in enumerate(some)} for some in (before, after)]
    found = running_guest(*threads)
    assert (found and found.code) == code

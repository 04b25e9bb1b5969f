"""What every format is put through: written by a small writer of the tests, read back, cut, and flipped."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
from hypothesis import strategies as st

import hvshare
from hvshare.errors import DamagedImageError, HvshareError, ImageError
from hvshare.images.image import GuestImage
from hvshare.images.options import ReadingOptions
from hvshare.images.runs import RunKind
from tests.guests import ZERO, content
from tests.oracle import PAGE

_MOST_LISTED = 1 << 14

Memory = Mapping[int, bytes | None]
"""Pages by guest frame number; None for those that the image does not hold. Others are no memory."""


@dataclass(frozen=True)
class ReadBack:
    """What an image turned out to hold.

    Attributes
    ----------
    memory : mapping
        Its pages, of PRESENT and ZERO runs as bytes, of ABSENT runs as None.
    kinds : mapping of int to RunKind
        By guest frame number.
    caveats : frozenset of str
        The codes of its caveats.
    unlisted : Counter of RunKind
        How many pages are not in `memory`, because their runs are too long to list and hold no bytes.
    """

    memory: dict[int, bytes | None]
    kinds: dict[int, RunKind]
    caveats: frozenset[str]
    unlisted: Counter[RunKind]

    @property
    def contents(self) -> Counter[bytes | RunKind | None]:
        """How often each content occurs, wherever it is, with None for absent pages."""
        return Counter[bytes | RunKind | None](self.memory.values()) + Counter(self.unlisted)


def read_image(image: GuestImage, block_pages: int = 3) -> ReadBack:
    """Read an image to its end."""
    buffer = memoryview(bytearray(block_pages * PAGE))
    present = b"".join(bytes(buffer[: block.pages * PAGE]) for block in image.blocks(buffer))
    runs = image.runs or image.streamed_runs
    assert runs is not None
    memory: dict[int, bytes | None] = {}
    kinds = {}
    unlisted: Counter[RunKind] = Counter()
    at = 0
    for run in runs:
        if run.kind != RunKind.PRESENT and run.pages > _MOST_LISTED:
            unlisted[run.kind] += run.pages
            continue
        for gfn in range(run.first_gfn, run.end_gfn):
            kinds[gfn] = run.kind
            memory[gfn] = ZERO if run.kind == RunKind.ZERO else None
            if run.kind == RunKind.PRESENT:
                memory[gfn] = present[at : at + PAGE]
                at += PAGE
    assert at == len(present)
    caveats = frozenset(each.code for each in (*image.caveats, *image.finish()))
    return ReadBack(memory, kinds, caveats, unlisted)


def read_back(
    path: Path, options: ReadingOptions = ReadingOptions(), *, as_stream: bool = False, block_pages: int = 3
) -> ReadBack:
    """Open a file, or a pipe that gives its bytes, and read it to its end."""
    if not as_stream:
        with hvshare.open_image(str(path), options=options) as image:
            return read_image(image, block_pages)
    with piped(path.read_bytes()) as name, hvshare.open_image(name, options=options) as image:
        return read_image(image, block_pages)


@contextmanager
def piped(data: bytes) -> Iterator[str]:
    """Give the name of a pipe that another process writes some bytes to."""
    read_end, write_end = os.pipe()
    pid = os.fork()
    if not pid:
        os.close(read_end)
        try:
            while data:
                data = data[os.write(write_end, data) :]
        finally:
            os._exit(0)
    os.close(write_end)
    try:
        yield f"/dev/fd/{read_end}"
    finally:
        os.close(read_end)
        os.waitpid(pid, 0)


@contextmanager
def counted_reads() -> Iterator[list[int]]:
    """Give a list that receives how many bytes each read of a file takes, while the block runs."""
    counts: list[int] = []
    preadv = os.preadv

    def counted(descriptor: int, buffers: list[memoryview], offset: int) -> int:
        counts.append(preadv(descriptor, buffers, offset))
        return counts[-1]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "preadv", counted)
        yield counts


page_contents = st.one_of(st.just(0), st.integers(1, 6), st.integers(7, 250)).map(content)


def memories(*, absent: bool = False, most_pages: int = 24) -> st.SearchStrategy[dict[int, bytes | None]]:
    """Memory with gaps that are no memory, and, on request, pages that the image does not hold."""
    contents = st.one_of(page_contents, st.none()) if absent else page_contents
    return st.dictionaries(st.integers(0, 40), contents, min_size=1, max_size=most_pages).filter(
        lambda memory: any(page is not None for page in memory.values())
    )


def stretches(memory: Mapping[int, bytes]) -> list[tuple[int, bytes]]:
    """Join pages that follow each other: first guest frame number, and the bytes."""
    joined: list[tuple[int, bytes]] = []
    for gfn, page in sorted(memory.items()):
        if joined and joined[-1][0] + len(joined[-1][1]) // PAGE == gfn:
            joined[-1] = (joined[-1][0], joined[-1][1] + page)
        else:
            joined.append((gfn, page))
    return joined


def telling_lengths(size: int) -> list[int]:
    """Give the lengths to which a file is cut.

    All of them close to its start, its end and each start of a page, where headers and tables stand, and one
    in eleven amid contents, where one length is like another.
    """
    near = {edge + step for edge in range(0, size + PAGE, PAGE) for step in range(-40, 41)}
    lengths = {*range(512), *range(0, size, 11), *range(size - 40, size), *near}
    return sorted(length for length in lengths if 0 <= length < size)


def check_cut_anywhere(
    path: Path, lengths: Iterable[int] | None = None, read: Callable[[Path], ReadBack] = read_back
) -> None:
    """Cut a file at many lengths: a typed error that names it, or the same contents, or a new caveat."""
    whole = read(path)
    for length in sorted(telling_lengths(path.stat().st_size) if lengths is None else lengths, reverse=True):
        os.truncate(path, length)
        _check_told(path, whole, read, f"cut to {length} bytes")


def check_flipped(
    path: Path,
    offsets: Iterable[int],
    read: Callable[[Path], ReadBack] = read_back,
    *,
    moves: Callable[[int], bool] = lambda _offset: False,
) -> None:
    """Change header bytes one at a time: a typed error, or the same contents, or a new caveat.

    Where `moves` says so, a byte is part of what nothing else in the format can contradict, such as the
    address of a range: then contents may move or change, but reading must end well or with a typed error.
    """
    whole = read(path)
    with path.open("r+b", buffering=0) as file:
        for offset in offsets:
            was = os.pread(file.fileno(), 1, offset)[0]
            for value in {was ^ 0xFF, was ^ 0x01, was ^ 0x80, 0} - {was}:
                os.pwrite(file.fileno(), bytes([value]), offset)
                _check_told(path, whole, read, f"byte {offset} made {value:#x}", may_differ=moves(offset))
            os.pwrite(file.fileno(), bytes([was]), offset)


def _check_told(
    path: Path, whole: ReadBack, read: Callable[[Path], ReadBack], what: str, *, may_differ: bool = False
) -> None:
    error: HvshareError | None = None
    try:
        found = read(path)
    except HvshareError as caught:
        error = caught
    if error is None:
        assert may_differ or found.contents == whole.contents or found.caveats - whole.caveats, what
        return
    assert isinstance(error, ImageError), (what, error)
    assert error.path, (what, error)
    assert not isinstance(error, DamagedImageError) or error.offset is not None or error.advice, (what, error)

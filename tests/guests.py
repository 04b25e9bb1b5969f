"""Guests made to order for tests: page contents, images of them in memory and in files."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path

from hypothesis import strategies as st

from hvshare.caveats import Caveat
from hvshare.images.image import GuestImage, PageBlock
from hvshare.images.runs import RunKind, Runs
from tests.oracle import PAGE, Vm

ZERO = bytes(PAGE)


def content(number: int) -> bytes:
    """Give a page for a number: zero for 0, and others that differ from it in one byte or in all."""
    if number == 0:
        return ZERO
    if number % 3 == 0:
        return bytes(PAGE - 1) + bytes([number])
    if number % 3 == 1:
        return bytes([number]) * PAGE
    return number.to_bytes(8, "little") + bytes(PAGE - 8)


page_numbers = st.one_of(st.just(0), st.integers(1, 6), st.integers(7, 250))
full_vms = st.lists(page_numbers.map(content), min_size=1, max_size=40)
"""Guests all of whose pages are in the image."""

vms_with_gaps = st.lists(st.one_of(page_numbers.map(content), st.none()), min_size=1, max_size=40).filter(
    lambda pages: any(page is not None for page in pages)
)
"""Guests of which some pages are absent."""


class MemoryImage(GuestImage):
    """A guest image out of a list of pages, with every kind of run."""

    format = "memory"

    def __init__(self, name: str, pages: Vm, *, zero_runs: bool = False, gaps: bool = False) -> None:
        super().__init__(name, f"/{name}")
        self._pages = pages
        runs = Runs()
        for gfn, page in enumerate(pages):
            if page is None:
                if not gaps:
                    runs.append(gfn, 1, RunKind.ABSENT)
            else:
                runs.append(gfn, 1, RunKind.ZERO if zero_runs and page == ZERO else RunKind.PRESENT)
        self.runs: Runs = runs
        self.source_bytes = runs.pages_of(RunKind.PRESENT) * PAGE

    def blocks(self, buffer: memoryview, span: tuple[int, int] | None = None) -> Iterator[PageBlock]:
        low, high = span or (0, self.runs.end_gfn)
        for run in self.runs.within(low, high):
            if run.kind == RunKind.PRESENT:
                step = len(buffer) // PAGE
                for gfn in range(run.first_gfn, run.end_gfn, step):
                    pages = self._pages[gfn : min(gfn + step, run.end_gfn)]
                    data = b"".join(page for page in pages if page is not None)
                    buffer[: len(data)] = data
                    yield PageBlock(gfn, len(pages), len(data))

    def finish(self) -> list[Caveat]:
        return []

    def close(self) -> None:
        pass


def write_raw(path: Path, pages: Sequence[bytes]) -> Path:
    """Write pages to a raw image."""
    path.write_bytes(b"".join(pages))
    return path


def write_sparse(path: Path, size: int, parts: dict[int, bytes]) -> Path:
    """Write a sparse file with data at some offsets."""
    with path.open("wb") as file:
        for offset, data in parts.items():
            file.seek(offset)
            file.write(data)
        file.truncate(size)
    return path


def supports_holes(folder: Path) -> bool:
    """Whether the file system under a folder tells holes."""
    probe = write_sparse(folder / "holes.probe", 16 << 20, {8 << 20: b"x"})
    descriptor = os.open(probe, os.O_RDONLY)
    try:
        return os.lseek(descriptor, 0, os.SEEK_DATA) > 0
    finally:
        os.close(descriptor)
        probe.unlink()

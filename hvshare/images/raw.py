"""Raw images: byte N of the file is byte N of guest-physical memory.

What QEMU's ``pmemsave`` writes from address 0, what ``memory-backend-file`` maps, and what any dump tool
calls raw or padded. Holes of a sparse file read as zeros, by definition of POSIX, and are not read here.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from hvshare.caveats import Caveat
from hvshare.errors import EmptyImageError, UnsupportedImageError
from hvshare.images.image import GuestImage, PageBlock
from hvshare.images.runs import RunKind, Runs
from hvshare.images.sparse import data_extents
from hvshare.images.streams import fill
from hvshare.units import PAGE_SIZE, format_size

if TYPE_CHECKING:
    from collections.abc import Iterator

    from hvshare.images.opening import Opening
    from hvshare.images.source import Source

LAYOUT: Final = "byte N is guest physical address N"


def read_raw(opening: Opening) -> GuestImage:
    """Take an input as a raw image; see `hvshare.images.formats.Format.read`."""
    holes = opening.options.holes
    image: GuestImage
    if opening.is_positioned:
        image = RawImage(opening.name, opening.source, holes)
    else:
        image = StreamedRawImage(opening)
    if holes != RunKind.ZERO and (opening.compression or opening.source.allocated_bytes is None):
        image.caveats.append(
            Caveat(
                "holes-not-seen",
                "what would be holes in a file are zeros in a stream or device, and count as zero pages",
                "name the unpacked sparse file, for its holes to count as absent",
                opening.name,
            )
        )
    return image


class RawImage(GuestImage):
    """A raw image that can be read at any position.

    Parameters
    ----------
    name : str
        How reports call it.
    source : Source
        The opened file, of known size.
    holes : RunKind
        What the holes of a sparse file mean: ZERO, or ABSENT for snapshots whose holes are "unchanged".

    Raises
    ------
    EmptyImageError
        If the file is shorter than a page.
    """

    format = "raw"
    layout = LAYOUT

    def __init__(self, name: str, source: Source, holes: RunKind = RunKind.ZERO) -> None:
        super().__init__(name, source.path)
        self._source = source
        pages, tail = divmod(source.end, PAGE_SIZE)
        if not pages:
            raise too_short(tail, source.path)
        if tail:
            self.caveats.append(tail_left_out(tail, name))
        self.runs: Runs = _page_runs(source, pages, holes)
        self.source_bytes: int = self.runs.pages_of(RunKind.PRESENT) * PAGE_SIZE
        if hole_pages := self.runs.pages_of(RunKind.ZERO):
            self.caveats.append(holes_are_zero(hole_pages, name))

    def blocks(self, buffer: memoryview, span: tuple[int, int] | None = None) -> Iterator[PageBlock]:
        """Read the pages that are no holes; see `GuestImage.blocks`."""
        most = len(buffer) // PAGE_SIZE
        low, high = span or (0, self.runs.end_gfn)
        for run in self.runs.within(low, high):
            if run.kind != RunKind.PRESENT:
                continue
            for gfn in range(run.first_gfn, run.end_gfn, most):
                pages = min(most, run.end_gfn - gfn)
                self._source.pread(buffer[: pages * PAGE_SIZE], gfn * PAGE_SIZE)
                yield PageBlock(gfn, pages, pages * PAGE_SIZE)

    def finish(self) -> list[Caveat]:
        """Tell whether the file changed; see `GuestImage.finish`."""
        return self._source.check_unchanged(self.name)

    def close(self) -> None:
        """Let go of the file."""
        self._source.close()


class StreamedRawImage(GuestImage):
    """A raw image that comes from a pipe or out of a compressed stream.

    Parameters
    ----------
    opening : Opening
        What it is read from.
    """

    format = "raw"
    layout = LAYOUT

    def __init__(self, opening: Opening) -> None:
        super().__init__(opening.name, opening.path)
        self._source = opening.source
        self._stream = opening.stream
        self._tail = 0
        self.source_bytes = opening.source.size
        self.can_reread = opening.can_reread

    def blocks(self, buffer: memoryview, span: tuple[int, int] | None = None) -> Iterator[PageBlock]:
        """Read the whole stream; see `GuestImage.blocks`."""
        if span is not None:
            raise ValueError("a stream is read whole")
        stream = self._stream()
        gfn = taken = filled = 0
        self.streamed_runs = Runs()
        while filled := fill(stream, buffer):
            pages, self._tail = divmod(filled, PAGE_SIZE)
            if pages:
                yield PageBlock(gfn, pages, stream.source_bytes - taken)
                taken = stream.source_bytes
                gfn += pages
            if self._tail:
                break
        if not gfn:
            raise too_short(self._tail, self.path)
        self.streamed_runs.append(0, gfn, RunKind.PRESENT)

    def finish(self) -> list[Caveat]:
        """Tell what was left out and whether the file changed; see `GuestImage.finish`."""
        caveats = [tail_left_out(self._tail, self.name)] if self._tail else []
        return caveats + self._source.check_unchanged(self.name)

    def close(self) -> None:
        """Let go of the file."""
        self._source.close()


def _page_runs(source: Source, pages: int, holes: RunKind) -> Runs:
    runs = Runs()
    for start, end in data_extents(source.fd, pages * PAGE_SIZE):
        # An extent of a file system with small blocks may start or end within a page: that page is read.
        first = max(start // PAGE_SIZE, runs.end_gfn)
        if first > runs.end_gfn:
            runs.append(runs.end_gfn, first - runs.end_gfn, holes)
        if (behind := -(-end // PAGE_SIZE)) > first:
            runs.append(first, behind - first, RunKind.PRESENT)
    if pages > runs.end_gfn:
        runs.append(runs.end_gfn, pages - runs.end_gfn, holes)
    if not runs.pages_of(RunKind.PRESENT) and holes == RunKind.ABSENT:
        raise UnsupportedImageError(
            "it is nothing but holes, so with --holes absent there is nothing to measure",
            path=source.path,
            advice="leave --holes at zero, or name the full snapshot",
        )
    return runs


def too_short(size: int, path: str) -> EmptyImageError:
    """Say that an image holds less than one page of bytes."""
    return EmptyImageError(
        f"it holds {size:,} bytes, less than one page of {PAGE_SIZE:,}" if size else "it is empty",
        path=path,
        advice="check how the dump was made",
    )


def tail_left_out(size: int, name: str) -> Caveat:
    """Say that so many bytes behind the last whole page are left out."""
    return Caveat(
        "tail-left-out",
        f"the last {size:,} bytes are no whole page of {PAGE_SIZE:,} and are left out",
        "check that the dump is complete and has no header of its own",
        name,
    )


def holes_are_zero(pages: int, name: str) -> Caveat:
    """Say that so many pages are holes of the file."""
    return Caveat(
        "holes-are-zero",
        f"{format_size(pages * PAGE_SIZE)} are holes of the file and count as zero pages",
        "if holes mean unchanged, as in a differential snapshot, use --holes absent",
        name,
    )

"""Images that store pages as they are, wherever in the file a format puts each."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hvshare.images.image import GuestImage, PageBlock
from hvshare.images.runs import RunKind
from hvshare.images.source import MOST_BUFFERS
from hvshare.units import PAGE_SIZE

if TYPE_CHECKING:
    from collections.abc import Iterator

    from hvshare.caveats import Caveat
    from hvshare.images.extents import Extent, Extents
    from hvshare.images.runs import Runs
    from hvshare.images.source import Positioned, Source


class StoredImage(GuestImage):
    """An image whose PRESENT pages are bytes that can be read at any position.

    Parameters
    ----------
    name : str
        How reports call it.
    source : Source
        The opened file.
    runs : Runs
        What the image knows of each page.
    extents : Extents
        Where the PRESENT pages are.
    data : Positioned, optional
        What `extents` refer to, if that is not the file itself.

    Raises
    ------
    ValueError
        If runs and extents are not of the same number of pages.
    """

    def __init__(
        self, name: str, source: Source, runs: Runs, extents: Extents, data: Positioned | None = None
    ) -> None:
        super().__init__(name, source.path)
        present = runs.pages_of(RunKind.PRESENT)
        if present != extents.pages:
            raise ValueError(f"{extents.pages} pages in extents, {present} in runs")
        self._source = source
        self._data = source if data is None else data
        self._extents = extents
        self.runs: Runs = runs
        self.source_bytes: int = present * PAGE_SIZE

    def blocks(self, buffer: memoryview, span: tuple[int, int] | None = None) -> Iterator[PageBlock]:
        """Read the PRESENT pages; see `GuestImage.blocks`."""
        low, high = span or (0, self.runs.end_gfn)
        position, end = self.runs.present_below(low), self.runs.present_below(high)
        room = len(buffer) // PAGE_SIZE
        gaps: list[memoryview] = []
        filled = 0
        for extent in self._extents.within(position, end):
            taken = 0
            while taken < extent.pages:
                pages = min(extent.pages - taken, room - filled)
                part = buffer[filled * PAGE_SIZE : (filled + pages) * PAGE_SIZE]
                self._read(part, extent, taken, gaps)
                filled += pages
                taken += pages
                if filled == room:
                    yield PageBlock(self.runs.gfn_of(position), filled, filled * PAGE_SIZE)
                    position += filled
                    filled = 0
        if filled:
            yield PageBlock(self.runs.gfn_of(position), filled, filled * PAGE_SIZE)

    def _read(self, part: memoryview, extent: Extent, skipped: int, gaps: list[memoryview]) -> None:
        """Read pages of an extent, which start so many pages into it."""
        pages = len(part) // PAGE_SIZE
        offset = extent.offset + skipped * extent.stride
        if extent.stride == PAGE_SIZE:
            self._data.pread(part, offset)
        elif not extent.stride:
            part[:] = bytes([extent.offset]) * len(part)
        else:
            # What lies between pages is read over, so that one system call fetches many of them.
            if not gaps or len(gaps[0]) != extent.stride - PAGE_SIZE:
                gaps[:] = [memoryview(bytearray(extent.stride - PAGE_SIZE))]
            most = MOST_BUFFERS // 2
            for first in range(0, pages, most):
                views: list[memoryview] = []
                for page in range(first, min(first + most, pages)):
                    views += (part[page * PAGE_SIZE : (page + 1) * PAGE_SIZE], gaps[0])
                self._data.preadv(views[:-1], offset + first * extent.stride)

    def finish(self) -> list[Caveat]:
        """Tell whether the file changed; see `GuestImage.finish`."""
        return self._source.check_unchanged(self.name)

    def close(self) -> None:
        """Let go of the file."""
        self._source.close()

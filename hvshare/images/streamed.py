"""Images that come as a stream of ranges of memory, such as those of LiME through a network."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from hvshare.errors import DamagedImageError, EmptyImageError, TruncatedImageError
from hvshare.images.image import GuestImage, PageBlock
from hvshare.images.runs import RunKind, Runs
from hvshare.images.segments import check_address, cut_pages_caveat
from hvshare.images.streams import ByteStream, fill
from hvshare.units import PAGE_SIZE

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from hvshare.caveats import Caveat
    from hvshare.images.opening import Opening


class StreamedRange(NamedTuple):
    """Memory of which the contents come next.

    Attributes
    ----------
    address, size : int
        First guest physical address, and bytes.
    content : ByteStream or None
        Its bytes, to be read to the end before the next range is asked for; None if all of them are zero by
        the definition of the format.
    told_at : int
        Byte of the stream at which its header says so, for errors.
    """

    address: int
    size: int
    content: ByteStream | None
    told_at: int


class StreamedRanges(GuestImage):
    """An image that comes range by range, in ascending order of addresses.

    Parameters
    ----------
    opening : Opening
        What it is read from.
    ranges : callable
        Gives the ranges of a stream; the path is for its errors.
    """

    def __init__(
        self, opening: Opening, ranges: Callable[[ByteStream, str], Iterator[StreamedRange]]
    ) -> None:
        super().__init__(opening.name, opening.path)
        self._source = opening.source
        self._stream = opening.stream
        self._ranges = ranges
        self._cut_pages = 0
        self.source_bytes = opening.source.size
        self.can_reread = opening.can_reread

    def blocks(self, buffer: memoryview, span: tuple[int, int] | None = None) -> Iterator[PageBlock]:
        """Read the whole stream; see `GuestImage.blocks`."""
        if span is not None:
            raise ValueError("a stream is read whole")
        stream = self._stream()
        runs, taken, end = Runs(), 0, 0
        self._cut_pages = 0
        for each in self._ranges(stream, self.path):
            check_address(each.address, each.size, self.path, each.told_at)
            if each.address < end:
                raise DamagedImageError(
                    f"the range of memory at {each.address:#x} starts before {end:#x}, where the one before "
                    "it ends; ranges of a stream have to ascend",
                    path=self.path,
                    offset=each.told_at,
                    advice="name a file instead of a stream, if the ranges do not overlap",
                )
            end = each.address + each.size
            first, behind = -(-each.address // PAGE_SIZE), end // PAGE_SIZE
            if first > behind:  # it lies within one page
                self._skip(each, each.size)
            elif first * PAGE_SIZE > each.address:
                self._skip(each, first * PAGE_SIZE - each.address)
            if each.address % PAGE_SIZE:
                self._cut(runs, first - 1)
            if behind > first and each.content is None:
                runs.append(first, behind - first, RunKind.ZERO)
            elif behind > first:
                for gfn in range(first, behind, len(buffer) // PAGE_SIZE):
                    pages = min(len(buffer) // PAGE_SIZE, behind - gfn)
                    self._fill(each, buffer[: pages * PAGE_SIZE])
                    runs.append(gfn, pages, RunKind.PRESENT)
                    yield PageBlock(gfn, pages, stream.source_bytes - taken)
                    taken = stream.source_bytes
            if end % PAGE_SIZE and behind >= first:
                self._skip(each, end % PAGE_SIZE)
                self._cut(runs, behind)
        if runs.pages == self._cut_pages:
            raise EmptyImageError(
                "it holds no whole page", path=self.path, advice="check how the dump was made"
            )
        self.streamed_runs = runs

    def _skip(self, each: StreamedRange, size: int) -> None:
        self._fill(each, memoryview(bytearray(size)))

    def _fill(self, each: StreamedRange, buffer: memoryview) -> None:
        if each.content is not None and fill(each.content, buffer) < len(buffer):
            raise TruncatedImageError(
                f"the stream ends within the range of memory at {each.address:#x}",
                path=self.path,
                offset=each.told_at,
                advice="copy or take the dump again",
            )

    def _cut(self, runs: Runs, gfn: int) -> None:
        if gfn >= runs.end_gfn:
            runs.append(gfn, 1, RunKind.ABSENT)
            self._cut_pages += 1

    def finish(self) -> list[Caveat]:
        """Tell what was left out and whether the file changed; see `GuestImage.finish`."""
        return cut_pages_caveat(self._cut_pages, self.name) + self._source.check_unchanged(self.name)

    def close(self) -> None:
        """Let go of the file."""
        self._source.close()

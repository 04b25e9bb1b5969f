"""Ranges of bytes in guest-physical memory, as headers give them, cut into whole pages."""

from __future__ import annotations

from array import array
from bisect import bisect_left, bisect_right
from typing import TYPE_CHECKING, Final, NamedTuple

from hvshare.caveats import Caveat
from hvshare.errors import DamagedImageError, EmptyImageError, TruncatedImageError
from hvshare.images.extents import Extents
from hvshare.images.runs import RunKind, Runs
from hvshare.images.sparse import data_extents
from hvshare.units import PAGE_SIZE, format_share, format_size

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from hvshare.images.source import Positioned, Source

ADDRESS_LIMIT: Final = 1 << 52
"""Behind the last guest physical address that x86-64 and AArch64 processors have (52 bits)."""

MOST_SEGMENTS: Final = 1 << 20
"""More than any guest has; a file with more is damaged, and would take minutes to be told so otherwise."""


class Segment(NamedTuple):
    """Bytes of guest memory that follow each other, in the guest and in the file.

    Attributes
    ----------
    address : int
        Guest physical address of the first byte.
    size : int
        Bytes.
    offset : int
        Where the first byte is stored; without meaning unless `kind` is PRESENT.
    kind : RunKind
        What the image knows of them.
    told_at : int
        Byte of the file at which its header says so, for errors.
    """

    address: int
    size: int
    offset: int
    kind: RunKind = RunKind.PRESENT
    told_at: int = 0

    @property
    def end(self) -> int:
        """The address just behind it."""
        return self.address + self.size


class PageLayout(NamedTuple):
    """Segments as pages.

    Attributes
    ----------
    runs : Runs
        All pages that a segment touches.
    extents : Extents
        Where the PRESENT ones are stored.
    cut_pages : int
        Pages that are ABSENT because segments hold a part of them only.
    """

    runs: Runs
    extents: Extents
    cut_pages: int

    def caveats(self, name: str) -> list[Caveat]:
        """Say that pages were cut, if any were."""
        return cut_pages_caveat(self.cut_pages, name)


def cut_pages_caveat(pages: int, name: str) -> list[Caveat]:
    """Say that so many pages are in an image in part only, if there are any."""
    if not pages:
        return []
    return [
        Caveat(
            "cut-pages",
            "where a range of memory starts or ends within a page, the image holds a part of it only; so "
            f"many pages count as absent: {pages:,}",
            "nothing is wrong: firmware keeps parts of pages, and some versions of AVML drop the last byte",
            name,
        )
    ]


def filtered_dump(absent: int, pages: int, name: str, what: str = "") -> Caveat:
    """Say that so many pages were filtered out of a dump, and of what kinds."""
    return Caveat(
        "filtered-dump",
        f"{absent:,} of {pages:,} pages ({format_share(absent, pages)}) were filtered out when the dump was "
        f"written{what}; they count as absent, and all ratios are biased: they are those of what was kept",
        "measure a dump that nothing was filtered out of",
        name,
    )


def lay_out(segments: Iterable[Segment], data: Positioned, address_limit: int = ADDRESS_LIMIT) -> PageLayout:
    """Cut segments into pages.

    Parameters
    ----------
    segments : iterable of Segment
        In any order. Those of no size are passed over.
    data : Positioned
        What their offsets refer to.
    address_limit : int
        The address that none may go beyond.

    Returns
    -------
    PageLayout

    Raises
    ------
    DamagedImageError
        If segments overlap, in the guest or in the file, go beyond the limit, or are too many.
    TruncatedImageError
        If one does not lie within the data.
    EmptyImageError
        If there is no page in them.
    """
    ordered = sorted(each for each in segments if each.size)
    if len(ordered) > MOST_SEGMENTS:
        raise DamagedImageError(
            f"it describes {len(ordered):,} ranges of memory, more than any guest has", path=data.path
        )
    end = 0
    for each in ordered:
        _check(each, data, address_limit)
        if each.address < end:
            raise DamagedImageError(
                f"the range of memory at {each.address:#x} overlaps the one before it, which ends at "
                f"{end:#x}",
                path=data.path,
                offset=each.told_at,
                advice="take the dump again",
            )
        end = each.end
    stored = sum(each.size for each in ordered if each.kind == RunKind.PRESENT)
    if stored > data.end:
        raise DamagedImageError(
            f"its ranges of memory take {stored:,} bytes, and the file has {data.end:,}, so that some share "
            "their bytes",
            path=data.path,
            advice="take the dump again",
        )
    layout = _pages(_joined(ordered))
    if layout.runs.pages == layout.cut_pages:
        raise EmptyImageError("it holds no whole page", path=data.path, advice="check how the dump was made")
    return layout


def check_address(
    address: int, size: int, path: str, told_at: int, address_limit: int = ADDRESS_LIMIT
) -> None:
    """Make sure that a range of memory can be where a header says.

    Raises
    ------
    DamagedImageError
        If it goes beyond the limit.
    """
    if size < 0 or address < 0 or address + size > address_limit:
        raise DamagedImageError(
            f"a range of {size:,} bytes at address {address:#x} goes beyond {address_limit:#x}, where "
            "addresses end",
            path=path,
            offset=told_at,
            advice="take the dump again",
        )


def _check(segment: Segment, data: Positioned, address_limit: int) -> None:
    check_address(segment.address, segment.size, data.path, segment.told_at, address_limit)
    if segment.kind == RunKind.PRESENT and not 0 <= segment.offset <= data.end - segment.size:
        raise TruncatedImageError(
            f"the range of memory at {segment.address:#x} should take {segment.size:,} bytes from byte "
            f"{segment.offset:,} on, and the file ends at byte {data.end:,}",
            path=data.path,
            offset=segment.told_at,
            advice="copy or take the dump again",
        )


def _joined(ordered: Sequence[Segment]) -> Iterator[Segment]:
    """Join neighbours, so that a page that two of them hold together is whole."""
    last: Segment | None = None
    for each in ordered:
        if last is None:
            last = each
        elif (
            each.address == last.end
            and each.kind == last.kind
            and (each.kind != RunKind.PRESENT or each.offset == last.offset + last.size)
        ):
            last = last._replace(size=last.size + each.size)
        else:
            yield last
            last = each
    if last is not None:
        yield last


def _pages(segments: Iterable[Segment]) -> PageLayout:
    runs, extents = Runs(), Extents()
    cut = 0
    for each in segments:
        first, end = -(-each.address // PAGE_SIZE), each.end // PAGE_SIZE
        if each.address % PAGE_SIZE:
            cut += _add_cut_page(runs, first - 1)
        if end > first:
            runs.append(first, end - first, each.kind)
            if each.kind == RunKind.PRESENT:
                extents.append(each.offset + first * PAGE_SIZE - each.address, end - first)
        if each.end % PAGE_SIZE and end >= first:
            cut += _add_cut_page(runs, end)
    return PageLayout(runs, extents, cut)


def _add_cut_page(runs: Runs, gfn: int) -> int:
    if gfn < runs.end_gfn:  # another segment has touched it
        return 0
    runs.append(gfn, 1, RunKind.ABSENT)
    return 1


def without_holes(layout: PageLayout, source: Source, kind: RunKind) -> PageLayout:
    """Tell the holes of a sparse file apart.

    Parameters
    ----------
    layout : PageLayout
        Whose extents refer to the file itself.
    source : Source
        The file.
    kind : RunKind
        What its holes mean: ZERO or ABSENT.

    Returns
    -------
    PageLayout
        The same pages; those that lie in a hole as a whole are of the kind.
    """
    starts, stops = array("q"), array("q")
    for start, stop in data_extents(source.fd, source.end):
        starts.append(start)
        stops.append(stop)
    runs, extents = Runs(), Extents()
    position = 0
    for run in layout.runs:
        if run.kind != RunKind.PRESENT:
            runs.append(*run)
            continue
        gfn = run.first_gfn
        for extent in layout.extents.within(position, position + run.pages):
            at, behind = 0, extent.offset + extent.pages * PAGE_SIZE
            for index in range(bisect_right(stops, extent.offset), bisect_left(starts, behind)):
                # Two pieces of data may lie in one page.
                low = max((starts[index] - extent.offset) // PAGE_SIZE, at)
                high = min(-(-(stops[index] - extent.offset) // PAGE_SIZE), extent.pages)
                if high <= low:
                    continue
                if low > at:
                    runs.append(gfn + at, low - at, kind)
                runs.append(gfn + low, high - low, RunKind.PRESENT)
                extents.append(extent.offset + low * PAGE_SIZE, high - low)
                at = high
            if at < extent.pages:
                runs.append(gfn + at, extent.pages - at, kind)
            gfn += extent.pages
        position += run.pages
    return PageLayout(runs, extents, layout.cut_pages)


def describe_range(address: int, size: int) -> str:
    """Show a range of memory.

    Examples
    --------
    >>> describe_range(0xFFFC0000, 0x40000)
    '256.0 KiB at 0xfffc0000'
    """
    return f"{format_size(size)} at {address:#x}"

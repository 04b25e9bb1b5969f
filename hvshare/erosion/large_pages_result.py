"""What large pages take away from sharing, and what breaking them costs: frozen, and plain numbers only."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Mapping

    from hvshare.sharing.counts import Counts


class BreakPoint(NamedTuple):
    """What is saved when so many large frames are broken into pages.

    Attributes
    ----------
    broken_frames : int
        Large frames that are broken, of those that are left when identical ones are shared whole.
    broken_mappings : int
        Large frames of the guests that they back: a frame counts once for each of its copies.
    saved_bytes : int
        What is saved then, all in all.
    most_saved_bytes : int
        What breaking so many could save at the most, whichever are chosen; equal to `saved_bytes` where the
        choice is proven to be the best.
    """

    broken_frames: int
    broken_mappings: int
    saved_bytes: int
    most_saved_bytes: int


@dataclass(frozen=True)
class Knee:
    """Where the break curve bends: beyond it, a broken frame frees less than one does on average.

    Attributes
    ----------
    broken_frames, broken_mappings, saved_bytes : int
        As in `BreakPoint`.
    distance : float
        How far the point lies above the chord of the curve, when both axes run from 0 to 1; 0.0 where
        breaking frees nothing.
    """

    broken_frames: int
    broken_mappings: int
    saved_bytes: int
    distance: float


@dataclass(frozen=True)
class PageTables:
    """The second-level page tables that the host keeps for all guests.

    Attributes
    ----------
    small_entries : int
        Entries that map a page of 4 KB.
    large_entries : int
        Entries that map a large frame of 2 MB.
    table_bytes : int
        Tables of four levels, upper levels included.
    table_bytes_5_level : int
        Tables of five levels.
    """

    small_entries: int
    large_entries: int
    table_bytes: int
    table_bytes_5_level: int


@dataclass(frozen=True)
class Policy:
    """A way to choose which large frames to break.

    Attributes
    ----------
    name : str
        ``break nothing``, ``break to the knee``, ``break what repeats`` or ``break all``.
    practised_by : str
        A hypervisor or study that does so.
    broken_frames, broken_mappings, saved_bytes : int
        As in `BreakPoint`.
    tables : PageTables
        What the host's page tables come to then.
    net_saved_bytes : int
        `saved_bytes` less what the tables of four levels grow by against breaking nothing.
    """

    name: str
    practised_by: str
    broken_frames: int
    broken_mappings: int
    saved_bytes: int
    tables: PageTables
    net_saved_bytes: int


@dataclass(frozen=True)
class Target:
    """How many large frames have to be broken to free so much.

    Attributes
    ----------
    target_bytes : int
        What is to be freed.
    without_breaking_bytes : int
        What is free without breaking any.
    reachable_bytes : int
        What is free when all are broken.
    broken_frames, broken_mappings, saved_bytes : int or None
        The first point of the curve that reaches the target; None where no point does.
    least_broken_frames : int or None
        Breaking fewer cannot reach the target, whichever are chosen.
    """

    target_bytes: int
    without_breaking_bytes: int
    reachable_bytes: int
    broken_frames: int | None
    broken_mappings: int | None
    saved_bytes: int | None
    least_broken_frames: int | None


@dataclass(frozen=True)
class TlbReach:
    """How much memory the last data TLB of a processor reaches.

    Attributes
    ----------
    processor : str
        Microarchitecture and year.
    small_entries, large_entries : int
        Entries of the largest data TLB that holds translations of 4 KB, and of the one that holds 2 MB.
    small_reach_bytes, large_reach_bytes : int
        Entries times what each maps.
    source : str
        Title of the document that says so.
    """

    processor: str
    small_entries: int
    large_entries: int
    small_reach_bytes: int
    large_reach_bytes: int
    source: str


@dataclass(frozen=True)
class Walk:
    """Memory references of a page walk in a guest, when no cache of translations helps.

    Attributes
    ----------
    levels : int
        Of the guest's and of the host's tables when they map 4 KB: 4 or 5.
    guest_page_size, host_page_size : int
        Bytes that the last entry of each maps.
    references : int
        (g + 1) * (h + 1) - 1 for g and h levels walked.
    """

    levels: int
    guest_page_size: int
    host_page_size: int
    references: int


@dataclass(frozen=True)
class Quote:
    """A figure that the series gives and hvshare does not measure.

    Attributes
    ----------
    claim, source : str
        What is said, and where.
    """

    claim: str
    source: str


@dataclass(frozen=True)
class Price:
    """What breaking large frames costs: modelled from the layout of page tables, not timed.

    Attributes
    ----------
    before, after : PageTables
        With no large frame broken, and with all.
    tlb_reach : tuple of TlbReach
        By processor.
    walks : tuple of Walk
        By levels and page sizes.
    quotes : tuple of Quote
        What the series says of time.
    """

    before: PageTables
    after: PageTables
    tlb_reach: tuple[TlbReach, ...]
    walks: tuple[Walk, ...]
    quotes: tuple[Quote, ...]


@dataclass(frozen=True)
class BloatBin:
    """Large frames in which so many pages hold anything.

    Attributes
    ----------
    fewest, most : int
        Pages of a frame that are not zero.
    frames : int
        Whole large frames of all guests.
    zero_bytes : int
        Zero pages in them, which large frames that are kept whole lock in.
    """

    fewest: int
    most: int
    frames: int
    zero_bytes: int


@dataclass(frozen=True)
class Bloat:
    """Memory that large frames hold and that nothing is in.

    Attributes
    ----------
    frames : int
        Whole large frames of all guests that are not zero but hold some zero page.
    zero_bytes : int
        Zero pages in them.
    nearly_empty_frames : int
        Those of which at most an eighth of the pages hold anything.
    nearly_empty_zero_bytes : int
        Zero pages in these.
    bins : tuple of BloatBin
        All whole large frames, zero ones first, by how many of their pages hold anything.
    """

    frames: int
    zero_bytes: int
    nearly_empty_frames: int
    nearly_empty_zero_bytes: int
    bins: tuple[BloatBin, ...]


@dataclass(frozen=True)
class LargePages:
    """What large pages take away from sharing in some images of one domain.

    Attributes
    ----------
    frame_size : int
        Bytes of a large frame: 2 MB.
    ladder : mapping of int to Counts
        By frame size, over all images: each power of two from 4 KB to 2 MB, and 1 GB where a guest has a
        whole frame of it.
    frames : int
        Whole large frames of all guests.
    distinct_frames : int
        Those that are left when identical ones are shared whole.
    outside_pages : int
        Pages that lie in no whole large frame, so the host has them as pages of 4 KB in any case.
    outside_saved_bytes : int
        What they save among themselves, which no large frame is broken for.
    curve : tuple of BreakPoint
        First the savings at 2 MB alone; then, where there are pages outside, with these; then one point for
        each number of broken frames up to all, where it ends with the savings at 4 KB.
    knee : Knee
        Of the curve without its first step.
    policies : tuple of Policy
        By how many frames they break.
    target : Target or None
        None where none was asked for.
    price : Price
        What breaking costs.
    bloat : Bloat
        Large frames in which few pages hold anything.
    """

    frame_size: int
    ladder: Mapping[int, Counts]
    frames: int
    distinct_frames: int
    outside_pages: int
    outside_saved_bytes: int
    curve: tuple[BreakPoint, ...]
    knee: Knee
    policies: tuple[Policy, ...]
    target: Target | None
    price: Price
    bloat: Bloat

    @property
    def lost_bytes(self) -> int:
        """What large pages take away: savings at 4 KB less what is free without breaking any frame."""
        return self.curve[-1].saved_bytes - self.without_breaking_bytes

    @property
    def without_breaking_bytes(self) -> int:
        """What is free without breaking any: identical large frames, and pages outside of large frames."""
        return max(point.saved_bytes for point in self.curve if not point.broken_frames)

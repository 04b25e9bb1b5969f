"""Many VMs beside each other: pooled counts, what each contributes, pairs, likeness and sharing domains."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from hvshare.sharing.caveats import sharing_caveats
from hvshare.sharing.counts import count_domain
from hvshare.sharing.domains import DomainSharing
from hvshare.sharing.likeness import group_by_likeness, likeness
from hvshare.sharing.ranges import count_many
from hvshare.sharing.report import ImageSharing
from hvshare.units import PAGE_SIZE, check_frame_size

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from hvshare.caveats import Caveat
    from hvshare.fingerprint.fingerprints import Fingerprints, FrameDigests
    from hvshare.sharing.counts import Counts
    from hvshare.sharing.domains import Domain
    from hvshare.sharing.likeness import LikenessTree
    from hvshare.sharing.ranges import ManyCounts


class Contribution(NamedTuple):
    """What leaving one VM out would cost in savings.

    Attributes
    ----------
    image : str
        Its name.
    saved : mapping of int to int
        By frame size, the frames that would no longer be saved: savings of all VMs less those of all others.
    """

    image: str
    saved: Mapping[int, int]


class PairSharing(NamedTuple):
    """What two VMs have in common, zero apart.

    Attributes
    ----------
    a, b : int
        Indexes of the images.
    common_contents : int
        Contents that both hold.
    common_of_a, common_of_b : int
        Pages of each whose content the other one holds, too.
    """

    a: int
    b: int
    common_contents: int
    common_of_a: int
    common_of_b: int


class Copies(NamedTuple):
    """How often contents occur in a sharing domain, at 4 KB.

    Attributes
    ----------
    domain : str
        Its name; empty for all images, if there are no domains.
    zero_pages : int
        Its zero pages.
    contents : mapping of int to int
        How many contents other than zero there are with so many copies.
    """

    domain: str
    zero_pages: int
    contents: Mapping[int, int]


@dataclass(frozen=True)
class Comparison:
    """What many VMs share.

    Attributes
    ----------
    images : tuple of ImageSharing
        In the order given.
    pooled : mapping of int to Counts
        By frame size, over all images as one sharing domain.
    contributions : tuple of Contribution
        One an image.
    pairs : tuple of PairSharing
        All of them, in the order of the images. They do not add up to `saved_inter`: a content that three
        VMs hold is in three pairs.
    tree : LikenessTree or None
        The images grouped by likeness, if there are two or more.
    domains : tuple of DomainSharing
        One a sharing domain, if there are any.
    copies : tuple of Copies
        How often contents occur at 4 KB: one a sharing domain, or one for all images.
    caveats : tuple of Caveat
        What to know before trusting the figures.
    """

    images: tuple[ImageSharing, ...]
    pooled: Mapping[int, Counts]
    contributions: tuple[Contribution, ...]
    pairs: tuple[PairSharing, ...]
    tree: LikenessTree | None
    domains: tuple[DomainSharing, ...]
    copies: tuple[Copies, ...]
    caveats: tuple[Caveat, ...]

    def saved_in_domains(self, frame_size: int) -> int:
        """Frames saved if savings do not cross domains."""
        return sum(each.counts[frame_size].saved for each in self.domains)


def compare(
    fingerprints: Sequence[Fingerprints],
    frame_sizes: Iterable[int],
    *,
    domains: Sequence[Domain] = (),
    jobs: int | None = None,
    further_caveats: Sequence[Caveat] = (),
) -> Comparison:
    """Compare many VMs.

    Parameters
    ----------
    fingerprints : sequence of Fingerprints
        One a VM.
    frame_sizes : iterable of int
        Bytes of the frames to count in; 4 KB is always among them.
    domains : sequence of Domain
        The sharing domains, in which each VM is once; none for no walls.
    jobs : int, optional
        Processes at the most; one a processor by default.
    further_caveats : sequence of Caveat
        Facts that are known to the caller.

    Returns
    -------
    Comparison

    Raises
    ------
    SizeError
        If frames cannot have one of the sizes.
    WorkerError
        If a process ends without having done its work.
    """
    sizes = sorted({PAGE_SIZE, *map(check_frame_size, frame_sizes)})
    domain_of = [0] * len(fingerprints)
    for number, domain in enumerate(domains):
        for vm in domain.vms:
            domain_of[vm] = number
    frames = {size: [each.frames(size) for each in fingerprints] for size in sizes}
    many = {
        size: count_many(
            [each.digests for each in of_size],
            domains=domain_of,
            pairs=size == PAGE_SIZE,
            jobs=jobs,
            zero_in_holes=[each.zero_in_holes for each in of_size],
        )
        for size, of_size in frames.items()
    }
    of_images = [
        {size: _count_one(frames[size][vm], many[size], vm) for size in sizes}
        for vm in range(len(fingerprints))
    ]
    everyone = range(len(fingerprints))
    pooled = {size: _count(frames[size], many[size], everyone, many[size].distinct) for size in sizes}
    pages = many[PAGE_SIZE]
    return Comparison(
        tuple(ImageSharing.of(each, counts) for each, counts in zip(fingerprints, of_images, strict=True)),
        pooled,
        tuple(
            Contribution(each.name, {size: many[size].contribution_of[vm] for size in sizes})
            for vm, each in enumerate(fingerprints)
        ),
        tuple(_pairs(pages)),
        _tree(pages),
        tuple(
            DomainSharing(
                domain.name,
                tuple(fingerprints[vm].name for vm in domain.vms),
                {
                    size: _count(frames[size], many[size], domain.vms, many[size].domain_distinct[number])
                    for size in sizes
                },
            )
            for number, domain in enumerate(domains)
        ),
        tuple(_copies(pages, domains)),
        sharing_caveats(fingerprints, of_images, pooled, further_caveats),
    )


def _count(frames: Sequence[FrameDigests], many: ManyCounts, vms: Iterable[int], distinct: int) -> Counts:
    held = list(vms)
    return count_domain(
        frames[held[0]].frame_size,
        partial_frames=sum(frames[vm].partial_frames for vm in held),
        zero=sum(int(many.zero_of[vm]) for vm in held),
        nonzero=sum(int(many.nonzero_of[vm]) for vm in held),
        distinct_of=[int(many.distinct_of[vm]) for vm in held],
        distinct=distinct,
    )


def _count_one(frames: FrameDigests, many: ManyCounts, vm: int) -> Counts:
    distinct = int(many.distinct_of[vm])
    return count_domain(
        frames.frame_size,
        partial_frames=frames.partial_frames,
        zero=int(many.zero_of[vm]),
        nonzero=int(many.nonzero_of[vm]),
        distinct_of=[distinct],
        distinct=distinct,
    )


def _pairs(many: ManyCounts) -> Iterable[PairSharing]:
    if many.common_contents is None or many.common_pages is None:
        return
    contents, pages = many.common_contents.tolist(), many.common_pages.tolist()
    for a in range(len(contents)):
        for b in range(a + 1, len(contents)):
            yield PairSharing(a, b, contents[a][b], pages[a][b], pages[b][a])


def _tree(many: ManyCounts) -> LikenessTree | None:
    if many.common_contents is None or len(many.distinct_of) < 2:
        return None
    return group_by_likeness(likeness(many.common_contents, many.distinct_of))


def _copies(many: ManyCounts, domains: Sequence[Domain]) -> Iterable[Copies]:
    if not domains:
        yield Copies("", int(many.zero_of.sum()), dict(many.copies))
    for number, domain in enumerate(domains):
        zero = sum(int(many.zero_of[vm]) for vm in domain.vms)
        yield Copies(domain.name, zero, dict(many.domain_copies[number]))

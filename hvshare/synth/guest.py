"""A guest, planned: what each page of its memory is used for and holds, before a byte is made."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np

from hvshare.errors import BudgetError
from hvshare.synth.allocations import Allocation, Allocations
from hvshare.synth.applications import with_applications
from hvshare.synth.contents.filling import fill
from hvshare.synth.contents.kinds import Pages
from hvshare.synth.layouts import lay_out
from hvshare.synth.owners import Owner
from hvshare.synth.placement import Placement
from hvshare.synth.template import Template
from hvshare.synth.warming import warm_up
from hvshare.units import LARGE_FRAME_SIZE, PAGE_SIZE, format_size

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from hvshare.synth.address_spaces import AddressSpaces
    from hvshare.synth.draws import Draws
    from hvshare.synth.mapped.pages import MappedPages
    from hvshare.synth.settings import Settings

_BLOCK: Final = LARGE_FRAME_SIZE // PAGE_SIZE


@dataclass(frozen=True)
class GuestPlan:
    """What a guest's memory is, page by page.

    Attributes
    ----------
    settings : Settings
        What was asked for.
    owners : ndarray of uint8, shape (pages,)
        What each page is used for, out of `Owner`, in the order of gfns.
    contents : Pages
        What each holds.
    spaces : AddressSpaces
        Where things lie at this boot.
    fixed_spaces : AddressSpaces
        Where they would lie without ASLR.
    mapped : MappedPages or None
        Pages of real images.
    large_blocks : int
        Large pages that applications got; fewer than they asked for where memory is fragmented.
    """

    settings: Settings
    owners: NDArray[np.uint8]
    contents: Pages
    spaces: AddressSpaces
    fixed_spaces: AddressSpaces
    mapped: MappedPages | None
    large_blocks: int

    def __len__(self) -> int:
        return len(self.owners)

    @property
    def pages_of_owners(self) -> Mapping[Owner, int]:
        """How many pages each owner has."""
        counts = np.bincount(self.owners, minlength=len(Owner))
        return {owner: int(counts[owner]) for owner in Owner}

    def make(self, out: NDArray[np.uint64], first_gfn: int, *, fixed: bool = False) -> None:
        """Make the bytes of some pages.

        Parameters
        ----------
        out : ndarray of uint64, shape (pages, 512)
            Overwritten, with pages that follow each other.
        first_gfn : int
            The first of them.
        fixed : bool
            Whether addresses are those without ASLR.
        """
        pages = self.contents[first_gfn : first_gfn + len(out)]
        gfns = np.arange(first_gfn, first_gfn + len(out))
        fill(out, pages, self.fixed_spaces if fixed else self.spaces, gfns, self.mapped)


def plan_guest(settings: Settings, template: Template | None = None) -> GuestPlan:
    """Plan a guest.

    Parameters
    ----------
    settings : Settings
        What is asked for.
    template : Template, optional
        Made before for another guest of the same preset and template seed.

    Returns
    -------
    GuestPlan
        Some 28 bytes a page.

    Raises
    ------
    BudgetError
        If more memory is demanded than there is.
    PresetError
        If an address space does not hold what is to lie in it.
    """
    template = template or Template(settings.preset, settings.template)
    vm = template.draws.child("vm", settings.vm)
    boot = vm.child("boot", settings.boot)
    _check_demand(settings)
    processes = with_applications(template, settings.application_pages)
    allocations = Allocations(template, processes, vm, boot)
    low = list(allocations.kernel())
    mapped, of_images = allocations.images()
    of_processes = allocations.processes(settings.large_blocks * _BLOCK)
    high = [*allocations.system(settings.pages), *of_images, *of_processes]
    demanded = sum(len(each.pages) for each in (*low, *high)) - len(mapped) - settings.application_pages
    try:
        warm = warm_up(settings, template, vm, boot, demanded, mapped)
    except BudgetError as error:
        raise _too_little(settings, demanded + len(mapped) + settings.application_pages) from error
    cached = allocations.cached(warm.cached)
    high.append(Allocation(Owner.FILE_CACHE, cached[~warm.prefetched]))
    high.append(Allocation(Owner.PREFETCHED, cached[warm.prefetched]))
    high.append(Allocation(Owner.DIRTY, allocations.stale(int(warm.free * settings.preset.free.dirty))))
    owners, contents, large_blocks = _place(settings, boot.child("frames"), low, high)
    fixed, spaces = (
        lay_out(settings.preset, template.disk, processes, settings.memory, draws)
        for draws in (None, boot.child("layout") if settings.aslr else None)
    )
    plan = GuestPlan(settings, owners, contents, spaces, fixed, template.mapped_pages, large_blocks)
    _prepare(plan)
    return plan


def _check_demand(settings: Settings) -> None:
    """Refuse to plan, page by page, what is far more than memory holds."""
    preset = settings.preset
    kernel = preset.kernel.image + preset.kernel.drivers + preset.kernel.data + preset.kernel.firmware
    programs = sum(program.processes * (program.heap + program.stack) for program in preset.programs)
    need = (kernel + programs) // PAGE_SIZE + settings.application_pages
    if need > settings.pages:
        raise _too_little(settings, need)


def _prepare(plan: GuestPlan) -> None:
    """Make a page of each kind, so that tables of chunks are there before processes are forked."""
    counts = np.bincount(plan.contents.kinds)
    page = np.empty((1, PAGE_SIZE // 8), np.uint64)
    for kind in np.flatnonzero(counts):
        plan.make(page, int(np.argmax(plan.contents.kinds == kind)))


class _Gfns:
    """Gfns that are handed out one after another."""

    def __init__(self, gfns: NDArray[np.int64]) -> None:
        self._gfns = gfns
        self._taken = 0

    def take(self, count: int) -> NDArray[np.int64]:
        self._taken += count
        return self._gfns[self._taken - count : self._taken]


def _place(
    settings: Settings, draws: Draws, low: Sequence[Allocation], high: Sequence[Allocation]
) -> tuple[NDArray[np.uint8], Pages, int]:
    """Lay out in guest-physical memory what is allocated; what is left is free and zero.

    Returns
    -------
    owners : ndarray of uint8, shape (pages,)
    contents : Pages
        In the order of gfns.
    large_blocks : int
        Large pages that were to be had.
    """
    reserved = -(-sum(len(each.pages) for each in low) // _BLOCK) * _BLOCK
    placement = Placement(settings.pages, min(reserved, settings.pages), settings.fragmentation, draws)
    large = placement.large(settings.large_blocks)
    large_blocks = len(large) // _BLOCK
    low_gfns = placement.reserve(sum(len(each.pages) for each in low))
    rest = placement.rest()
    owners = np.zeros(settings.pages, np.uint8)
    contents = Pages(
        np.zeros(settings.pages, np.uint8),
        np.zeros(settings.pages, np.uint64),
        np.zeros(settings.pages, np.uint64),
        np.zeros(settings.pages, np.int32),
        np.zeros(settings.pages, np.int32),
    )
    for allocations, next_gfns in ((low, _Gfns(low_gfns)), (high, _Gfns(rest))):
        for owner, pages in allocations:
            # Where memory is fragmented, what finds no whole block lies in small pages.
            in_blocks = large[: len(pages)] if owner is Owner.LARGE_PAGES else large[:0]
            large = large[len(in_blocks) :]
            gfns = np.concatenate([in_blocks, next_gfns.take(len(pages) - len(in_blocks))])
            owners[gfns] = owner
            contents.kinds[gfns], contents.keys[gfns] = pages.kinds, pages.keys
            contents.private[gfns] = pages.private
            contents.spaces[gfns], contents.regions[gfns] = pages.spaces, pages.regions
    return owners, contents, large_blocks


def _too_little(settings: Settings, need: int) -> BudgetError:
    return BudgetError(
        f"kernel, programs and applications need {format_size(need * PAGE_SIZE)}, and memory is "
        f"{format_size(settings.memory)}",
        advice="give more memory, smaller applications, or a smaller scale",
    )

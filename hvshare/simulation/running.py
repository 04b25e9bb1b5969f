"""Guests made, hashed and measured, a group at a time: only digests are kept, and those of one group only."""

from __future__ import annotations

import dataclasses
from contextlib import ExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING

from hvshare.fingerprint.hashing import Hashing
from hvshare.sharing.measure import measure
from hvshare.simulation.making import LargePages
from hvshare.simulation.tallies import Tally
from hvshare.units import LARGE_FRAME_SIZE, PAGE_SIZE

if TYPE_CHECKING:
    from collections.abc import Sequence

    from hvshare.erosion.passes import Passes
    from hvshare.fingerprint.fingerprints import Fingerprints
    from hvshare.images.image import GuestImage
    from hvshare.simulation.making import MadeGuest, Maker, Request


@dataclass(frozen=True)
class Occupancy:
    """What the memory of some guests is in use for, in bytes.

    Attributes
    ----------
    used, cache, free : int
        As in `hvshare.simulation.making.MadeGuest`, over all of them.
    """

    used: int
    cache: int
    free: int


@dataclass(frozen=True)
class Group:
    """The guests of one template under one setting.

    Attributes
    ----------
    fingerprints : tuple of Fingerprints
        One a guest.
    occupancy : Occupancy
        Of all of them.
    large_pages : LargePages
        Of all of them.
    """

    fingerprints: tuple[Fingerprints, ...]
    occupancy: Occupancy
    large_pages: LargePages

    def tallies(self, vms: int | None = None) -> dict[int, Tally]:
        """Count what is saved in the first so many guests, or in all of them, by frame size."""
        return tallies_of(self.fingerprints[:vms])


def tallies_of(fingerprints: Sequence[Fingerprints]) -> dict[int, Tally]:
    """Count what is saved at 4 KB and at 2 MB in some guests of one sharing domain, by frame size."""
    pooled = measure(fingerprints).pooled
    return {size: Tally.of(pooled, size) for size in (PAGE_SIZE, LARGE_FRAME_SIZE)}


@dataclass(frozen=True)
class Laboratory:
    """Where guests are made and hashed.

    Attributes
    ----------
    make : Maker
        Makes them.
    vms : int
        Guests a group, numbered from 1.
    seeds : tuple of int
        Templates: of each there is a group for every setting.
    jobs : int or None
        Processes at the most; one a processor by default.
    progress : Passes or None
        Told of the pages made.

    Raises
    ------
    ValueError
        If there is no guest or no seed, or one seed twice.
    """

    make: Maker
    vms: int
    seeds: tuple[int, ...]
    jobs: int | None = None
    progress: Passes | None = None

    def __post_init__(self) -> None:
        if self.vms < 1 or not self.seeds or len(set(self.seeds)) < len(self.seeds):
            raise ValueError(f"{self.vms} guests of the templates {self.seeds}")

    def prepare(self, requests: Sequence[Request]) -> None:
        """See that there can be all guests, before time goes into the first, and tell how much is to be made.

        Parameters
        ----------
        requests : sequence of Request
            For each there will be a group of each seed.

        Raises
        ------
        PresetError
            If there can be no such guests.
        """
        for seed in self.seeds:
            self.make.check([dataclasses.replace(request, template=seed, vm=1) for request in requests])
        if self.progress is not None:
            pages = sum(request.memory_bytes for request in requests) // PAGE_SIZE
            self.progress.start("Making guests", pages * self.vms * len(self.seeds))

    def made(self, request: Request, seed: int, stack: ExitStack) -> list[MadeGuest]:
        """Plan the guests of a group; the stack closes their images."""
        guests = []
        for vm in range(1, self.vms + 1):
            guest = self.make(dataclasses.replace(request, template=seed, vm=vm), f"vm{vm}")
            stack.enter_context(guest.image)
            guests.append(guest)
        return guests

    def hashed(self, guests: Sequence[MadeGuest], memory_bytes: int) -> Group:
        """Make all pages of some guests, of so many bytes each, and keep their digests."""
        found: dict[int, Fingerprints] = {}
        images: list[GuestImage] = [guest.image for guest in guests]
        with Hashing(images, jobs=self.jobs) as hashing:
            counted = _Counted(self.progress)
            hashing.on_progress = counted.advance
            found.update(hashing)
        counted.complete(memory_bytes // PAGE_SIZE * len(guests))
        return Group(
            tuple(found[index] for index in range(len(guests))),
            Occupancy(
                sum(guest.used_bytes for guest in guests),
                sum(guest.cache_bytes for guest in guests),
                sum(guest.free_bytes for guest in guests),
            ),
            LargePages.total([guest.large_pages for guest in guests]),
        )

    def group(self, request: Request, seed: int) -> Group:
        """Make and hash the guests of one seed, and let go of all but their digests."""
        with ExitStack() as stack:
            return self.hashed(self.made(request, seed, stack), request.memory_bytes)


class _Counted:
    """Bytes read into pages told, and pages that are in no file told at the end."""

    def __init__(self, progress: Passes | None) -> None:
        self._progress = progress
        self._bytes = 0
        self._told = 0

    def advance(self, _image: int, count: int) -> None:
        self._bytes += count
        self._tell(self._bytes // PAGE_SIZE)

    def complete(self, pages: int) -> None:
        self._tell(pages)

    def _tell(self, pages: int) -> None:
        if self._progress is not None and pages > self._told:
            self._progress.advance(pages - self._told)
            self._told = pages

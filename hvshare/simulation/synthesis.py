"""Guests of `hvshare.synth` for experiments."""

from __future__ import annotations

import dataclasses
from functools import lru_cache
from typing import TYPE_CHECKING, Final

from hvshare.simulation.making import LargePages, MadeGuest, most_demanding
from hvshare.synth.guest import plan_guest
from hvshare.synth.image import SynthImage
from hvshare.synth.owners import Owner
from hvshare.synth.settings import Prefetching, Settings
from hvshare.synth.template import Template
from hvshare.units import PAGE_SIZE

if TYPE_CHECKING:
    from collections.abc import Sequence

    from hvshare.simulation.making import Request
    from hvshare.synth.mapped.image import MappedImage
    from hvshare.synth.preset import Preset

CACHE: Final = (Owner.FILE_CACHE, Owner.PREFETCHED)
FREE: Final = (Owner.FREE, Owner.DIRTY)


class SynthMaker:
    """Makes guests out of their presets.

    Parameters
    ----------
    mapped : tuple of MappedImage
        Real images that take the place of libraries.
    """

    def __init__(self, mapped: tuple[MappedImage, ...] = ()) -> None:
        def template(preset: Preset, seed: int) -> Template:
            return Template(preset, seed, mapped)

        # Guests of one template follow each other, so few are enough.
        self._template = lru_cache(maxsize=2)(template)

    def __call__(self, request: Request, name: str) -> MadeGuest:
        """Plan a guest; see `hvshare.simulation.making.Maker`."""
        settings = settings_of(request)
        plan = plan_guest(settings, self._template(settings.preset, settings.template))
        pages = plan.pages_of_owners
        cache, free = (sum(pages[owner] for owner in owners) * PAGE_SIZE for owners in (CACHE, FREE))
        used = len(plan) * PAGE_SIZE - pages[Owner.PREFETCHED] * PAGE_SIZE - free
        return MadeGuest(
            SynthImage(name, plan),
            used_bytes=used,
            cache_bytes=cache,
            free_bytes=free,
            large_pages=LargePages(plan.large_blocks, settings.large_blocks),
        )

    def check(self, requests: Sequence[Request]) -> None:
        """See that there can be some guests; see `hvshare.simulation.making.Maker`."""
        for request in requests:
            settings_of(request)
        for request in most_demanding(requests):
            # What is prefetched takes what memory is left, however little, and most of the time of a plan.
            settings = settings_of(dataclasses.replace(request, prefetch="off"))
            plan_guest(settings, self._template(settings.preset, settings.template))


def settings_of(request: Request) -> Settings:
    """Say a request in the words of `hvshare.synth`.

    Raises
    ------
    PresetError
        If a value cannot be.
    """
    prefetcher = dataclasses.replace(request.preset.prefetcher, diversity=request.diversity)
    preset = dataclasses.replace(request.preset, prefetcher=prefetcher)
    return Settings(
        preset,
        request.memory_bytes,
        template=request.template,
        vm=request.vm,
        boot=request.vm,
        aslr=request.aslr,
        prefetch=Prefetching.parse(str(request.prefetch), preset),
        guest_large_pages=request.guest_large_pages,
        apps=request.apps,
        fragmentation=request.fragmentation,
    )

"""How memory fills up: what programs demand, what they read, and what is prefetched."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np

from hvshare.synth.prefetching.memory import PageCache
from hvshare.synth.prefetching.preload import Preload
from hvshare.synth.prefetching.superfetch import SuperFetch
from hvshare.synth.prefetching.usage import WHOLE, draw_history, draw_running
from hvshare.units import PAGE_SIZE

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from hvshare.synth.draws import Draws
    from hvshare.synth.settings import Settings
    from hvshare.synth.template import Template

_WEEKS: Final = 2
"""What Preload has learnt from."""
_HOUR: Final = 3600
_MOST_CYCLES: Final = 1_000


@dataclass(frozen=True)
class Warm:
    """Memory once it is warm.

    Attributes
    ----------
    cached : ndarray of int64
        Pages of the disk in the cache, in order; numbers from the length of the disk on are files of the
        guest's own.
    prefetched : ndarray of bool, shape (cached,)
        Whether nobody has read them yet.
    free : int
        Pages that nobody holds.
    """

    cached: NDArray[np.int64]
    prefetched: NDArray[np.bool_]
    free: int


def warm_up(
    settings: Settings, template: Template, vm: Draws, boot: Draws, demanded: int, mapped: NDArray[np.int64]
) -> Warm:
    """Fill memory in the order in which a guest does.

    Programs and the kernel take what they demand; files are read into the cache; applications take what they
    demand, from free memory and then from the cache; what is left is prefetched into.

    Parameters
    ----------
    settings : Settings
        What is asked for.
    template : Template
        Whose disk is read.
    vm, boot : Draws
        What is drawn for the VM and for this boot.
    demanded : int
        Pages of no disk that the kernel and the preset's programs allocate.
    mapped : ndarray of int64
        Pages of the disk that programs map.

    Returns
    -------
    Warm

    Raises
    ------
    BudgetError
        If more is demanded than there is memory.
    """
    memory = PageCache(settings.pages, used=demanded)
    memory.map(mapped)
    cache, disk = settings.preset.cache, template.disk
    own = len(disk) + np.arange(-(-cache.own // PAGE_SIZE))
    memory.read(own[: memory.free])
    read = template.reading_order[: min(memory.free, -(-cache.template // PAGE_SIZE))]
    memory.read(read[::-1])
    memory.demand(settings.application_pages)
    before = memory.cached
    _prefetch(settings, template, vm, boot, memory)
    cached = memory.cached
    return Warm(cached, np.arange(len(cached)) >= len(before), memory.free)


def _prefetch(settings: Settings, template: Template, vm: Draws, boot: Draws, memory: PageCache) -> None:
    """Have the prefetcher fill memory at low priority."""
    kind, share = settings.prefetch.kind, settings.prefetch.share
    if kind == "off":
        return
    most = memory.free if share is None else int(memory.free * share)
    files = template.files_of
    prefetcher = settings.preset.prefetcher
    history = draw_history(len(files), template.draws, vm, int(prefetcher.diversity * WHOLE))
    if kind == "superfetch":
        pages_of = [template.pages_of_files(each) for each in files]
        rest = template.pages_of_files(range(len(template.disk.starts) - 1))
        SuperFetch(history, pages_of, rest).prefetch(memory, prefetcher.hour, most)
        return
    disk = template.disk
    preload = Preload(list(files), [disk.pages_of(file) for file in range(len(disk.starts) - 1)])
    preload.observe(draw_running(history, _WEEKS, boot), _HOUR)
    running = np.zeros(len(files), bool)
    running[: len(disk.programs)] = [program.processes > 0 for program in settings.preset.programs]
    if share is None:
        preload.prefetch(memory, running, _MOST_CYCLES)
    else:
        memory.prefetch(preload.order(running), most)

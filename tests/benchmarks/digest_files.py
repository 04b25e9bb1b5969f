"""Digests that look like those of the memory of many guests, quickly made."""

from __future__ import annotations

from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from hvshare.fingerprint.pages import ZERO_DIGEST

_ZERO: Final = 0.4
_COMMON: Final = 0.25  # of other pages
_WITHIN: Final = 0.05
_FILLED: Final = 0.02
_RUN_PAGES: Final = 256
_FAMILIES: Final = 4


def write_digests(folder: Path, vms: int, pages: int, *, zero_pages: bool) -> None:
    """Write a file of digests for each guest, the same ones each time.

    Parameters
    ----------
    folder : Path
        Receives ``00000.u64`` and so on: numbers of 8 bytes, as the machine has them.
    vms : int
        How many guests.
    pages : int
        Of each. 40 % are zero, in runs. Of the others, 25 % have contents that others hold, too: a third
        of them those of a template that all guests have a part of, a third those of one of four families, a
        third those of guests nearby; 5 % repeat within the guest, 2 % are filled with one byte, all others
        are unique.
    zero_pages : bool
        Whether zero pages have digests, as when they are read from a file, or lie in holes, where they have
        none.
    """
    random = np.random.Generator(np.random.SFC64(1))
    nonzero = pages - int(pages * _ZERO)
    common = int(nonzero * _COMMON)
    template = _contents(random, common)
    families = [_contents(random, common) for _ in range(_FAMILIES)]
    nearby = _contents(random, common * 2)
    for vm in range(vms):
        digests = _contents(random, nonzero)
        third = common // 3
        window = vm * common // vms
        digests[:third] = random.choice(template, third)
        digests[third : 2 * third] = random.choice(families[vm % _FAMILIES], third)
        digests[2 * third : common] = random.choice(nearby[window : window + common], common - 2 * third)
        within = int(nonzero * _WITHIN)
        digests[common : common + within] = random.choice(digests[-within:], within)
        digests[common + within : common + within + int(nonzero * _FILLED)] = 0xCC
        random.shuffle(digests)
        if zero_pages:
            digests = _with_zero_runs(random, digests, pages)
        digests.tofile(folder / f"{vm:05}.u64")


def _contents(random: np.random.Generator, count: int) -> NDArray[np.uint64]:
    return random.integers(0, 2**64, count, dtype=np.uint64)


def _with_zero_runs(
    random: np.random.Generator, nonzero: NDArray[np.uint64], pages: int
) -> NDArray[np.uint64]:
    zero = np.repeat(random.random(-(-pages // _RUN_PAGES)) < _ZERO, _RUN_PAGES)[:pages]
    digests = np.full(pages, ZERO_DIGEST, np.uint64)
    room = np.flatnonzero(~zero)[: len(nonzero)]
    digests[room] = nonzero[: len(room)]
    return digests

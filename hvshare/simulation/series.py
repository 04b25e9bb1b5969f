"""The claims of the Hyper-V series, one by one, held against guests made to order.

The claims are those of J. Woolsey, "Dynamic Memory Coming to Hyper-V", parts 3 (2010-04-07) and 4
(2010-04-21).
"""

from __future__ import annotations

from fractions import Fraction
from typing import TYPE_CHECKING, Final

from hvshare.simulation.cases import measure_cases, ratio
from hvshare.simulation.caveats import experiment_caveats, follows_from_model
from hvshare.simulation.claims import Limits, claim, finding
from hvshare.simulation.effects import contrasts
from hvshare.simulation.series_results import Series

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from hvshare.simulation.cases import Case, Cases
    from hvshare.simulation.running import Laboratory
    from hvshare.simulation.series_results import Claim, Finding
    from hvshare.synth.preset import Preset

PRESETS: Final = ("windows-xp-x86", "windows7-x86", "windows7-x64", "linux-x64")
"""Guests that the claims are held against."""

OLDER: Final = "windows-xp-x86"
NEWER: Final = "windows7-x64"
"""The guests that part 3 compares."""

ALMOST_NOTHING: Final = Limits(highest=Fraction(1, 100))
ALMOST_ALL: Final = Limits(lowest=Fraction(9, 10), included=True)
ABOUT_A_TENTH: Final = Limits(Fraction(5, 100), Fraction(15, 100), included=True)
MOST: Final = Limits(lowest=Fraction(1, 2))
MORE: Final = Limits(lowest=Fraction(0))
NO_LESS: Final = Limits(lowest=Fraction(0), included=True)

DIFFERENCE: Final = "share_difference"


def run_series(
    laboratory: Laboratory,
    presets: Sequence[Preset],
    *,
    scale: Fraction,
    settings: Mapping[str, str | int | float] | None = None,
) -> Series:
    """Hold every claim of the series against guests made for it.

    Parameters
    ----------
    laboratory : Laboratory
        Makes them.
    presets : sequence of Preset
        Those named in `PRESETS`, scaled already. Without one of the two that part 3 compares, that claim is
        left out; without any that has ASLR, those on prefetching and ASLR are.
    scale : Fraction
        What they were scaled by.
    settings : mapping of str to str, int or float, optional
        What else was asked for, to be told.

    Returns
    -------
    Series

    Raises
    ------
    PresetError
        If there can be no such guests.
    """
    cases = measure_cases(laboratory, presets)
    return Series(
        vms=laboratory.vms,
        seeds=laboratory.seeds,
        scale=str(scale),
        settings=dict(settings or {}),
        caveats=(*experiment_caveats(scale, laboratory.seeds), follows_from_model()),
        claims=tuple(judge_claims(cases, scale)),
        presets=tuple(preset.name for preset in presets),
    )


def judge_claims(cases: Cases, scale: Fraction) -> Iterator[Claim]:
    """Hold the claims against the cases that there are; see `run_series`."""
    yield claim(
        1,
        "part 3",
        "with large pages almost nothing can be shared, except frames that are zero",
        "what is saved at 2 MB, zero apart, is less than 1 % of memory",
        [each for case in cases for each in _at_large_pages(case)],
    )
    yield claim(
        2,
        "part 3",
        "the greatest benefit of page sharing is zero pages",
        "zero pages are more than half of what is saved at 4 KB",
        [each for case in cases for each in _zero_among_saved(case)],
    )
    if randomized := cases.randomized():
        yield claim(
            3,
            "part 4",
            "prefetching takes zero pages away, and only those",
            "with prefetching at least 90 % of zero pages are gone, and no less is saved of other pages",
            [
                each
                for name in randomized
                for aslr in (False, True)
                for each in _prefetching(cases, name, aslr)
            ],
        )
        yield claim(
            4,
            "part 4",
            "ASLR takes about 10 % of page sharing away",
            "at 4 KB 5 to 15 % less is saved with ASLR than without: of all that is saved, which is one "
            "reading, or of what is saved of other pages than zero, which is another",
            [
                each
                for name in randomized
                for prefetch in (False, True)
                for each in _aslr(cases, name, prefetch)
            ],
        )
        yield claim(
            5,
            "part 4",
            "what ASLR takes away is little beside large pages and prefetching",
            "the main effect of ASLR on what is saved is smaller than that of prefetching and than that of "
            "large pages, whatever their signs",
            [each for name in randomized for each in _main_effects(cases, name)],
        )
    older_and_newer = ((OLDER, False), (NEWER, True))
    if all(cases.has(name, aslr=on, prefetch=on) for name, on in older_and_newer):
        older, newer = (cases.of(name, aslr=on, prefetch=on) for name, on in older_and_newer)
        yield claim(
            6,
            "part 3",
            "Windows XP with 2 GB leaves most of its memory zero, so much can be shared; Windows 7 with 8 GB "
            "and SuperFetch leaves none",
            "zero pages are more than half of the one's memory, less than 1 % of the other's, and sharing at "
            "4 KB saves a smaller share of the other's memory, all three; what is used, cache and free is as "
            "the preset has it, so it decides nothing",
            [*_occupancy(older, scale), *_occupancy(newer, scale), *_older_and_newer(older, newer)],
        )


def _at_large_pages(case: Case) -> Iterator[Finding]:
    yield finding(
        case.label,
        "saved at 2 MB, zero apart, of memory",
        [tally.share(tally.nonzero) for tally in case.large],
        limits=ALMOST_NOTHING,
    )
    yield finding(
        case.label, "saved at 2 MB, zero, of memory", [tally.share(tally.zero) for tally in case.large]
    )


def _zero_among_saved(case: Case) -> Iterator[Finding]:
    yield finding(
        case.label,
        "zero among what is saved at 4 KB",
        [ratio(tally.zero, tally.saved) for tally in case.small],
        of="what is saved at 4 KB",
        limits=MOST,
    )


def _prefetching(cases: Cases, name: str, aslr: bool) -> Iterator[Finding]:
    without, with_it = (cases.of(name, aslr=aslr, prefetch=prefetch) for prefetch in (False, True))
    label = f"{name}, ASLR {'on' if aslr else 'off'}"
    yield finding(
        label,
        "of zero pages, gone with prefetching",
        [
            1 - ratio(after.zero_memory, before.zero_memory)
            for before, after in zip(without.small, with_it.small, strict=True)
        ],
        of="zero pages without prefetching",
        limits=ALMOST_ALL,
    )
    yield _difference(
        label,
        "saved more at 4 KB, zero apart",
        with_it.nonzero_shares(),
        without.nonzero_shares(),
        limits=NO_LESS,
    )


def _aslr(cases: Cases, name: str, prefetch: bool) -> Iterator[Finding]:
    without, with_it = (cases.of(name, aslr=aslr, prefetch=prefetch) for aslr in (False, True))
    label = f"{name}, prefetching {'on' if prefetch else 'off'}"
    pairs = list(zip(without.small, with_it.small, strict=True))
    # Two readings of the claim, so each is a condition of its own.
    yield finding(
        f"{label}, zero included",
        "less of all that is saved",
        [ratio(off.saved - on.saved, off.saved) for off, on in pairs],
        of="what is saved at 4 KB without ASLR",
        limits=ABOUT_A_TENTH,
    )
    yield finding(
        f"{label}, zero apart",
        "less of what is saved, zero apart",
        [ratio(off.nonzero - on.nonzero, off.nonzero) for off, on in pairs],
        of="what is saved at 4 KB without ASLR, zero apart",
        limits=ABOUT_A_TENTH,
    )


def _main_effects(cases: Cases, name: str) -> Iterator[Finding]:
    settings = [(aslr, prefetch) for prefetch in (False, True) for aslr in (False, True)]
    design = [cases.of(name, aslr=aslr, prefetch=prefetch) for aslr, prefetch in settings]
    tallies = [case.small for case in design] + [case.large for case in design]
    by_seed = [contrasts([tally.shares()["saved"] for tally in cell]) for cell in zip(*tallies, strict=True)]
    # Bits of a cell's index, from the lowest: ASLR, prefetching, the host's large pages.
    aslr, prefetching, large_pages = ([effects[1 << bit] for effects in by_seed] for bit in range(3))
    yield finding(name, "main effect of ASLR", aslr, unit=DIFFERENCE)
    for factor, effect in (("prefetching", prefetching), ("large pages", large_pages)):
        yield finding(name, f"main effect of {factor}", effect, unit=DIFFERENCE)
        yield _difference(
            name,
            f"by how much the effect of {factor} exceeds that of ASLR",
            [*map(abs, effect)],
            [*map(abs, aslr)],
            limits=MORE,
        )


def _occupancy(case: Case, scale: Fraction) -> Iterator[Finding]:
    for quantity in ("used", "cache", "free"):
        yield finding(
            case.label,
            f"{quantity} memory of one guest, scaled up to full size",
            [Fraction(getattr(each, quantity), case.vms) / scale for each in case.occupancy],
            unit="bytes",
            of=None,
        )
    yield finding(case.label, "saved at 4 KB, of memory", [tally.share(tally.saved) for tally in case.small])


def _older_and_newer(older: Case, newer: Case) -> Iterator[Finding]:
    # The claim is of the two together, so they are one condition.
    label = f"{OLDER} beside {NEWER}"
    for case, limits in ((older, MOST), (newer, ALMOST_NOTHING)):
        yield finding(
            label,
            f"zero pages of {case.preset}, of memory",
            [tally.share(tally.zero_memory) for tally in case.small],
            limits=limits,
        )
    yield _difference(
        label,
        f"saved at 4 KB less of {NEWER}",
        *([tally.share(tally.saved) for tally in case.small] for case in (older, newer)),
        limits=MORE,
    )


def _difference(
    label: str, quantity: str, more: Sequence[Fraction], less: Sequence[Fraction], *, limits: Limits
) -> Finding:
    """Put together by how much some shares of memory exceed others, seed by seed."""
    exceeding = [one - other for one, other in zip(more, less, strict=True)]
    return finding(label, quantity, exceeding, unit=DIFFERENCE, limits=limits, beside=less)

"""What a reader must know before trusting the figures of an experiment."""

from __future__ import annotations

from fractions import Fraction
from typing import TYPE_CHECKING

from hvshare.caveats import Caveat
from hvshare.simulation.making import LargePages

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence


def experiment_caveats(scale: Fraction, seeds: Sequence[int]) -> tuple[Caveat, ...]:
    """Tell what bears on every experiment with guests made to order.

    Parameters
    ----------
    scale : Fraction
        What presets were scaled by.
    seeds : sequence of int
        Of the templates.
    """
    caveats = [
        Caveat(
            "synthetic-guests",
            "the guests are made as their preset describes them, so figures show what follows from that, and "
            "not what real guests hold",
            "take dumps of real guests, and use hvshare erosion on them",
        )
    ]
    if scale != 1:
        caveats.append(
            Caveat(
                "scaled",
                f"sizes are {scale} of the preset's, but files and processes are as many, no file is smaller "
                "than a page, and frames of 2 MB are as large: shares of memory depend on the scale, most "
                "where a preset has many small files, since its guests come out fuller",
                "use a larger --scale to see how far, and --scale 1 for guests of full size",
            )
        )
    if len(seeds) == 1:
        caveats.append(
            Caveat(
                "one-seed",
                "one seed tells nothing of how far figures spread over templates and boots",
                "use --seeds for several",
            )
        )
    return tuple(caveats)


def waterfall_of_one_setting(levels: Mapping[str, bool], seed: int) -> Caveat:
    """Say which guests the waterfall is of."""
    on = ", ".join(name for name, is_on in levels.items() if is_on)
    return Caveat(
        "waterfall-of-one-setting",
        f"the waterfall is of the guests of seed {seed} with {on} on",
        "use the effects for what factors do on average",
    )


def factor_left_out(preset: str) -> Caveat:
    """Say that ASLR is no factor of guests whose system has none."""
    return Caveat(
        "factor-left-out",
        f"{preset} has no ASLR, so that is no factor, and there are half as many cells",
        "take another preset, or give aslr.kind in one of your own",
    )


def fewer_large_pages(by_setting: Mapping[str, LargePages]) -> tuple[Caveat, ...]:
    """Tell of guests that did not have all large pages that they asked for.

    Parameters
    ----------
    by_setting : mapping of str to LargePages
        Those of all guests under each setting, by its words.
    """
    total = LargePages.total([*by_setting.values()])
    if total.had == total.asked:
        return ()
    fewest = ""
    if len(by_setting) > 1:
        asking = [item for item in by_setting.items() if item[1].asked]
        setting, pages = min(asking, key=lambda item: Fraction(item[1].had, item[1].asked))
        fewest = f"; with {setting} it was {pages.had:,} of {pages.asked:,}"
    return (
        Caveat(
            "fewer-large-pages",
            f"{total.had:,} of {total.asked:,} large pages that guests asked for were to be had, memory "
            f"being fragmented{fewest}; the rest of what applications allocate lies in small pages",
            "take a smaller --fragmentation, or ask for less in large pages",
        ),
    )


def follows_from_model() -> Caveat:
    """Say which claims of the series are nearly assumptions of the guests that they are held against."""
    return Caveat(
        "follows-from-model",
        "each boot places frames anew and SuperFetch fills all free memory, because guests are made so: that "
        "little but zero is saved at 2 MB, and that prefetching takes zero pages, follows from it",
        "hold these claims against dumps of real guests; how much ASLR takes away is what is found here",
    )

"""What a reader must know before trusting the figures of an experiment."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hvshare.caveats import Caveat

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from fractions import Fraction


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


def follows_from_model() -> Caveat:
    """Say which claims of the series are nearly assumptions of the guests that they are held against."""
    return Caveat(
        "follows-from-model",
        "each boot places frames anew and SuperFetch fills all free memory, because guests are made so: that "
        "little but zero is saved at 2 MB, and that prefetching takes zero pages, follows from it",
        "hold these claims against dumps of real guests; how much ASLR takes away is what is found here",
    )

"""``hvshare simulate``: experiments with guests made to order."""

from __future__ import annotations

from fractions import Fraction
from typing import Any

import click

from hvshare.cli.guest_options import FractionType, fragmentation_option, libraries_option
from hvshare.cli.options import SizeType, jobs_option, output_options
from hvshare.cli.simulate_run import EXPERIMENTS, run
from hvshare.errors import SizeError
from hvshare.units import LARGE_FRAME_SIZE


class PrefetchType(click.ParamType[str | Fraction]):
    """A kind of prefetcher, or the share of free memory that the preset's own fills."""

    name = "prefetch"
    _kinds = ("off", "superfetch", "preload")

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str | Fraction:
        """Read a kind or a share, or fail as wrong usage."""
        if isinstance(value, Fraction) or value in self._kinds:
            return value  # type: ignore[no-any-return]  # click hands over what it has
        try:
            return FractionType().convert(value, param, ctx)
        except click.BadParameter:
            self.fail(f"{value!r} is neither {', '.join(self._kinds)} nor a number from 0 to 1.", param, ctx)


class LargeFramesType(SizeType):
    """A size in whole frames of 2 MB.

    Parameters
    ----------
    zero : bool
        Whether nothing is one, too.
    """

    def __init__(self, *, zero: bool = False) -> None:
        self._zero = zero

    def check(self, size: int) -> int:
        """Accept a multiple of 2 MB."""
        if size % LARGE_FRAME_SIZE or not (size or self._zero):
            raise SizeError(f"{size:,} bytes is no multiple of 2 MB", advice="write it like 512M or 8GiB")
        return size


@click.command(short_help="Run experiments with guests made to order.")
@click.argument("preset", metavar="[PRESET]", required=False)
@click.option(
    "--experiment",
    type=click.Choice(EXPERIMENTS),
    default="factorial",
    show_default=True,
    help="All factors in all combinations; the claims of the Hyper-V series one by one; or clones of one "
    "snapshot that diverge.",
)
@click.option(
    "--sweep",
    metavar="PARAMETER=FROM..TO[:STEP]",
    help="Vary one parameter instead: vms, prefetch, aslr, memory, apps, guest-large-pages, fragmentation, "
    "diversity, or pages written by clones. Values may be listed, too: aslr=off,on.",
)
@click.option(
    "--vms",
    type=click.IntRange(min=1),
    default=4,
    show_default=True,
    metavar="N",
    help="Guests that share with each other.",
)
@click.option(
    "--seeds",
    type=click.IntRange(min=1),
    default=3,
    show_default=True,
    metavar="N",
    help="Templates that everything is made with in turn; figures are told with their spread.",
)
@click.option(
    "--template",
    type=click.IntRange(min=0),
    default=1,
    show_default=True,
    metavar="SEED",
    help="The first of them; the others follow.",
)
@click.option(
    "--scale",
    type=FractionType(zero=False),
    default="1/16",
    show_default=True,
    metavar="FRACTION",
    help="Make every size of the preset, and those given here, so many times as large.",
)
@click.option(
    "--memory",
    type=LargeFramesType(),
    metavar="SIZE",
    help="Memory of a guest.  [default: the preset's]",
)
@fragmentation_option
@click.option(
    "--apps",
    type=SizeType(),
    metavar="SIZE",
    help="What applications allocate beside the preset's programs.  [default: nothing]",
)
@click.option(
    "--prefetch",
    type=PrefetchType(),
    metavar="KIND|FRACTION",
    help="What prefetching is like where it is on: superfetch, preload, or a share of free memory. "
    "off, too, with clones and sweeps.  [default: the preset's]",
)
@click.option(
    "--guest-large-pages",
    type=LargeFramesType(zero=True),
    metavar="SIZE",
    help="What guests allocate in large pages of their own where these are on.  [default: an eighth "
    "of memory; nothing with clones and sweeps]",
)
@click.option(
    "--waterfall/--no-waterfall",
    default=True,
    show_default=True,
    help="Measure with the factorial, too, what hvshare erosion finds in the guests of one cell, which takes "
    "longer than all the rest.",
)
@libraries_option
@click.option(
    "--keep",
    type=click.Path(),
    metavar="DIR",
    help="Write every guest that is made there, too, as a raw image.",
)
@jobs_option("make and hash guests")
@output_options("table", "json", "csv")
@click.pass_context
def simulate(ctx: click.Context, /, **options: Any) -> None:
    """Make guests to order, and tell what each factor does to sharing.

    Guests are made in memory, hashed, and measured as images are. The full factorial takes ASLR, prefetching
    and large pages of the guest, each off and on, at 4 KB and 2 MB of the host: 16 cells, with the effect of
    each factor and interaction on zero, self and inter-VM savings. All figures are modelled: they show what
    follows from a preset, and not what your guests hold.

    PRESET is windows-xp-x86, windows7-x86, windows7-x64, linux-x64, or the path of a TOML file like theirs;
    windows7-x64 by default. The series makes guests of its own, and takes none.

    \b
    Examples:
      hvshare simulate
      hvshare simulate linux-x64 --vms 8 --seeds 5 --prefetch preload
      hvshare simulate --experiment series
      hvshare simulate --experiment clones linux-x64 --json | jq .half_life_pages
      hvshare simulate --sweep vms=1..32
      hvshare simulate --sweep prefetch=0..1:0.1 --format csv -o prefetch.csv
    """
    run(ctx, **options)

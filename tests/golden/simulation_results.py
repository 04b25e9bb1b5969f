"""A made-up result of every experiment, rich in every part, for the goldens of all renderers."""

from __future__ import annotations

from fractions import Fraction
from itertools import product

from hvshare.caveats import Caveat
from hvshare.erosion.report import Kind, WaterfallStep
from hvshare.simulation.results import (
    RESPONSES,
    CellResult,
    ClonePoint,
    Clones,
    Effect,
    Simulation,
    Spread,
    Sweep,
    SweepPoint,
)
from hvshare.simulation.series_results import Claim, Finding, Series, Verdict

FACTORS = ("aslr", "prefetch", "guest-large-pages", "host-large-pages")
ODD_PRESET = "x[/red]:smile:\x1b[2J日本.toml"
MIB = 1 << 20
SEEDS = (1, 2, 3)
CAVEATS = (
    Caveat(
        "guests-are-modelled",
        "the guests follow presets, so no figure is that of a real guest",
        "run hvshare erosion on images of your own guests",
    ),
)


def around(thousandths: int, seeds: int = 3) -> Spread:
    """Give a spread with a mean of so many thousandths."""
    mean = Fraction(thousandths, 1000)
    return Spread.of([mean * (100 + step) / 100 for step in (0, -2, 2)[:seeds]])


def simulation(seeds: int = 3) -> Simulation:
    """Give a factorial with large and small effects."""
    return Simulation(
        preset=ODD_PRESET, vms=4, seeds=SEEDS[:seeds], memory_bytes=128 * MIB, scale="1/16",
        settings={"apps": "32.0 MiB", "prefetch": "superfetch"}, factors=FACTORS,
        cells=tuple(
            _cell(dict(zip(reversed(FACTORS), levels, strict=True)), seeds)
            for levels in product((False, True), repeat=4)
        ),
        effects=tuple(_effects(seeds)),
        waterfall=(
            WaterfallStep("possible", Kind.BOUNDED, 330 * MIB, 364 * MIB),
            WaterfallStep("prefetch", Kind.MEASURED, 120 * MIB, 120 * MIB),
            WaterfallStep("aslr", Kind.BOUNDED, 30 * MIB, 64 * MIB),
            WaterfallStep("large-pages", Kind.MEASURED, 160 * MIB, 160 * MIB),
            WaterfallStep("left", Kind.MEASURED, 20 * MIB, 20 * MIB),
        ),
        waterfall_levels=dict.fromkeys(FACTORS, True), waterfall_seed=SEEDS[0], caveats=CAVEATS,
    )  # fmt: skip


def one_seed() -> Simulation:
    """Give a factorial of one seed, which has no spread."""
    return simulation(1)


def _cell(levels: dict[str, bool], seeds: int) -> CellResult:
    large = levels["host-large-pages"]
    zero = 20 if large else 400 - 350 * levels["prefetch"]
    own = 0 if large else 50 - 5 * levels["aslr"]
    inter = 0 if large else 150 + 60 * levels["prefetch"] - 30 * levels["aslr"]
    return CellResult(
        {factor: levels[factor] for factor in FACTORS}, 2 * MIB if large else 4096, 512 * MIB,
        around(zero + own + inter, seeds), around(zero, seeds), around(own, seeds), around(inter, seeds),
        around(zero + 1, seeds),
    )  # fmt: skip


def _effects(seeds: int) -> list[Effect]:
    # In thousandths, in the order of RESPONSES.
    changes = {
        ("aslr",): (0, -2, -15, -17),
        ("prefetch",): (-175, 0, 30, -145),
        ("guest-large-pages",): (0, 0, 0, 1),
        ("host-large-pages",): (-205, -47, -165, -417),
        ("aslr", "prefetch"): (0, 0, 0, 0),
        ("aslr", "host-large-pages"): (0, 2, 15, 17),
        ("prefetch", "host-large-pages"): (175, 0, -30, 145),
        ("aslr", "prefetch", "guest-large-pages", "host-large-pages"): (-6, 0, 0, -6),
        ("prefetch", "guest-large-pages"): (0, 0, 0, 0),
    }
    return [
        Effect(factors, response, around(change, seeds))
        for factors, of_responses in changes.items()
        for response, change in zip(RESPONSES, of_responses, strict=True)
    ]


def series() -> Series:
    """Give a series with a claim of each verdict, and figures of each unit."""
    bare = "windows7-x86, ASLR off, prefetching off"
    lost, saved = "lost of what is saved", "what is saved without ASLR"
    beside = {"bears_out": None, "close_to_limit": None}
    return Series(
        claims=(
            Claim(
                1, "part 3", "Large pages leave almost nothing to share except zero-filled frames",
                "what is saved at 2 MB, zero apart, is below 1 % of memory",
                (
                    Finding(bare, "saved at 2 MB, zero apart, of memory", 0.0004, "share", "memory", 0.0,
                            0.001, bears_out=True, close_to_limit=False),
                    Finding(bare, "zero-filled, of memory", 0.124, "share", "memory", 0.11, 0.13, **beside),
                ),
                Verdict.HOLDS, "",
            ),
            Claim(
                2, "part 4", "ASLR costs about 10 % of what is saved",
                "5 to 15 % of what is saved without ASLR, zero pages apart",
                (
                    Finding("windows7-x86", lost, 0.31, "share", saved, 0.3, 0.32,
                            bears_out=False, close_to_limit=False),
                    Finding("windows7-x86", "main effect of ASLR", -0.0123, "share_difference", "memory",
                            -0.0125, -0.0119, **beside),
                    Finding(ODD_PRESET, lost, 0.054, "share", saved, 0.051, 0.058,
                            bears_out=True, close_to_limit=True),
                    Finding("linux-x64", lost, -0.00012, "share", saved, -0.001, 0.0,
                            bears_out=False, close_to_limit=False),
                    Finding("linux-x64", "by how much the effect of prefetching exceeds that of ASLR",
                            -0.0004, "share_difference", "memory", -0.002, 0.012,
                            bears_out=False, close_to_limit=True),
                ),
                Verdict.CONDITIONS, ODD_PRESET,
            ),
            Claim(
                3, "part 3", "Windows 7 leaves no memory free",
                "free memory of the preset as made",
                (
                    Finding("windows7-x64", "free", 5_827 * MIB, "bytes", None, 582 * MIB, 5_830 * MIB,
                            bears_out=False, close_to_limit=False),
                    Finding("windows-xp-x86", "used by that of Windows 7", 8.97, "ratio", None, 8.9, 9.0,
                            **beside),
                    Finding("windows-xp-x86", "programs", 1234.5, "count", None, 1_200.0, 1_300.0, **beside),
                ),
                Verdict.FAILS, "",
            ),
        ),
        presets=("windows7-x86", "windows7-x64", ODD_PRESET), vms=4, seeds=SEEDS, scale="1/16",
        settings={"fragmentation": 0.5}, caveats=CAVEATS,
    )  # fmt: skip


def clones() -> Clones:
    """Give clones whose points are too close to be drawn to scale."""
    return Clones(
        preset="linux-x64", vms=8, memory_bytes=512 * MIB, seeds=(1, 2), scale="1/16", settings={},
        pattern="uniform",
        points=tuple(
            ClonePoint(
                written, around(875 - written // 200, 2), around(left, 2), around(left, 2), left / 1000 + 0.01
            )
            for written, left in ((0, 980), (1, 976), (16, 940), (256, 490), (4096, 12), (65536, 0))
        ),
        half_life_pages=250, caveats=CAVEATS,
    )  # fmt: skip


def clustered_clones() -> Clones:
    """Give clones that no closed form is known of, and that do not diverge by half."""
    points = tuple(
        ClonePoint(written, around(875, 2), around(700, 2), around(900 - written // 100, 2), None)
        for written in (0, 10_000, 20_000)
    )
    return Clones(
        preset="linux-x64", vms=8, memory_bytes=512 * MIB, seeds=(1, 2), scale="1", settings={},
        pattern="clustered", points=points, half_life_pages=None, caveats=(),
    )  # fmt: skip


def sweep() -> Sweep:
    """Give a sweep whose points are to scale."""
    return Sweep(
        preset="windows7-x64", parameter="vms",
        points=tuple(
            SweepPoint(vms, str(vms), around(360 + 12 * vms), around(300), around(60), around(12 * vms),
                       around(20 + vms))
            for vms in (1, 2, 4, 8, 16, 32)
        ),
        vms=32, seeds=SEEDS, memory_bytes=512 * MIB, scale="1/16", settings={"aslr": "on"}, caveats=CAVEATS,
    )  # fmt: skip


def word_sweep() -> Sweep:
    """Give a sweep over words, one of which a user chose."""
    return Sweep(
        preset="linux-x64", parameter="prefetch",
        points=(
            _point("off", 600, 100, 400),
            _point(ODD_PRESET, 0, 300, 0),
            _point("preload", 300, 200, 200),
        ),
        vms=4, seeds=(7,), memory_bytes=512 * MIB, scale="1", settings={}, caveats=(),
    )  # fmt: skip


def one_point() -> Sweep:
    """Give a sweep of a single value, over which nothing can be drawn."""
    return Sweep(
        preset="linux-x64", parameter="prefetch", points=(_point("off", 600, 100, 10),),
        vms=2, seeds=(7,), memory_bytes=512 * MIB, scale="1", settings={}, caveats=(),
    )  # fmt: skip


def _point(value: str, zero: int, other: int, large: int) -> SweepPoint:
    parts = (zero + other, zero, other // 2, other - other // 2, large)
    return SweepPoint(value, value, *(around(part, 1) for part in parts))

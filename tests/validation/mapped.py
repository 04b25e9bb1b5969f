"""Real libraries: what relocation touches of them, and what ASLR does to guests that run them."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Final, NamedTuple

from hvshare.synth.mapped.image import Architecture
from tests.validation.counting import Savings, savings
from tests.validation.images import ALL, RUNNING, RelocationShares, relocation_shares
from tests.validation.made import make, run

ENDING: Final = ".dll"
SCALES: Final = {"windows7-x86": Fraction(1, 8), "windows7-x64": Fraction(1, 32)}
"""Guests of 256 MiB each."""

KNOWN: Final[dict[Architecture, dict[str, float]]] = {
    "i386": {RUNNING: 52.5, ".text": 99},
    "x86-64": {RUNNING: 8.2, ".rdata": 41, ".text": 0},
}
"""Per cent of pages that hold a relocation, measured before on the DLLs of Wine 8.0 in another way."""

MOST_POINTS: Final = 1.0
ASLR_CLAIM: Final = 4
"""Of the series: what share of sharing ASLR takes away."""

_IMAGES: Final = ("programs", "libraries")


def is_known(architecture: Architecture, section: str, percent: float) -> bool:
    """Tell whether a share is as known, to a point."""
    return abs(percent - KNOWN[architecture].get(section, percent)) <= MOST_POINTS


@dataclass(frozen=True)
class Effect:
    """What ASLR takes away from two guests.

    Attributes
    ----------
    preset, libraries, prefetching : str
        What they are, whether their libraries are real, and whether free memory is filled.
    without, with_it : Savings
        Frames saved without ASLR and with it.
    touched, images : int
        Pages of programs and libraries that ASLR changes, of how many.
    """

    preset: str
    libraries: str
    prefetching: str
    without: Savings
    with_it: Savings
    touched: int
    images: int


def measure_effect(
    preset: str,
    directory: Path | None,
    tell: Callable[[str], None],
    *,
    scale: Fraction,
    prefetching: str = "off",
    template: int = 1,
) -> Effect:
    """Make two guests, with the images of a directory or without, and count what they save."""
    group = "prefetch" if prefetching == "on" else "aslr"
    options = () if directory is None else ("--images", str(directory.resolve()))
    with tempfile.TemporaryDirectory(prefix="hvshare-") as folder:
        made = make(
            Path(folder), preset, tell, scale=scale, template=template, groups=(group,), options=options
        )
        guests = made.members(group)
        truths = [made.truth(each) for each in guests]
        touched = [
            is_touched
            for truth in truths
            for owner, is_touched in zip(truth.owners, truth.touched, strict=True)
            if owner in _IMAGES
        ]
        return Effect(
            preset,
            "made" if directory is None else "real",
            prefetching,
            savings([truth.contents for truth in truths]),
            savings([made.pages(each) for each in guests]),
            sum(touched),
            len(touched),
        )


class Finding(NamedTuple):
    """A figure of an experiment: in the middle, the lowest and the highest of its templates."""

    label: str
    quantity: str
    value: float
    lowest: float
    highest: float


def series_findings(directory: Path, tell: Callable[[str], None]) -> list[Finding]:
    """Run the experiment of the series with real libraries, and give what it finds of ASLR's effect."""
    arguments = ("simulate", "--experiment", "series", "--json", "--images", str(directory.resolve()))
    tell(f"hvshare {' '.join(arguments)}")
    with tempfile.TemporaryDirectory(prefix="hvshare-") as folder:
        found = json.loads(run(arguments, Path(folder)))
    return [
        Finding(*(each[name] for name in Finding._fields))
        for claim in found["claims"]
        if claim["number"] == ASLR_CLAIM
        for each in claim["findings"]
    ]


class ImageProofs:
    """All that is found of the images of a directory.

    Parameters
    ----------
    directory : Path
        Of DLLs for i386 and for x86-64.
    tell : callable
        Told of each command.
    scales : dict of str to Fraction
        Presets of guests to make, and how large they are.
    """

    def __init__(
        self,
        directory: Path,
        tell: Callable[[str], None],
        *,
        scales: dict[str, Fraction] = SCALES,
    ) -> None:
        architectures: tuple[Architecture, ...] = ("i386", "x86-64")
        self.shares = {each: relocation_shares(directory, each, ending=ENDING) for each in architectures}
        self.effects = [
            measure_effect(preset, images, tell, scale=scale, prefetching=prefetching)
            for preset, scale in scales.items()
            for images in (None, directory)
            for prefetching in ("off", "on")
        ]
        self.series = series_findings(directory, tell)

    @property
    def wrong(self) -> list[str]:
        """Name the shares that are not as known."""
        return [
            f"{architecture} {section}"
            for architecture, shares in self.shares.items()
            for section in KNOWN[architecture]
            if section not in shares.sections
            or not is_known(architecture, section, shares.sections[section].percent)
        ]

    def markdown(self) -> str:
        """Write both tables."""
        return "\n".join(
            [*_shares_table(self.shares), *_effects_table(self.effects), *_series_table(self.series)]
        )


def _shares_table(found: dict[Architecture, RelocationShares]) -> Iterator[str]:
    yield from ("### Pages that relocation touches", "")
    for architecture, shares in found.items():
        skipped = ", ".join(f"{reason}: {count:,}" for reason, count in shares.skipped.items()) or "none"
        yield f"{architecture}: {shares.images:,} images; files left out: {skipped}."
        yield ""
    yield "| Architecture | Section | Pages | Relocated | Share | Known before |"
    yield "| --- | --- | ---: | ---: | ---: | ---: |"
    for architecture, shares in found.items():
        for section, share in shares.sections.items():
            known = KNOWN[architecture].get(section)
            percent = f"{share.percent:.1f} %"
            yield (
                f"| {architecture} | {section if section in (ALL, RUNNING) else f'`{section}`'} "
                f"| {share.pages:,} | {share.relocated:,} "
                f"| {percent if is_known(architecture, section, share.percent) else f'**{percent}**'} "
                f"| {'–' if known is None else f'{known:g} %'} |"
            )
    yield ""


_TITLES: Final = (
    *("Guests", "Libraries", "Prefetching", "Image pages ASLR changes", "Self", "Inter-VM", "Zero apart"),
    "With zero pages",
)


def _effects_table(effects: Sequence[Effect]) -> Iterator[str]:
    yield from ("### What ASLR takes away", "")
    yield (
        "Frames saved by two VMs without ASLR and with it, by Counters of the truth's contents and of "
        "BLAKE2b of each page, and the share that this takes away. Image pages are those of programs and "
        "libraries that processes have in common."
    )
    yield ""
    yield f"| {' | '.join(_TITLES)} |"
    yield f"|{' --- |' * len(_TITLES)}"
    for each in effects:
        off, on = each.without, each.with_it
        cells = (
            *(each.preset, each.libraries, each.prefetching),
            f"{each.touched / each.images:.1%}".replace("%", " %") if each.images else "–",
            _taken(off.own, on.own),
            _taken(off.inter, on.inter),
            _taken(off.own + off.inter, on.own + on.inter),
            _taken(off.saved, on.saved),
        )
        yield f"| {' | '.join(cells)} |"
    yield ""


def _taken(without: int, with_it: int) -> str:
    if not without:
        return f"{without:,} to {with_it:,}"
    return f"{without:,} to {with_it:,}: {(without - with_it) / without:.1%}".replace("%", " %")


def _series_table(findings: Sequence[Finding]) -> Iterator[str]:
    yield "The same in the experiment of the series: `hvshare simulate --experiment series --images DIR`"
    yield ""
    yield "| Guests | Figure | Mean | Lowest | Highest |"
    yield "| --- | --- | ---: | ---: | ---: |"
    for each in findings:
        figures = (f"{figure:.1%}".replace("%", " %") for figure in each[2:])
        yield f"| {each.label} | {each.quantity} | {' | '.join(figures)} |"
    yield ""

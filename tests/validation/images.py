"""Count which pages of real programs and libraries hold relocated fields."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from os import PathLike
from typing import Final

from hvshare.synth.draws import Draws
from hvshare.synth.mapped.image import Architecture
from hvshare.synth.mapped.reading import read_images

ALL: Final = "all"
RUNNING: Final = "without .reloc and .eh_frame"
_MOST_PAGES: Final = 1 << 22


@dataclass(frozen=True)
class Share:
    """How many pages there are, and how many hold at least one byte of a relocated field."""

    pages: int
    relocated: int

    @property
    def percent(self) -> float:
        """Of 100 pages."""
        return 100 * self.relocated / self.pages if self.pages else 0.0


@dataclass(frozen=True)
class RelocationShares:
    """The pages of a directory's images.

    Attributes
    ----------
    images : int
        How many were counted.
    skipped : mapping of str to int
        Files that were not, by reason.
    sections : mapping of str to Share
        By section, of PE files, or by what may be done with a segment, of ELF files. `ALL` has all mapped
        pages: headers, sections that are zero at first and relocation tables, too, and no debug information.
        `RUNNING` leaves out what a program itself seldom reads: relocation tables, and ``.eh_frame``, which
        has a slash and a number for a name.
    """

    images: int
    skipped: Mapping[str, int]
    sections: Mapping[str, Share]


def relocation_shares(
    directory: str | PathLike[str], architecture: Architecture, *, ending: str = ""
) -> RelocationShares:
    """Count the pages of all images in a directory whose names end so."""
    found = read_images(
        directory, architecture=architecture, most_pages=_MOST_PAGES, order=Draws.of("relocation shares")
    )
    images = [image for image in found.images if image.name.endswith(ending)]
    pages: Counter[str] = Counter()
    relocated: Counter[str] = Counter()
    for image in images:
        touched = image.relocated_pages
        for number, name in enumerate(image.section_names):
            if number:
                here = image.section == number
                pages[name] += int(here.sum())
                relocated[name] += int(touched[here].sum())
    running = [name for name in pages if name != ".reloc" and not name.startswith("/")]
    shares = {
        ALL: Share(pages.total(), relocated.total()),
        RUNNING: Share(sum(pages[name] for name in running), sum(relocated[name] for name in running)),
    }
    shares |= {name: Share(count, relocated[name]) for name, count in pages.most_common()}
    return RelocationShares(len(images), found.skipped, shares)


def markdown(shares: RelocationShares) -> str:
    """Write the shares as a table."""
    lines = [
        f"{shares.images:,} images; skipped: "
        + (", ".join(f"{reason}: {count:,}" for reason, count in shares.skipped.items()) or "none"),
        "",
        "| Section | Pages | Relocated | Share |",
        "| --- | ---: | ---: | ---: |",
    ]
    lines += [
        f"| {name} | {share.pages:,} | {share.relocated:,} | {share.percent:.1f} % |"
        for name, share in shares.sections.items()
    ]
    return "\n".join(lines)


if __name__ == "__main__":
    folder, wanted, *rest = sys.argv[1:]
    if wanted not in {"i386", "x86-64"}:
        sys.exit("usage: python -m tests.validation.images DIRECTORY i386|x86-64 [ENDING]")
    kind: Architecture = "i386" if wanted == "i386" else "x86-64"
    sys.stdout.write(markdown(relocation_shares(folder, kind, ending="".join(rest))) + "\n")

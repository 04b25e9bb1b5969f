"""What the estimators say of guests of ``hvshare synth``, against the truth that travels with these."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Final, NamedTuple

from hvshare.synth.preset_file import load_preset
from tests.validation import document
from tests.validation.aslr import MOST_CONTROL
from tests.validation.aslr_cases import AslrCase, aslr_table, measure_case
from tests.validation.counting import Savings, curve_ends, savings
from tests.validation.lab import DISK, PAGE, ZERO
from tests.validation.made import PREFETCHERS, Made, make
from tests.validation.prefetch import LEAST_FOUND, MOST_OTHERS, prove_cold
from tests.validation.proofs import Predict, Proof, command_in

SCALE: Final = Fraction(1, 32)
TEMPLATES: Final = (1, 2, 3)
_LARGE: Final = 512
_CASES: Final = (("aslr", "noaslr", "off"), ("prefetch", "prefetchnoaslr", "on"))
_MAPPED: Final = ("programs", "libraries")
_CACHED: Final = ("file cache", "prefetched")
_NOT_OF_DISK: Final = ("firmware", "kernel data", "page tables", "heaps", "stacks", "large pages")


class _Page(NamedTuple):
    """What is known of a page."""

    is_file: bool
    is_zero: bool
    owner: str
    touched: bool


def _found(rows: Iterable[_Page], owners: Sequence[str]) -> tuple[int, int]:
    """Count the file pages among those of some owners, and all of these that are not zero."""
    held = [row.is_file for row in rows if row.owner in owners and not row.is_zero]
    return sum(held), len(held)


class SynthProofs:
    """All that is found of guests of several presets and templates.

    Parameters
    ----------
    tell : callable
        Told of each command.
    scale : Fraction
        Of all sizes of the presets.
    templates : sequence of int
        Seeds; all but ASLR is held to the truth with the first of them.
    presets : iterable of str
    """

    def __init__(
        self,
        tell: Callable[[str], None],
        *,
        scale: Fraction = SCALE,
        templates: Sequence[int] = TEMPLATES,
        presets: Iterable[str] = tuple(PREFETCHERS),
    ) -> None:
        self.cases: list[AslrCase] = []
        self.owners: dict[tuple[str, str], dict[str, tuple[int, int]]] = {}
        self.exact = Proof(
            "What is exact",
            "hvshare erosion SECTION --json GUEST.raw...",
            "BLAKE2b of each page, and Counters. Saved without ASLR: the truth of the guests, beside the "
            "same guests made with --no-aslr. The control is what is found in these: no address moved there, "
            "so it should be nothing; it stands beside what is true with ASLR.",
        )
        self.prefetching = Proof(
            "Prefetching",
            "hvshare erosion prefetch [--disk disk.raw | --cold COLD.raw...] --json GUEST.raw...",
            "pages whose BLAKE2b a block of the disk has, by the owners that the truth of a guest names; "
            "what the same guests save with prefetching off, less what they save.",
        )
        for preset in presets:
            for template in templates:
                with tempfile.TemporaryDirectory(prefix="hvshare-") as folder:
                    once = template == templates[0]
                    groups = (
                        ("aslr", "noaslr", "prefetch", "prefetchnoaslr") if once else ("aslr", "prefetch")
                    )
                    made = make(Path(folder), preset, tell, scale=scale, template=template, groups=groups)
                    predict = command_in(made.folder, tell)
                    for group, _, prefetching in _CASES:
                        case = measure_case(made, predict, group)
                        self.cases.append(AslrCase(preset, prefetching, template, *case))
                    if once:
                        self._hold(made, predict, preset, scale)

    @property
    def proofs(self) -> tuple[Proof, Proof]:
        """The tables of rows that have to hold."""
        return self.exact, self.prefetching

    def markdown(self) -> str:
        """Write all tables."""
        tables = document.markdown(self.proofs)
        return "\n".join([*aslr_table(self.cases), tables, *owners_table(self.owners)])

    def _hold(self, made: Made, predict: Predict, preset: str, scale: Fraction) -> None:
        for group, fixed, prefetching in _CASES:
            self.exact.equal(
                [preset, f"prefetching {prefetching}"],
                "saved without ASLR, frames",
                str(savings([made.truth(each).contents for each in made.members(group)])),
                str(savings([made.pages(each) for each in made.members(fixed)])),
            )
        control = predict("aslr", (), made.members("noaslr"))["explained_saved_frames"]
        truth = next(each.truth for each in self.cases if (each.preset, each.prefetching) == (preset, "off"))
        self.exact.share(
            [preset, "ASLR off"], "control: lower bound of ASLR", control, truth.saved, below=MOST_CONTROL
        )
        self._hold_large_pages(made, predict, preset)
        own = -(-load_preset(preset).scaled(scale).cache.own // PAGE)
        self._hold_disk(made, predict, preset, own)
        self._hold_cold(made, predict, preset)

    def _hold_large_pages(self, made: Made, predict: Predict, preset: str) -> None:
        guests = made.members("aslr")
        vms = [made.pages(each) for each in guests]
        found = predict("large-pages", (), guests)
        for size, title in ((1, "saved at 4 KB, frames"), (_LARGE, "saved at 2 MB, frames")):
            said = found["ladder"][str(PAGE * size)]
            counts = Savings(said["saved_zero"], said["saved_self"], said["saved_inter"])
            self.exact.equal([preset, *guests], title, str(counts), str(savings(vms, size)))
        best = {point["broken_frames"]: point["saved_bytes"] // PAGE for point in found["curve"]}
        ends, counted = (best[0], best[max(best)]), curve_ends(vms)
        self.exact.equal(
            [preset, *guests], "ends of the break curve, pages",
            " / ".join(f"{pages:,}" for pages in ends), f"{counted.none:,} / {counted.all:,}",
        )  # fmt: skip

    def _hold_disk(self, made: Made, predict: Predict, preset: str, own: int) -> None:
        """Hold file pages against the owners that the truth names."""
        blocks = set(made.pages(DISK)) - {ZERO}
        for group, _, _ in _CASES:
            guests, hold = made.members(group), self.prefetching
            found = predict("prefetch", ("--disk", f"{DISK}.raw"), guests)
            said = [each["file_pages"]["pages"] for each in found["disk"]["vms"]]
            counted = [sum(page in blocks for page in made.pages(each)) for each in guests]
            hold.equal(
                [preset, *guests],
                "file pages",
                *(" / ".join(map("{:,}".format, each)) for each in (said, counted)),
            )
            rows = [
                _Page(*row)
                for each in guests
                for row in zip(
                    (page in blocks for page in made.pages(each)),
                    (page == ZERO for page in made.pages(each)),
                    *made.truth(each)[:2],
                    strict=True,
                )
            ]
            cached, mapped = (_found(rows, owners) for owners in (_CACHED, _MAPPED))
            alone = _found([row for row in rows if not row.touched], _MAPPED)
            others = _found(rows, _NOT_OF_DISK)
            named = [preset, *guests]
            hold.share(
                named,
                "cached pages of the disk",
                cached[0],
                cached[1] - own * len(guests),
                at_least=LEAST_FOUND,
            )
            hold.share(named, "mapped pages that ASLR left alone", *alone, at_least=LEAST_FOUND)
            hold.share(named, "pages that come from no disk", *others, below=MOST_OTHERS)
            hold.share(named, "cached and mapped among file pages", cached[0] + mapped[0], sum(counted))
            self.owners[preset, group] = {
                owner: _found(rows, (owner,)) for owner in dict.fromkeys(row.owner for row in rows)
            }

    def _hold_cold(self, made: Made, predict: Predict, preset: str) -> None:
        """Hold what prefetching takes away against the same guests without it."""
        cold, guests = made.members("aslr"), made.members("prefetch")
        truth = (
            savings([made.pages(each) for each in cold]).saved
            - savings([made.pages(each) for each in guests]).saved
        )
        choices = (
            ("nothing named", ()),
            ("--disk", ("--disk", f"{DISK}.raw")),
            ("one --cold for both", ("--cold", f"{cold[0]}.raw")),
            ("--cold for each", tuple(word for each in cold for word in ("--cold", f"{each}.raw"))),
        )
        for title, options in choices:
            found = predict("prefetch", options, guests)
            bounds = found["lower_frames"], found["upper_frames"]
            self.prefetching.within([preset, *guests], f"taken away, {title}, frames", bounds, truth)
        by_page = prove_cold(made, predict)
        self.prefetching.share(
            [preset, *guests], "rows of a cold comparison that a plain count confirms",
            sum(row.holds for row in by_page.rows), len(by_page.rows), at_least=1,
        )  # fmt: skip


def owners_table(owners: Mapping[tuple[str, str], Mapping[str, tuple[int, int]]]) -> Iterator[str]:
    """Write how many pages of each owner are file pages; those that are zero are in no figure."""
    columns = [each for each in owners if each[1] == "prefetch"]
    yield from ("Pages of each owner that a block of the disk has, of those that are not zero:", "")
    yield f"| Owner | {' | '.join(preset for preset, _ in columns)} |"
    yield f"| --- |{' ---: |' * len(columns)}"
    for owner in sorted({owner for each in columns for owner, (_, pages) in owners[each].items() if pages}):
        cells = (owners[each].get(owner, (0, 0)) for each in columns)
        yield f"| {owner} | {' | '.join(f'{found:,} of {pages:,}' for found, pages in cells)} |"
    yield ""

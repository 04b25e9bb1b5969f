"""Large pages: the ladder and the ends of the break curve, against counts over raw bytes."""

from __future__ import annotations

from typing import Any, Final

from tests.validation.counting import CurveEnds, Savings, curve_ends, savings
from tests.validation.lab import PAGE, Lab
from tests.validation.proofs import Predict, PredictionError, Proof

_GROUPS: Final = ("aslr", "noaslr", "kaslronly", "useraslronly", "prefetch", "thp")
_STEPS: Final = range(10)
"""Powers of two from 4 KB to 2 MB."""


def prove_large_pages(lab: Lab, predict: Predict) -> Proof:
    """Hold savings at all frame sizes and the break curve against an independent count."""
    proof = Proof(
        "Large pages",
        "hvshare erosion large-pages --json GUEST.raw...",
        "BLAKE2b of each page, and Counters. Of the break curve: pages saved with no large frame broken, "
        "with the one that saves most, with all but the one that saves least in company, and with all.",
    )
    for group in _GROUPS:
        guests = lab.members(group)
        if len(guests) < 2:
            proof.missing(f"two guests {group}")
            continue
        try:
            section = predict("large-pages", (), guests)
        except PredictionError as error:
            proof.failed(guests, error)
            continue
        vms = [lab.pages(guest) for guest in guests]
        said = [_said(section, step) for step in _STEPS]
        counted = [savings(vms, 1 << step) for step in _STEPS]
        proof.equal(guests, "saved at 4 KB, frames", said[0], counted[0])
        if said[1:-1] == counted[1:-1]:
            # Of the sizes between, the parts have been compared, and their sums are shown.
            sums = [" / ".join(f"{each.saved:,}" for each in sizes[1:-1]) for sizes in (said, counted)]
        else:
            sums = [" / ".join(map(str, sizes[1:-1])) for sizes in (said, counted)]
        proof.equal(guests, "saved at 8 KB, 16 KB, ... 1 MB, frames", *sums)
        proof.equal(guests, "saved at 2 MB, frames", said[-1], counted[-1])
        proof.equal(guests, "break curve, pages", _ends(section), curve_ends(vms))
        proof.share(guests, "points of it in order and within their bounds", *_in_order(section), at_least=1)
    return proof


def _said(section: dict[str, Any], step: int) -> Savings:
    counts = section["ladder"][str(PAGE << step)]
    return Savings(counts["saved_zero"], counts["saved_self"], counts["saved_inter"])


def _ends(section: dict[str, Any]) -> CurveEnds:
    curve = section["curve"]
    best = {point["broken_frames"]: point["saved_bytes"] // PAGE for point in curve}
    last = max(best)
    return CurveEnds(best[0], best[min(1, last)], best[max(last - 1, 0)], best[last])


def _in_order(section: dict[str, Any]) -> tuple[int, int]:
    curve = section["curve"]
    before = [0, *(point["saved_bytes"] for point in curve)]
    good = sum(
        least <= point["saved_bytes"] <= point["most_saved_bytes"]
        for least, point in zip(before, curve, strict=False)
    )
    return good, len(curve)

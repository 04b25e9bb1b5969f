"""Prefetching: file pages against what kernels say of them, and cold images against plain counts."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any, Final

from tests.validation.counting import Pages, savings
from tests.validation.lab import DISK, ZERO, Lab, is_as_on_disk, is_file_cache
from tests.validation.proofs import Predict, PredictionError, Proof

LEAST_FOUND: Final = 0.97
MOST_OTHERS: Final = 0.02
_GROUPS: Final = ("aslr", "noaslr", "kaslronly", "useraslronly", "prefetch", "thp")


def prove_disk(lab: Lab, predict: Predict) -> Proof:
    """Hold file pages against the page cache of the guests' kernels."""
    proof = Proof(
        "Prefetching, with a disk",
        "hvshare erosion prefetch --disk disk.raw --json GUEST.raw...",
        "file pages: pages whose BLAKE2b a block of the disk has. The kernel's file pages: page cache by "
        "/proc/kpageflags of the guest; those as on disk were read as a whole and never written. Others: all "
        "further pages. Zero pages are in no figure. Predicted are the file pages among those measured.",
    )
    if not lab.has(DISK):
        proof.missing(f"{DISK}.raw")
        return proof
    blocks, zero = set(lab.pages(DISK)) - {ZERO}, list[int]()
    for group in _GROUPS:
        guests = lab.members(group)
        if not guests:
            proof.missing(f"a guest {group}")
            continue
        try:
            found = predict("prefetch", ("--disk", f"{DISK}.raw"), guests)
        except PredictionError as error:
            proof.failed(guests, error)
            continue
        for guest, said in zip(guests, found["disk"]["vms"], strict=True):
            _prove_guest(proof, lab, guest, said, blocks)
            zero.extend(_zero_cache(lab, guest))
    if zero:
        proof.notes.append(
            f"Kernels have {min(zero):,} zero pages or more in the page cache of a guest, and {max(zero):,} "
            "at the most, of which content cannot tell where they come from."
        )
    return proof


def _zero_cache(lab: Lab, guest: str) -> list[int]:
    """Count the zero pages of a kernel's page cache, if it was asked."""
    flags = lab.kernel_flags(guest)
    if flags is None:
        return []
    return [
        sum(page == ZERO and is_file_cache(each) for page, each in zip(lab.pages(guest), flags, strict=False))
    ]


def _prove_guest(proof: Proof, lab: Lab, guest: str, said: dict[str, Any], blocks: set[bytes]) -> None:
    pages = lab.pages(guest)
    is_file_page = [page in blocks for page in pages]
    counted = (sum(is_file_page), len(blocks.intersection(pages)))
    proof.equal(
        [guest],
        "file pages / contents of them",
        f"{said['file_pages']['pages']:,} / {said['contents']:,}",
        " / ".join(f"{count:,}" for count in counted),
    )
    of_kernel = lab.kernel_flags(guest)
    if of_kernel is None:
        proof.missing(f"{guest}.kpageflags.gz")
        return
    nonzero = [
        (is_file, flags)
        for page, is_file, flags in zip(pages, is_file_page, of_kernel, strict=False)
        if page != ZERO
    ]
    cache = [(is_file, flags) for is_file, flags in nonzero if is_file_cache(flags)]
    as_on_disk = [is_file for is_file, flags in cache if is_as_on_disk(flags)]
    others = [is_file for is_file, flags in nonzero if not is_file_cache(flags)]
    found = sum(is_file for is_file, _ in cache)
    proof.share([guest], "the kernel's file pages", found, len(cache), at_least=LEAST_FOUND)
    if as_on_disk:
        proof.share(
            [guest], "those of them as on disk", sum(as_on_disk), len(as_on_disk), at_least=LEAST_FOUND
        )
    proof.share([guest], "others", sum(others), len(others), below=MOST_OTHERS)


def prove_cold(lab: Lab, predict: Predict) -> Proof:
    """Hold every figure that cold images give against a plain count."""
    proof = Proof(
        "Prefetching, with cold images",
        "hvshare erosion prefetch --cold COLD.raw... --json GUEST.raw...",
        "BLAKE2b of each page, page by page beside the cold image, and Counters. With one cold image for "
        "several VMs, what these had in common is taken from nothing to all that they can have had.",
    )
    guests, cold = lab.members("prefetch"), lab.members("aslr")
    if not guests or not cold:
        proof.missing("guests prefetch and aslr")
        return proof
    choices = [([cold[0]], guests[:1])]
    if len(guests) > 1:
        choices.append(([cold[0]], guests))
        if len(cold) >= len(guests):
            choices.append((cold[: len(guests)], guests))
    for before, now in choices:
        options = [option for guest in before for option in ("--cold", f"{guest}.raw")]
        named = [f"--cold {' '.join(before)}", *now]
        try:
            found = predict("prefetch", options, now)
        except PredictionError as error:
            proof.failed(named, error)
            continue
        _prove_cold(
            proof, named, found, [lab.pages(each) for each in before], [lab.pages(each) for each in now]
        )
    return proof


def _prove_cold(
    proof: Proof, named: Sequence[str], found: dict[str, Any], cold: list[Pages], now: list[Pages]
) -> None:
    of_each = cold * len(now) if len(cold) < len(now) else cold
    vms = found["cold"]["vms"]
    plain = [
        cold_figures(*both, now[:vm] + now[vm + 1 :])
        for vm, both in enumerate(zip(of_each, now, strict=True))
    ]
    said = [{figure: _figure(each, figure) for figure in plain[vm]} for vm, each in enumerate(vms)]
    for figure in ("zero pages lost", "of them repeated between VMs"):
        key = {"zero pages lost": "lost.pages"}.get(figure, "lost.between_vms")
        proof.equal(named, figure, *(" / ".join(f"{each[key]:,}" for each in side) for side in (said, plain)))
    count = sum(map(len, plain))
    same = sum(each[figure] == plain[vm][figure] for vm, each in enumerate(said) for figure in each)
    proof.share(named, "figures of VMs that are equal", same, count, at_least=1)
    for vm, step in enumerate(found["balance"]):
        low, high = net_bounds(cold, now[: vm + 1], one_for_all=len(cold) < len(now))
        proof.equal(
            named,
            f"taken away, with {vm + 1} VM{'s' if vm else ''}, frames",
            f"{step['net_lower_frames']:,} to {step['net_upper_frames']:,}",
            f"{low:,} to {high:,}",
        )


def _figure(of_vm: dict[str, Any], name: str) -> int:
    figure: Any = of_vm
    for part in name.split("."):
        figure = figure[part]
    return int(figure)


def cold_figures(cold: Pages, now: Pages, others: Sequence[Pages]) -> dict[str, int]:
    """Compare a guest with its cold image page by page.

    Returns
    -------
    dict of str to int
        By the names that JSON has for them, parts joined by dots.
    """
    elsewhere = set().union(*others)
    copies, held = Counter(now), set(cold) - {ZERO}
    both = list(zip(cold, now, strict=True))
    lost = [after for before, after in both if before == ZERO != after]
    between = sum(page in elsewhere for page in lost)
    within = sum(page not in elsewhere and copies[page] > 1 for page in lost)
    return {
        "pages": len(both),
        "cold_zero_pages": cold.count(ZERO),
        "zero_pages": now.count(ZERO),
        "lost.pages": len(lost),
        "lost.between_vms": between,
        "lost.within_vm": within,
        "lost.unique": len(lost) - between - within,
        "lost_held_before_pages": sum(page in held for page in lost),
        "gained_pages": sum(after == ZERO != before for before, after in both),
        "same_pages": sum(before == after != ZERO for before, after in both),
        "changed_pages": sum(before != after and ZERO not in {before, after} for before, after in both),
        "contents_in_common": len(held.intersection(now)),
        "cold_contents": len(held),
    }


def net_bounds(cold: Sequence[Pages], now: Sequence[Pages], *, one_for_all: bool) -> tuple[int, int]:
    """Tell what VMs saved before their cache was warm, less what they save now, in frames.

    Notes
    -----
    Where one cold image stands for all, each VM saved as much in zero pages and within itself as it, and
    between VMs at the least nothing, at the most what the one before the last and the last VM have in common
    now, or all of the cold image.
    """
    saved_now = savings(now)
    if not one_for_all:
        net = savings(cold[: len(now)]).saved - saved_now.saved
        return net, net
    zero = max(sum(page == ZERO for page in cold[0]) * len(now) - 1, 0)
    own = savings(cold[:1]).own * len(now)
    low = zero + own - saved_now.saved
    contents = len(set(cold[0]) - {ZERO})
    gained = [savings(now[: vms + 1]).inter - savings(now[:vms]).inter for vms in range(1, len(now))]
    return low, low + sum(min(contents, each) for each in gained)

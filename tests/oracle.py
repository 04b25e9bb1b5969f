"""The counts of sharing, done over again in the plainest way: a Counter over raw bytes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

PAGE = 4096

Vm = Sequence[bytes | None]
"""The pages of a guest from address 0 on; None where the image holds nothing."""


def count(vms: Sequence[Vm], pages_per_frame: int) -> dict[str, int]:
    """Count the frames of some VMs, taken as one sharing domain."""
    held: list[Counter[bytes]] = []
    partial = 0
    for vm in vms:
        frames: Counter[bytes] = Counter()
        for start in range(0, len(vm), pages_per_frame):
            pages = vm[start : start + pages_per_frame]
            known = [page for page in pages if page is not None]
            if len(known) == pages_per_frame:
                frames[b"".join(known)] += 1
            elif known:
                partial += 1
        held.append(frames)
    zero_frame = bytes(PAGE * pages_per_frame)
    zero = sum(frames[zero_frame] for frames in held)
    contents = {content for frames in held for content in frames}
    nonzero = contents - {zero_frame}
    return {
        "frames": sum(sum(frames.values()) for frames in held),
        "partial_frames": partial,
        "zero": zero,
        "distinct": len([c for c in contents if any(frames[c] for frames in held)]),
        "saved_zero": max(zero - 1, 0),
        "saved_self": sum(max(frames[c] - 1, 0) for c in nonzero for frames in held),
        "saved_inter": sum(sum(frames[c] > 0 for frames in held) - 1 for c in nonzero),
    }

"""A guest made to order, as an image: its pages are made when they are read."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from hvshare.images.image import GuestImage, PageBlock
from hvshare.images.runs import RunKind, Runs
from hvshare.units import PAGE_SIZE

if TYPE_CHECKING:
    from collections.abc import Iterator

    from hvshare.caveats import Caveat
    from hvshare.synth.guest import GuestPlan


class SynthImage(GuestImage):
    """The memory of a planned guest.

    Parameters
    ----------
    name : str
        How reports call it.
    plan : GuestPlan
        What is in it.
    """

    format = "synth"
    layout = "made when it is read"

    def __init__(self, name: str, plan: GuestPlan) -> None:
        super().__init__(name, name)
        self.plan = plan
        self.runs: Runs = Runs()
        self.runs.append(0, len(plan), RunKind.PRESENT)
        self.source_bytes: int = len(plan) * PAGE_SIZE

    def blocks(self, buffer: memoryview, span: tuple[int, int] | None = None) -> Iterator[PageBlock]:
        """Make pages, block after block; see `GuestImage.blocks`."""
        most = len(buffer) // PAGE_SIZE
        out = np.frombuffer(buffer, np.uint64, most * PAGE_SIZE // 8).reshape(most, -1)
        low, high = span or (0, len(self.plan))
        for gfn in range(low, high, most):
            pages = min(most, high - gfn)
            self.plan.make(out[:pages], gfn)
            yield PageBlock(gfn, pages, pages * PAGE_SIZE)

    def finish(self) -> list[Caveat]:
        """Have nothing to tell: it cannot change."""
        return []

    def close(self) -> None:
        """Have nothing to let go of."""

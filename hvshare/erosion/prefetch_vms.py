"""What each VM holds, and what VMs save as one after another is added."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from hvshare.erosion.prefetch_contents import contents_of, held_by_several, savings_as_added
from hvshare.units import PAGE_SIZE

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np
    from numpy.typing import NDArray

    from hvshare.fingerprint.fingerprints import Fingerprints
    from hvshare.sharing.counts import Counts


@dataclass(frozen=True)
class HeldContents:
    """What some VMs hold at 4 KB.

    Attributes
    ----------
    fingerprints : sequence of Fingerprints
        One a VM.
    contents : list of ndarray of uint64
        The contents of each, ascending, each once, zero apart.
    zero_of, nonzero_of : list of int
        Known pages of each that are zero, and that are not.
    as_added : list of Counts
        What the first VM saves, the first two, and so on.
    """

    fingerprints: Sequence[Fingerprints]
    contents: list[NDArray[np.uint64]]
    zero_of: list[int]
    nonzero_of: list[int]
    as_added: list[Counts]

    @classmethod
    def of(cls, fingerprints: Sequence[Fingerprints]) -> HeldContents:
        """Gather what VMs hold."""
        frames = [each.frames(PAGE_SIZE) for each in fingerprints]
        zero_of = [each.zero for each in frames]
        nonzero_of = [each.frames - each.zero for each in frames]
        # One image may stand for several VMs.
        of_image = {id(each.digests): contents_of(each.digests) for each in fingerprints}
        contents = [of_image[id(each.digests)] for each in fingerprints]
        as_added = savings_as_added(contents, zero_of, nonzero_of)
        return cls(fingerprints, contents, zero_of, nonzero_of, as_added)

    @property
    def pooled(self) -> Counts:
        """What all VMs save."""
        return self.as_added[-1]

    def alone(self, vm: int) -> Counts:
        """Count what one VM saves by itself."""
        only = slice(vm, vm + 1)
        return savings_as_added(self.contents[only], self.zero_of[only], self.nonzero_of[only])[0]

    def between(self) -> NDArray[np.uint64]:
        """List the contents that two or more VMs hold, ascending."""
        return held_by_several(self.contents)

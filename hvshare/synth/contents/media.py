"""What is compressed already: pictures, sound, archives."""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, Final

from hvshare.synth.contents.batches import PageDraws, in_chunks
from hvshare.synth.contents.chunks import Stock, lay
from hvshare.synth.draws import Draws

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from hvshare.synth.contents.batches import Batch

_CHUNKS: Final = 2048


def media(pages: NDArray[np.uint64], batch: Batch) -> None:
    """Fill pages with what looks random and is never alike in two chunks, so that nothing compresses it."""
    draws = PageDraws.of(batch)
    lay(pages, draws, _stock())
    chunks = in_chunks(pages)
    chunks ^= draws.chunks[:, :, None]


@lru_cache(maxsize=1)
def _stock() -> Stock:
    return Stock(Draws.of("contents", "media").words(_CHUNKS * 8).reshape(-1, 8), _CHUNKS // 2, (0, 0))

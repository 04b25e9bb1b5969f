"""Text: prose, logs and settings, all of them ASCII."""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, Final

import numpy as np

from hvshare.synth.contents.batches import Column, PageDraws, in_chunks
from hvshare.synth.contents.chunks import OWN_WORDS, Stock, lay, own_bits
from hvshare.synth.contents.picks import Picks, table_of
from hvshare.synth.draws import below

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from hvshare.synth.contents.batches import Batch

_VOCABULARY: Final = (
    "the of to and in a for is on with from by not that as at be this an or it are if no was can time page "
    "file disk block cache read write user group name path size count start stop open close error retry "
    "service socket request reply queue lock memory thread process signal device driver module kernel mount "
    "volume table index key value record column cursor commit session client server address port route "
    "packet buffer stream timer event handler state mode flag option default limit version release build "
    "package library symbol section header footer image window font colour button panel layout theme"
)
WORDS: Final = tuple(_VOCABULARY.split())
_STYLES: Final = 3
_CHUNKS: Final = 1024
_SPAN: Final = 32
_TOKENS: Final = 4096
_TOKEN_BITS: Final = np.uint64(_TOKENS - 1)


def text(pages: NDArray[np.uint64], batch: Batch) -> None:
    """Fill pages with text of one style each."""
    draws = PageDraws.of(batch)
    style = below(draws.page[:, Column.STYLE], _STYLES)
    lay(pages, draws, _stock(), style)
    chunks = in_chunks(pages)
    of_style = style[:, None] * np.uint64(_TOKENS)
    for word, bits in zip(OWN_WORDS, own_bits(draws), strict=True):
        chunks[:, :, word] = np.take(_tokens(), ((bits & _TOKEN_BITS) + of_style).view(np.int64), mode="clip")


@lru_cache(maxsize=1)
def _stock() -> Stock:
    """Make the chunks of all styles, with room for a token in either half."""
    picks = Picks("text")
    rows = [_chunk(picks, line) for line in (_prose, _log, _settings) for _ in range(_CHUNKS)]
    return Stock(table_of([row.encode("ascii") for row in rows]), _SPAN, (0, 0), _STYLES)


@lru_cache(maxsize=1)
def _tokens() -> NDArray[np.uint64]:
    """Make what stands in those rooms: eight characters, as a word."""
    picks = Picks("tokens")
    prose = [_fitting(picks, 8) for _ in range(_TOKENS)]
    # Digits come first, since it is by the lowest bits of words that twins are looked for.
    mixed = [number * 40503 % 100_000 for number in range(_TOKENS)]
    log = [f"{number % 100:02}.{number // 100:03}] " if number & 1 else f"{number:05}]: " for number in mixed]
    settings = [f"{number:05}\n# " if number & 1 else f"{number:05} ; " for number in mixed]
    return table_of([token.encode("ascii") for token in prose + log + settings]).reshape(-1)


def _chunk(picks: Picks, line: Callable[[Picks, int], str]) -> str:
    return f"{line(picks, 16)}{' ' * 8}{line(picks, 24)}{' ' * 8}{line(picks, 8)}"


def _prose(picks: Picks, size: int) -> str:
    end = picks.below(6)
    words = _fitting(picks, size)
    return words[:-1] + "\n" if end == 0 else words[:-2] + ". " if end == 1 and size > 8 else words


def _log(picks: Picks, size: int) -> str:
    return f"{_fitting(picks, size - 8)}\nMar {1 + picks.below(28):2} " if size > 8 else _fitting(picks, size)


def _settings(picks: Picks, size: int) -> str:
    if size == 24 and picks.below(4) == 0:
        return f"[{_fitting(picks, 6).rstrip()}]".ljust(8) + f"\n{_fitting(picks, 15)}"
    return _fitting(picks, size).replace(" ", "_")[:-1] + " "


def _fitting(picks: Picks, size: int) -> str:
    """Write words that take just so many characters, each with a space behind it."""
    written = ""
    left = size
    while left > 0:
        word = picks.early_one_of(WORDS)
        rest = left - len(word) - 1
        if rest == 0 or rest > 1:
            written += f"{word} "
            left = rest
    return written

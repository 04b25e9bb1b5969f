"""Machine code with 32-bit addresses in it, on no boundary, as loaders relocate them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np

from hvshare.synth.address_spaces import KERNEL
from hvshare.synth.contents.addresses import Windows, how_many
from hvshare.synth.contents.batches import Column, PageDraws, fields_at_any_byte
from hvshare.synth.contents.chunks import lay
from hvshare.synth.contents.code import stock_i386, stock_x86_64
from hvshare.synth.draws import below

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from hvshare.synth.contents.batches import Batch

_FIELD_PLACES: Final = 49
"""The opcode starts in one of these bytes of a chunk, so the address behind it ends before the last word."""

_WITHOUT: Final = np.uint64(307)
"""Of 1,024 pages of a kernel's code, so many hold no address."""

_ODD: Final = np.uint64(0x9FB21C651E98DF25)
_LOW_HALF: Final = np.uint64(0xFFFF_FFFF)


def _opcodes(*codes: str) -> NDArray[np.uint64]:
    return np.array([int.from_bytes(bytes.fromhex(code), "little") for code in codes], np.uint64)


_I386: Final = _opcodes(
    *("c9c390a1", "85c08b0d", "5056ff15", "5356ff15", "83c40468", "5053ff15", "ff75fc68", "33c0c705"),
    *("8bf08915", "8bc88b35", "5750ffb0", "90909068", "57be00bf", "85c0833d", "03c08b80", "5051ff15"),
)  # fmt: skip
_X86_64: Final = _opcodes(
    "9048c7c7", "488b04c5", "9048c7c6", "904881ff", "488b04c5", "9048c7c2", "48ff24c5", "904889be"
)


def moved_code_i386(pages: NDArray[np.uint64], batch: Batch) -> None:
    """Fill pages with machine code of i386 that holds some 10 to 60 addresses of its own image."""
    draws = PageDraws.of(batch)
    lay(pages, draws, stock_i386())
    _embed(pages, draws, how_many(draws, 10, 60), _I386, Windows.of(batch, [batch.region]))


def kernel_code_x86_64(pages: NDArray[np.uint64], batch: Batch) -> None:
    """Fill pages with machine code of a kernel: some hold no addresses, others 10 to 40."""
    draws = PageDraws.of(batch)
    lay(pages, draws, stock_x86_64())
    some = (draws.page[:, Column.ADDRESSES] & np.uint64(1023)) >= _WITHOUT
    _embed(
        pages,
        draws,
        how_many(draws, 10, 40) * some,
        _X86_64,
        Windows.of(batch, [batch.region, KERNEL]).spread((3, 1)),
    )


def _embed(
    pages: NDArray[np.uint64],
    draws: PageDraws,
    count: NDArray[np.uint64],
    opcodes: NDArray[np.uint64],
    windows: Windows,
) -> None:
    """Write the ends of instructions and the lower halves of addresses, at the most one in a chunk."""
    words = draws.again()
    where = np.flatnonzero((words & np.uint64(0x3F00)) < (count << np.uint64(8))[:, None])
    words = np.take(words, where, mode="clip")
    addresses, there = windows.targets(where >> 6, words, 1)
    # The bits that chose the place in the window are mixed with others, to choose the place in the chunk.
    bits = words * _ODD
    places = below(bits, _FIELD_PLACES).view(np.int64)
    places += where * 64
    fields = (addresses & _LOW_HALF) << np.uint64(32)
    fields |= np.take(
        opcodes, (bits >> np.uint64(20) & np.uint64(len(opcodes) - 1)).view(np.int64), mode="clip"
    )
    if there is not None:
        places, fields = places[there], fields[there]
    fields_at_any_byte(pages)[places] = fields

"""The digest of a page: XXH3-64, with zero pages told by their content.

Nothing here imports numpy, so that worker processes are small and start at once.
"""

from __future__ import annotations

import mmap
from array import array
from functools import cache
from itertools import compress
from typing import TYPE_CHECKING, Final

from xxhash import xxh3_64_intdigest

from hvshare.units import PAGE_SIZE

if TYPE_CHECKING:
    from collections.abc import Sequence

ZERO_PAGE: Final = bytes(PAGE_SIZE)

ZERO_DIGEST: Final = xxh3_64_intdigest(ZERO_PAGE)
"""Digest of the zero page, and of zero frames of every size; no other content has it."""

_ZERO_DIGESTS: Final = frozenset((ZERO_DIGEST,))  # membership is what C answers fastest

BLOCK_PAGES: Final = 512
"""Pages of a block: 2 MiB stay in the caches of one core between the read and the digest."""


class BlockBuffer:
    """Room for the pages of one block, with a view of each page made once.

    Parameters
    ----------
    pages : int
        How many pages there is room for.

    Attributes
    ----------
    room : memoryview
        All bytes of the buffer, aligned to a page.
    views : list of memoryview
        One view a page.
    """

    def __init__(self, pages: int = BLOCK_PAGES) -> None:
        self.room = memoryview(mmap.mmap(-1, pages * PAGE_SIZE))
        self.views = [self.room[at : at + PAGE_SIZE] for at in range(0, pages * PAGE_SIZE, PAGE_SIZE)]


def digest_pages(pages: Sequence[memoryview]) -> array[int]:
    """Digest pages by XXH3-64.

    Parameters
    ----------
    pages : sequence of memoryview
        4,096 bytes each.

    Returns
    -------
    array of uint64
        One digest a page. A page has `ZERO_DIGEST` if, and only if, all its bytes are zero.

    Notes
    -----
    XXH3-64 with the default secret and seed 0, as ``xxhsum -H3`` prints it
    (https://github.com/Cyan4973/xxHash, ``doc/xxhash_spec.md``).

    Examples
    --------
    >>> digests = digest_pages([memoryview(bytes(4096)), memoryview(b"a" * 4096)])
    >>> digests[0] == ZERO_DIGEST, f"{digests[1]:016x}"
    (True, '88a30670e919701e')
    """
    digests = list(map(xxh3_64_intdigest, pages))
    if ZERO_DIGEST in digests:
        zero_like = compress(pages, map(_ZERO_DIGESTS.__contains__, digests))
        # Of equal lengths, startswith compares whole pages, at the speed of memcmp.
        if not all(map(ZERO_PAGE.startswith, zero_like)):
            digests = [
                told_from_zero(d) if p != ZERO_PAGE else d for d, p in zip(digests, pages, strict=True)
            ]
    return array("Q", digests)


def told_from_zero(digest: int) -> int:
    """Move the digest of a content that is not zero off `ZERO_DIGEST`."""
    return digest ^ 1 if digest == ZERO_DIGEST else digest


@cache
def fill_digests() -> dict[int, int]:
    """Digests of the pages that repeat one byte other than zero, and that byte.

    Examples
    --------
    >>> len(fill_digests())
    255
    """
    return {xxh3_64_intdigest(bytes([value]) * PAGE_SIZE): value for value in range(1, 256)}

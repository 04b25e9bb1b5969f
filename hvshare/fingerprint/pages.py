"""The digest of a page: XXH3-64, with zero pages told by their content.

Nothing here imports numpy, so that worker processes are small and start at once.
"""

from __future__ import annotations

import mmap
import operator
from array import array
from functools import cache
from itertools import chain, compress
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
    """Room for the pages of one block, with views of its parts made once.

    Parameters
    ----------
    pages : int
        How many pages there is room for.
    chunk_pages : int
        Pages of a chunk: free memory of a guest is found chunk by chunk, and not digested.

    Attributes
    ----------
    room : memoryview
        All bytes of the buffer, aligned to a page.
    """

    def __init__(self, pages: int = BLOCK_PAGES, chunk_pages: int = 32) -> None:
        self.room = memoryview(mmap.mmap(-1, pages * PAGE_SIZE))
        self._views = self._cut(PAGE_SIZE)
        self._chunks = self._cut(chunk_pages * PAGE_SIZE)
        self._views_of_chunks = [self._views[at : at + chunk_pages] for at in range(0, pages, chunk_pages)]
        self._zero_chunk = bytes(chunk_pages * PAGE_SIZE)
        self._zero_digests = array("Q", [ZERO_DIGEST]) * chunk_pages

    def _cut(self, size: int) -> list[memoryview]:
        return [self.room[at : at + size] for at in range(0, len(self.room), size)]

    def digests(self, pages: int) -> array[int]:
        """Digest the first pages of the buffer; see `digest_pages`."""
        chunk_pages = len(self._zero_digests)
        chunks = pages // chunk_pages
        zero = list(map(self._zero_chunk.startswith, self._chunks[:chunks]))
        if True not in zero:
            return digest_pages(self._views[:pages])
        others = chain.from_iterable(compress(self._views_of_chunks, map(operator.not_, zero)))
        found = digest_pages([*others, *self._views[chunks * chunk_pages : pages]])
        digests = array("Q")
        at = 0
        for is_zero in zero:
            if is_zero:
                digests += self._zero_digests
            else:
                digests += found[at : at + chunk_pages]
                at += chunk_pages
        return digests + found[at:]


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

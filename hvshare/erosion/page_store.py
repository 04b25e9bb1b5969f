"""Pages that are looked at again and again, in a file that takes no memory."""

from __future__ import annotations

import contextlib
import mmap
import tempfile
from typing import TYPE_CHECKING, Final, Protocol, Self

import numpy as np

from hvshare.errors import ImageChangedError, ResourceError
from hvshare.units import PAGE_SIZE

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from numpy.typing import NDArray

    from hvshare.erosion.aslr_contents import Contents
    from hvshare.fingerprint.fingerprints import Fingerprints
    from hvshare.images.image import GuestImage

WORDS: Final = PAGE_SIZE // 8
"""Words of 64 bits in a page."""

_BUFFER_PAGES: Final = 512


class PageWords(Protocol):
    """Pages as rows of words, which stand in 64 bits each however many of them they have."""

    @property
    def pages(self) -> int:
        """How many pages there are."""

    @property
    def columns(self) -> int:
        """How many words a page has."""

    def rows(self, contents: NDArray[np.int64]) -> NDArray[np.uint64]:
        """Give the pages of some contents, as a copy of their words."""

    def slice(self, start: int, end: int) -> NDArray[np.uint64]:
        """Give the pages of contents that follow each other, as a copy of their words."""


def word_bytes(words: NDArray[np.uint64]) -> int:
    """Tell how many bytes of a page each word of some rows has.

    Examples
    --------
    >>> word_bytes(np.zeros((3, 512), np.uint64)), word_bytes(np.zeros((3, 1024), np.uint64))
    (8, 4)
    """
    size: int = PAGE_SIZE // words.shape[1]
    return size


class PageStore:
    """One page of each content, in an unnamed temporary file; forked processes share it.

    Parameters
    ----------
    contents : Contents
        What to keep a page of.

    Raises
    ------
    ResourceError
        If there is no room for it.
    """

    columns: int = WORDS

    def __init__(self, contents: Contents) -> None:
        self._contents = contents
        self._map: mmap.mmap | None = None
        with self._told():
            self._file = tempfile.TemporaryFile(prefix="hvshare-")  # noqa: SIM115  # closed by close()

    @property
    def pages(self) -> int:
        """How many pages there are: one a content."""
        return len(self._contents)

    def fill(
        self,
        images: Sequence[GuestImage],
        fingerprints: Sequence[Fingerprints],
        on_pages: Callable[[int], None] | None = None,
    ) -> None:
        """Read the images once and keep a page of each content.

        Parameters
        ----------
        images : sequence of GuestImage
            Opened, in the order of the VMs.
        fingerprints : sequence of Fingerprints
            Of these images.
        on_pages : callable, optional
            Receives how many more pages were read.

        Raises
        ------
        ImageError
            If an image cannot be read again, or is not what it was.
        ResourceError
            If there is no room for the pages.
        """
        buffer = memoryview(bytearray(_BUFFER_PAGES * PAGE_SIZE))
        pages = np.frombuffer(buffer, np.uint8).reshape(-1, PAGE_SIZE)
        for vm, (image, of_vm) in enumerate(zip(images, fingerprints, strict=True)):
            wanted = self._contents.first_position[self._contents.first_vm == vm]
            seen = 0
            for block in image.blocks(buffer):
                low, high = np.searchsorted(wanted, [seen, seen + block.pages]).tolist()
                self._append(pages[wanted[low:high] - seen])
                seen += block.pages
                if on_pages:
                    on_pages(block.pages)
            image.finish()
            if seen != len(of_vm.digests):
                raise ImageChangedError(
                    f"it had {len(of_vm.digests):,} pages when it was hashed and has {seen:,} now",
                    path=image.path,
                    advice="work with a copy that nobody writes to",
                )
        with self._told():
            self._file.flush()

    def _append(self, rows: NDArray[np.uint8]) -> None:
        with self._told():
            self._file.write(rows.data)

    @contextlib.contextmanager
    def _told(self) -> Iterator[None]:
        """Say what errors of the temporary file are, so that none is taken for that of an image."""
        try:
            yield
        except OSError as error:
            raise ResourceError(
                f"there is no room for {self.pages:,} pages in a temporary file: {error.strerror}",
                advice="set TMPDIR to a file system with more room",
            ) from error

    def rows(self, contents: NDArray[np.int64]) -> NDArray[np.uint64]:
        """Give the pages of some contents.

        Parameters
        ----------
        contents : ndarray of int64, shape (n,)
            Numbers of contents.

        Returns
        -------
        ndarray of uint64, shape (n, 512)
            A copy of their words, little-endian.
        """
        words: NDArray[np.uint64] = self._words()[contents]
        self.release()
        return words

    def slice(self, start: int, end: int) -> NDArray[np.uint64]:
        """Give the pages of contents that follow each other, as a copy of their words."""
        words = self._words()[start:end].copy()
        self.release()
        return words

    def _words(self) -> NDArray[np.uint64]:
        # Mapped where it is used, so that each process lets go of what it has looked at by itself.
        if self._map is None:
            self._map = mmap.mmap(self._file.fileno(), self.pages * PAGE_SIZE, access=mmap.ACCESS_READ)
        return np.frombuffer(self._map, "<u8").reshape(-1, WORDS)

    def release(self) -> None:
        """Let go of pages that were looked at, which count as memory of the process otherwise."""
        if self._map is not None and hasattr(mmap, "MADV_DONTNEED"):
            self._map.madvise(mmap.MADV_DONTNEED)

    def close(self) -> None:
        """Let go of all pages."""
        if self._map is not None:
            self._map.close()
            self._map = None
        # What could not be written is not wanted any more.
        with contextlib.suppress(OSError):
            self._file.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class NarrowWords:
    """Pages of a store as words of 32 bits, each in the lower half of one of 64.

    Parameters
    ----------
    store : PageStore
        The pages.
    """

    columns: int = 2 * WORDS

    def __init__(self, store: PageStore) -> None:
        self._store = store

    @property
    def pages(self) -> int:
        """How many pages there are."""
        return self._store.pages

    def rows(self, contents: NDArray[np.int64]) -> NDArray[np.uint64]:
        """Give the pages of some contents.

        Parameters
        ----------
        contents : ndarray of int64, shape (n,)
            Numbers of contents.

        Returns
        -------
        ndarray of uint64, shape (n, 1024)
            A copy of their words.
        """
        return self._store.rows(contents).view("<u4").astype(np.uint64)

    def slice(self, start: int, end: int) -> NDArray[np.uint64]:
        """Give the pages of contents that follow each other, as a copy of their words."""
        return self._store.slice(start, end).view("<u4").astype(np.uint64)

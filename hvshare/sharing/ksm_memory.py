"""Memory that KSM may merge, filled with the pages of images, and what repeats in it."""

from __future__ import annotations

import mmap
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Self

import numpy as np

from hvshare.errors import ResourceError
from hvshare.fingerprint.pages import ZERO_DIGEST, BlockBuffer
from hvshare.images.runs import RunKind
from hvshare.sharing.ksm_users import check_memory
from hvshare.units import PAGE_SIZE

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from hvshare.caveats import Caveat
    from hvshare.images.image import GuestImage

_CHUNK_PAGES: Final = (64 << 20) // PAGE_SIZE


@dataclass(frozen=True)
class MappedImage:
    """One image in memory.

    Attributes
    ----------
    name, path, format : str
        As in `GuestImage`.
    pages, zero_pages, absent_pages : int
        Pages that are mapped, those of them that are zero, and pages that the image does not hold.
    """

    name: str
    path: str
    format: str
    pages: int
    zero_pages: int
    absent_pages: int


class MergeableMemory:
    """Private anonymous memory without huge pages, which holds the known pages of some images.

    It is not merged before `offer` marks it. Used as a context manager it is given back, and with it whatever
    KSM has merged of it, and of nothing else.
    """

    def __init__(self) -> None:
        self._chunks: list[mmap.mmap] = []
        self._digests: list[np.ndarray[tuple[int], np.dtype[np.uint64]]] = []
        self.images: list[MappedImage] = []
        self.caveats: list[Caveat] = []

    @property
    def pages(self) -> int:
        """All pages that are mapped."""
        return sum(image.pages for image in self.images)

    def fill(self, image: GuestImage, on_progress: Callable[[int], None] | None = None) -> None:
        """Map the pages of an image; if it turns out to be unusable, none of them stays.

        Parameters
        ----------
        image : GuestImage
            Opened; it is read once.
        on_progress : callable, optional
            Receives how many more bytes of its file were read.

        Raises
        ------
        ImageError
            If the image cannot be used.
        ResourceError
            If memory would run short.
        """
        area = _Area()
        try:
            digests = [area.digests_of(block) for block in _blocks(image, area.buffer, on_progress)]
            self.caveats += [*image.caveats, *image.finish()]
            runs = image.runs if image.runs is not None else image.streamed_runs
            holes = 0 if runs is None else runs.pages_of(RunKind.ZERO)
            area.append_zero(holes)
        except BaseException:
            area.close()
            raise
        self._chunks += area.chunks
        found = np.concatenate([np.empty(0, np.uint64), *digests])
        zero = found == np.uint64(ZERO_DIGEST)
        zero_pages = int(np.count_nonzero(zero)) + holes
        absent = 0 if runs is None else runs.pages_of(RunKind.ABSENT)
        self._digests.append(found[~zero])
        self.images.append(
            MappedImage(image.name, image.path, image.format, len(found) + holes, zero_pages, absent)
        )

    def copies(self) -> dict[int, int]:
        """Count for each number of copies how many contents other than zero occur so often."""
        digests = np.sort(np.concatenate([np.empty(0, np.uint64), *self._digests]))
        first = np.flatnonzero(np.r_[True, digests[1:] != digests[:-1]][: len(digests)])
        numbers, counts = np.unique(np.diff(first, append=len(digests)), return_counts=True)
        return dict(zip(numbers.tolist(), counts.tolist(), strict=True))

    @property
    def zero_pages(self) -> int:
        """All pages that are zero."""
        return sum(image.zero_pages for image in self.images)

    def offer(self) -> None:
        """Let KSM merge it."""
        for chunk in self._chunks:
            _advise(chunk, mmap.MADV_MERGEABLE)

    def withdraw(self) -> None:
        """Let KSM merge it no more; pages that were merged are copied, so all are as they were."""
        for chunk in self._chunks:
            _advise(chunk, mmap.MADV_UNMERGEABLE)

    def close(self) -> None:
        """Give all memory back."""
        for chunk in self._chunks:
            chunk.close()
        self._chunks = []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class _Area:
    """The memory of one image, in chunks: a stream does not tell its size."""

    def __init__(self) -> None:
        self.buffer = BlockBuffer()
        self.chunks: list[mmap.mmap] = []
        self._free = 0

    def digests_of(self, pages: int) -> np.ndarray[tuple[int], np.dtype[np.uint64]]:
        """Keep the first pages of the buffer, and give their digests."""
        digests = np.frombuffer(self.buffer.digests(pages), np.uint64)
        at = 0
        for chunk, start, count in self._room(pages):
            part = self.buffer.room[at * PAGE_SIZE : (at + count) * PAGE_SIZE]
            chunk[start * PAGE_SIZE : (start + count) * PAGE_SIZE] = part
            at += count
        return digests

    def append_zero(self, pages: int) -> None:
        """Keep zero pages, which take memory like all others once something was written to them."""
        for chunk, start, count in self._room(pages):
            np.frombuffer(chunk, np.uint8)[start * PAGE_SIZE : (start + count) * PAGE_SIZE : PAGE_SIZE] = 0

    def _room(self, pages: int) -> Iterator[tuple[mmap.mmap, int, int]]:
        """Give pieces of chunks: a chunk, its first free page, and how many to use."""
        while pages:
            if not self._free:
                check_memory(min(pages, _CHUNK_PAGES))
                self.chunks.append(_new_chunk())
                self._free = _CHUNK_PAGES
            count = min(pages, self._free)
            yield self.chunks[-1], _CHUNK_PAGES - self._free, count
            self._free -= count
            pages -= count

    def close(self) -> None:
        for chunk in self.chunks:
            chunk.close()


def _blocks(
    image: GuestImage, buffer: BlockBuffer, on_progress: Callable[[int], None] | None
) -> Iterator[int]:
    for block in image.blocks(buffer.room):
        yield block.pages
        if on_progress:
            on_progress(block.source_bytes)


def _new_chunk() -> mmap.mmap:
    try:
        chunk = mmap.mmap(-1, _CHUNK_PAGES * PAGE_SIZE, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    except OSError as error:
        raise ResourceError(
            f"the kernel gives no more memory: {error.strerror}", advice="check fewer or smaller images"
        ) from None
    _advise(chunk, mmap.MADV_NOHUGEPAGE)
    # Pages that another process has as well would not be freed when they are merged here.
    _advise(chunk, mmap.MADV_DONTFORK)
    return chunk


def _advise(chunk: mmap.mmap, advice: int) -> None:
    try:
        chunk.madvise(advice)
    except OSError as error:
        if advice == mmap.MADV_NOHUGEPAGE:
            return  # this kernel has no huge pages
        raise ResourceError(
            f"the kernel refuses to mark memory for KSM: {error.strerror}",
            advice="check that the kernel has KSM (CONFIG_KSM), and that memory is not short",
        ) from None


def known_pages(image: GuestImage) -> int:
    """Tell how many pages an image will take, as far as that is known before it is read."""
    if image.runs is None:
        return 0
    return image.runs.pages_of(RunKind.PRESENT) + image.runs.pages_of(RunKind.ZERO)

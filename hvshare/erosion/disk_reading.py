"""Digests of the blocks of disks, taken as they come and not kept: a disk may be far larger than memory."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

import numpy as np

from hvshare.errors import WorkerError
from hvshare.fingerprint.fingerprints import Fingerprints
from hvshare.fingerprint.inputs import StoredFingerprints
from hvshare.fingerprint.workers import DigestBatch, Failure, StreamEnd, Workers
from hvshare.images.runs import RunKind

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from numpy.typing import NDArray

    from hvshare.caveats import Caveat
    from hvshare.fingerprint.inputs import Input
    from hvshare.fingerprint.workers import Message
    from hvshare.images.image import GuestImage

_BATCH_BLOCKS: Final = 1 << 18

_OF_MEMORY: Final = frozenset(("holes-are-zero", "tail-left-out", "read-as-raw"))
"""Codes of caveats that say of raw images of memory what is no matter for a disk."""


class BlockDigests(NamedTuple):
    """Digests of some blocks of a disk.

    Attributes
    ----------
    disk : int
        Index of the disk.
    digests : ndarray of uint64
        XXH3-64 of each block, zero blocks among them; not in the order of the disk.
    """

    disk: int
    digests: NDArray[np.uint64]


class DiskReading:
    """The digests of the blocks of several disks, in the making.

    Parameters
    ----------
    disks : sequence of GuestImage, StoredFingerprints or Fingerprints
        Opened as `hvshare.erosion.disk.open_disk` does; they stay open.
    jobs : int, optional
        Processes at the most; one a processor by default.
    on_progress : callable, optional
        Receives the index of a disk and how many more bytes of its file were read.

    Attributes
    ----------
    names, paths : list of str
        Of the disks.
    images : list of GuestImage or None
        Those whose bytes can be looked at again, at the places of the disks.
    holes : list of int
        Blocks of each disk that are holes, and so have no digests; known once all were read.
    caveats : list of Caveat
        What was odd about the disks; all known once all were read.

    Notes
    -----
    Work starts when the object is made. It can be iterated over once. Used as a context manager it leaves no
    process behind.
    """

    def __init__(
        self,
        disks: Sequence[Input | Fingerprints],
        *,
        jobs: int | None = None,
        on_progress: Callable[[int, int], None] | None = None,
    ) -> None:
        self.on_progress = on_progress
        self.names = [disk.name for disk in disks]
        self.paths = [disk.path for disk in disks]
        self.holes = [0] * len(disks)
        self.caveats: list[Caveat] = []
        self.images = [
            None if isinstance(disk, Fingerprints | StoredFingerprints) else disk for disk in disks
        ]
        self._hashed = {index: image for index, image in enumerate(self.images) if image is not None}
        self._indexes = list(self._hashed)
        self._kept = {
            index: disk
            for index, disk in enumerate(disks)
            if isinstance(disk, Fingerprints | StoredFingerprints)
        }
        self._missing = {
            index: None if image.runs is None else image.runs.pages_of(RunKind.PRESENT)
            for index, image in self._hashed.items()
        }
        self._workers = Workers(list(self._hashed.values()), jobs)

    def __iter__(self) -> Iterator[BlockDigests]:
        """Give the digests of all blocks that are no holes.

        Raises
        ------
        HvshareError
            If a disk cannot be read, or a worker process fails.
        """
        for index, disk in self._kept.items():
            yield from self._read(index, disk)
        for message in self._workers:
            yield from self._take(message)
        for index, image in self._hashed.items():
            self._end(index, image)

    def _read(self, index: int, disk: StoredFingerprints | Fingerprints) -> Iterator[BlockDigests]:
        if isinstance(disk, StoredFingerprints):
            on_progress = self.on_progress
            disk = disk.read(None if on_progress is None else lambda count: on_progress(index, count))
        self.holes[index] = disk.runs.pages_of(RunKind.ZERO)
        self._keep(disk.caveats)
        for start in range(0, len(disk.digests), _BATCH_BLOCKS):
            yield BlockDigests(index, disk.digests[start : start + _BATCH_BLOCKS])

    def _take(self, message: Message) -> Iterator[BlockDigests]:
        index = self._indexes[message.image]
        match message:
            case DigestBatch():
                digests = np.frombuffer(message.digests, np.uint64)
                missing = self._missing[index]
                if missing is not None:
                    self._missing[index] = missing - len(digests)
                if self.on_progress:
                    self.on_progress(index, message.source_bytes)
                yield BlockDigests(index, digests)
            case StreamEnd():
                self._missing[index] = 0
                self.holes[index] = message.runs.pages_of(RunKind.ZERO)
                self._keep(message.caveats)
            case Failure():
                raise message.error

    def _end(self, index: int, image: GuestImage) -> None:
        if self._missing[index] != 0:
            raise WorkerError("not all of its blocks were read", path=image.path)
        self._keep(image.caveats)
        if image.runs is not None:
            self.holes[index] = image.runs.pages_of(RunKind.ZERO)
            self._keep(image.finish())

    def _keep(self, caveats: Sequence[Caveat]) -> None:
        self.caveats.extend(caveat for caveat in caveats if caveat.code not in _OF_MEMORY)

    def stop(self) -> None:
        """End all work, complete or not."""
        self._workers.stop()

    def __enter__(self) -> DiskReading:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

"""Opened images and fingerprint files to fingerprints, each as soon as it is complete."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from hvshare.errors import HvshareError, ImageError, WorkerError
from hvshare.fingerprint.inputs import StoredFingerprints
from hvshare.fingerprint.workers import DigestBatch, Failure, StreamEnd, Workers
from hvshare.images.runs import RunKind, Runs

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from hvshare.caveats import Caveat
    from hvshare.fingerprint.fingerprints import Fingerprints
    from hvshare.fingerprint.inputs import Input
    from hvshare.fingerprint.workers import Message
    from hvshare.images.image import GuestImage


class _Collector:
    """The digests of one image while they come in."""

    def __init__(self, image: GuestImage) -> None:
        self.image = image
        self.grows = image.runs is None
        self.runs = Runs() if image.runs is None else image.runs
        self.caveats: list[Caveat] = []
        self.failed = False
        self.missing = self.runs.pages_of(RunKind.PRESENT)
        self.digests = bytearray()

    @property
    def complete(self) -> bool:
        return not (self.grows or self.missing or self.failed)

    def add(self, batch: DigestBatch) -> None:
        if self.grows:
            self.digests += batch.digests
        else:
            if not self.digests:
                # Only now, so that images take room one after another where the caller lets go of them.
                self.digests = bytearray(8 * self.missing)
            at = 8 * batch.position
            self.digests[at : at + len(batch.digests)] = batch.digests
            self.missing -= len(batch.digests) // 8

    def end(self, end: StreamEnd) -> None:
        self.runs, self.caveats = end.runs, end.caveats
        self.grows = False

    def fail(self) -> None:
        self.failed = True
        self.digests = bytearray()

    def fingerprints(self) -> Fingerprints:
        # Only now, so that numpy is imported while workers read and not before they start.
        import numpy as np

        from hvshare.fingerprint.fingerprints import Fingerprints

        image = self.image
        caveats = (*image.caveats, *self.caveats)
        digests = np.frombuffer(self.digests, np.uint64)
        return Fingerprints(image.name, image.path, image.format, self.runs, digests, caveats)


class Hashing:
    """The digests of several images, in the making.

    Parameters
    ----------
    images : sequence of GuestImage or StoredFingerprints
        Opened images and fingerprint files; they stay open.
    jobs : int, optional
        Processes at the most; one a processor by default.
    on_error : callable, optional
        Receives the error of each image that turns out to be unusable, which is then left out. Without
        it such an error is raised.
    on_progress : callable, optional
        Receives the index of an image and how many more bytes of its file were read.

    Notes
    -----
    Work starts when the object is made, so a caller can prepare what comes next in the meantime. Used as a
    context manager it leaves no process behind.

    Examples
    --------
    >>> import tempfile, hvshare
    >>> with tempfile.NamedTemporaryFile() as file:
    ...     _ = file.write(bytes(8192)), file.flush()
    ...     with Hashing([hvshare.open_image(file.name)]) as hashing:
    ...         [(index, len(fingerprints.digests)) for index, fingerprints in hashing]
    [(0, 2)]
    """

    def __init__(
        self,
        images: Sequence[Input],
        *,
        jobs: int | None = None,
        on_error: Callable[[ImageError], None] | None = None,
        on_progress: Callable[[int, int], None] | None = None,
    ) -> None:
        self._on_error = on_error
        self.on_progress = on_progress
        # Workers first: what is in memory when they are forked is in theirs as well.
        hashed = {
            index: each for index, each in enumerate(images) if not isinstance(each, StoredFingerprints)
        }
        self._workers = Workers(list(hashed.values()), jobs)
        self._indexes = list(hashed)
        self._collectors = {index: _Collector(image) for index, image in hashed.items()}
        self._stored = {
            index: each for index, each in enumerate(images) if isinstance(each, StoredFingerprints)
        }

    def __iter__(self) -> Iterator[tuple[int, Fingerprints]]:
        """Give the index of each image and its fingerprints, in the order in which they are complete.

        Raises
        ------
        HvshareError
            If an image cannot be used and there is no `on_error`, or a worker process fails.
        """
        for index, collector in self._collectors.items():
            if collector.complete:
                yield from self._completed(index)
        for index, stored in self._stored.items():
            yield from self._read(index, stored)
        for message in self._workers:
            index = self._indexes[message.image]
            collector = self._collectors[index]
            if collector.failed:
                continue
            self._take(message, index, collector)
            if collector.complete:
                yield from self._completed(index)
        for collector in self._collectors.values():
            if not (collector.complete or collector.failed):
                raise WorkerError("not all of its pages were read", path=collector.image.path)

    def _take(self, message: Message, index: int, collector: _Collector) -> None:
        match message:
            case DigestBatch():
                collector.add(message)
                if self.on_progress:
                    self.on_progress(index, message.source_bytes)
            case StreamEnd():
                collector.end(message)
            case Failure():
                self._fail(message.error, collector)

    def _read(self, index: int, stored: StoredFingerprints) -> Iterator[tuple[int, Fingerprints]]:
        on_progress = None if self.on_progress is None else partial(self.on_progress, index)
        try:
            fingerprints = stored.read(on_progress)
        except ImageError as error:
            if self._on_error is None:
                raise
            self._on_error(error)
        else:
            yield index, fingerprints

    def _completed(self, index: int) -> Iterator[tuple[int, Fingerprints]]:
        collector = self._collectors[index]
        if collector.image.runs is not None:
            try:
                collector.caveats = collector.image.finish()
            except ImageError as error:
                self._fail(error, collector)
                return
        yield index, collector.fingerprints()
        collector.digests = bytearray()

    def _fail(self, error: HvshareError, collector: _Collector) -> None:
        if self._on_error is None or not isinstance(error, ImageError):
            raise error
        collector.fail()
        self._on_error(error)

    def stop(self) -> None:
        """End all work, complete or not."""
        self._workers.stop()

    def __enter__(self) -> Hashing:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()


def fingerprint_images(images: Sequence[Input], *, jobs: int | None = None) -> list[Fingerprints]:
    """Digest all pages of some images.

    Parameters
    ----------
    images : sequence of GuestImage or StoredFingerprints
        Opened images and fingerprint files; they stay open.
    jobs : int, optional
        Processes at the most; one a processor by default.

    Returns
    -------
    list of Fingerprints
        In the order of the images.

    Raises
    ------
    HvshareError
        If an image cannot be used.
    """
    with Hashing(images, jobs=jobs) as hashing:
        found = dict(hashing)
    return [found[index] for index in range(len(images))]

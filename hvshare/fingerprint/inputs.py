"""What digests can come from: images, which have to be hashed, and fingerprint files, which have been."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, TypeAlias

from hvshare.errors import UnsupportedImageError
from hvshare.fingerprint.file_reader import FingerprintReader
from hvshare.fingerprint.files import VERSION, is_fingerprint_file
from hvshare.images.image import GuestImage
from hvshare.images.inspection import Inspection
from hvshare.images.options import ReadingOptions
from hvshare.images.registry import default_names, open_all, open_input, read_image
from hvshare.units import format_size

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from hvshare.caveats import Caveat
    from hvshare.errors import ImageError
    from hvshare.fingerprint.fingerprints import Fingerprints
    from hvshare.images.opening import Opening


class StoredFingerprints:
    """An opened fingerprint file, of which only the metadata has been read.

    Parameters
    ----------
    opening : Opening
        The file, pipe or compressed stream.

    Attributes
    ----------
    name, path : str
        Of the fingerprint file, as in `GuestImage`; those of the image are in its metadata.
    format : str
        ``fingerprints``.
    compression : str or None
        Name of the stream compression around it.
    source_bytes, file_bytes, allocated_bytes, identity, caveats
        As in `GuestImage`.

    Raises
    ------
    UnsupportedImageError
        If it is of a newer version, or its digests are of another kind.
    DamagedImageError
        If it contradicts its format.
    """

    format = "fingerprints"

    def __init__(self, opening: Opening) -> None:
        self.name = opening.name
        self.path = opening.path
        self.compression = None if opening.compression is None else opening.compression.name
        self._source = source = opening.source
        self.source_bytes = source.size
        self.file_bytes, self.allocated_bytes = source.file_bytes, source.allocated_bytes
        self.identity = source.identity
        self._reader = FingerprintReader(opening.stream(), opening.path)
        self.caveats: list[Caveat] = [*self._reader.caveats(self.name), *opening.caveats]

    def read(self, on_progress: Callable[[int], None] | None = None) -> Fingerprints:
        """Read the runs and digests; once.

        Parameters
        ----------
        on_progress : callable, optional
            Receives how many bytes of the file were read.

        Returns
        -------
        Fingerprints
            Under the name and path of the fingerprint file.

        Raises
        ------
        ImageError
            If the file is cut or damaged, or was changed meanwhile.
        """
        fingerprints = self._reader.read()
        if on_progress:
            on_progress(self._reader.source_bytes)
        caveats = (*self.caveats, *self._source.check_unchanged(self.name))
        return replace(fingerprints, name=self.name, path=self.path, format=self.format, caveats=caveats)

    def inspect(self) -> Inspection:
        """Tell what the file is, and what it tells of its image; it is read to its end, and checked.

        Raises
        ------
        ImageError
            As `read`.
        """
        reader, came = self._reader, self._reader.provenance
        fingerprints = self.read()
        details = {
            "image": reader.name,
            "image path": reader.path,
            "image format": f"{reader.format}: {came.layout}" if came.layout else reader.format,
            "image compression": came.compression,
            "pages compressed by": came.page_compression,
            "image written by": came.tool,
            "image file": None if came.file_bytes is None else _size(came.file_bytes),
            "image changed": came.modified,
            "fingerprints made": came.written,
            "pages, zero": f"{reader.present_pages - reader.nonzero_pages:,}",
            "pages, not zero": f"{reader.nonzero_pages:,}",
        }
        return Inspection(
            self.name,
            self.path,
            self.format,
            f"XXH3-64 of each stored page, version {VERSION}",
            self.compression,
            None,
            came.written_by,
            came.vmcoreinfo,
            {name: text for name, text in details.items() if text is not None} | dict(came.details),
            came.left_out,
            self.file_bytes,
            self.allocated_bytes,
            fingerprints.runs,
            fingerprints.caveats,
        )

    def close(self) -> None:
        """Let go of the file."""
        self._source.close()

    def __enter__(self) -> StoredFingerprints:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


Input: TypeAlias = GuestImage | StoredFingerprints
"""What digests can come from."""


def open_inputs(
    paths: Sequence[str],
    *,
    options: ReadingOptions = ReadingOptions(),
    on_error: Callable[[ImageError], None] | None = None,
    bytes_needed: bool = False,
) -> list[Input]:
    """Open images and fingerprint files, told by what is in them, under names that tell them apart.

    Parameters
    ----------
    paths, options, on_error
        As in `hvshare.open_images`. With ``raw`` as image format, fingerprint files are none.
    bytes_needed : bool
        Whether fingerprint files are refused, since they hold no contents.

    Returns
    -------
    list of GuestImage or StoredFingerprints
        In the order of the paths. An input given twice stands there twice, with a caveat.

    Raises
    ------
    ImageError
        As `hvshare.open_images`.
    """
    recognised = _image_only if bytes_needed else _recognised

    def open_one(path: str, name: str, options: ReadingOptions) -> Input:
        return open_input(path, recognised, name=name, options=options)

    return open_all(paths, open_one, options, on_error)


def read_fingerprints(
    path: str, *, name: str = "", options: ReadingOptions = ReadingOptions()
) -> Fingerprints:
    """Read a fingerprint file.

    Parameters
    ----------
    path : str
        A file or a pipe, plain or compressed; ``-`` is standard input.
    name : str, optional
        How reports call it; the file name by default.
    options : ReadingOptions
        How it is read.

    Returns
    -------
    Fingerprints
        Under the name and path of the fingerprint file.

    Raises
    ------
    ImageError
        If it cannot be read, is cut or damaged, is of a newer version, or is no fingerprint file.
    """
    found = open_input(path, _stored, name=name or default_names([path])[0], options=options)
    if isinstance(found, GuestImage):
        found.close()
        raise _no_fingerprints(path)
    with found:
        return found.read()


def _recognised(opening: Opening) -> Input:
    if opening.options.image_format != "raw" and is_fingerprint_file(opening.head):
        return StoredFingerprints(opening)
    return read_image(opening)


def _image_only(opening: Opening) -> GuestImage:
    if isinstance(found := _recognised(opening), GuestImage):
        return found
    raise UnsupportedImageError(
        "it is a fingerprint file, which holds digests and no contents",
        path=opening.path,
        advice="name the image that it was made of",
    )


def _stored(opening: Opening) -> StoredFingerprints:
    if not is_fingerprint_file(opening.head):
        raise _no_fingerprints(opening.path)
    return StoredFingerprints(opening)


def _no_fingerprints(path: str) -> ImageError:
    return UnsupportedImageError(
        "it is no fingerprint file", path=path, advice="make one with `hvshare fingerprint`"
    )


def _size(size: int) -> str:
    return f"{format_size(size)} ({size:,} bytes)"

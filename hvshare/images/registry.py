"""Which reader an input belongs to: by magic and structure, never by file name, raw last."""

from __future__ import annotations

from collections import Counter
from itertools import chain, count
from typing import TYPE_CHECKING, Final

from hvshare.caveats import Caveat
from hvshare.errors import ImageError, UnsupportedImageError
from hvshare.images.compression import DecompressedStream, recognise_compression
from hvshare.images.raw import RawImage, StreamedRawImage
from hvshare.images.runs import RunKind
from hvshare.images.source import HEAD_BYTES, ByteStream, HeadedStream, Source, fill
from hvshare.images.unsupported import recognise_unsupported

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from hvshare.images.image import GuestImage

IMAGE_FORMATS: Final = ("auto", "raw")
"""What `open_image` takes as `image_format`."""

_FORCE: Final = "--image-format raw reads it as it is"


def open_image(
    path: str, *, name: str = "", image_format: str = "auto", holes: RunKind = RunKind.ZERO
) -> GuestImage:
    """Open a memory image and recognise what it is.

    Parameters
    ----------
    path : str
        A file, block device or pipe; ``-`` is standard input.
    name : str, optional
        How reports call it; the file name by default.
    image_format : {"auto", "raw"}
        ``raw`` takes the bytes as guest memory, whatever their magic says. Compressed streams are
        unpacked all the same.
    holes : RunKind
        What holes of a sparse raw file mean.

    Returns
    -------
    GuestImage
        Opened; the caller closes it.

    Raises
    ------
    ImageError
        If the input cannot be opened, is empty, or is of a format that cannot be read.
    ValueError
        If `image_format` is not one of `IMAGE_FORMATS`.
    """
    if image_format not in IMAGE_FORMATS:
        raise ValueError(f"image format {image_format!r} is not one of {', '.join(IMAGE_FORMATS)}")
    source = Source(path)
    try:
        return _recognised(source, name or default_names([path])[0], image_format, holes)
    except BaseException:
        source.close()
        raise


def open_images(
    paths: Sequence[str],
    *,
    image_format: str = "auto",
    holes: RunKind = RunKind.ZERO,
    on_error: Callable[[ImageError], None] | None = None,
) -> list[GuestImage]:
    """Open several images under names that tell them apart.

    Parameters
    ----------
    paths : sequence of str
        As for `open_image`.
    image_format, holes
        As for `open_image`.
    on_error : callable, optional
        Receives the error of each input that cannot be used, which is then left out. Without it the
        first such error is raised, and nothing stays open.

    Returns
    -------
    list of GuestImage
        In the order of the paths. An image given twice stands there twice, with a caveat.

    Raises
    ------
    ImageError
        As `open_image`, unless `on_error` is given.
    """
    images: list[GuestImage] = []
    try:
        for path, name in zip(paths, default_names(paths), strict=True):
            try:
                images.append(open_image(path, name=name, image_format=image_format, holes=holes))
            except ImageError as error:
                if on_error is None:
                    raise
                on_error(error)
    except BaseException:
        for image in images:
            image.close()
        raise
    _tell_twins(images)
    return images


def default_names(paths: Sequence[str]) -> list[str]:
    """Name images by their files, with as many folders in front as it takes to tell them apart.

    Examples
    --------
    >>> default_names(["a/mem.raw", "b/mem.raw", "c/disk.raw", "-"])
    ['a/mem.raw', 'b/mem.raw', 'disk.raw', 'stdin']
    >>> default_names(["x.raw", "x.raw"])
    ['x.raw', 'x.raw (2)']
    """
    parts = [["stdin"] if path == "-" else [part for part in path.split("/") if part] for path in paths]
    depths = [1] * len(paths)
    while True:
        names = ["/".join(part[-depth:]) for part, depth in zip(parts, depths, strict=True)]
        seen = Counter(name for name, _ in {*zip(names, paths, strict=True)})
        longer = [
            depth + (seen[name] > 1 and depth < len(part))
            for name, part, depth in zip(names, parts, depths, strict=True)
        ]
        if longer == depths:
            break
        depths = longer
    unique: dict[str, None] = {}
    for name in names:
        numbered = (f"{name} ({number})" for number in count(2))
        unique[next(each for each in chain([name], numbered) if each not in unique)] = None
    return list(unique)


def _recognised(source: Source, name: str, image_format: str, holes: RunKind) -> GuestImage:
    compression = recognise_compression(source.head)
    if compression is None:
        forced = _refuse_unsupported(source.head, name, source.path, image_format)
        image: GuestImage = (
            StreamedRawImage(name, source, source.stream, None)
            if source.size is None
            else RawImage(name, source, holes)
        )
    else:

        def unpacked() -> ByteStream:
            return DecompressedStream(source.stream(), compression, source.path)

        stream = unpacked()
        head = bytearray(HEAD_BYTES)
        del head[fill(stream, memoryview(head)) :]
        if nested := recognise_compression(bytes(head)):
            raise UnsupportedImageError(
                f"it is a {nested.name} stream within a {compression.name} stream",
                path=source.path,
                advice="unpack the outer one first",
            )
        forced = _refuse_unsupported(bytes(head), name, source.path, image_format)
        headed = HeadedStream(stream, bytes(head))
        image = StreamedRawImage(
            name, source, (lambda: headed) if source.size is None else unpacked, compression.name
        )
    image.caveats.extend(forced)
    if holes != RunKind.ZERO and image.allocated_bytes is None:
        image.caveats.append(
            Caveat(
                "holes-not-seen",
                "what would be holes in a file are zeros in a stream or device, and count as zero pages",
                "name the unpacked sparse file, for its holes to count as absent",
                name,
            )
        )
    return image


def _refuse_unsupported(head: bytes, name: str, path: str, image_format: str) -> list[Caveat]:
    unsupported = recognise_unsupported(head)
    if unsupported is None:
        return []
    if image_format == "auto":
        raise UnsupportedImageError(
            f"it is recognised as: {unsupported.name}", path=path, advice=f"{unsupported.advice}, or {_FORCE}"
        )
    return [
        Caveat(
            "read-as-raw",
            f"it is recognised as: {unsupported.name}, and was read as raw by order: headers count as pages, "
            "and pages may not start where the file says",
            "convert the dump to raw, unless these bytes are what you want to measure",
            name,
        )
    ]


def _tell_twins(images: list[GuestImage]) -> None:
    first: dict[tuple[int, int], GuestImage] = {}
    for image in images:
        if image.identity is None:
            continue
        twin = first.setdefault(image.identity, image)
        if twin is not image:
            image.caveats.append(
                Caveat(
                    "same-image-twice",
                    f"it is the same file as {twin.name}, so all of it is found in another VM",
                    "leave one of them out, unless clones are what you want to measure",
                    image.name,
                )
            )

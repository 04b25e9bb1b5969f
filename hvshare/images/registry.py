"""Which reader an input belongs to: by magic and structure, never by file name, raw last."""

from __future__ import annotations

import os
from collections import Counter
from itertools import chain, count
from typing import TYPE_CHECKING, Final

from hvshare.caveats import Caveat
from hvshare.errors import ImageError, UnsupportedImageError
from hvshare.images.formats import recognise_format
from hvshare.images.opening import Opening
from hvshare.images.options import ReadingOptions
from hvshare.images.raw import read_raw
from hvshare.images.unsupported import recognise_unsupported

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from hvshare.images.image import GuestImage

_LIVE: Final = ("qemu:", "pid:")
_FORCE: Final = "--image-format raw reads it as it is"


def open_image(path: str, *, name: str = "", options: ReadingOptions = ReadingOptions()) -> GuestImage:
    """Open a memory image and recognise what it is.

    Parameters
    ----------
    path : str
        A file, block device, pipe, or directory of a snapshot; ``-`` is standard input, ``qemu:PID`` a
        running guest, ``pid:PID`` a running process.
    name : str, optional
        How reports call it; the file name by default.
    options : ReadingOptions
        How it is read.

    Returns
    -------
    GuestImage
        Opened; the caller closes it.

    Raises
    ------
    ImageError
        If the input cannot be opened, is empty, is damaged, or is of a format that cannot be read.
    ResourceError
        If a stream has to be copied to a temporary file and there is no room for it.
    """
    name = name or default_names([path])[0]
    if path.startswith(_LIVE):
        from hvshare.images.live.image import is_live, open_live

        if is_live(path):
            return open_live(name, path, options)
    if os.path.isdir(path):  # noqa: PTH112  # it answers also for what can be no path
        from hvshare.images.snapshot_folder import open_folder

        path = open_folder(path)
    opening = Opening(name, path, options)
    try:
        return _recognised(opening)
    except BaseException:
        opening.close()
        raise


def open_images(
    paths: Sequence[str],
    *,
    options: ReadingOptions = ReadingOptions(),
    on_error: Callable[[ImageError], None] | None = None,
) -> list[GuestImage]:
    """Open several images under names that tell them apart.

    Parameters
    ----------
    paths : sequence of str
        As for `open_image`.
    options : ReadingOptions
        How they are read.
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
                images.append(open_image(path, name=name, options=options))
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


def _recognised(opening: Opening) -> GuestImage:
    forced = opening.options.image_format == "raw"
    known = recognise_format(opening.head)
    unsupported = recognise_unsupported(opening.head)
    if forced:
        image = read_raw(opening)
        if named := known or unsupported:
            opening.caveats.append(_read_as_raw(named.name, opening.name))
    elif known is not None:
        image = known.read(opening)
    elif unsupported is not None:
        raise UnsupportedImageError(
            f"it is recognised as: {unsupported.name}",
            path=opening.path,
            advice=f"{unsupported.advice}, or {_FORCE}",
        )
    else:
        from hvshare.images.snapshot_folder import read_with_state

        image = read_with_state(opening) or read_raw(opening)
    source = opening.source
    image.compression = None if opening.compression is None else opening.compression.name
    image.file_bytes, image.allocated_bytes = source.file_bytes, source.allocated_bytes
    image.identity = source.identity
    image.caveats.extend(opening.caveats)
    return image


def _read_as_raw(format_name: str, name: str) -> Caveat:
    return Caveat(
        "read-as-raw",
        f"it is recognised as: {format_name}, and was read as raw by order: headers count as pages, and "
        "pages may not start where the file says",
        "let hvshare recognise the format, or convert the dump to raw",
        name,
    )


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

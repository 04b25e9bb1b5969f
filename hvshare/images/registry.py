"""Which reader an input belongs to: by magic and structure, never by file name, raw last."""

from __future__ import annotations

import os
import stat
from collections import Counter
from itertools import chain, count
from typing import TYPE_CHECKING, Final, Protocol, TypeVar

from hvshare.caveats import Caveat
from hvshare.errors import ImageError, UnreadableImageError, UnsupportedImageError
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


class _Input(Protocol):
    """What opening an input gives."""

    name: str
    caveats: list[Caveat]

    @property
    def identity(self) -> tuple[int, int] | None:
        """Device and inode of a file."""

    def close(self) -> None:
        """Let go of the file."""


Opened = TypeVar("Opened")
AnyInput = TypeVar("AnyInput", bound=_Input)


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
    return open_input(path, read_image, name=name or default_names([path])[0], options=options)


def open_input(
    path: str, read: Callable[[Opening], Opened], *, name: str, options: ReadingOptions
) -> GuestImage | Opened:
    """Open what may be an image or something else, for others than `open_image` to recognise.

    Parameters
    ----------
    path : str
        As for `open_image`.
    read : callable
        Makes something of an `Opening`, which is closed if it fails. Running guests and processes are
        images whatever it would make.
    name : str
        How reports call it.
    options : ReadingOptions
        How it is read.

    Raises
    ------
    ImageError
        If the input cannot be opened or is empty, and whatever `read` raises.
    """
    if path.startswith(_LIVE):
        from hvshare.images.live.image import is_live, open_live

        if is_live(path):
            return open_live(name, path, options)
    if os.path.isdir(path):  # noqa: PTH112  # it answers also for what can be no path
        from hvshare.images.snapshot_folder import open_folder

        path = open_folder(path)
    opening = Opening(name, path, options)
    try:
        return read(opening)
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
    return open_all(
        paths, lambda path, name, options: open_image(path, name=name, options=options), options, on_error
    )


def open_all(
    paths: Sequence[str],
    open_one: Callable[[str, str, ReadingOptions], AnyInput],
    options: ReadingOptions,
    on_error: Callable[[ImageError], None] | None,
) -> list[AnyInput]:
    """Open several inputs in some way, given path, name and options; see `open_images`."""
    inputs: list[AnyInput] = []
    pipes: set[tuple[int, int]] = set()
    try:
        for path, name in zip(paths, default_names(paths), strict=True):
            try:
                _refuse_pipe_again(path, pipes)
                inputs.append(open_one(path, name, options))
            except ImageError as error:
                if on_error is None:
                    raise
                on_error(error)
    except BaseException:
        for each in inputs:
            each.close()
        raise
    _tell_twins(inputs)
    return inputs


def _refuse_pipe_again(path: str, pipes: set[tuple[int, int]]) -> None:
    """Refuse a pipe that was named before: each of both would get a part of what comes through it."""
    try:
        of_pipe = os.fstat(0) if path == "-" else os.stat(path)  # noqa: PTH116
    except (OSError, ValueError):
        return
    if not stat.S_ISFIFO(of_pipe.st_mode):
        return
    pipe = (of_pipe.st_dev, of_pipe.st_ino)
    if pipe in pipes:
        raise UnreadableImageError(
            "it is a pipe that is named twice, and can be read once", path=path, advice="name it once"
        )
    pipes.add(pipe)


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


def read_image(opening: Opening) -> GuestImage:
    """Make an image of an input by its magic and structure; see `open_image` for what is raised."""
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


def _tell_twins(images: Sequence[_Input]) -> None:
    first: dict[tuple[int, int], _Input] = {}
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

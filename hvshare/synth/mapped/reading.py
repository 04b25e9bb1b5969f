"""Programs and libraries of a directory, in an order that is the same on every machine."""

from __future__ import annotations

import gc
import os
import stat
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Final

from hvshare.errors import (
    EmptyImageError,
    ImageChangedError,
    ImageError,
    PresetError,
    UnreadableImageError,
)
from hvshare.images.source import Source
from hvshare.synth.mapped import elf, pe
from hvshare.synth.mapped.image import MOST_FILE_BYTES, MappedImage, OverBudgetError, UnusableError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from hvshare.synth.draws import Draws
    from hvshare.synth.mapped.image import Architecture, Reason

_READERS: Final = {pe.MAGIC: pe.read_pe, elf.MAGIC: elf.read_elf}


@dataclass(frozen=True)
class Found:
    """What a directory holds.

    Attributes
    ----------
    images : tuple of MappedImage
        In the order drawn.
    skipped : mapping of str to int
        How many files give no image, by reason; reasons that did not occur are not in it.
    passed_over : int
        How many images are larger than what was left of the pages wanted.
    """

    images: tuple[MappedImage, ...]
    skipped: Mapping[str, int]
    passed_over: int


def read_images(
    directory: str | os.PathLike[str], *, architecture: Architecture, most_pages: int, order: Draws
) -> Found:
    """Map programs and libraries found in a directory and those below it.

    Parameters
    ----------
    directory : path
        Of PE files, ELF files or both. A file with several names is taken once; links to directories are not
        followed.
    architecture : str
        ``i386`` or ``x86-64``; files of others are skipped.
    most_pages : int
        How many pages all images may have together. Those that are larger than what is left are passed over.
    order : Draws
        Decides, with the names, the order in which files are taken.

    Returns
    -------
    Found
        At least one image.

    Raises
    ------
    PresetError
        If it is no directory, or holds no file that can be used.
    ResourceError
        If there are PE files and pefile is not installed.
    """
    root = os.fspath(directory)
    names, unreadable = _names(root)
    images: list[MappedImage] = []
    skipped: Counter[Reason] = Counter({"unreadable": unreadable} if unreadable else {})
    passed_over, left = 0, most_pages
    for at in order.permutation(len(names)):
        name = names[at]
        try:
            image = _read(os.path.join(root, name), name, architecture, left)  # noqa: PTH118  # any bytes
        except UnusableError as unusable:
            skipped[unusable.reason] += 1
        except OverBudgetError:
            passed_over += 1
        else:
            images.append(image)
            left -= len(image.pages)
    if not gc.isenabled():
        # What pefile makes refers to itself in circles, and the command runs without garbage collection.
        gc.collect()
    if not images:
        raise PresetError(_nothing(architecture, skipped, passed_over, most_pages), path=root, advice=_ADVICE)
    return Found(tuple(images), MappingProxyType(dict(sorted(skipped.items()))), passed_over)


def holds(directory: str | os.PathLike[str], path: str | os.PathLike[str]) -> bool:
    """Tell whether a file is one that `read_images` would look at, or would be if it were written.

    Parameters
    ----------
    directory : path
        Of programs and libraries.
    path : path
        A file or a directory, or one that is yet to be made.

    Returns
    -------
    bool
        True for the directory itself, for what lies below it, whatever links lead there, and for a file of it
        that has another name elsewhere.
    """
    if not os.path.isdir(directory):  # noqa: PTH112  # any bytes
        return False
    root, target = _identity(directory), Path(os.path.realpath(path))
    if root in map(_identity, (target, *target.parents)):
        return True
    if not target.is_file():
        return False
    names, _ = _names(os.fspath(directory))
    found = _identity(target)
    return any(found == _identity(os.path.join(directory, name)) for name in names)  # noqa: PTH118  # any bytes


def _identity(path: str | os.PathLike[str]) -> tuple[int, int] | None:
    """Give what tells files and directories apart; None if it is not there."""
    try:
        status = os.stat(path)  # noqa: PTH116  # any bytes
    except OSError:
        return None
    return status.st_dev, status.st_ino


_ADVICE: Final = "name a directory of DLLs or of ELF shared objects that can be relocated"


def _nothing(architecture: str, skipped: Mapping[Reason, int], passed_over: int, most_pages: int) -> str:
    counts = [f"{reason}: {count:,}" for reason, count in sorted(skipped.items())]
    if passed_over:
        counts.append(f"of more than {most_pages:,} pages: {passed_over:,}")
    told = f" ({', '.join(counts)})" if counts else ", and no file at all"
    return f"it holds no program or library for {architecture} that can be used{told}"


def _names(root: str) -> tuple[list[str], int]:
    """List regular files by their names within a directory, sorted; and count what cannot be looked at."""
    try:
        if not stat.S_ISDIR(os.stat(root).st_mode):  # noqa: PTH116  # any bytes
            raise PresetError("it is no directory", path=root, advice=_ADVICE)
        os.scandir(root).close()
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise PresetError(f"it cannot be read ({reason})", path=root, advice="check the name") from error
    unreadable: list[OSError] = []
    found = [
        os.path.relpath(os.path.join(folder, file), root)  # noqa: PTH118  # any bytes
        for folder, _, files in os.walk(root, onerror=unreadable.append)
        for file in files
    ]
    names, seen = [], set()
    for name in sorted(found, key=lambda name: os.fsencode(Path(name).as_posix())):
        try:
            status = os.stat(os.path.join(root, name))  # noqa: PTH116, PTH118  # any bytes
        except OSError as error:
            unreadable.append(error)
            continue
        identity = (status.st_dev, status.st_ino)
        if stat.S_ISREG(status.st_mode) and identity not in seen:
            seen.add(identity)
            names.append(name)
    return names, len(unreadable)


def _read(path: str, name: str, architecture: Architecture, most_pages: int) -> MappedImage:
    try:
        source = Source(path)
    except EmptyImageError as error:
        raise UnusableError("no program or library") from error
    except UnreadableImageError as error:
        raise UnusableError("unreadable") from error
    try:
        read = next((reader for magic, reader in _READERS.items() if source.head.startswith(magic)), None)
        if read is None:
            raise UnusableError("no program or library")
        if source.end > MOST_FILE_BYTES:
            raise UnusableError("too large")
        return read(source, Path(name).as_posix(), architecture, most_pages)
    except (UnreadableImageError, ImageChangedError) as error:
        raise UnusableError("unreadable") from error
    except ImageError as error:
        raise UnusableError("damaged") from error
    finally:
        source.close()

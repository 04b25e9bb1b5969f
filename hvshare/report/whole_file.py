"""A file that is written whole or not at all."""

from __future__ import annotations

import contextlib
import os
import stat
import tempfile
from pathlib import Path
from typing import IO, TYPE_CHECKING

from hvshare.errors import OutputError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence


@contextlib.contextmanager
def open_whole(path: str, inputs: Sequence[str] = ()) -> Iterator[IO[str]]:
    """Open a file that appears, or takes the place of an older one, when the block ends without an error.

    Parameters
    ----------
    path : str
        The file. A device or a pipe is written to directly.
    inputs : sequence of str
        Files that must not be overwritten.

    Yields
    ------
    file object
        Text, in UTF-8.

    Raises
    ------
    OutputError
        If the file is a directory or one of the inputs.
    OSError
        If it cannot be written.
    """
    target = Path(os.path.realpath(path))
    _refuse_inputs(target, path, inputs)
    if target.is_dir():
        raise OutputError("it is a directory", path=path, advice="name a file in it")
    if target.exists() and not target.is_file():
        with target.open("w", encoding="utf-8") as file:
            yield file
        return
    with _replacing(target) as file:
        yield file


@contextlib.contextmanager
def _replacing(target: Path) -> Iterator[IO[str]]:
    """Write beside a file and rename at the end."""
    descriptor, name = tempfile.mkstemp(dir=target.parent, prefix=f".{target.name[:64]}.", suffix=".part")
    part = Path(name)
    try:
        with open(descriptor, "w", encoding="utf-8") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        part.chmod(_mode(target))
        part.replace(target)
    except BaseException:
        part.unlink(missing_ok=True)
        raise


def _mode(target: Path) -> int:
    """Permissions of the file that is replaced, or those that a new file would get."""
    if target.exists():
        return stat.S_IMODE(target.stat().st_mode)
    mask = os.umask(0)
    os.umask(mask)
    return 0o666 & ~mask


def _refuse_inputs(target: Path, path: str, inputs: Sequence[str]) -> None:
    for name in inputs:
        with contextlib.suppress(OSError):
            if target.samefile(name) and target.is_file():
                raise OutputError("it is one of the images", path=path, advice="name another file for -o")

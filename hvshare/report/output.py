"""Where a result goes: standard output, or a file."""

from __future__ import annotations

import contextlib
import os
import stat
import sys
from itertools import chain, count
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Final, cast

from hvshare.errors import NoReaderError, OutputError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

_STANDARD_OUTPUT: Final = ("-", "/dev/stdout")
_LONGEST_NAME: Final = 200  # of 255 bytes that file systems allow, with room for a number and suffixes


@contextlib.contextmanager
def open_output(
    path: str | None, inputs: Sequence[str] = (), *, inputs_are: str = "one of the images"
) -> Iterator[IO[str]]:
    """Open what a result is written to.

    Parameters
    ----------
    path : str or None
        A file; standard output if it is None, ``-`` or ``/dev/stdout``. A regular file appears, or takes the
        place of an older one, when the block is left without an error.
    inputs : sequence of str
        Files that must not be overwritten; ``-`` is what standard input reads.
    inputs_are : str
        What an error calls one of the inputs.

    Yields
    ------
    file object
        Text, in UTF-8 for files.

    Raises
    ------
    OutputError
        If the file cannot be written, or is one of the inputs.
    NoReaderError
        If whoever read standard output is gone.
    """
    with _opened(path, inputs, inputs_are, sys.stdout, binary=False) as output:
        yield output


@contextlib.contextmanager
def open_binary_output(
    path: str | None, inputs: Sequence[str] = (), *, inputs_are: str = "one of the images"
) -> Iterator[IO[bytes]]:
    """Open what a result that is no text is written to; see `open_output`.

    Raises
    ------
    OutputError
        If the file cannot be written, or is one of the inputs, or if standard output is a terminal.
    NoReaderError
        If whoever read standard output is gone.
    """
    if is_standard_output(path) and sys.stdout.isatty():
        raise OutputError(
            "it is a terminal, and the result is no text",
            path="standard output",
            advice="name a file with -o, or pipe it into one",
        )
    with _opened(path, inputs, inputs_are, sys.stdout.buffer, binary=True) as output:
        yield output


def is_standard_output(path: str | None) -> bool:
    """Tell whether what a result is to be written to is standard output; a file of that name is ``./-``."""
    return path is None or path in _STANDARD_OUTPUT


def are_distinct(paths: Sequence[str | None]) -> bool:
    """Tell whether results that are to be written go to places of their own; see `open_output`.

    Two names of one file are one place. Devices such as ``/dev/null`` take any number of results.
    """
    found = [place for place in map(_place, paths) if place is not None]
    return len(set(found)) == len(found)


def _place(path: str | None) -> object:
    if is_standard_output(path):
        with contextlib.suppress(OSError):  # there may be none, or none with a number
            status = os.fstat(sys.stdout.fileno())
            if stat.S_ISREG(status.st_mode):
                return status.st_dev, status.st_ino
        return "-"
    name = cast("str", path)
    try:
        status = os.stat(name)  # noqa: PTH116  # as os.path.realpath
    except OSError:
        return os.path.realpath(name)
    return None if stat.S_ISCHR(status.st_mode) else (status.st_dev, status.st_ino)


@contextlib.contextmanager
def output_folder(path: str | None) -> Iterator[None]:
    """Make a folder that results are written to; it goes again where an error leaves it empty.

    Parameters
    ----------
    path : str or None
        Made with the folders above it, if it is not there; None for no folder.

    Raises
    ------
    OutputError
        If it cannot be made.
    """
    missing: list[Path] = []
    try:
        if path is not None:
            folder = Path(path)
            try:
                missing.extend(each for each in (folder, *folder.parents) if not each.exists())
                folder.mkdir(parents=True, exist_ok=True)
            except OSError as error:
                raise OutputError(
                    f"the directory cannot be made ({error.strerror or error})",
                    path=path,
                    advice="name another one",
                ) from error
        yield
    except Exception:
        for each in missing:
            with contextlib.suppress(OSError):  # one that holds something stays
                each.rmdir()
        raise


def file_names(names: Sequence[str], suffix: str) -> list[str]:
    """Name a file for each of some images, in one folder.

    Parameters
    ----------
    names : sequence of str
        How reports call the images.
    suffix : str
        What file names end in.

    Returns
    -------
    list of str
        No two alike; signs that a file name or a terminal would not bear are ``_``.

    Examples
    --------
    >>> file_names(["db.raw", "a/b.raw", "a_b.raw", ".hidden\\n"], ".hvs")
    ['db.raw.hvs', 'a_b.raw.hvs', 'a_b.raw-2.hvs', '_hidden_.hvs']
    """
    found: dict[str, None] = {}
    for name in names:
        safe = "".join(sign if sign.isprintable() and sign != "/" else "_" for sign in name)
        safe = "_" + safe[1:] if safe.startswith(".") else safe or "_"
        while len(os.fsencode(safe)) > _LONGEST_NAME:
            safe = safe[1:]
        numbered = (f"{safe}-{number}{suffix}" for number in count(2))
        found[next(each for each in chain([safe + suffix], numbered) if each not in found)] = None
    return list(found)


@contextlib.contextmanager
def _opened(
    path: str | None, inputs: Sequence[str], inputs_are: str, standard: IO[Any], *, binary: bool
) -> Iterator[IO[Any]]:
    if path is None or is_standard_output(path):
        _check_appended(standard, inputs, inputs_are)
        output = _Output(standard, "standard output")
        yield cast("IO[Any]", output)
        output.flush()
        return
    from hvshare.report.whole_file import WholeFile

    with _told(path):
        whole = WholeFile(path, inputs, binary=binary, inputs_are=inputs_are)
    try:
        yield cast("IO[Any]", _Output(whole.file, path))
    except BaseException:
        whole.discard()
        raise
    with _told(path):
        whole.commit()


def _check_appended(standard: IO[Any], inputs: Sequence[str], inputs_are: str) -> None:
    """Refuse to add a result to what it is made of, as ``hvshare ... a.raw >> a.raw`` would."""
    try:
        status = os.fstat(standard.fileno())
    except OSError:
        return  # there is none, or none that is a file
    if stat.S_ISREG(status.st_mode):
        from hvshare.report.whole_file import is_one_of

        if is_one_of(status, inputs):
            raise OutputError(
                f"it is {inputs_are}", path="standard output", advice="send the result to another file"
            )


class _Output:
    """A file whose errors name it, so that they are not taken for those of an input."""

    def __init__(self, file: IO[Any], place: str) -> None:
        self._file = file
        self._place = place

    def write(self, content: Any) -> int:  # noqa: ANN401  # text or bytes, as the file takes it
        with _told(self._place):
            return self._file.write(content)

    def flush(self) -> None:
        with _told(self._place):
            self._file.flush()

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401  # whatever the file has
        return getattr(self._file, name)


@contextlib.contextmanager
def _told(place: str) -> Iterator[None]:
    try:
        yield
    except BrokenPipeError as error:
        raise NoReaderError("nobody reads the result any more", path=place) from error
    except OSError as error:
        raise OutputError(
            f"the result could not be written ({error.strerror or error})",
            path=place,
            advice="check the free space and the rights there",
        ) from error

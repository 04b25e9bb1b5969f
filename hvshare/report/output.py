"""Where a result goes: standard output, or a file."""

from __future__ import annotations

import contextlib
import os
import sys
from itertools import chain, count
from typing import IO, TYPE_CHECKING, Any, Final, cast

from hvshare.errors import NoReaderError, OutputError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

_LONGEST_NAME: Final = 200  # of 255 bytes that file systems allow, with room for a number and suffixes


@contextlib.contextmanager
def open_output(path: str | None, inputs: Sequence[str] = ()) -> Iterator[IO[str]]:
    """Open what a result is written to.

    Parameters
    ----------
    path : str or None
        A file, or None for standard output. A regular file appears, or takes the place of an older one,
        when the block is left without an error.
    inputs : sequence of str
        Files that must not be overwritten; ``-`` is what standard input reads.

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
    with _opened(path, inputs, sys.stdout, binary=False) as output:
        yield output


@contextlib.contextmanager
def open_binary_output(path: str | None, inputs: Sequence[str] = ()) -> Iterator[IO[bytes]]:
    """Open what a result that is no text is written to; see `open_output`.

    Raises
    ------
    OutputError
        If the file cannot be written, or is one of the inputs, or if standard output is a terminal.
    NoReaderError
        If whoever read standard output is gone.
    """
    if path is None and sys.stdout.isatty():
        raise OutputError(
            "it is a terminal, and the result is no text",
            path="standard output",
            advice="name a file with -o, or pipe it into one",
        )
    with _opened(path, inputs, sys.stdout.buffer, binary=True) as output:
        yield output


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
def _opened(path: str | None, inputs: Sequence[str], standard: IO[Any], *, binary: bool) -> Iterator[IO[Any]]:
    if path is None:
        output = _Output(standard, "standard output")
        yield cast("IO[Any]", output)
        output.flush()
        return
    from hvshare.report.whole_file import WholeFile

    with _told(path):
        whole = WholeFile(path, inputs, binary=binary)
    try:
        yield cast("IO[Any]", _Output(whole.file, path))
    except BaseException:
        whole.discard()
        raise
    with _told(path):
        whole.commit()


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

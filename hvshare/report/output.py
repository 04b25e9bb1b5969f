"""Where a result goes: standard output, or a file."""

from __future__ import annotations

import contextlib
import sys
from typing import IO, TYPE_CHECKING

from hvshare.errors import NoReaderError, OutputError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence


@contextlib.contextmanager
def open_output(path: str | None, inputs: Sequence[str] = ()) -> Iterator[IO[str]]:
    """Open what a result is written to.

    Parameters
    ----------
    path : str or None
        A file, or None for standard output. A regular file appears, or takes the place of an older one,
        when the block is left without an error.
    inputs : sequence of str
        Files that must not be overwritten.

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
    if path is None:
        with _told("standard output"):
            yield sys.stdout
            sys.stdout.flush()
        return
    from hvshare.report.whole_file import open_whole

    with _told(path), open_whole(path, inputs) as file:
        yield file


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

"""Where a result goes: standard output, or a file."""

from __future__ import annotations

import contextlib
import sys
from typing import IO, TYPE_CHECKING, Any, cast

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
    if path is None:
        output = _Output(sys.stdout, "standard output")
        yield cast("IO[str]", output)
        output.flush()
        return
    from hvshare.report.whole_file import WholeFile

    with _told(path):
        whole = WholeFile(path, inputs)
    try:
        yield cast("IO[str]", _Output(whole.file, path))
    except BaseException:
        whole.discard()
        raise
    with _told(path):
        whole.commit()


class _Output:
    """A file whose errors name it, so that they are not taken for those of an input."""

    def __init__(self, file: IO[str], place: str) -> None:
        self._file = file
        self._place = place

    def write(self, text: str) -> int:
        with _told(self._place):
            return self._file.write(text)

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

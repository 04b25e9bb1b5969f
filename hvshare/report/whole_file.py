"""A file that is written whole or not at all."""

from __future__ import annotations

import contextlib
import os
import stat
import tempfile
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from hvshare.errors import OutputError

if TYPE_CHECKING:
    from collections.abc import Sequence


class WholeFile:
    """A file that appears, or takes the place of an older one, when it is committed.

    Parameters
    ----------
    path : str
        The file. A device or a pipe is written to directly.
    inputs : sequence of str
        Files that must not be overwritten; ``-`` is what standard input reads.
    binary : bool
        Whether bytes are written to it, rather than text.
    inputs_are : str
        What an error calls one of the inputs.

    Attributes
    ----------
    file : file object
        To write to: text in UTF-8, or bytes.

    Raises
    ------
    OutputError
        If the file is a directory or one of the inputs.
    OSError
        If it cannot be written.
    """

    def __init__(
        self,
        path: str,
        inputs: Sequence[str] = (),
        *,
        binary: bool = False,
        inputs_are: str = "one of the images",
    ) -> None:
        self._target = Path(os.path.realpath(path))
        self._part: Path | None = None
        found = _status(path)
        if found and stat.S_ISDIR(found.st_mode):
            raise OutputError("it is a directory", path=path, advice="name a file in it")
        self.file: IO[Any]
        mode, encoding = ("wb", None) if binary else ("w", "utf-8")
        if found and not stat.S_ISREG(found.st_mode):
            # By the name given: the pipe that /dev/fd/3 stands for has no other.
            self.file = Path(path).open(mode, encoding=encoding)  # noqa: SIM115  # closed at the end
            return
        if found and is_one_of(found, inputs):
            raise OutputError(f"it is {inputs_are}", path=path, advice="name another file for the result")
        descriptor, name = tempfile.mkstemp(
            dir=self._target.parent, prefix=f".{self._target.name[:64]}.", suffix=".part"
        )
        self._part = Path(name)
        self.file = open(descriptor, mode, encoding=encoding)  # noqa: SIM115  # as above

    def commit(self) -> None:
        """Put the file in its place."""
        try:
            self.file.flush()
            if self._part:
                os.fsync(self.file.fileno())
                self._part.chmod(self._mode())
                self._part.replace(self._target)
            self.file.close()
        except BaseException:
            self.discard()
            raise

    def discard(self) -> None:
        """Leave everything as it was."""
        # What is still to be written is not wanted, whether or not it could be.
        with contextlib.suppress(OSError):
            self.file.close()
        if self._part:
            self._part.unlink(missing_ok=True)

    def _mode(self) -> int:
        """Permissions of the file that is replaced, or those that a new file would get."""
        if self._target.exists():
            return stat.S_IMODE(self._target.stat().st_mode)
        mask = os.umask(0)
        os.umask(mask)
        return 0o666 & ~mask


def is_one_of(file: os.stat_result, inputs: Sequence[str]) -> bool:
    """Tell whether a file is one of some inputs, by whatever name; ``-`` is what standard input reads."""
    for path in inputs:
        # What cannot be found cannot be overwritten.
        with contextlib.suppress(OSError):
            if os.path.samestat(os.fstat(0) if path == "-" else os.stat(path), file):  # noqa: PTH116
                return True
    return False


def _status(path: str) -> os.stat_result | None:
    try:
        return os.stat(path)  # noqa: PTH116  # as os.path.realpath
    except FileNotFoundError:
        return None

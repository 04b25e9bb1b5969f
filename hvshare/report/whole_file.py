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

    def __init__(self, path: str, inputs: Sequence[str] = (), *, binary: bool = False) -> None:
        self._target = Path(os.path.realpath(path))
        self._part: Path | None = None
        if self._target.is_dir():
            raise OutputError("it is a directory", path=path, advice="name a file in it")
        self.file: IO[Any]
        mode, encoding = ("wb", None) if binary else ("w", "utf-8")
        if self._target.exists() and not self._target.is_file():
            self.file = self._target.open(mode, encoding=encoding)  # closed by commit or discard
            return
        if self._target.exists() and any(map(self._is_target, inputs)):
            raise OutputError("it is one of the images", path=path, advice="name another file for -o")
        descriptor, name = tempfile.mkstemp(
            dir=self._target.parent, prefix=f".{self._target.name[:64]}.", suffix=".part"
        )
        self._part = Path(name)
        self.file = open(descriptor, mode, encoding=encoding)  # noqa: SIM115  # as above

    def _is_target(self, path: str) -> bool:
        try:
            return os.path.samestat(os.fstat(0) if path == "-" else os.stat(path), self._target.stat())  # noqa: PTH116
        except OSError:
            return False  # what cannot be found cannot be overwritten

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

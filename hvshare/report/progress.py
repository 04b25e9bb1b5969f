"""Progress on standard error: bytes, rate and time left."""

from __future__ import annotations

import contextlib
import sys
from typing import IO, Any, Final, Self, cast

from rich.console import Console
from rich.progress import (
    BarColumn,
    DownloadColumn,
    Progress,
    ProgressColumn,
    Task,
    TaskProgressColumn,
    TextColumn,
    TimeRemainingColumn,
)
from rich.text import Text

from hvshare.units import format_size

_BAR_COLUMNS: Final = 20


class _StandardError:
    """Standard error that may be full or closed: what is measured matters more than that it is watched."""

    def __init__(self) -> None:
        self._file = sys.stderr  # as it is before the progress bar redirects it to itself

    def write(self, text: str) -> int:
        with contextlib.suppress(OSError):
            self._file.write(text)
        return len(text)

    def flush(self) -> None:
        with contextlib.suppress(OSError):
            self._file.flush()

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401  # whatever standard error has
        return getattr(self._file, name)


class _RateColumn(ProgressColumn):
    """Bytes a second, in the units of the rest."""

    def render(self, task: Task) -> Text:
        speed = task.finished_speed or task.speed
        return Text(f"{format_size(int(speed))}/s" if speed else "", style="progress.data.speed")


class ReadingProgress:
    """A bar while images are read.

    Parameters
    ----------
    description : str
        What is going on.
    total_bytes : int or None
        Bytes to read; None where that is not known.
    """

    def __init__(self, description: str, total_bytes: int | None) -> None:
        self._progress = Progress(
            TextColumn("{task.description}", markup=False),
            # Short of the last column: there, the "^C" that a terminal echoes would begin a line of its own.
            BarColumn(bar_width=_BAR_COLUMNS),
            TaskProgressColumn(),
            DownloadColumn(binary_units=True),
            _RateColumn(),
            TimeRemainingColumn(),
            console=Console(file=cast("IO[str]", _StandardError())),
            transient=True,
        )
        self._task = self._progress.add_task(description, total=total_bytes)

    def advance(self, count: int) -> None:
        """Tell that so many more bytes were read."""
        self._progress.advance(self._task, count)

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._progress.stop()

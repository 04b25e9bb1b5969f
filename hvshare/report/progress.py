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
    TaskID,
    TaskProgressColumn,
    TextColumn,
    TimeRemainingColumn,
)
from rich.text import Text

from hvshare.units import PAGE_SIZE, format_size

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


def _bar() -> Progress:
    return Progress(
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
        self._progress = _bar()
        self._task = self._progress.add_task(description, total=total_bytes)

    def advance(self, count: int) -> None:
        """Tell that so many more bytes were read."""
        self._progress.advance(self._task, count)

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._progress.stop()


class PassProgress:
    """A bar that names the pass that work over pages has come to, one pass after another."""

    def __init__(self) -> None:
        self._progress = _bar()
        self._task: TaskID | None = None

    def start(self, name: str, total: int) -> None:
        """Tell that a pass over so many pages begins; the one before it is over."""
        if self._task is not None:
            self._progress.remove_task(self._task)
        self._task = self._progress.add_task(name, total=total * PAGE_SIZE)

    def advance(self, count: int) -> None:
        """Tell that so many more pages are done."""
        if self._task is not None:
            self._progress.advance(self._task, count * PAGE_SIZE)

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._progress.stop()

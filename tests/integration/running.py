"""The command as a real process."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import IO, Any

PROJECT = Path(__file__).parents[2]
COMMAND = (sys.executable, "-m", "hvshare")


def environment(**further: str) -> dict[str, str]:
    """Give the environment of a shell without a terminal and without wishes about colour."""
    unwanted = {"COLUMNS", "LINES", "NO_COLOR", "FORCE_COLOR", "CI"}
    return {name: value for name, value in os.environ.items() if name not in unwanted} | further


def hvshare(
    *arguments: str | Path,
    stdin: bytes | IO[Any] | None = None,
    env: Mapping[str, str] | None = None,
    cwd: Path | None = None,
    preexec_fn: Callable[[], None] | None = None,
) -> subprocess.CompletedProcess[str]:
    """Run a command to its end, or for a minute; its output is UTF-8."""
    source: dict[str, Any] = {"stdin": subprocess.DEVNULL} if stdin is None else {"stdin": stdin}
    if isinstance(stdin, bytes):
        source = {"input": stdin}
    run = subprocess.run(
        [*COMMAND, *map(str, arguments)],
        capture_output=True,
        env=env or environment(),
        timeout=60,
        check=False,
        cwd=cwd,
        preexec_fn=preexec_fn,  # no threads here when tests start processes
        **source,
    )
    return subprocess.CompletedProcess(run.args, run.returncode, run.stdout.decode(), run.stderr.decode())


def check_failed(run: subprocess.CompletedProcess[str], code: int, *words: str) -> None:
    """Check that a command failed as it should: no figure, no traceback, and the words in its message."""
    assert run.returncode == code, run.stderr
    assert run.stdout == ""
    assert "Traceback" not in run.stderr
    for word in words:
        assert word in run.stderr

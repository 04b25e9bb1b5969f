from __future__ import annotations

import io
import sys

import pytest

from hvshare.report.progress import PassProgress


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_the_bar_names_the_pass_and_counts_pages(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    for name, value in (("TERM", "xterm"), ("COLUMNS", "80")):
        monkeypatch.setenv(name, value)
    with PassProgress() as bar:
        bar.advance(1)  # before any pass: of no matter
        bar.start("Sketching pages", 512)
        bar.advance(512)
        bar.start("Joining twins", 1024)
        bar.advance(512)
    last = terminal.getvalue().rpartition("Joining twins")[2]
    assert "50%" in last
    assert "2.0/4.0 MiB" in last
    assert "Sketching pages" not in last

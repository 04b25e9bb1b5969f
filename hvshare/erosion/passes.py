"""Progress over pages, pass by pass."""

from __future__ import annotations

from typing import Protocol


class Passes(Protocol):
    """Whoever wants to know of passes over pages while they are made."""

    def start(self, name: str, total: int) -> None:
        """Begin a pass over so many pages; the one before it is over."""

    def advance(self, count: int) -> None:
        """Count so many more pages as done."""

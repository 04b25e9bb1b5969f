"""What a reader must know before trusting a figure."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Caveat:
    """One fact that bears on the figures, and what to do about it.

    Parameters
    ----------
    code : str
        Stable identifier, such as ``tail-left-out``.
    message : str
        The fact, with its numbers.
    advice : str
        What the reader can do.
    image : str or None
        Name of the image concerned, or None if it concerns all of them.
    """

    code: str
    message: str
    advice: str
    image: str | None = None

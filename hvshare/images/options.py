"""How images are read, as far as that is for the user to say."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from hvshare.images.runs import RunKind

if TYPE_CHECKING:
    from collections.abc import Callable

IMAGE_FORMATS: Final = ("auto", "raw")
"""What `ReadingOptions` takes as `image_format`."""

DEFAULT_SPOOL_LIMIT: Final = 16 << 30


@dataclass(frozen=True)
class ReadingOptions:
    """How images are read.

    Attributes
    ----------
    image_format : {"auto", "raw"}
        ``raw`` takes the bytes as guest memory, whatever their magic says. Compressed streams are unpacked
        all the same.
    holes : RunKind
        What holes of a sparse file of raw pages mean: ZERO, or ABSENT for snapshots whose holes are
        "unchanged".
    device_memory : bool
        Whether BIOS ROM and video memory count as memory of the guest.
    read_swapped : bool
        Whether pages of a running guest that the host has swapped out are read, which swaps them in.
    spool_limit : int
        The most bytes that a stream may take in a temporary file, where its format needs to be read at any
        position.
    on_spool : callable or None
        Receives how many more bytes of a stream were copied.

    Raises
    ------
    ValueError
        If `image_format` is not one of `IMAGE_FORMATS`.
    """

    image_format: str = "auto"
    holes: RunKind = RunKind.ZERO
    device_memory: bool = False
    read_swapped: bool = False
    spool_limit: int = DEFAULT_SPOOL_LIMIT
    on_spool: Callable[[int], None] | None = field(default=None, compare=False)

    def __post_init__(self) -> None:
        if self.image_format not in IMAGE_FORMATS:
            raise ValueError(f"image format {self.image_format!r} is not one of {', '.join(IMAGE_FORMATS)}")

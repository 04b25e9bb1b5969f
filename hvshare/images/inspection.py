"""What a file is, without hashing it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from hvshare.units import PAGE_SIZE

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from hvshare.caveats import Caveat
    from hvshare.images.image import GuestImage, LeftOut
    from hvshare.images.runs import RunKind, Runs

_BUFFER_PAGES: Final = 512


@dataclass(frozen=True)
class Inspection:
    """What a person would check of an image before trusting it.

    Attributes
    ----------
    name, path, format, layout, compression, page_compression, tool, vmcoreinfo
        As in `GuestImage`.
    details : mapping of str to str
        As in `GuestImage`.
    left_out : tuple of LeftOut
        As in `GuestImage`.
    file_bytes, allocated_bytes : int or None
        Length of the file, and what it takes on its disk; None where there is no file.
    runs : Runs
        All runs of guest memory.
    caveats : tuple of Caveat
        What is odd.
    """

    name: str
    path: str
    format: str
    layout: str
    compression: str | None
    page_compression: str | None
    tool: str | None
    vmcoreinfo: bool | None
    details: Mapping[str, str]
    left_out: tuple[LeftOut, ...]
    file_bytes: int | None
    allocated_bytes: int | None
    runs: Runs
    caveats: tuple[Caveat, ...]

    @property
    def size_bytes(self) -> int:
        """Memory of the guest."""
        return self.runs.pages * PAGE_SIZE

    def bytes_of(self, kind: RunKind) -> int:
        """Memory of the guest in runs of one kind."""
        return self.runs.pages_of(kind) * PAGE_SIZE


def inspect(image: GuestImage, on_progress: Callable[[int, int], None] | None = None) -> Inspection:
    """Find out what an image is.

    Parameters
    ----------
    image : GuestImage
        An opened image. One whose runs are not known yet is read to its end.
    on_progress : callable, optional
        Receives how many more bytes of the file were read.

    Returns
    -------
    Inspection

    Raises
    ------
    ImageError
        If the image cannot be read to its end, or changed meanwhile.
    """
    runs = image.runs
    if runs is None:
        for block in image.blocks(memoryview(bytearray(_BUFFER_PAGES * PAGE_SIZE))):
            if on_progress:
                on_progress(0, block.source_bytes)
        runs = image.streamed_runs
    if runs is None:
        raise ValueError("an image without runs has them once it was read")
    return Inspection(
        image.name,
        image.path,
        image.format,
        image.layout,
        image.compression,
        image.page_compression,
        image.tool,
        image.vmcoreinfo,
        dict(image.details),
        tuple(image.left_out),
        image.file_bytes,
        image.allocated_bytes,
        runs,
        (*image.caveats, *image.finish()),
    )

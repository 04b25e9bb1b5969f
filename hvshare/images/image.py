"""What a guest's memory is, whatever file stores it."""

from __future__ import annotations

import abc
from typing import TYPE_CHECKING, NamedTuple, Self

if TYPE_CHECKING:
    from collections.abc import Iterator

    from hvshare.caveats import Caveat
    from hvshare.images.runs import Runs


class PageBlock(NamedTuple):
    """Pages that were just read; their contents are in the caller's buffer until the next block.

    Attributes
    ----------
    first_gfn : int
        Guest frame number of the first page.
    pages : int
        How many pages the buffer holds, from its start: PRESENT pages that follow each other. Where an image
        has `runs`, pages of other kinds may lie between them; without, they are contiguous.
    source_bytes : int
        Bytes of the file that were taken up for it.
    """

    first_gfn: int
    pages: int
    source_bytes: int


class LeftOut(NamedTuple):
    """Memory in an image that is none of the guest's RAM, and in no count.

    Attributes
    ----------
    address : int or None
        Guest physical address of its first byte; None where the format does not tell.
    size : int
        Bytes.
    what : str
        What it is taken for, such as ``BIOS ROM``.
    """

    address: int | None
    size: int
    what: str


class GuestImage(abc.ABC):
    """The physical memory of one guest, as runs of pages, read block by block.

    Attributes
    ----------
    name : str
        How reports call the image; `hvshare.open_images` keeps names apart.
    path : str
        Where it is, as the user named it; ``-`` is standard input.
    format : str
        Name of the format, such as ``raw``.
    layout : str
        Where the format puts a page, in a few words.
    compression : str or None
        Name of the stream compression around it.
    page_compression : str or None
        How the format itself compresses pages, if it does.
    tool : str or None
        What wrote the image, where the file says so.
    vmcoreinfo : bool or None
        Whether the kernel's VMCOREINFO is there; None for formats that have no place for it.
    details : dict of str to str
        What else the format tells and a person would check, such as ``machine type``.
    left_out : list of LeftOut
        What is in the image and is no RAM of the guest.
    runs : Runs or None
        What is stored, hole or absent; None while only reading to the end can tell.
    streamed_runs : Runs or None
        The same for an image without `runs`, once the last block was taken.
    source_bytes : int or None
        Bytes that reading takes up in all, if that is known.
    can_reread : bool
        Whether `blocks` can be called again.
    file_bytes, allocated_bytes : int or None
        Length of the file, and what it takes on its disk; None for what is no file.
    identity : tuple of int or None
        Device and inode of a file, to tell when an image is given twice.
    caveats : list of Caveat
        What was odd when the image was opened.
    """

    format: str
    layout: str = ""
    compression: str | None = None
    page_compression: str | None = None
    tool: str | None = None
    vmcoreinfo: bool | None = None
    runs: Runs | None = None
    streamed_runs: Runs | None = None
    source_bytes: int | None = None
    can_reread: bool = True
    file_bytes: int | None = None
    allocated_bytes: int | None = None
    identity: tuple[int, int] | None = None

    def __init__(self, name: str, path: str) -> None:
        self.name = name
        self.path = path
        self.caveats: list[Caveat] = []
        self.details: dict[str, str] = {}
        self.left_out: list[LeftOut] = []

    @abc.abstractmethod
    def blocks(self, buffer: memoryview, span: tuple[int, int] | None = None) -> Iterator[PageBlock]:
        """Read the PRESENT pages into a buffer, one block after another.

        Parameters
        ----------
        buffer : memoryview
            Whole pages of writable bytes. Each block overwrites the one before.
        span : tuple of int, optional
            First guest frame number wanted and the one behind the last; everything by default. Images
            without `runs` are read whole.

        Yields
        ------
        PageBlock
            Blocks in ascending order of guest frame numbers.

        Raises
        ------
        ImageError
            If the image cannot be read, is damaged, or has changed.
        """

    @abc.abstractmethod
    def finish(self) -> list[Caveat]:
        """Tell what reading the image to its end has shown, once its last block was taken.

        Raises
        ------
        ImageChangedError
            If the image changed its size while it was read.
        """

    @abc.abstractmethod
    def close(self) -> None:
        """Let go of the file."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

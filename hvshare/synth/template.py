"""What all guests of a template have: disk, programs, and how these use files."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Final

import numpy as np

from hvshare.synth.contents.filling import fill
from hvshare.synth.contents.kinds import Kind, Pages
from hvshare.synth.disk import Disk, make_disk
from hvshare.synth.draws import Draws, below
from hvshare.synth.layouts import Process, lay_out
from hvshare.synth.mapped.pages import MappedPages
from hvshare.units import PAGE_SIZE

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from hvshare.synth.address_spaces import AddressSpaces
    from hvshare.synth.mapped.image import MappedImage
    from hvshare.synth.mapped.reading import Found
    from hvshare.synth.preset import Preset

APPLICATION: Final = "application"
"""The program that allocates what is asked for beside the preset's."""

_WINDOW: Final = 32
"""Pages that are read at once: 128 KB, as Linux reads ahead."""


@dataclass(frozen=True)
class Template:
    """A template, from which guests are made.

    Attributes
    ----------
    preset : Preset
        Scaled already.
    seed : int
        Tells templates of a preset apart.
    mapped : tuple of MappedImage
        Real images that take the place of the libraries.
    """

    preset: Preset
    seed: int
    mapped: tuple[MappedImage, ...] = ()

    @cached_property
    def draws(self) -> Draws:
        """What is drawn for the template follows from these."""
        return Draws.of("template", self.seed, self.preset.name)

    @cached_property
    def disk(self) -> Disk:
        """The disk of all guests."""
        return make_disk(self.preset, self.draws, self.mapped)

    @cached_property
    def mapped_pages(self) -> MappedPages | None:
        """The pages of real images."""
        return MappedPages(self.mapped) if self.mapped else None

    @cached_property
    def processes(self) -> tuple[Process, ...]:
        """What runs, in the order in which it is started."""
        found: list[Process] = []
        for file, program in zip(self.disk.programs, self.preset.programs, strict=True):
            libraries = self._libraries_of(program.name, program.libraries)
            found.extend(
                Process(
                    f"{program.name} {number}", file, libraries, _whole(program.heap), _whole(program.stack)
                )
                for number in range(program.processes)
            )
        return tuple(found)

    def application(self, size: int) -> Process:
        """Return a process that allocates so many bytes more, with the executable of the last program."""
        like = self.preset.programs[-1]
        return Process(
            f"{APPLICATION} 0",
            self.disk.programs[-1],
            self._libraries_of(like.name, like.libraries),
            _whole(size),
            _whole(like.stack),
        )

    @cached_property
    def files_of(self) -> tuple[NDArray[np.int64], ...]:
        """Return the files that each program maps or reads: those that run first, then those that do not."""
        disk = self.disk
        numbers = [*disk.programs, *disk.installed]
        libraries = [self._libraries_of(program.name, program.libraries) for program in self.preset.programs]
        typical = max(1, self.preset.disk.library_files // 20)
        libraries += [self._libraries_of(f"installed {file}", typical) for file in disk.installed]
        documents = np.array(disk.documents, np.int64)
        reader = below(self.draws.child("readers").words(len(documents)), len(numbers)).astype(np.int64)
        return tuple(
            np.concatenate([[file], loaded, documents[reader == number]]).astype(np.int64)
            for number, (file, loaded) in enumerate(zip(numbers, libraries, strict=True))
        )

    @cached_property
    def reading_order(self) -> NDArray[np.int64]:
        """Return the pages of documents in the order in which starting guests read them, some at a time."""
        first = int(self.disk.starts[self.disk.documents.start])
        windows = -(-(len(self.disk) - first) // _WINDOW)
        order = self.draws.child("reading").permutation(windows)
        pages = (first + order[:, None] * _WINDOW + np.arange(_WINDOW)).ravel()
        return np.asarray(pages[pages < len(self.disk)])

    def pages_of_files(self, files: Sequence[int] | NDArray[np.int64]) -> NDArray[np.int64]:
        """Return the pages of some files, one file after another, but for gaps in real images."""
        numbers = np.asarray(files, np.int64)
        first = self.disk.starts[numbers]
        lengths = self.disk.starts[numbers + 1] - first
        before = np.cumsum(lengths) - lengths
        pages = np.arange(int(lengths.sum())) + np.repeat(first - before, lengths)
        return np.asarray(pages[self.disk.kinds[pages] != Kind.ZERO])

    def make_disk_pages(self, out: NDArray[np.uint64], first: int) -> None:
        """Make the bytes of some pages of the disk.

        Parameters
        ----------
        out : ndarray of uint64, shape (pages, 512)
            Overwritten, with pages that follow each other.
        first : int
            The first of them.
        """
        disk, rows = self.disk, slice(first, first + len(out))
        none = np.zeros(len(out), np.uint64)
        pages = Pages(disk.kinds[rows], disk.keys[rows], none, none.astype(np.int32), disk.regions[rows])
        fill(out, pages, self._on_disk, np.zeros(len(out), np.int64), self.mapped_pages)

    @cached_property
    def _on_disk(self) -> AddressSpaces:
        return lay_out(self.preset, self.disk, (), 0, None)

    def _libraries_of(self, name: str, count: int) -> NDArray[np.int64]:
        """Choose libraries: half of them those that every program loads, the rest by the program."""
        known = len(self.disk.libraries)
        # A scaled disk has fewer libraries, and a program loads as large a share of them.
        count = min(known, -(-count * known // max(1, self.preset.disk.library_files)))
        common = count // 2
        order = self.draws.child("libraries of", name).permutation(known)
        own = order[order >= common][: count - common]
        return np.concatenate([np.arange(common), np.sort(own)])


def images_for(preset: Preset, seed: int, directory: str) -> Found:
    """Choose real images that take the place of the libraries of a template.

    Parameters
    ----------
    preset : Preset
        Says for which architecture, and how much there may be.
    seed : int
        Of the template: others of one preset have the same images in another order.
    directory : str
        Where they are.

    Returns
    -------
    Found

    Raises
    ------
    PresetError
        If there are none.
    ResourceError
        If there are PE files and pefile is not installed.
    """
    # Few guests have real images, and what reads ELF files takes a while to import.
    from hvshare.synth.mapped.reading import read_images

    most = -(-preset.disk.libraries // PAGE_SIZE)
    order = Draws.of("images", seed)
    return read_images(directory, architecture=preset.architecture, most_pages=most, order=order)


def _whole(size: int) -> int:
    return -(-size // PAGE_SIZE) * PAGE_SIZE

"""The images and fingerprint files of a command, opened, and those that had to be left out."""

from __future__ import annotations

import resource
from typing import TYPE_CHECKING, Any

import click

from hvshare.caveats import Caveat
from hvshare.errors import ImageError, UnreadableImageError
from hvshare.fingerprint.inputs import StoredFingerprints, open_inputs
from hvshare.images.options import ReadingOptions
from hvshare.images.runs import RunKind

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from hvshare.cli.options import Talk
    from hvshare.fingerprint.inputs import Input
    from hvshare.images.image import GuestImage

_FURTHER_FILES = 512  # modules, pipes of workers, the result


class Inputs:
    """The images and fingerprint files of a command, and those that had to be left out.

    Parameters
    ----------
    paths : sequence of str
        As given.
    skip : bool
        Whether images that cannot be used are left out.
    talk : Talk
        Told of images that are left out.
    holes : str
        As given.
    bytes_needed : bool
        Whether fingerprint files, which hold no contents, are refused.
    **reading
        The other options of `image_options`.

    Attributes
    ----------
    images : list of GuestImage or StoredFingerprints
        Opened, in the order of the paths.

    Raises
    ------
    ImageError
        If an image cannot be used and is not to be left out, or if none is left.
    click.UsageError
        If standard input is named twice.
    """

    def __init__(
        self,
        paths: Sequence[str],
        *,
        skip: bool,
        talk: Talk,
        holes: str,
        bytes_needed: bool = False,
        **reading: Any,
    ) -> None:
        if paths.count("-") > 1:
            raise click.UsageError("Standard input ('-') can be read only once.")
        _allow_open_files(len(paths))
        self._talk = talk
        self.left_out: list[ImageError] = []
        self.on_error = self.leave_out if skip else None
        with talk.copying() as on_spool:
            options = ReadingOptions(holes=RunKind[holes.upper()], on_spool=on_spool, **reading)
            self.images: list[Input] = open_inputs(
                paths, options=options, on_error=self.on_error, bytes_needed=bytes_needed
            )
        self.keep(range(len(self.images)))

    def leave_out(self, error: ImageError) -> None:
        """Go on without an image."""
        self.left_out.append(error)
        self._talk.warn(f"left out: {error}")

    def keep(self, indexes: Sequence[int]) -> None:
        """Keep some of the images only.

        Raises
        ------
        ImageError
            If none is left.
        """
        for index, image in enumerate(self.images):
            if index not in indexes:
                image.close()
        self.images = [self.images[index] for index in indexes]
        if not self.images:
            raise UnreadableImageError("none of the images could be used")

    @property
    def guest_images(self) -> list[GuestImage]:
        """Those whose contents can be read."""
        return [each for each in self.images if not isinstance(each, StoredFingerprints)]

    @property
    def total_bytes(self) -> int | None:
        """Bytes to be read, if they are known."""
        return total_bytes(self.images)

    @property
    def caveats(self) -> list[Caveat]:
        """A caveat for each image that was left out."""
        return [
            Caveat("left-out", f"left out: {error}", "put it right and measure again")
            for error in self.left_out
        ]

    @property
    def exit_code(self) -> int:
        """0, or 3 if images were left out."""
        return 3 if self.left_out else 0

    def close(self) -> None:
        """Let go of all images."""
        for image in self.images:
            image.close()

    def __enter__(self) -> Inputs:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def total_bytes(images: Iterable[Input]) -> int | None:
    """Add up what is to be read of images, if it is known of each."""
    sizes = [image.source_bytes for image in images]
    return None if None in sizes else sum(size or 0 for size in sizes)


def _allow_open_files(count: int) -> None:
    """Ask for as many open files as there are images, as far as the user may have them."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = count + _FURTHER_FILES
    if soft != resource.RLIM_INFINITY and soft < wanted:
        most = wanted if hard == resource.RLIM_INFINITY else min(hard, wanted)
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))

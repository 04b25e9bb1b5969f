"""Options that several commands share, and the values they take."""

from __future__ import annotations

import contextlib
import os
import resource
import sys
from typing import TYPE_CHECKING, Any

import click

from hvshare.caveats import Caveat
from hvshare.cli.interrupts import deferred_interrupts
from hvshare.errors import ImageError, SizeError, UnreadableImageError
from hvshare.fingerprint.inputs import StoredFingerprints, open_inputs
from hvshare.images.options import DEFAULT_SPOOL_LIMIT, IMAGE_FORMATS, ReadingOptions
from hvshare.images.runs import RunKind
from hvshare.report.text import printable
from hvshare.units import check_frame_size, parse_size

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from hvshare.fingerprint.inputs import Input
    from hvshare.images.image import GuestImage

    Command = Callable[..., Any]

_FURTHER_FILES = 512  # modules, pipes of workers, the result


class SizeType(click.ParamType[int]):
    """A size such as 64K or 2MiB."""

    name = "size"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """Read a size, or fail as wrong usage."""
        if isinstance(value, int):
            return value
        try:
            return self.check(parse_size(value))
        except SizeError as error:
            self.fail(str(error), param, ctx)

    def check(self, size: int) -> int:
        """Accept any size."""
        return size


class FrameSizeType(SizeType):
    """The size of a frame: a power of two from 4 KB to 1 GB."""

    def check(self, size: int) -> int:
        """Accept what frames can have."""
        return check_frame_size(size)


def say(message: str) -> None:
    """Say something on standard error, if anybody listens there."""
    with contextlib.suppress(OSError):
        click.echo(f"hvshare: {printable(message)}", err=True)


class Talk:
    """What to say on standard error, beside the result.

    Parameters
    ----------
    quiet, verbose : bool
        Say nothing but errors, or say more.
    progress : bool or None
        Show a bar while reading; by default if standard error is a terminal, and not in CI.
    """

    def __init__(self, *, quiet: bool, verbose: bool, progress: bool | None) -> None:
        if progress is None:
            progress = sys.stderr.isatty() and not os.environ.get("CI")
        self._quiet = quiet
        self._verbose = verbose
        self._progress = progress and not quiet

    def warn(self, message: str) -> None:
        """Say something that bears on the result, unless told to be quiet."""
        if not self._quiet:
            say(f"warning: {message}")

    @contextlib.contextmanager
    def reading(
        self, description: str, total_bytes: int | None
    ) -> Iterator[Callable[[int, int], None] | None]:
        """Show progress for as long as something is read; gives what to call on the way."""
        if not self._progress:
            yield None
            return
        with deferred_interrupts():
            from hvshare.report.progress import ReadingProgress

        with ReadingProgress(description, total_bytes) as bar:
            yield lambda _image, count: bar.advance(count)

    @contextlib.contextmanager
    def copying(self) -> Iterator[Callable[[int], None] | None]:
        """Show progress from when a stream starts to be copied; gives what to call on the way."""
        if not self._progress:
            yield None
            return
        with contextlib.ExitStack() as stack:
            advance: list[Callable[[int, int], None] | None] = []

            def on_spool(count: int) -> None:
                if not advance:
                    advance.append(stack.enter_context(self.reading("Copying", None)))
                if advance[0]:
                    advance[0](0, count)

            yield on_spool

    def tell(self, message: str) -> None:
        """Say something that only the curious want to know."""
        if self._verbose:
            say(message)


def images_argument(command: Command) -> Command:
    """Add the images that a command is about."""
    return click.argument(
        "paths", metavar="IMAGE...", nargs=-1, required=True, type=click.Path(allow_dash=True)
    )(command)


def image_options(command: Command) -> Command:
    """Add the options that tell how images are read."""
    for option in reversed(
        (
            click.option(
                "--image-format",
                type=click.Choice(IMAGE_FORMATS),
                default="auto",
                show_default=True,
                help="raw takes the bytes, of streams once unpacked, as guest memory, whatever they are.",
            ),
            click.option(
                "--holes",
                type=click.Choice(["zero", "absent"]),
                default="zero",
                show_default=True,
                help="What holes of a sparse file mean: zero pages, or pages that the image does not hold.",
            ),
            click.option(
                "--device-memory",
                is_flag=True,
                help="Count BIOS ROM and video memory too, which are left out otherwise.",
            ),
            click.option(
                "--read-swapped",
                is_flag=True,
                help="Read pages of a running guest that are swapped out, which swaps them in.",
            ),
            click.option(
                "--spool-limit",
                type=SizeType(),
                default=DEFAULT_SPOOL_LIMIT,
                metavar="SIZE",
                help="The most that a stream may take in a temporary file, if its format has to be read at "
                "any position.  [default: 16G]",
            ),
            click.option(
                "--skip-unreadable",
                is_flag=True,
                help="Leave out images that cannot be used, and exit with 3.",
            ),
        )
    ):
        command = option(command)
    return command


def jobs_option(command: Command) -> Command:
    """Add the option that tells how many processes work."""
    return click.option(
        "-j",
        "--jobs",
        type=click.IntRange(min=1),
        metavar="N",
        help="Processes that read and hash.  [default: one a processor]",
    )(command)


def talk_options(command: Command) -> Command:
    """Add the options that tell what is said beside a result; see `Talk`."""
    for option in reversed(
        (
            click.option("-q", "--quiet", is_flag=True, help="No warnings and no progress."),
            click.option("-v", "--verbose", is_flag=True, help="Tell what is done, on standard error."),
            click.option(
                "--progress/--no-progress",
                default=None,
                help="Show progress on standard error.  [default: if that is a terminal]",
            ),
        )
    ):
        command = option(command)
    return command


def output_options(*formats: str) -> Callable[[Command], Command]:
    """Add the options that tell where a result goes and what is said beside it."""

    def add(command: Command) -> Command:
        for option in reversed(
            (
                click.option(
                    "--format",
                    "output_format",
                    type=click.Choice(formats),
                    default="table",
                    show_default=True,
                    help="How the result is written.",
                ),
                click.option("--json", "as_json", is_flag=True, help="Short for --format json."),
                click.option(
                    "-o",
                    "--output",
                    metavar="FILE",
                    type=click.Path(),
                    help="Write the result to a file, whole or not at all.",
                ),
                talk_options,
            )
        ):
            command = option(command)
        return command

    return add


def chosen_format(output_format: str, *, as_json: bool) -> str:
    """Settle between --format and --json.

    Raises
    ------
    click.UsageError
        If they contradict each other.
    """
    if as_json and output_format not in ("table", "json"):
        raise click.UsageError(f"--json contradicts --format {output_format}.")
    return "json" if as_json else output_format


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
        sizes = [image.source_bytes for image in self.images]
        return None if None in sizes else sum(size or 0 for size in sizes)

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


def _allow_open_files(count: int) -> None:
    """Ask for as many open files as there are images, as far as the user may have them."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = count + _FURTHER_FILES
    if soft != resource.RLIM_INFINITY and soft < wanted:
        most = wanted if hard == resource.RLIM_INFINITY else min(hard, wanted)
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))

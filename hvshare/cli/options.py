"""Options that several commands share, and the values they take."""

from __future__ import annotations

import contextlib
import os
import sys
from functools import reduce, wraps
from typing import TYPE_CHECKING, Any

import click

from hvshare.cli.interrupts import deferred_interrupts
from hvshare.errors import SizeError
from hvshare.images.options import DEFAULT_SPOOL_LIMIT, IMAGE_FORMATS
from hvshare.report.text import printable
from hvshare.units import LARGE_FRAME_SIZE, PAGE_SIZE, check_frame_size, parse_size

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from hvshare.caveats import Caveat
    from hvshare.report.progress import PassProgress

    Command = Callable[..., Any]


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

    def warn_of(self, caveats: Iterable[Caveat]) -> None:
        """Say what is to be known of a result that has no place for it, as CSV has none."""
        for caveat in caveats:
            self.warn(f"{caveat.image}: {caveat.message}" if caveat.image else caveat.message)

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
    def passes(self) -> Iterator[PassProgress | None]:
        """Show progress for as long as work goes over pages in passes; gives what to tell of them."""
        if not self._progress:
            yield None
            return
        with deferred_interrupts():
            from hvshare.report.progress import PassProgress

        with PassProgress() as bar:
            yield bar

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


def add_options(command: Command, *options: Callable[[Command], Command]) -> Command:
    """Add options to a command, in the order in which its help is to list them."""
    return reduce(lambda wrapped, option: option(wrapped), reversed(options), command)


def images_argument(command: Command) -> Command:
    """Add the images that a command is about."""
    return click.argument(
        "paths", metavar="IMAGE...", nargs=-1, required=True, type=click.Path(allow_dash=True)
    )(command)


def image_options(command: Command) -> Command:
    """Add the options that tell how images are read."""
    return add_options(
        command,
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


def jobs_option(work: str = "read and hash") -> Callable[[Command], Command]:
    """Add the option that tells how many processes work, and say what they do."""
    return click.option(
        "-j",
        "--jobs",
        type=click.IntRange(min=1),
        metavar="N",
        help=f"Processes that {work}.  [default: one a processor]",
    )


def talk_options(command: Command) -> Command:
    """Add the options that tell what is said beside a result.

    The command takes them as ``talk``, a `Talk`.
    """

    @wraps(command)
    def talking(*args: Any, quiet: bool, verbose: bool, progress: bool | None, **options: Any) -> Any:
        return command(*args, talk=Talk(quiet=quiet, verbose=verbose, progress=progress), **options)

    return add_options(
        talking,
        click.option("-q", "--quiet", is_flag=True, help="No warnings and no progress."),
        click.option("-v", "--verbose", is_flag=True, help="Tell what is done, on standard error."),
        click.option(
            "--progress/--no-progress",
            default=None,
            help="Show progress on standard error.  [default: if that is a terminal]",
        ),
    )


def output_options(*formats: str) -> Callable[[Command], Command]:
    """Add the options that tell where a result goes and what is said beside it.

    The command takes them as ``form``, one of the formats, ``output`` and ``talk``, a `Talk`.
    """

    def add(command: Command) -> Command:
        @wraps(command)
        def formed(*args: Any, output_format: str, as_json: bool, **options: Any) -> Any:
            return command(*args, form=_chosen_format(output_format, as_json=as_json), **options)

        return add_options(
            formed,
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

    return add


def _chosen_format(output_format: str, *, as_json: bool) -> str:
    if as_json and output_format not in ("table", "json"):
        raise click.UsageError(f"--json contradicts --format {output_format}.")
    return "json" if as_json else output_format


def frame_option(command: Command) -> Command:
    """Add the option that tells in which frame sizes to count."""
    return click.option(
        "--frame",
        "frame_sizes",
        type=FrameSizeType(),
        multiple=True,
        default=(PAGE_SIZE, LARGE_FRAME_SIZE),
        metavar="SIZE",
        help="Count in frames of this size, a power of two from 4K to 1G; repeatable. 4K is always there."
        "  [default: 4K, 2M]",
    )(command)

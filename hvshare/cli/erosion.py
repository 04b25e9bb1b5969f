"""``hvshare erosion``: what large pages, ASLR and prefetching take away from sharing."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from click.shell_completion import CompletionItem

from hvshare.cli.erosion_run import run
from hvshare.cli.options import (
    SizeType,
    add_options,
    image_options,
    images_argument,
    jobs_option,
    output_options,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    Command = Callable[..., Any]


class SectionGroup(click.Group):
    """A command whose subcommands are sections of what it reports by itself.

    A section stands right behind the name of the command; anything else there is an option or an image. So
    images called like a section are given as ./NAME.
    """

    allow_interspersed_args = True

    def make_context(
        self, info_name: str | None, args: list[str], parent: click.Context | None = None, **extra: Any
    ) -> click.Context:
        """Give the context of the section that is named first, or else that of the whole report."""
        if args and args[0] in self.commands:
            own = click.Context(self, parent=parent, info_name=info_name, **extra)
            return self.commands[args[0]].make_context(args[0], args[1:], parent=own, **extra)
        return super().make_context(info_name, args, parent=parent, **extra)

    def collect_usage_pieces(self, ctx: click.Context) -> list[str]:
        """Say that a section goes first, if any is named."""
        return ["[SECTION]", *click.Command.collect_usage_pieces(self, ctx)]

    def format_commands(self, _ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """List the sections as such."""
        rows = [(name, command.get_short_help_str(limit=70)) for name, command in self.commands.items()]
        with formatter.section("Sections"):
            formatter.write_dl(rows)


class ReportImages(click.Argument):
    """Images of the whole report, which the usage of a section does not name before it."""

    def get_usage_pieces(self, ctx: click.Context) -> list[str]:
        """Show the argument where the report itself is meant."""
        return super().get_usage_pieces(ctx) if isinstance(ctx.command, SectionGroup) else []


def _complete_image(_ctx: click.Context, _param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Offer sections beside files, where both may stand."""
    sections = [
        CompletionItem(name) for name in erosion.commands if incomplete and name.startswith(incomplete)
    ]
    return [*sections, CompletionItem(incomplete, type="file")]


_target_option = click.option(
    "--target",
    "target_bytes",
    type=SizeType(),
    metavar="SIZE",
    help="Tell how many large pages must be broken to free so much.",
)


def _prefetch_options(command: Command) -> Command:
    return add_options(
        command,
        click.option(
            "--cold",
            "cold",
            multiple=True,
            type=click.Path(allow_dash=True),
            metavar="IMAGE",
            help="The same guest before its cache was warm: one for each IMAGE, in the same order, or "
            "one for all of them.",
        ),
        click.option(
            "--disk",
            "disks",
            multiple=True,
            type=click.Path(),
            metavar="DISK",
            help="A disk of the guests, raw or as fingerprint file: pages that equal a block of it are file "
            "pages. Repeatable.",
        ),
    )


def _common(command: Command) -> Command:
    return add_options(command, jobs_option(), image_options, output_options("table", "json", "jsonl", "csv"))


@click.group(
    cls=SectionGroup,
    invoke_without_command=True,
    short_help="What large pages, ASLR and prefetching take away from sharing.",
)
@click.argument(
    "paths",
    cls=ReportImages,
    metavar="IMAGE...",
    nargs=-1,
    required=True,
    type=click.Path(allow_dash=True),
    shell_complete=_complete_image,
)
@_target_option
@_prefetch_options
@_common
@click.pass_context
def erosion(ctx: click.Context, /, paths: tuple[str, ...], **options: Any) -> None:
    """Tell what large pages, ASLR and prefetching take away from sharing, in one report.

    A waterfall leads from the sharing that would be possible to what is left of it at 2 MB, then a section a
    factor. Each figure is measured, bounded (an interval), or modelled. A section named right after erosion
    is shown alone and in full; an image that is called like a section is ./NAME.

    IMAGE is whatever analyze reads, one or several taken as VMs of one host. ASLR is found in the bytes of
    pages, which are read several times: with fingerprint files or pipes, the report does without it.

    \b
    Examples:
      hvshare erosion web01.raw web02.raw
      hvshare erosion --disk debian.raw --target 4GiB web01.raw web02.raw
      hvshare erosion --cold before/web01.raw web01.raw
      hvshare erosion aslr web01.elf web02.elf
      hvshare erosion large-pages --json *.hvs | jq .large_pages.knee
    """
    for path in paths:
        if path in erosion.commands and not Path(path).exists():
            raise click.UsageError(f"Name a section before anything else: hvshare erosion {path} ...")
    run(ctx, paths, tuple(erosion.commands), **options)


@erosion.command(name="large-pages", short_help="What is lost at 2 MB, and what breaking large pages frees.")
@images_argument
@_target_option
@_common
@click.pass_context
def large_pages(ctx: click.Context, /, paths: tuple[str, ...], **options: Any) -> None:
    """Tell what large pages take away, and what breaking them frees and costs.

    Savings at every frame size from 4 KB to 2 MB; the curve of what is saved as large pages are broken, most
    gain first, with its knee; policies; the price in page tables, TLB reach and page walks; large pages in
    which little is. Fingerprint files (.hvs) do.

    \b
    Examples:
      hvshare erosion large-pages web01.raw web02.raw
      hvshare erosion large-pages --target 4GiB *.hvs
      hvshare erosion large-pages --json *.hvs | jq '.large_pages.curve[-1]'
    """
    run(ctx, paths, ("large-pages",), **options)


@erosion.command(name="aslr", short_help="What address randomization drove apart.")
@images_argument
@_common
@click.pass_context
def aslr(ctx: click.Context, /, paths: tuple[str, ...], **options: Any) -> None:
    """Tell what sharing would save further at 4 KB without ASLR, as an interval.

    Pages without a copy are held against their likely twins, in another VM or in the same one. The lower
    bound counts twins that differ only by addresses which moved with their region; the upper bound, also
    those that differ by little else. Bytes of pages are needed, and read several times, so neither
    fingerprint files nor pipes do.

    \b
    Examples:
      hvshare erosion aslr web01.raw web02.raw
      hvshare erosion aslr --json web01.elf | jq .aslr.upper_saved_frames
    """
    run(ctx, paths, ("aslr",), **options)


@erosion.command(name="prefetch", short_help="What a cache full of files takes and gives.")
@images_argument
@_prefetch_options
@_common
@click.pass_context
def prefetch(ctx: click.Context, /, paths: tuple[str, ...], **options: Any) -> None:
    """Tell what prefetching takes away: zero pages lost against pages of the cache that repeat.

    It is measured with --cold, images of the same guests before their cache was warm; with --disk, the disks
    that files were read from, it is bounded; with neither, only zero pages bound it. Fingerprint files (.hvs)
    do, of memory and of disks.

    \b
    Examples:
      hvshare erosion prefetch --disk debian.raw web01.raw web02.raw
      hvshare erosion prefetch --cold old1.hvs --cold old2.hvs web01.raw web02.raw
      hvshare fingerprint debian.raw && hvshare erosion prefetch --disk debian.raw.hvs *.hvs
    """
    run(ctx, paths, ("prefetch",), **options)

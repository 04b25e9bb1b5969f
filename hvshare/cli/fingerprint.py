"""``hvshare fingerprint``: images hashed once, and their digests kept in files."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from hvshare.cli.inputs import Inputs
from hvshare.cli.interrupts import deferred_interrupts
from hvshare.cli.options import Talk, image_options, images_argument, jobs_option, talk_options
from hvshare.errors import OutputError
from hvshare.fingerprint.hashing import Hashing
from hvshare.report.output import file_names, open_binary_output

if TYPE_CHECKING:
    from collections.abc import Sequence

SUFFIX: Final = ".hvs"


@click.command(short_help="Hash images once, and keep the digests in small files.")
@images_argument
@click.option(
    "-o",
    "--output",
    metavar="FILE|DIR",
    type=click.Path(allow_dash=True),
    help="The file of one image, - for standard output, or a folder (which exists, or ends in /) for a file "
    "an image.  [default: NAME.hvs here]",
)
@click.option("--force", is_flag=True, help="Replace files of that name that are in the folder already.")
@jobs_option()
@image_options
@talk_options
@click.pass_context
def fingerprint(
    ctx: click.Context,
    /,
    paths: tuple[str, ...],
    output: str | None,
    force: bool,
    jobs: int | None,
    talk: Talk,
    skip_unreadable: bool,
    **reading: Any,
) -> None:
    """Write the digests of images to fingerprint files, which other commands take in their place.

    A file has 8 bytes a page that is not zero, and is written whole or not at all. It holds digests, where
    they belong, and where they came from, and no contents.

    Files in a folder are named after their images, and replaced with --force only; a FILE that was named is
    replaced.

    \b
    Examples:
      hvshare fingerprint web01.raw web02.elf
      hvshare fingerprint -o fingerprints/ /var/dumps/*
      hvshare fingerprint -o db.hvs qemu:4711
      ssh host 'hvshare fingerprint - -o -' < dump.raw > dump.hvs
      hvshare analyze web01.raw.hvs db.hvs web03.raw
    """
    with Inputs(paths, skip=skip_unreadable, talk=talk, bytes_needed=True, **reading) as inputs:
        targets = _targets(output, [image.name for image in inputs.images], force=force)
        if output == "-":
            _check_no_terminal()
        images = inputs.guest_images
        done = []
        with Hashing(images, jobs=jobs, on_error=inputs.on_error) as hashing:
            with deferred_interrupts():
                from hvshare.fingerprint.files import write_fingerprints
                from hvshare.fingerprint.provenance import Provenance

            with talk.reading("Reading", inputs.total_bytes) as hashing.on_progress:
                for index, fingerprints in hashing:
                    with open_binary_output(targets[index], paths) as file:
                        write_fingerprints(fingerprints, file, Provenance.of(images[index]))
                    done.append(index)
                    for caveat in fingerprints.caveats:
                        talk.warn(f"{fingerprints.name}: {caveat.message}")
                    talk.tell(f"{fingerprints.name}: written to {targets[index] or 'standard output'}")
        inputs.keep(done)
    ctx.exit(inputs.exit_code)


def _targets(output: str | None, names: Sequence[str], *, force: bool) -> list[str | None]:
    """Name the file of each image; None is standard output."""
    folder = output or ""
    if output == "-" or (output and not output.endswith("/") and not Path(output).is_dir()):
        if len(names) > 1:
            raise click.UsageError(
                f"-o {output} is one file, and there are {len(names)} images: name a folder."
            )
        return [None if output == "-" else output]
    if folder:
        try:
            Path(folder).mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise OutputError(
                error.strerror or str(error), path=folder, advice="name another folder"
            ) from error
    targets = [str(Path(folder, name)) for name in file_names(names, SUFFIX)]
    for target in targets:
        if not force and os.path.lexists(target):
            raise OutputError(
                "it exists already", path=target, advice="use --force to replace it, or name a folder with -o"
            )
    return list(targets)


def _check_no_terminal() -> None:
    """Open standard output before hashing, so that a terminal is refused at once."""
    with open_binary_output(None):
        pass

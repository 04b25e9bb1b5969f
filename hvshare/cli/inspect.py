"""``hvshare inspect``: what a file is."""

from __future__ import annotations

from functools import partial
from typing import Any

import click

from hvshare.cli.inputs import Inputs
from hvshare.cli.interrupts import deferred_interrupts
from hvshare.cli.options import Talk, image_options, images_argument, output_options
from hvshare.errors import ImageError
from hvshare.fingerprint.inputs import StoredFingerprints
from hvshare.report.output import open_output


@click.command(short_help="What a memory image is.")
@images_argument
@click.option("--runs", "all_runs", is_flag=True, help="Show all runs, however many there are.")
@image_options
@output_options("table", "json")
@click.pass_context
def inspect(
    ctx: click.Context,
    /,
    paths: tuple[str, ...],
    all_runs: bool,
    form: str,
    output: str | None,
    talk: Talk,
    skip_unreadable: bool,
    **reading: Any,
) -> None:
    """Tell what a memory image is: its format, its pages, what is absent or left out, and what is odd.

    Of a fingerprint file, it is what that tells of its image, and whether its checksums fit.

    Nothing is hashed. Of files, headers and tables are read; compressed streams and pipes are read to their
    end, because nothing else tells how much is in them.

    \b
    Examples:
      hvshare inspect dump.bin
      hvshare inspect qemu:4711
      hvshare inspect --json dump.raw.zst | jq '.images[].size_bytes'
      hvshare inspect --runs sparse.raw
    """
    with (
        open_output(output, paths) as out,
        Inputs(paths, skip=skip_unreadable, talk=talk, **reading) as inputs,
    ):
        with deferred_interrupts():
            from hvshare.images.inspection import Inspection
            from hvshare.images.inspection import inspect as inspect_image
            from hvshare.report.console import report_console, write_report
            from hvshare.report.inspection import print_inspections
            from hvshare.report.machine import inspection_json

        found: dict[int, Inspection] = {}
        with talk.reading("Reading", inputs.total_bytes) as on_progress:
            for index, image in enumerate(inputs.images):
                try:
                    found[index] = (
                        image.inspect()
                        if isinstance(image, StoredFingerprints)
                        else inspect_image(image, on_progress)
                    )
                except ImageError as error:
                    if inputs.on_error is None:
                        raise
                    inputs.on_error(error)
        inputs.keep(list(found))
        if form == "json":
            out.write(inspection_json(found.values(), inputs.caveats))
        else:
            show = partial(print_inspections, list(found.values()), inputs.caveats, all_runs=all_runs)
            write_report(report_console(out), show)
    ctx.exit(inputs.exit_code)

"""``hvshare ksm-check``: what KSM would count, held against the kernel of this machine."""

from __future__ import annotations

from functools import partial
from typing import Any

import click

from hvshare.cli.inputs import Inputs
from hvshare.cli.interrupts import deferred_interrupts
from hvshare.cli.options import Talk, image_options, images_argument, output_options
from hvshare.errors import ImageError
from hvshare.report.output import open_output


@click.command(name="ksm-check", short_help="Hold the prediction for KSM against the kernel.")
@images_argument
@click.option(
    "--use-zero-pages/--no-use-zero-pages",
    default=None,
    help="Check with this setting of use_zero_pages alone.  [default: with both]",
)
@click.option(
    "--max-page-sharing",
    type=click.IntRange(min=2, max=(1 << 31) - 1),
    metavar="N",
    help="Set max_page_sharing for the check.  [default: as it is]",
)
@image_options
@output_options("table", "json")
@click.pass_context
def ksm_check(
    ctx: click.Context,
    /,
    paths: tuple[str, ...],
    use_zero_pages: bool | None,
    max_page_sharing: int | None,
    form: str,
    output: str | None,
    talk: Talk,
    skip_unreadable: bool,
    **reading: Any,
) -> None:
    """Have the kernel's KSM merge the pages of some images, and print its counters beside the prediction.

    For root, on Linux with KSM. All known pages of the images are mapped as private memory, so there must be
    memory for them. ksmd then works as fast as it can until its counters rest, which takes some seconds for
    each GiB. Every setting of KSM is left as it was found, however the command ends. It refuses to start
    where somebody else uses KSM, as a host of guests does, and says who.

    Exit status is 0 whether or not the kernel agrees: that is the result.

    \b
    Examples:
      sudo hvshare ksm-check web01.raw
      sudo hvshare ksm-check --no-use-zero-pages --max-page-sharing 16 web01.elf db.vmem
      sudo hvshare ksm-check --json dump.raw.zst | jq .agrees
    """
    with deferred_interrupts():
        from hvshare.report.console import report_console, write_report
        from hvshare.report.ksm_check import ksm_check_json, print_ksm_check
        from hvshare.sharing.ksm_memory import MergeableMemory, known_pages
        from hvshare.sharing.ksm_oracle import check_ready, check_with_kernel
        from hvshare.sharing.ksm_settings import KsmFolder
        from hvshare.sharing.ksm_users import check_memory
    folder = KsmFolder()
    check_ready(folder)
    with (
        open_output(output, paths) as out,
        Inputs(paths, skip=skip_unreadable, talk=talk, bytes_needed=True, **reading) as inputs,
        MergeableMemory() as memory,
    ):
        images = inputs.guest_images
        check_memory(sum(map(known_pages, images)))
        filled = []
        with talk.reading("Mapping", inputs.total_bytes) as on_progress:
            for index, image in enumerate(images):
                try:
                    memory.fill(image, None if on_progress is None else partial(on_progress, index))
                    filled.append(index)
                except ImageError as error:
                    if inputs.on_error is None:
                        raise
                    inputs.on_error(error)
        inputs.keep(filled)
        check = check_with_kernel(
            memory,
            folder,
            use_zero_pages=(False, True) if use_zero_pages is None else (use_zero_pages,),
            max_page_sharing=max_page_sharing,
            further_caveats=inputs.caveats,
            tell=talk.tell,
        )
        if form == "json":
            out.write(ksm_check_json(check))
        else:
            write_report(report_console(out), partial(print_ksm_check, check))
    ctx.exit(inputs.exit_code)

"""``hvshare analyze``: how much sharing would free, and what kind of pages it comes from."""

from __future__ import annotations

import time
from functools import partial
from typing import TYPE_CHECKING, Any

import click

from hvshare.cli.inputs import Inputs
from hvshare.cli.interrupts import deferred_interrupts
from hvshare.cli.options import (
    SizeType,
    Talk,
    frame_option,
    image_options,
    images_argument,
    jobs_option,
    output_options,
)
from hvshare.fingerprint.hashing import Hashing
from hvshare.fingerprint.inputs import StoredFingerprints
from hvshare.report.output import open_output
from hvshare.units import LARGE_FRAME_SIZE, PAGE_SIZE, format_size

if TYPE_CHECKING:
    from rich.console import Console

    from hvshare.fingerprint.fingerprints import Fingerprints
    from hvshare.sharing.counts import Counts
    from hvshare.sharing.report import SharingReport

_DEFAULT_TOP = 5


@click.command(short_help="How much sharing would free in one image or in several.")
@images_argument
@frame_option
@click.option(
    "--top",
    type=click.IntRange(min=0),
    default=_DEFAULT_TOP,
    show_default=True,
    metavar="N",
    help="How many of the most frequent contents the table shows.",
)
@click.option(
    "--verify",
    "verifies",
    is_flag=True,
    help="Read the images again and compare the bytes of pages with equal digests.",
)
@click.option(
    "--verify-limit",
    type=SizeType(),
    metavar="SIZE",
    help="Memory for --verify; repeated contents beyond it are sampled.  [default: 128M]",
)
@jobs_option()
@image_options
@output_options("table", "json", "jsonl", "csv")
@click.pass_context
def analyze(
    ctx: click.Context,
    /,
    paths: tuple[str, ...],
    frame_sizes: tuple[int, ...],
    top: int,
    verifies: bool,
    verify_limit: int | None,
    jobs: int | None,
    form: str,
    output: str | None,
    talk: Talk,
    skip_unreadable: bool,
    **reading: Any,
) -> None:
    """Tell how much sharing would free in one image, or in several taken as VMs of one host.

    IMAGE is a memory image: an ELF core, kdump, LiME, AVML, QEMU migration stream, libvirt save, VMware
    snapshot, 64-bit Windows crash dump, snapshot directory of Cloud Hypervisor or Firecracker, or raw; as a
    file, block device, pipe, or - for standard input, plain or compressed (gzip, bzip2, xz, zstd, lz4). A
    running guest is qemu:PID, a running process pid:PID. Fingerprint files (see hvshare fingerprint) stand
    for the images that they were made of.

    \b
    Examples:
      hvshare analyze dump.bin
      hvshare analyze qemu:4711 web01.elf web02.vmem
      hvshare analyze --frame 4K --frame 64K --frame 2M web01.raw web02.raw
      hvshare analyze --verify --top 20 dump.bin
      ssh host 'zstd -c /var/dumps/db.raw' | hvshare analyze --json - | jq .pooled
      hvshare analyze --format csv -o sharing.csv *.raw.zst
    """
    with (
        open_output(output, paths) as out,
        Inputs(paths, skip=skip_unreadable, talk=talk, **reading) as inputs,
    ):
        if verifies:
            _check_rereadable(inputs)
        started = time.monotonic()
        with Hashing(inputs.images, jobs=jobs, on_error=inputs.on_error) as hashing:
            with deferred_interrupts():
                # Imported here, because the workers read already.
                from hvshare.report.console import report_console, write_report
                from hvshare.report.machine import (
                    image_json_line,
                    pooled_json_line,
                    sharing_csv,
                    sharing_json,
                )
                from hvshare.report.strip import strip_cells
                from hvshare.sharing.measure import measure

            found: dict[int, Fingerprints] = {}
            with talk.reading("Reading", inputs.total_bytes) as hashing.on_progress:
                for index, fingerprints in hashing:
                    found[index] = fingerprints
                    if form == "jsonl":
                        out.write(image_json_line(measure([fingerprints], frame_sizes).images[0]))
                        out.flush()
        inputs.keep(sorted(found))
        measured = [found[index] for index in sorted(found)]
        talk.tell(_pace(measured, time.monotonic() - started))
        if form == "table":
            console = report_console(out)
            cells = strip_cells(console.width, [each.name for each in measured])
            report = measure(
                measured,
                frame_sizes,
                map_cells=cells,
                top=top,
                images=inputs.guest_images,
                further_caveats=inputs.caveats,
            )
        else:
            report = measure(measured, frame_sizes, further_caveats=inputs.caveats)
        if verifies:
            report = _verified(report, measured, inputs, verify_limit, talk)
        match form:
            case "table":
                write_report(console, partial(_print, report, _large(report, measured)))
            case "json":
                out.write(sharing_json(report))
            case "jsonl":
                out.write(pooled_json_line(report))
            case "csv":
                out.write(sharing_csv(report))
                talk.warn_of(report.caveats)
    ctx.exit(inputs.exit_code)


def _large(report: SharingReport, measured: list[Fingerprints]) -> Counts:
    """Give the counts at 2 MB, whatever frame sizes were asked for."""
    if LARGE_FRAME_SIZE in report.pooled:
        return report.pooled[LARGE_FRAME_SIZE]
    from hvshare.sharing.measure import measure

    return measure(measured, (LARGE_FRAME_SIZE,)).pooled[LARGE_FRAME_SIZE]


def _print(report: SharingReport, large: Counts, console: Console) -> None:
    from hvshare.report.factors import print_factors
    from hvshare.report.terminal import print_sharing

    print_sharing(report, console)
    print_factors(report.pooled[PAGE_SIZE], large, console)


def _check_rereadable(inputs: Inputs) -> None:
    for image in inputs.images:
        if isinstance(image, StoredFingerprints):
            raise click.UsageError(
                f"--verify compares bytes, and {image.path} is a fingerprint file, which holds digests only."
            )
        if not image.can_reread:
            raise click.UsageError(f"--verify reads images twice, and {image.path} can be read only once.")


def _verified(
    report: SharingReport, measured: list[Fingerprints], inputs: Inputs, limit: int | None, talk: Talk
) -> SharingReport:
    with deferred_interrupts():
        from hvshare.sharing.verification import DEFAULT_VERIFY_LIMIT, verify

    with talk.reading("Comparing", inputs.total_bytes) as on_progress:
        verification = verify(
            inputs.guest_images,
            measured,
            report,
            limit=limit or DEFAULT_VERIFY_LIMIT,
            on_progress=on_progress,
        )
    return verification.noted_in(report)


def _pace(measured: list[Fingerprints], seconds: float) -> str:
    size = sum(each.digests.nbytes // 8 * PAGE_SIZE for each in measured)
    return f"hashed {format_size(size)} in {seconds:.2f} s, {format_size(int(size / seconds))}/s"

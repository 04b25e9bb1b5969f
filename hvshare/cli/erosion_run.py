"""What the commands of ``hvshare erosion`` have in common: inputs, measuring, and the result."""

from __future__ import annotations

import contextlib
from functools import partial
from typing import TYPE_CHECKING, Any

import click

from hvshare.cli.inputs import Inputs, total_bytes
from hvshare.cli.interrupts import deferred_interrupts
from hvshare.fingerprint.hashing import Hashing
from hvshare.fingerprint.inputs import StoredFingerprints
from hvshare.report.output import open_output

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from hvshare.cli.options import Talk
    from hvshare.erosion.report import ErosionReport
    from hvshare.errors import ImageError
    from hvshare.fingerprint.fingerprints import Fingerprints
    from hvshare.fingerprint.inputs import Input

ASLR = "aslr"


def run(
    ctx: click.Context,
    paths: tuple[str, ...],
    sections: tuple[str, ...],
    *,
    form: str,
    output: str | None,
    talk: Talk,
    skip_unreadable: bool,
    jobs: int | None,
    cold: tuple[str, ...] = (),
    disks: tuple[str, ...] = (),
    target_bytes: int | None = None,
    **reading: Any,
) -> None:
    """Measure the sections that were asked for, and write them.

    Raises
    ------
    click.UsageError
        If options do not fit each other or the images.
    HvshareError
        If an input cannot be used, or the result not be written.
    """
    _check_names(paths, cold, disks, skip=skip_unreadable)
    only_aslr = sections == (ASLR,)
    with contextlib.ExitStack() as stack:
        out = stack.enter_context(open_output(output, [*paths, *cold, *disks]))
        opened_disks = stack.enter_context(_opened_disks(disks))
        inputs = stack.enter_context(
            Inputs(paths, skip=skip_unreadable, talk=talk, bytes_needed=only_aslr, **reading)
        )
        before = stack.enter_context(Inputs(cold, skip=False, talk=talk, **reading)) if cold else None
        if only_aslr:
            _check_rereadable(inputs.images)
        cold_images = before.images if before else []
        measured, measured_cold = _fingerprints(inputs, cold_images, jobs, talk)
        finds_aslr = ASLR in sections and all(map(_is_rereadable, inputs.images))
        with deferred_interrupts():
            from hvshare.erosion.measure import measure_erosion
        with talk.passes() as passes:
            report = measure_erosion(
                measured,
                inputs.guest_images if finds_aslr else (),
                sections=sections,
                target_bytes=target_bytes,
                cold=measured_cold,
                disks=opened_disks,
                jobs=jobs,
                progress=passes,
                further_caveats=inputs.caveats,
            )
        _write(report, form, out, talk)
    ctx.exit(inputs.exit_code)


def _check_names(
    paths: tuple[str, ...], cold: tuple[str, ...], disks: tuple[str, ...], *, skip: bool
) -> None:
    if (*paths, *cold, *disks).count("-") > 1:
        raise click.UsageError("Standard input ('-') can be read only once.")
    if len(cold) > 1 and len(cold) != len(paths):
        raise click.UsageError(
            f"--cold is given {len(cold)} times for {len(paths)} images: give one for each, in the same "
            "order, or one for all of them."
        )
    if len(cold) > 1 and skip:
        raise click.UsageError(
            "--skip-unreadable does not go with several --cold, which belong to images by their order."
        )


@contextlib.contextmanager
def _opened_disks(paths: tuple[str, ...]) -> Iterator[list[Input]]:
    if not paths:
        yield []
        return
    from hvshare.erosion.disk import open_disks

    disks = open_disks(paths)
    try:
        yield disks
    finally:
        for disk in disks:
            disk.close()


def _is_rereadable(image: Input) -> bool:
    return not isinstance(image, StoredFingerprints) and image.can_reread


def _check_rereadable(images: Sequence[Input]) -> None:
    for image in images:
        if not _is_rereadable(image):
            raise click.UsageError(
                f"What ASLR takes away is found by reading images several times, and {image.path} can be "
                "read only once: give it as a file."
            )


def _fingerprints(
    inputs: Inputs, cold: Sequence[Input], jobs: int | None, talk: Talk
) -> tuple[list[Fingerprints], list[Fingerprints]]:
    """Hash the images and the cold ones together; only images may be left out."""
    count = len(inputs.images)
    cold_paths = {image.path for image in cold}

    def on_error(error: ImageError) -> None:
        if inputs.on_error is None or error.path in cold_paths:
            raise error
        inputs.on_error(error)

    found: dict[int, Fingerprints] = {}
    with Hashing([*inputs.images, *cold], jobs=jobs, on_error=on_error) as hashing:
        with deferred_interrupts():
            import hvshare.erosion.measure  # noqa: F401  # while workers read; used when they have ended
        with talk.reading("Reading", total_bytes((*inputs.images, *cold))) as hashing.on_progress:
            found.update(hashing)
    kept = [index for index in sorted(found) if index < count]
    inputs.keep(kept)
    return [found[index] for index in kept], [found[index] for index in sorted(found) if index >= count]


def _write(report: ErosionReport, form: str, out: Any, talk: Talk) -> None:
    with deferred_interrupts():
        from hvshare.report.console import report_console, write_report
        from hvshare.report.erosion import print_erosion
        from hvshare.report.erosion_machine import erosion_csv, erosion_json, erosion_json_lines
    match form:
        case "table":
            write_report(report_console(out), partial(print_erosion, report))
        case "json":
            out.write(erosion_json(report))
        case "jsonl":
            out.write(erosion_json_lines(report))
        case "csv":
            out.write(erosion_csv(report))
            talk.warn_of(report.caveats)

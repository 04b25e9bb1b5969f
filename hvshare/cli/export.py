"""``hvshare export``: digests for the tools that analyze tables."""

from __future__ import annotations

from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

import click

from hvshare.cli.inputs import Inputs
from hvshare.cli.interrupts import deferred_interrupts
from hvshare.cli.options import Talk, image_options, images_argument, jobs_option, talk_options
from hvshare.errors import ResourceError
from hvshare.fingerprint.hashing import Hashing
from hvshare.report.output import open_binary_output

if TYPE_CHECKING:
    from hvshare.fingerprint.fingerprints import Fingerprints


@click.command(short_help="Digests as Parquet, a row a page, for DuckDB, Polars and Spark.")
@images_argument
@click.option(
    "--parquet", "as_parquet", is_flag=True, help="Write Parquet; needs pip install 'hvshare[parquet]'."
)
@click.option(
    "-o",
    "--output",
    metavar="FILE",
    type=click.Path(allow_dash=True),
    required=True,
    help="The file, written whole or not at all; - for standard output.",
)
@click.option("--no-zero-pages", is_flag=True, help="Leave zero pages out.")
@jobs_option()
@image_options
@talk_options
@click.pass_context
def export(
    ctx: click.Context,
    /,
    paths: tuple[str, ...],
    as_parquet: bool,
    output: str,
    no_zero_pages: bool,
    jobs: int | None,
    talk: Talk,
    skip_unreadable: bool,
    **reading: Any,
) -> None:
    """Write a table of pages: image, gfn, digest, and whether the page is zero.

    A row is a page that is known, that is, stored or zero by the definition of its format. Absent pages have
    no row. Images come in the order given; the metadata of the file, under the key hvshare, tells of each.
    IMAGE may be a fingerprint file, too.

    \b
    Examples:
      hvshare export --parquet -o pages.parquet web01.raw db.raw.hvs
      duckdb -c "SELECT count(*) - count(DISTINCT digest) AS saved FROM 'pages.parquet'"
      hvshare export --parquet --no-zero-pages -o pages.parquet fingerprints/*.hvs
    """
    if not as_parquet:
        raise click.UsageError("Say what to write: --parquet.")
    _check_pyarrow()
    with (
        open_binary_output(None if output == "-" else output, paths) as file,
        Inputs(paths, skip=skip_unreadable, talk=talk, **reading) as inputs,
        Hashing(inputs.images, jobs=jobs, on_error=inputs.on_error) as hashing,
    ):
        with deferred_interrupts():
            # Imported here, because the workers read already.
            from hvshare.report.parquet import ParquetPages

        with ParquetPages(file, zero_pages=not no_zero_pages) as pages:
            found: dict[int, Fingerprints] = {}
            done: list[int] = []
            with talk.reading("Reading", inputs.total_bytes) as hashing.on_progress:
                for index, fingerprints in hashing:
                    found[index] = fingerprints
                    # In the order given, so that the file is the same whatever was read first.
                    while len(done) in found:
                        pages.add(found.pop(len(done)))
                        done.append(len(done))
            for index in sorted(found):  # behind one that was left out
                pages.add(found.pop(index))
                done.append(index)
            inputs.keep(done)
    ctx.exit(inputs.exit_code)


def _check_pyarrow() -> None:
    """Tell before anything is read that pyarrow is missing."""
    if find_spec("pyarrow") is None:
        raise ResourceError(
            "Parquet needs pyarrow, which is not installed", advice="pip install 'hvshare[parquet]'"
        )

"""Measure the counting of many VMs beside a sort of their digests, and beside DuckDB."""

from __future__ import annotations

import importlib.util
import json
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import Final

import click
import numpy as np
from rich.table import Table

from hvshare.units import PAGE_SIZE, format_size
from tests.benchmarks.benchmark import common_options, end
from tests.benchmarks.digest_files import write_digests
from tests.benchmarks.digest_work import JOINED, PARQUET
from tests.benchmarks.measuring import CommandError, Cost, peak_proportional
from tests.benchmarks.tables import Limit

_NAMES: Final = {
    "sort": "np.sort of all digests",
    "pooled": "pooled counts",
    "pairs": "pooled counts and pairs",
    "duckdb": "DuckDB, GROUP BY of Parquet",
}
_ENVIRONMENT: Final = ("env", "OPENBLAS_NUM_THREADS=1")
"""As hvshare sets it."""


def measure(folder: Path, works: Sequence[str], rounds: int) -> dict[str, Cost]:
    """Do all works in turn, so that noise hits all alike; their memory is measured in a run of its own.

    Raises
    ------
    click.ClickException
        If a work fails, or works find different contents.
    """
    commands = {
        work: (*_ENVIRONMENT, sys.executable, "-m", "tests.benchmarks.digest_work", work, str(folder))
        for work in works
    }
    peaks = {}
    for work, command in commands.items():
        try:
            peaks[work] = peak_proportional(command)
        except CommandError as error:
            raise click.ClickException(f"{work}: {error}") from error
    seconds: dict[str, list[float]] = {work: [] for work in works}
    distinct = set()
    for _ in range(rounds):
        for work, command in commands.items():
            done = subprocess.run(command, stdout=subprocess.PIPE, check=False)
            if done.returncode:
                raise click.ClickException(f"{work} ended with {done.returncode}")
            answer = json.loads(done.stdout)
            seconds[work].append(answer["seconds"])
            distinct.add(answer["distinct"])
    if len(distinct - {None}) != 1:
        raise click.ClickException(f"works find different numbers of contents: {distinct}")
    return {work: Cost(median(seconds[work]), peaks[work]) for work in works}


def write_parquet(folder: Path) -> None:
    """Put the digests of all guests into one Parquet file."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    schema = pa.schema([("vm", pa.int32()), ("digest", pa.uint64())])
    with pq.ParquetWriter(folder / PARQUET, schema, compression="none", use_dictionary=False) as writer:
        for vm, path in enumerate(sorted(folder.glob("*.u64"))):
            digests = np.fromfile(path, np.uint64)
            writer.write_table(pa.table([np.full(len(digests), vm, np.int32), digests], schema=schema))


def join(folder: Path) -> None:
    """Put the digests of all guests one after the other in a file."""
    with (folder / JOINED).open("wb") as joined:
        for path in sorted(folder.glob("*.u64")):
            with path.open("rb") as file:
                shutil.copyfileobj(file, joined)


def limits(name: str, results: dict[str, Cost], digest_bytes: int) -> list[Limit]:
    """Hold measurements against what the project has set itself."""
    sort = results["sort"].seconds
    return [
        Limit(f"{name}: pooled / np.sort", results["pooled"].seconds / sort, 1.5),
        Limit(f"{name}: pairs / np.sort", results["pairs"].seconds / sort, 5.0),
        *(
            Limit(
                f"{name}: peak memory of {work} / digests",
                results[work].peak_bytes / digest_bytes,
                1.5,
                exclusive=True,
            )
            for work in ("pooled", "pairs")
        ),
    ]


@click.command()
@click.option("--vms", type=click.IntRange(min=1), default=64, show_default=True, help="How many guests.")
@click.option(
    "--pages",
    type=click.IntRange(min=1024),
    default=(4 << 30) // PAGE_SIZE,
    show_default=True,
    help="Pages of each.",
)
@common_options
@click.pass_context
def main(ctx: click.Context, /, vms: int, pages: int, rounds: int, directory: Path, strict: bool) -> None:
    """Measure how long it takes to count many VMs, and hold it against the limits of the project."""
    works = ["sort", "pooled", "pairs"]
    missing = [name for name in ("duckdb", "pyarrow") if importlib.util.find_spec(name) is None]
    if not missing:
        works.append("duckdb")
    table = Table(
        title=f"Digests of {vms} guests of {format_size(pages * PAGE_SIZE)}",
        caption=(
            f"seconds: median of {rounds} interleaved rounds, without loading digests. peak memory: of all "
            "processes together, digests among it, by proportional set size (PSS), so that what processes "
            "share counts once; sampled in runs of their own."
        ),
        caption_justify="left",
    )
    table.add_column("work")
    for heading in ("digests", "seconds", "ns each", "ratio to sort", "peak memory"):
        table.add_column(heading, justify="right", no_wrap=True)
    checked = []
    for name, zero_pages in (("zero pages in holes", False), ("zero pages with digests", True)):
        click.echo(f"measuring {name}", err=True)
        with tempfile.TemporaryDirectory(dir=directory) as made:
            folder = Path(made)
            write_digests(folder, vms, pages, zero_pages=zero_pages)
            join(folder)
            if not missing:
                write_parquet(folder)
            digest_bytes = (folder / JOINED).stat().st_size
            results = measure(folder, works, rounds)
        checked += limits(name, results, digest_bytes)
        table.add_section()
        table.add_row(f"[b]{name}[/b]", format_size(digest_bytes))
        for work, result in results.items():
            table.add_row(
                _NAMES[work],
                f"{digest_bytes // 8:,}",
                f"{result.seconds:.3f}",
                f"{result.seconds / digest_bytes * 8e9:.1f}",
                f"{result.seconds / results['sort'].seconds:.2f}",
                format_size(result.peak_bytes),
            )
    skipped = [f"{_NAMES['duckdb']}: {' and '.join(missing)} not installed"] if missing else []
    end(ctx, table, skipped, checked, strict=strict)


if __name__ == "__main__":
    main()

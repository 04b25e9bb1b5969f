"""Measure the counting of many VMs beside a sort of their digests, and beside DuckDB."""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import subprocess
import sys
import tempfile
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Final

import click
import numpy as np
from rich.console import Console
from rich.table import Table

from hvshare.units import PAGE_SIZE, format_size
from tests.benchmarks.digest_files import write_digests
from tests.benchmarks.digest_work import JOINED, PARQUET
from tests.benchmarks.tables import Limit, limits_list

_NAMES: Final = {
    "sort": "np.sort of all digests",
    "pooled": "pooled counts",
    "pairs": "pooled counts and pairs",
    "duckdb": "DuckDB, GROUP BY of Parquet",
}
_SAMPLING_SECONDS: Final = 0.01


@dataclass(frozen=True)
class Result:
    """What one kind of work took.

    Attributes
    ----------
    seconds : float
        Median over the rounds.
    peak_bytes : int
        Largest sum of proportional set sizes among samples.
    """

    seconds: float
    peak_bytes: int


def measure(folder: Path, works: Sequence[str], rounds: int) -> dict[str, Result]:
    """Do all works in turn, so that noise hits all alike; their memory is measured in a run of its own.

    Raises
    ------
    click.ClickException
        If a work fails, or works find different contents.
    """
    peaks = {work: _run(work, folder, sample=True)[1] for work in works}
    seconds: dict[str, list[float]] = {work: [] for work in works}
    distinct = set()
    for _ in range(rounds):
        for work in works:
            answer, _ = _run(work, folder)
            seconds[work].append(answer["seconds"])
            distinct.add(answer["distinct"])
    if len(distinct - {None}) != 1:
        raise click.ClickException(f"works find different numbers of contents: {distinct}")
    return {work: Result(median(seconds[work]), peaks[work]) for work in works}


def _run(work: str, folder: Path, *, sample: bool = False) -> tuple[dict[str, float], int]:
    command = (sys.executable, "-m", "tests.benchmarks.digest_work", work, str(folder))
    environment = os.environ | {"OPENBLAS_NUM_THREADS": "1"}  # as the command sets it
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, env=environment, start_new_session=True
    ) as process:
        peak = _Peak(process.pid) if sample else None
        output = process.communicate()[0]
        peak_bytes = peak.stop() if peak else 0
    if process.returncode:
        raise click.ClickException(f"{work} ended with {process.returncode}")
    return json.loads(output), peak_bytes


class _Peak:
    """The most memory that the processes of a session have at one time, as samples show it.

    Of a page that several of them share, each has its part: the sum over processes counts it once.
    """

    def __init__(self, session: int) -> None:
        self._session = session
        self._bytes = 0
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._watch)
        self._thread.start()

    def _watch(self) -> None:
        while not self._done.wait(_SAMPLING_SECONDS):
            self._bytes = max(self._bytes, sum(map(self._proportional, Path("/proc").iterdir())))

    def _proportional(self, entry: Path) -> int:
        # A process may end between being listed and being looked at.
        try:
            if entry.name.isdecimal() and os.getsid(int(entry.name)) == self._session:
                for line in (entry / "smaps_rollup").read_text().splitlines():
                    if line.startswith("Pss:"):
                        return int(line.split()[1]) << 10
        except OSError:
            pass
        return 0

    def stop(self) -> int:
        """Give the largest sum of all samples, in bytes."""
        self._done.set()
        self._thread.join()
        return self._bytes


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


def limits(name: str, results: dict[str, Result], digest_bytes: int) -> list[Limit]:
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
@click.option(
    "--rounds",
    type=click.IntRange(min=1),
    default=5,
    show_default=True,
    help="How often each is timed.",
)
@click.option(
    "--dir",
    "directory",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    default=tempfile.gettempdir,
    help="Where files are made and removed again.  [default: that of temporary files]",
)
@click.option("--strict", is_flag=True, help="Exit with 1 if a limit is missed.")
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
    console = Console()
    console.print(table)
    if missing:
        console.print(f"skipped {_NAMES['duckdb']}: {' and '.join(missing)} not installed")
    console.print()
    console.print(limits_list(checked))
    ctx.exit(int(strict and any(limit.missed for limit in checked)))


if __name__ == "__main__":
    main()

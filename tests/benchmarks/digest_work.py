"""What is measured by ``bench_compare``: digests are loaded, then one thing is done with them and timed.

Run as ``python -m tests.benchmarks.digest_work WHAT FOLDER``; prints seconds and how many contents were found
as JSON.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from hvshare.fingerprint.pages import ZERO_DIGEST
from hvshare.sharing.ranges import count_many

PARQUET: Final = "digests.parquet"
JOINED: Final = "joined"

Work = Callable[[], int | None]


def load(folder: Path) -> list[NDArray[np.uint64]]:
    """Read the digests of all guests."""
    return [np.fromfile(path, np.uint64) for path in sorted(folder.glob("*.u64"))]


def sort(folder: Path) -> Work:
    """Sort all digests, which is what comparing them is measured by."""
    # Joined in a file, since joining them here would leave memory to the sort that others ask the system for.
    digests = np.fromfile(folder / JOINED, np.uint64)

    def work() -> None:
        np.sort(digests)

    return work


def pooled(folder: Path) -> Work:
    """Count without pairs."""
    vms = load(folder)
    return lambda: count_many(vms, pairs=False).distinct


def pairs(folder: Path) -> Work:
    """Count with pairs."""
    vms = load(folder)
    return lambda: count_many(vms).distinct


def duckdb(folder: Path) -> Work:
    """Group the digests of a Parquet file."""
    import duckdb

    query = (
        "SELECT count(*), sum(copies - 1) FROM (SELECT digest, count(*) AS copies "  # noqa: S608  # our own file
        f"FROM read_parquet('{folder / PARQUET}') WHERE digest <> {ZERO_DIGEST}::UBIGINT GROUP BY digest)"
    )
    connection = duckdb.connect()

    def work() -> int:
        found = connection.execute(query).fetchone()
        assert found is not None
        return int(found[0])

    return work


def main() -> None:
    """Do one thing."""
    what, folder = sys.argv[1:]
    work = {each.__name__: each for each in (sort, pooled, pairs, duckdb)}[what](Path(folder))
    started = time.perf_counter()
    found = work()
    json.dump({"seconds": time.perf_counter() - started, "distinct": found}, sys.stdout)


if __name__ == "__main__":
    main()

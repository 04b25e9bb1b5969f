"""Digests as Parquet, a row a page, for DuckDB, Polars and Spark."""

from __future__ import annotations

import json
from typing import IO, TYPE_CHECKING, Any, Final, Self

import numpy as np

from hvshare.fingerprint.pages import ZERO_DIGEST
from hvshare.images.runs import RunKind
from hvshare.report.text import encodable
from hvshare.units import PAGE_SIZE
from hvshare.version import __version__

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from hvshare.fingerprint.fingerprints import Fingerprints

SCHEMA: Final = "hvshare.pages/1"
METADATA_KEY: Final = "hvshare"

_BATCH_ROWS: Final = 1 << 18
_GROUP_ROWS: Final = 1 << 20


class _Sink:
    """What pyarrow writes to: a file, until that is given up.

    A writer of pyarrow writes the end of its file when it goes away, come what may, and a file that is cut
    must not have one.
    """

    closed = False

    def __init__(self, file: IO[bytes]) -> None:
        self._file: IO[bytes] | None = file

    def write(self, content: bytes) -> int:
        return len(content) if self._file is None else self._file.write(content)

    def flush(self) -> None:
        if self._file is not None:
            self._file.flush()

    def close(self) -> None:
        """Leave it to whoever opened the file."""

    def give_up(self) -> None:
        self._file = None


class ParquetPages:
    """A Parquet file of pages, written image by image in bounded memory.

    A context manager: the file is complete when it is left without an error, and has no end otherwise.

    Parameters
    ----------
    file : binary file object
        Written from front to back.
    zero_pages : bool
        Whether zero pages have rows.

    Notes
    -----
    Columns: ``image`` (dictionary of strings), ``gfn`` (uint64), ``digest`` (uint64) and ``zero`` (bool). A
    row is a page that is known: stored, or zero by definition of its format. Absent pages have none. What is
    known of the images is in the metadata of the file, as JSON under the key ``hvshare``.
    """

    def __init__(self, file: IO[bytes], *, zero_pages: bool = True) -> None:
        import pyarrow as pa
        import pyarrow.parquet as pq

        self._pa: Any = pa
        self._sink = _Sink(file)
        self._zero_pages = zero_pages
        self._images: list[dict[str, object]] = []
        self._schema = pa.schema(
            [
                ("image", pa.dictionary(pa.int32(), pa.string())),
                ("gfn", pa.uint64()),
                ("digest", pa.uint64()),
                ("zero", pa.bool_()),
            ]
        )
        self._writer: Any = pq.ParquetWriter(
            self._sink,
            self._schema,
            compression="zstd",
            use_dictionary=["image"],
            # Frame numbers that follow each other take next to nothing so; digests do not compress.
            column_encoding={"gfn": "DELTA_BINARY_PACKED", "digest": "PLAIN"},
            write_statistics=["image", "gfn", "zero"],
        )

    def add(self, fingerprints: Fingerprints) -> None:
        """Write the pages of an image."""
        pa = self._pa
        rows = 0
        name = pa.array([encodable(fingerprints.name)], pa.string())
        batches: list[Any] = []
        waiting = 0
        for all_gfns, all_digests in _pages(fingerprints):
            zero = all_digests == np.uint64(ZERO_DIGEST)
            kept = slice(None) if self._zero_pages else ~zero
            gfns, digests, zero = all_gfns[kept], all_digests[kept], zero[kept]
            image = pa.DictionaryArray.from_arrays(pa.array(np.zeros(len(gfns), np.int32)), name)
            columns = [image, pa.array(gfns.astype(np.uint64)), pa.array(digests), pa.array(zero)]
            batches.append(pa.RecordBatch.from_arrays(columns, schema=self._schema))
            rows += len(gfns)
            waiting += len(gfns)
            if waiting >= _GROUP_ROWS - _BATCH_ROWS:
                self._write(batches)
                batches, waiting = [], 0
        self._write(batches)
        self._images.append(_described(fingerprints, rows))

    def _write(self, batches: list[Any]) -> None:
        table = self._pa.Table.from_batches(batches, self._schema)
        if table.num_rows:
            self._writer.write_table(table, row_group_size=_GROUP_ROWS)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is None:
            self._end()
        else:
            self._sink.give_up()
            self._writer.close()

    def _end(self) -> None:
        """Write what is known of the images, and the end of the file."""
        told = {
            "schema": SCHEMA,
            "written_by": f"hvshare {__version__}",
            "algorithm": "XXH3-64",
            "page_size": PAGE_SIZE,
            "zero_digest": ZERO_DIGEST,
            "zero_pages": self._zero_pages,
            "images": self._images,
        }
        self._writer.add_key_value_metadata({METADATA_KEY: json.dumps(told)})
        self._writer.close()


def _pages(fingerprints: Fingerprints) -> Iterator[tuple[NDArray[np.int64], NDArray[np.uint64]]]:
    """Give the known pages of an image in ascending order, some at a time."""
    at = 0
    gfns: list[NDArray[np.int64]] = []
    digests: list[NDArray[np.uint64]] = []
    gathered = 0
    for run in fingerprints.runs:
        if run.kind == RunKind.ABSENT:
            continue
        start = run.first_gfn
        while start < run.end_gfn:
            pages = min(run.end_gfn - start, _BATCH_ROWS - gathered)
            gfns.append(np.arange(start, start + pages))
            if run.kind == RunKind.PRESENT:
                digests.append(fingerprints.digests[at : at + pages])
                at += pages
            else:
                digests.append(np.full(pages, ZERO_DIGEST, np.uint64))
            start += pages
            gathered += pages
            if gathered == _BATCH_ROWS:
                yield np.concatenate(gfns), np.concatenate(digests)
                gfns, digests, gathered = [], [], 0
    if gathered:
        yield np.concatenate(gfns), np.concatenate(digests)


def _described(fingerprints: Fingerprints, rows: int) -> dict[str, object]:
    runs = fingerprints.runs
    return {
        "name": encodable(fingerprints.name),
        "path": encodable(fingerprints.path),
        "format": fingerprints.format,
        "size_bytes": fingerprints.size_bytes,
        "absent_bytes": fingerprints.absent_bytes,
        "zero_pages": runs.pages_of(RunKind.ZERO)
        + int(np.count_nonzero(fingerprints.digests == np.uint64(ZERO_DIGEST))),
        "rows": rows,
        "caveats": [
            {"code": each.code, "message": encodable(each.message), "advice": each.advice}
            for each in fingerprints.caveats
        ],
    }

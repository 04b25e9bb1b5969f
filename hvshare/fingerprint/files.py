"""Fingerprint files: the runs and digests of one image, and where they came from.

``docs/fingerprint-format.md`` describes them member by member; `hvshare.fingerprint.file_reader` reads them.
"""

from __future__ import annotations

import json
import time
from typing import IO, TYPE_CHECKING, Any, Final

from hvshare.fingerprint.container import CHUNK_BYTES, ContainerWriter, Member, starts_container
from hvshare.fingerprint.pages import ZERO_DIGEST
from hvshare.fingerprint.provenance import Provenance, caveat_to_json, utc
from hvshare.units import PAGE_SIZE
from hvshare.version import __version__

if TYPE_CHECKING:
    from collections.abc import Iterator

    import numpy as np
    from numpy.typing import NDArray

    from hvshare.fingerprint.fingerprints import Fingerprints

FORMAT: Final = "hvshare fingerprints"
VERSION: Final = 1
ALGORITHM: Final = "XXH3-64"
METADATA: Final = "hvshare_fingerprints"
"""Name of the first member."""

CHUNK_PAGES: Final = CHUNK_BYTES
"""Pages that are taken at a time: a multiple of 8, so that their part of the bitmap is whole bytes."""

# About how an image was read, and about others that were named with it: nothing that its digests have.
_NOT_KEPT: Final = frozenset({"spooled", "same-image-twice"})
_UNKNOWN: Final = Provenance()


def is_fingerprint_file(head: bytes) -> bool:
    """Whether the first bytes of a file are those of a fingerprint file.

    Examples
    --------
    >>> is_fingerprint_file(b"PK\\x03\\x04" + bytes(26) + b"hvshare_fingerprints.npy")
    True
    """
    return starts_container(head, Member(METADATA, "|u1", 0))


def write_fingerprints(
    fingerprints: Fingerprints, file: IO[bytes], provenance: Provenance = _UNKNOWN
) -> None:
    """Write a fingerprint file.

    Parameters
    ----------
    fingerprints : Fingerprints
        What to write. Caveats about the way the image was read, or about others beside it, are not kept.
    file : binary file object
        Written from front to back; a pipe will do.
    provenance : Provenance
        Where they came from. The time of writing is now, and what writes is this version, unless it says
        otherwise.

    Examples
    --------
    >>> import hvshare, io, tempfile
    >>> with tempfile.NamedTemporaryFile() as image:
    ...     _ = image.write(bytes(8192) + b"a" * 4096), image.flush()
    ...     (fingerprints,) = hvshare.fingerprint_images([hvshare.open_image(image.name)])
    >>> with tempfile.NamedTemporaryFile() as file:
    ...     hvshare.write_fingerprints(fingerprints, file), file.flush()
    ...     found = hvshare.read_fingerprints(file.name)
    (None, None)
    >>> found.runs == fingerprints.runs, bool((found.digests == fingerprints.digests).all())
    (True, True)
    """
    import numpy as np

    runs, digests = fingerprints.runs, fingerprints.digests
    nonzero = sum(int(np.count_nonzero(chunk)) for chunk in _nonzero(digests))
    metadata = json.dumps(_metadata(fingerprints, provenance, nonzero)).encode("ascii")
    writer = ContainerWriter(file.write)
    writer.add(Member(METADATA, "|u1", len(metadata)), lambda: iter([metadata]))
    first, lengths, kinds, zero, others = members_of(len(runs), len(digests), nonzero)
    writer.add(first, lambda: _items(np.frombuffer(runs.first_gfns, np.int64), "<i8"))
    writer.add(lengths, lambda: _items(np.frombuffer(runs.lengths, np.int64), "<i8"))
    writer.add(kinds, lambda: _items(np.frombuffer(runs.kinds, np.int8), "|i1"))
    writer.add(zero, lambda: (np.packbits(~each, bitorder="little").tobytes() for each in _nonzero(digests)))
    writer.add(others, lambda: _nonzero_digests(digests))
    writer.end()


def _metadata(fingerprints: Fingerprints, provenance: Provenance, nonzero: int) -> dict[str, object]:
    return {
        "format": FORMAT,
        "version": VERSION,
        "algorithm": ALGORITHM,
        "page_size": PAGE_SIZE,
        "zero_digest": f"{ZERO_DIGEST:016x}",
        "runs": len(fingerprints.runs),
        "present_pages": len(fingerprints.digests),
        "nonzero_pages": nonzero,
        "image": {
            "name": fingerprints.name,
            "path": fingerprints.path,
            "format": fingerprints.format,
            "size_bytes": fingerprints.size_bytes,
            **provenance.to_json(),
        },
        "caveats": [caveat_to_json(each) for each in fingerprints.caveats if each.code not in _NOT_KEPT],
        "written": provenance.written or utc(time.time()),
        "written_by": provenance.written_by or f"hvshare {__version__}",
    }


def members_of(runs: int, present: int, nonzero: int) -> tuple[Member, ...]:
    """List the members between the metadata and the checksums."""
    return (
        Member("first_gfns", "<i8", runs),
        Member("lengths", "<i8", runs),
        Member("kinds", "|i1", runs),
        Member("zero_pages", "|u1", -(-present // 8)),
        Member("digests", "<u8", nonzero),
    )


def _nonzero(digests: NDArray[np.uint64]) -> Iterator[NDArray[np.bool_]]:
    for start in range(0, len(digests), CHUNK_PAGES):
        yield digests[start : start + CHUNK_PAGES] != ZERO_DIGEST


def _nonzero_digests(digests: NDArray[np.uint64]) -> Iterator[bytes]:
    for index, nonzero in enumerate(_nonzero(digests)):
        start = index * CHUNK_PAGES
        yield digests[start : start + CHUNK_PAGES][nonzero].astype("<u8", copy=False).tobytes()


def _items(items: NDArray[Any], dtype: str) -> Iterator[bytes]:
    for start in range(0, len(items), CHUNK_BYTES):
        yield items[start : start + CHUNK_BYTES].astype(dtype, copy=False).tobytes()

"""Fingerprint files read back: from front to back, with everything checked that they say.

Memory is a constant, the digests, and what runs and bitmap take; nothing is allocated that a file does not
warrant.
"""

from __future__ import annotations

import json
import os
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final

from hvshare.errors import DamagedImageError, UnsupportedImageError
from hvshare.fingerprint.container import MADE_AGAIN, ContainerReader
from hvshare.fingerprint.files import ALGORITHM, CHUNK_PAGES, FORMAT, METADATA, VERSION, members_of
from hvshare.fingerprint.pages import ZERO_DIGEST
from hvshare.fingerprint.provenance import Provenance, caveat_from_json, checked, wanted
from hvshare.images.runs import RunKind, Runs
from hvshare.units import PAGE_SIZE, format_size

if TYPE_CHECKING:
    from collections.abc import Iterator

    import numpy as np
    from numpy.typing import NDArray

    from hvshare.caveats import Caveat
    from hvshare.fingerprint.fingerprints import Fingerprints
    from hvshare.images.streams import ByteStream

_MOST_METADATA: Final = 1 << 24
_END_GFN: Final = 1 << 52  # of 64-bit virtual addresses: a process has pages up there


class FingerprintReader:
    """A fingerprint file while it is read: what it says of itself first, then its runs and digests.

    Parameters
    ----------
    stream : ByteStream
        All bytes of the file.
    path : str
        Named in errors.

    Attributes
    ----------
    name, path, format : str
        Of the image, as `Fingerprints` has them.
    size_bytes : int
        Memory of the guest.
    provenance : Provenance
        Where the digests came from.
    present_pages, nonzero_pages : int
        Pages that have a digest, and how many of them are not zero.

    Raises
    ------
    UnsupportedImageError
        If it is of a newer version, or its digests are of another kind.
    DamagedImageError
        If it contradicts its format.
    """

    def __init__(self, stream: ByteStream, path: str) -> None:
        self._path = path
        self._container = ContainerReader(stream, path)
        text = self._container.first(METADATA, "|u1", _MOST_METADATA)
        try:
            metadata = checked(json.loads(text), dict, "the metadata")
            self._check_kind(metadata)
            self._take(metadata)
        except (ValueError, RecursionError) as error:
            raise self._damaged(f"its metadata cannot be used ({error})") from error

    def _take(self, metadata: dict[str, Any]) -> None:
        image = wanted(metadata, "image", dict)
        self.name, self.path = wanted(image, "name", str), wanted(image, "path", str)
        self.format = wanted(image, "format", str)
        self.size_bytes = wanted(image, "size_bytes", int)
        written, written_by = wanted(metadata, "written", str), wanted(metadata, "written_by", str)
        self.provenance = Provenance.from_json(image, written, written_by)
        self._caveats = [caveat_from_json(each, self.name) for each in wanted(metadata, "caveats", list)]
        self._runs_length = wanted(metadata, "runs", int)
        self.present_pages = wanted(metadata, "present_pages", int)
        self.nonzero_pages = wanted(metadata, "nonzero_pages", int)
        if max(self._runs_length, self.present_pages) > _END_GFN or self.nonzero_pages > self.present_pages:
            raise ValueError("it has more pages than there can be")

    def _check_kind(self, metadata: dict[str, Any]) -> None:
        if metadata.get("format") != FORMAT:
            raise ValueError("it does not say that it holds fingerprints")
        version = wanted(metadata, "version", int)
        if version != VERSION:
            raise UnsupportedImageError(
                f"it is a fingerprint file of version {version}, written by "
                f"{str(metadata.get('written_by'))[:80]}, and this version reads version {VERSION} only",
                path=self._path,
                advice="use a newer hvshare" if version > VERSION else MADE_AGAIN,
            )
        for name, ours in (
            ("algorithm", ALGORITHM),
            ("page_size", PAGE_SIZE),
            ("zero_digest", f"{ZERO_DIGEST:016x}"),
        ):
            if metadata.get(name) != ours:
                raise UnsupportedImageError(
                    f"its {name.replace('_', ' ')} is {str(metadata.get(name))[:80]}, not {ours}, so its "
                    "digests cannot be compared with those of others",
                    path=self._path,
                    advice="make it again from its image",
                )

    def caveats(self, name: str) -> tuple[Caveat, ...]:
        """Give what was odd about the image, which goes by some name now."""
        return tuple(replace(each, image=name) for each in self._caveats)

    @property
    def source_bytes(self) -> int:
        """Bytes taken from the file so far."""
        return self._container.source_bytes

    def read(self) -> Fingerprints:
        """Read the runs and digests; once.

        Raises
        ------
        TruncatedImageError
            If the file ends before it should.
        DamagedImageError
            If it contradicts its format or its checksums.
        UnsupportedImageError
            If the machine has less memory than it takes.
        """
        from hvshare.fingerprint.fingerprints import Fingerprints

        first, lengths, kinds, zero, others = members_of(
            self._runs_length, self.present_pages, self.nonzero_pages
        )
        self._check_memory()
        read = self._container.read
        runs = self._runs(*(b"".join(read(each)) for each in (first, lengths, kinds)))
        digests = self._digests(b"".join(read(zero)), read(others))
        self._container.end()
        return Fingerprints(self.name, self.path, self.format, runs, digests, self.caveats(self.name))

    def _check_memory(self) -> None:
        """Refuse what a few bytes of a compressed stream can ask for, before memory runs out."""
        needed = 8 * self.present_pages + 25 * self._runs_length
        there = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
        if needed > there:
            raise UnsupportedImageError(
                f"it takes {format_size(needed)} of memory, and this machine has {format_size(there)}",
                path=self._path,
                advice="compare it on a larger machine",
            )

    def _runs(self, first_gfns: bytes, lengths: bytes, kinds: bytes) -> Runs:
        import numpy as np

        first = np.frombuffer(first_gfns, "<i8").astype(np.int64)
        pages = np.frombuffer(lengths, "<i8").astype(np.int64)
        try:
            runs = Runs.from_arrays(first, pages, np.frombuffer(kinds, np.int8))
        except ValueError as error:
            raise self._damaged(f"it has {error}") from error
        if runs.end_gfn > _END_GFN:
            raise self._damaged(f"its last run ends at gfn {runs.end_gfn:#x}, beyond 64-bit addresses")
        if runs.pages_of(RunKind.PRESENT) != self.present_pages or runs.pages * PAGE_SIZE != self.size_bytes:
            raise self._damaged(
                f"its runs have {runs.pages_of(RunKind.PRESENT):,} pages with a digest, of {runs.pages:,}, "
                f"and its metadata says {self.present_pages:,}, of {self.size_bytes // PAGE_SIZE:,}"
            )
        return runs

    def _digests(self, bitmap: bytes, parts: Iterator[bytes]) -> NDArray[np.uint64]:
        """Put digests where the bitmap says that a page is not zero."""
        import numpy as np

        packed = np.frombuffer(bitmap, np.uint8)
        zero = 0
        for start in range(0, len(packed), CHUNK_PAGES // 8):
            zero += int(np.count_nonzero(np.unpackbits(packed[start : start + CHUNK_PAGES // 8])))
        surplus = 8 * len(packed) - self.present_pages
        if zero != self.present_pages - self.nonzero_pages or (surplus and packed[-1] >> (8 - surplus)):
            raise self._damaged(
                f"its bitmap has {zero:,} zero pages, and its metadata says "
                f"{self.present_pages - self.nonzero_pages:,} of {self.present_pages:,}"
            )
        digests = np.full(self.present_pages, ZERO_DIGEST, np.uint64)
        waiting = np.empty(0, np.uint64)
        for start in range(0, self.present_pages, CHUNK_PAGES):
            pages = digests[start : start + CHUNK_PAGES]
            bits = packed[start // 8 : (start + CHUNK_PAGES) // 8]
            nonzero = np.unpackbits(bits, count=len(pages), bitorder="little") == 0
            needed = int(np.count_nonzero(nonzero))
            while len(waiting) < needed:
                waiting = np.concatenate((waiting, np.frombuffer(next(parts), "<u8")))
            pages[nonzero] = waiting[:needed]
            waiting = waiting[needed:]
        # Taken to its end, where its CRC-32 is checked.
        if next(parts, None) is not None:
            raise ValueError("more digests than pages that are not zero, though their numbers are equal")
        if int(np.count_nonzero(digests == np.uint64(ZERO_DIGEST))) != zero:
            raise self._damaged("it has the digest of the zero page for a page that is not zero")
        return digests

    def _damaged(self, problem: str) -> DamagedImageError:
        return DamagedImageError(problem, path=self._path, advice=MADE_AGAIN)

"""kdump-compressed dumps: two bitmaps, a descriptor for each stored page, and pages compressed one by one.

Source: makedumpfile ``diskdump_mod.h``, ``IMPLEMENTATION`` and ``makedumpfile.c``; QEMU ``dump/dump.c``. The
first bitmap has a bit for each page of the machine, the second for each page that is stored. A descriptor
holds the offset, size and compression of a page; zero pages share one offset.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NoReturn

import numpy as np

from hvshare.errors import DamagedImageError, EmptyImageError, TruncatedImageError
from hvshare.images.bitmaps import NO_MEMORY, as_bits, read_bits, runs_from_flags
from hvshare.images.device_memory import split_device_memory
from hvshare.images.image import GuestImage, PageBlock
from hvshare.images.kdump.headers import read_headers
from hvshare.images.kdump.page_codecs import MOST_COMPRESSED, PAGE_CODECS, PageCodec
from hvshare.images.runs import RunKind, Runs
from hvshare.images.segments import Segment, filtered_dump
from hvshare.images.source import read_part
from hvshare.images.vmcoreinfo import describe_vmcoreinfo
from hvshare.units import PAGE_SIZE

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from numpy.typing import NDArray

    from hvshare.caveats import Caveat
    from hvshare.images.bitmaps import Flags
    from hvshare.images.opening import Opening
    from hvshare.images.source import Positioned, Source

_DESCRIPTOR_BYTES: Final = 24
_4_GIB: Final = 4 << 30
_NEAR: Final = PAGE_SIZE
_FEW_BYTES: Final = 256  # LZO takes about 80 for a page of zeros
_MOST_RECURRING: Final = 1024
_CODEC_OF_FLAG: Final = {0x01: "zlib", 0x02: "lzo", 0x04: "snappy", 0x20: "zstd"}
_PCS: Final = {"x86_64", "i386", "i486", "i586", "i686"}
_LEVELS: Final = (
    (2, "page cache"),
    (4, "private page cache"),
    (8, "pages of programs"),
    (16, "free pages"),
)


def read(opening: Opening) -> GuestImage:
    """Make an image of a kdump-compressed dump; see `hvshare.images.formats.Format.read`."""
    source = opening.positioned()
    return KdumpImage(opening, source, source)


class KdumpImage(GuestImage):
    """A kdump-compressed dump.

    Parameters
    ----------
    opening : Opening
        What it is read from.
    source : Source
        The file.
    data : Positioned
        The dump in it.
    """

    format = "kdump"
    layout = "pages by bitmap and descriptor"

    def __init__(self, opening: Opening, source: Source, data: Positioned) -> None:
        super().__init__(opening.name, opening.path)
        self._source = source
        self._data = data
        self._headers = headers = read_headers(data)
        if (size := headers.descriptors_at - headers.known_at) > source.end:
            # A flattened file stands for a longer one, but holds whatever that does, bitmaps for certain.
            raise TruncatedImageError(
                f"bitmaps of {size:,} bytes cannot be in a file of {source.end:,}",
                path=self.path,
                offset=headers.known_at,
                advice="copy or take the dump again",
            )
        self._codecs: dict[int, PageCodec] = {}
        self._recurring: dict[tuple[int, bytes] | None, bytes] = {}
        self.page_compression = headers.compression
        self._skipped: list[tuple[int, int]] = []
        self.runs: Runs = self._find_runs(with_devices=opening.options.device_memory)
        self.source_bytes: int = self.runs.pages_of(RunKind.PRESENT) * PAGE_SIZE
        if not self.runs:
            raise EmptyImageError("it holds no page", path=self.path, advice="check how the dump was made")
        self._check_last_descriptor()
        self._describe()

    def _find_runs(self, *, with_devices: bool) -> Runs:
        runs = runs_from_flags(self._flags())
        if with_devices or self._headers.machine not in _PCS:
            return runs
        # Touching runs are one range of memory, whether or not its pages were stored; but where memory goes
        # on above 4 GiB, ROM ends there. No device lies higher.
        memory: list[Segment] = []
        for run in runs.within(0, _4_GIB // PAGE_SIZE):
            if memory and memory[-1].end == run.first_gfn * PAGE_SIZE:
                memory[-1] = memory[-1]._replace(size=memory[-1].size + run.pages * PAGE_SIZE)
            else:
                memory.append(Segment(run.first_gfn * PAGE_SIZE, run.pages * PAGE_SIZE, 0))
        _, self.left_out = split_device_memory(memory)
        if not self.left_out:
            return runs
        devices = [((each.address or 0) // PAGE_SIZE, each.size // PAGE_SIZE) for each in self.left_out]
        # A descriptor of a page that is left out stays where it is: positions behind it go by one more each.
        for first, pages in devices:
            below = runs.present_below(first)
            held = runs.present_below(first + pages) - below
            self._skipped.append((below - sum(count for _, count in self._skipped), held))
        return runs_from_flags(_without(self._flags(), devices))

    def _flags(self) -> Iterator[Flags]:
        headers = self._headers
        known = read_bits(self._data, headers.known_at, headers.max_gfn, "the bitmap of all pages")
        stored = read_bits(self._data, headers.stored_at, headers.max_gfn, "the bitmap of stored pages")
        for of_known, of_stored in zip(known, stored, strict=True):
            if isinstance(of_known, int) and isinstance(of_stored, int):
                yield NO_MEMORY, of_known
                continue
            flags = np.where(as_bits(of_known), np.int8(RunKind.ABSENT), np.int8(NO_MEMORY))
            flags[as_bits(of_stored)] = RunKind.PRESENT
            yield flags

    def _check_last_descriptor(self) -> None:
        """Tell a dump that was cut now rather than after minutes of reading."""
        stored = self._descriptor(self.runs.pages_of(RunKind.PRESENT))
        size = stored * _DESCRIPTOR_BYTES
        if self._headers.descriptors_at + size > self._data.end:
            raise TruncatedImageError(
                f"{stored:,} page descriptors should start here, and the file ends at byte "
                f"{self._data.end:,}",
                path=self.path,
                offset=self._headers.descriptors_at,
                advice="copy or take the dump again",
            )
        if stored:
            offsets, sizes, flags = self._read_descriptors(stored - 1, 1)
            self._check(offsets, sizes, flags, stored - 1)

    def _describe(self) -> None:
        headers = self._headers
        if headers.machine:
            self.details["machine"] = headers.machine
        if headers.node:
            self.details["host name"] = headers.node
        self.details |= {"kernel": headers.release} if headers.release else {}
        self.vmcoreinfo = headers.vmcoreinfo is not None
        self.details |= describe_vmcoreinfo(headers.vmcoreinfo or b"")
        # QEMU knows of no kernel, and leaves its names empty.
        self.tool = "makedumpfile" if headers.sysname else "QEMU"
        absent, pages = self.runs.pages_of(RunKind.ABSENT), self.runs.pages
        if headers.sysname:
            self.details["dump level"] = str(headers.dump_level)
        filtered = [name for bit, name in _LEVELS if headers.dump_level & bit]
        if absent and headers.sysname and filtered:
            self.caveats.append(filtered_dump(absent, pages, self.name, ": " + ", ".join(filtered)))

    def blocks(self, buffer: memoryview, span: tuple[int, int] | None = None) -> Iterator[PageBlock]:
        """Read and unpack the stored pages; see `GuestImage.blocks`."""
        low, high = span or (0, self.runs.end_gfn)
        position, end = self.runs.present_below(low), self.runs.present_below(high)
        rows = np.frombuffer(buffer, np.uint8).reshape(-1, PAGE_SIZE)
        while position < end:
            # Pages on both sides of a device are a block each: its descriptors lie between theirs.
            next_skip = next((at for at, _ in self._skipped if at > position), end)
            pages = min(len(rows), end - position, next_skip - position)
            taken = self._read_pages(rows[:pages], self._descriptor(position))
            yield PageBlock(self.runs.gfn_of(position), pages, taken)
            position += pages

    def _descriptor(self, position: int) -> int:
        return position + sum(count for at, count in self._skipped if at <= position)

    def _read_pages(self, rows: NDArray[np.uint8], descriptor: int) -> int:
        offsets, sizes, flags = self._read_descriptors(descriptor, len(rows))
        self._check(offsets, sizes, flags, descriptor)
        # Zero pages share one offset, so each offset is read and unpacked once.
        _, first, which = np.unique(offsets, return_index=True, return_inverse=True)
        if (sizes != sizes[first][which]).any() or (flags != flags[first][which]).any():
            self._fail("two descriptors of one page differ in its size or compression", descriptor)
        offsets, sizes, flags = offsets[first], sizes[first], flags[first]
        repeats = len(first) < len(rows)
        target = np.empty((len(first), PAGE_SIZE), np.uint8) if repeats else rows
        ends = offsets + sizes
        apart = np.flatnonzero(offsets[1:] - ends[:-1] > _NEAR) + 1
        for start, stop in zip([0, *apart.tolist()], [*apart.tolist(), len(first)], strict=True):
            part = slice(start, stop)
            self._unpack(target[part], offsets[part], sizes[part], flags[part], descriptor)
        if repeats:
            np.take(target, which, axis=0, out=rows)
        elif (first[1:] < first[:-1]).any():
            rows[:] = target[which]
        return len(rows) * PAGE_SIZE

    def _unpack(
        self,
        rows: NDArray[np.uint8],
        offsets: NDArray[np.int64],
        sizes: NDArray[np.int64],
        flags: NDArray[np.int64],
        descriptor: int,
    ) -> None:
        """Unpack pages that lie near each other in the file, in the order of their offsets."""
        start = int(offsets[0])
        packed = memoryview(bytearray(int((offsets + sizes).max()) - start))
        self._data.pread(packed, start)
        starts, ends = (offsets - start).tolist(), (offsets - start + sizes).tolist()
        parts = [packed[low:high] for low, high in zip(starts, ends, strict=True)]
        pages: list[memoryview] = [each.data for each in rows]
        for page, part, flag in zip(pages, parts, flags.tolist(), strict=True):
            page[:] = self._unpacked(part, flag, descriptor) if flag else part

    def _unpacked(self, part: memoryview, flag: int, descriptor: int) -> bytes | bytearray | memoryview:
        # Zero pages that were not told from others are packed one by one, all to the same few bytes.
        key = (flag, bytes(part)) if len(part) <= _FEW_BYTES else None
        if key in self._recurring:
            return self._recurring[key]
        if flag not in self._codecs:
            self._codecs[flag] = PAGE_CODECS[_CODEC_OF_FLAG[flag]]()
        try:
            unpacked = self._codecs[flag].unpack(part)
        except Exception as error:  # noqa: BLE001  # four libraries, each with an exception of its own
            # One of them gives what it has unpacked as well.
            reason = error.args[0] if error.args else type(error).__name__
            self._fail(f"a page cannot be unpacked ({reason})", descriptor)
        if len(unpacked) != PAGE_SIZE:
            self._fail(f"a page unpacks to {len(unpacked):,} bytes or more instead of 4,096", descriptor)
        if key is not None and len(self._recurring) < _MOST_RECURRING:
            self._recurring[key] = bytes(unpacked)
        return unpacked

    def _read_descriptors(
        self, first: int, count: int
    ) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
        """Read offsets, sizes and flags of descriptors."""
        order = self._headers.order
        entry = np.dtype(
            [
                ("offset", f"{order}i8"),
                ("size", f"{order}u4"),
                ("flags", f"{order}u4"),
                ("page_flags", f"{order}u8"),
            ]
        )
        at = self._headers.descriptors_at + first * _DESCRIPTOR_BYTES
        table = np.frombuffer(
            read_part(self._data, at, count * _DESCRIPTOR_BYTES, "the page descriptors"), entry
        )
        offsets, sizes, flags = (table[name].astype(np.int64) for name in ("offset", "size", "flags"))
        return offsets, sizes, flags

    def _check(
        self, offsets: NDArray[np.int64], sizes: NDArray[np.int64], flags: NDArray[np.int64], first: int
    ) -> None:
        raw = flags == 0
        known = np.isin(flags, [0, *_CODEC_OF_FLAG])
        right = known & (sizes > 0) & (sizes <= MOST_COMPRESSED) & (~raw | (sizes == PAGE_SIZE))
        if not right.all():
            wrong = int(np.flatnonzero(~right)[0])
            self._fail(
                f"a page descriptor with size {int(sizes[wrong]):,} and flags {int(flags[wrong]):#x} "
                "cannot be",
                first + wrong,
            )
        inside = (offsets > 0) & (offsets <= self._data.end - sizes)
        if not inside.all():
            wrong = int(np.flatnonzero(~inside)[0])
            raise TruncatedImageError(
                f"a page should be at byte {int(offsets[wrong]):,}, and the dump ends at byte "
                f"{self._data.end:,}",
                path=self.path,
                offset=self._headers.descriptors_at + (first + wrong) * _DESCRIPTOR_BYTES,
                advice="copy or take the dump again",
            )

    def _fail(self, problem: str, descriptor: int) -> NoReturn:
        raise DamagedImageError(
            problem,
            path=self.path,
            offset=self._headers.descriptors_at + descriptor * _DESCRIPTOR_BYTES,
            advice="copy or take the dump again",
        )

    def finish(self) -> list[Caveat]:
        """Tell whether the file changed; see `GuestImage.finish`."""
        return self._source.check_unchanged(self.name)

    def close(self) -> None:
        """Let go of the file."""
        self._source.close()


def _without(chunks: Iterable[Flags], devices: Iterable[tuple[int, int]]) -> Iterator[Flags]:
    """Take pages, given as first guest frame number and count, out of the guest's memory."""
    base = 0
    devices = list(devices)
    for flags in chunks:
        if isinstance(flags, tuple):  # no memory
            yield flags
            base += flags[1]
            continue
        for first, pages in devices:
            flags[max(first - base, 0) : max(first + pages - base, 0)] = NO_MEMORY
        yield flags
        base += len(flags)

"""One made-up result, rich in every part, for the goldens of all renderers."""

from __future__ import annotations

from hvshare.caveats import Caveat
from hvshare.sharing.counts import Counts
from hvshare.sharing.memory_map import MemoryMap, PageKind
from hvshare.sharing.report import CopiesBin, DescribedContent, ImageSharing, SharingReport

GIB = 1 << 30
ODD_NAME = "x[/red]:smile:\x1b[2J日本.raw"


def counts(size: int, frames: int, zero: int, own: int, inter: int, partial: int = 0) -> Counts:
    saved_zero = max(zero - 1, 0)
    return Counts(size, frames, partial, zero, frames - saved_zero - own - inter, saved_zero, own, inter)


def sharing_report(cells: int) -> SharingReport:
    """Give a report of two VMs, one of them with absent pages, at three frame sizes."""
    web = {
        4096: counts(4096, 1 << 28, 200_000_001, 10_000_000, 0),
        65536: counts(65536, 1 << 24, 9_000_001, 1_000, 0),
        2 << 20: counts(2 << 20, 1 << 19, 200_001, 0, 0),
    }
    odd = {
        4096: counts(4096, 100_000, 0, 7, 0),
        65536: counts(65536, 6_000, 0, 0, 0, 250),
        2 << 20: counts(2 << 20, 150, 0, 0, 0, 46),
    }
    pooled = {
        4096: counts(4096, (1 << 28) + 100_000, 200_000_001, 10_000_007, 40_000),
        65536: counts(65536, (1 << 24) + 6_000, 9_000_001, 1_000, 20, 250),
        2 << 20: counts(2 << 20, (1 << 19) + 150, 200_001, 0, 1, 46),
    }
    kinds = [PageKind.UNIQUE, PageKind.ZERO, PageKind.SELF, PageKind.INTER, PageKind.ABSENT, PageKind.NONE]
    return SharingReport(
        (
            ImageSharing("web01.raw", "/dumps/web01.raw", "raw", 1 << 40, 1 << 40, 200_000_001 << 12, 0, web),
            ImageSharing(ODD_NAME, f"/dumps/{ODD_NAME}", "raw", GIB // 2, 100_000 << 12, 0,
                         GIB // 2 - (100_000 << 12), odd),
        ),
        pooled,
        (
            Caveat("tail-left-out", "the last 12 bytes are no whole page of 4,096 and are left out",
                   "check that the dump is complete and has no header of its own", ODD_NAME),
            Caveat("digests-only", "64-bit digests: 0.0001 pairs are expected to look alike",
                   "use hvshare analyze --verify, on images, to compare the bytes"),
        ),
        (
            MemoryMap("web01.raw", 1 << 40, False,
                      {PageKind.ZERO: 200_000_001, PageKind.SELF: 20_000_000, PageKind.INTER: 20_000,
                       PageKind.UNIQUE: (1 << 28) - 220_020_001, PageKind.ABSENT: 0},
                      tuple(kinds[index * 4 // cells] for index in range(cells))),
            MemoryMap(ODD_NAME, GIB // 2, False,
                      {PageKind.ZERO: 0, PageKind.SELF: 14, PageKind.INTER: 20_000,
                       PageKind.UNIQUE: 79_986, PageKind.ABSENT: 31_072},
                      tuple(kinds[(index * 6 // cells) % 6] for index in range(cells))),
        ),
        (CopiesBin(1, 1, 58_000_000, 58_000_000), CopiesBin(2, 3, 40_000, 80_000), CopiesBin(4, 7, 0, 0),
         CopiesBin(8, 15, 1_000_000, 10_455_456)),
        (
            DescribedContent(9_000_000, 1 << 63, "web01.raw", 0x1234, "fill 0xcc", b"\xcc" * 16),
            DescribedContent(12, 5, ODD_NAME, 1, "repeats deadbeef", bytes.fromhex("deadbeef") * 4),
            DescribedContent(2, 6, ODD_NAME, 2, "in a stream, not read again", b""),
        ),
    )  # fmt: skip

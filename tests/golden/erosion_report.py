"""One made-up result of erosion, rich in every part, for the goldens of all renderers."""

from __future__ import annotations

from dataclasses import replace

from hvshare.caveats import Caveat
from hvshare.erosion.aslr_result import Aslr, AslrConstant, AslrLayer, AslrRemainder
from hvshare.erosion.large_pages_result import (
    Bloat,
    BloatBin,
    BreakPoint,
    Knee,
    LargePages,
    PageTables,
    Policy,
    Price,
    Quote,
    Target,
    TlbReach,
    Walk,
)
from hvshare.erosion.measure import waterfall
from hvshare.erosion.prefetch_result import (
    BalanceStep,
    Basis,
    DiskBlocks,
    FilePages,
    Prefetch,
    VmFilePages,
    Whereabouts,
)
from hvshare.erosion.report import ErosionReport, Kind
from tests.golden.sharing_report import GIB, ODD_NAME, counts, sharing_report

PAGES = (1 << 28) + 100_000
SAVED = (200_000_000 + 10_000_007 + 40_000) << 12
LARGE_SAVED = 200_001 << 21


def erosion_report() -> ErosionReport:
    """Give a report of two VMs with all sections."""
    sharing = sharing_report(1)
    pooled = {size: sharing.pooled[size] for size in (4096, 2 << 20)}
    of_aslr, of_prefetch = aslr(), prefetch()
    return ErosionReport(
        sharing.images, pooled, _large_pages(), of_aslr, of_prefetch, waterfall(pooled, of_aslr, of_prefetch),
        (*sharing.caveats, *of_prefetch.caveats),
    )  # fmt: skip


def only(section: str) -> ErosionReport:
    """Give the same report with one section alone."""
    report = erosion_report()
    empty = replace(report, large_pages=None, aslr=None, prefetch=None, waterfall=())
    return replace(empty, **{section: getattr(report, section)})


def aslr() -> Aslr:
    """Give what ASLR takes away in it."""
    return Aslr(
        58_395_448, 50_040_000, 21_000_000, 20_480_000, 1_480_000, 19_000_000, 4_000_000, 3_900_000,
        24_380_000,
        (
            AslrLayer("pointers in data", 14_000_000, 13_700_000),
            AslrLayer("code", 6_000_000, 5_880_000),
            AslrLayer("mixed", 700_000, 600_000),
            AslrLayer("displaced", 300_000, 300_000),
        ),
        (
            AslrConstant("web01.raw", ODD_NAME, 64, -0x1_5A40_0000_3000, 0xFFFF_9A40_0000_0000,
                         0xFFFF_9A7F_FFFF_FFFF, 9_000_000),
            AslrConstant("web01.raw", ODD_NAME, 32, 0x1A00_0000, None, None, 5_000_000),
            AslrConstant(ODD_NAME, ODD_NAME, 64, 0x1000, 0x7F00_0000_0000, 0x7F00_001F_FFFF, 12),
        ),
        (
            AslrRemainder("near", 4_000_000),
            AslrRemainder("differs otherwise", 13_000_000),
            AslrRemainder("no twin", 12_000_000),
            AslrRemainder("page table", 40_000),
        ),
        2,
    )  # fmt: skip


def _large_pages() -> LargePages:
    before = PageTables(100_000, 524_438, 6_500_000, 6_600_000)
    after = PageTables(PAGES, 0, 2_200_000_000, 2_200_100_000)
    middle = (SAVED + LARGE_SAVED) // 2
    ladder = {
        4096 << step: counts(
            4096 << step,
            PAGES >> step,
            200_000_001 >> step,
            10_000_007 >> 3 * step,
            40_000 >> 2 * step,
            46 if step else 0,
        )
        for step in range(10)
    } | {1 << 30: counts(1 << 30, 1024, 3, 0, 0, 1)}
    return LargePages(
        2 << 20, ladder, 524_438, 324_437, 100_000, 7 << 12,
        (
            BreakPoint(0, 0, LARGE_SAVED, LARGE_SAVED),
            BreakPoint(0, 0, LARGE_SAVED + (7 << 12), LARGE_SAVED + (7 << 12)),
            BreakPoint(100_000, 100_020, middle, middle + (5 << 20)),
            BreakPoint(324_437, 524_438, SAVED, SAVED),
        ),
        Knee(100_000, 100_020, middle, 0.31),
        (
            Policy("break nothing", "Hyper-V R2", 0, 0, LARGE_SAVED + (7 << 12), before,
                   LARGE_SAVED + (7 << 12)),
            Policy("break to the knee", "ESX, VEE 2015", 100_000, 100_020, middle, after, middle - GIB),
            Policy("break all", "KSM on split THP", 324_437, 524_438, SAVED, after, SAVED - 2 * GIB),
        ),
        Target(512 * GIB, LARGE_SAVED + (7 << 12), SAVED, 100_000, 100_020, middle, 99_000),
        Price(
            before, after,
            (TlbReach("Zen 4, 2022", 3_072, 3_072, 12 << 20, 6 << 30, "a document"),
             TlbReach("Barcelona, 2007", 512, 128, 2 << 20, 256 << 20, "another document")),
            (Walk(4, 4096, 4096, 24), Walk(4, 4096, 2 << 20, 19), Walk(4, 2 << 20, 2 << 20, 15),
             Walk(5, 4096, 4096, 35), Walk(5, 2 << 20, 2 << 20, 24)),
            (Quote("20 % worse with large pages off", "the series, part 3"),),
        ),
        Bloat(
            90_000, 30 * GIB, 1_000, 2 * GIB,
            (BloatBin(0, 0, 200_002, 200_002 << 21), BloatBin(1, 64, 1_000, 2 * GIB),
             BloatBin(65, 511, 89_000, 28 * GIB), BloatBin(512, 512, 234_436, 0)),
        ),
    )  # fmt: skip


def prefetch() -> Prefetch:
    """Give what prefetching takes away in it."""
    pooled = counts(4096, PAGES, 200_000_001, 10_000_007, 40_000)
    return Prefetch(
        Basis.DISK, Kind.BOUNDED, 0, 15_000_000, pooled, None,
        FilePages(
            (DiskBlocks("debian[bold].raw", 262_144, 100_000, 150_000),
             DiskBlocks("other.raw", 10_000, 4_000, 0)),
            (
                VmFilePages("web01.raw", 68_435_455, Whereabouts(20_000_000, 19_000_000, 400_000, 600_000),
                            19_900_000),
                VmFilePages(ODD_NAME, 100_000, Whereabouts(60_000, 40_000, 10_000, 10_000), 55_000),
            ),
            20_060_000, 19_910_000,
            counts(4096, PAGES, 220_060_001, 9_900_007, 1_000),
        ),
        (
            BalanceStep(1, "web01.raw", 20_000_000, 0, 100_000, 19_900_000, 20_000_000),
            BalanceStep(2, ODD_NAME, 20_060_000, 139_000, 139_000, 19_921_000, 19_921_000),
        ),
        (
            Caveat(
                "disk-without-file-pages",
                "none of its 6,000 blocks other than zero (23.4 MiB) equals a page of memory",
                "check that it is a disk of one of the guests, neither encrypted nor compressed",
                "other.raw",
            ),
        ),
    )  # fmt: skip

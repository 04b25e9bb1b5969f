from __future__ import annotations

import io
import json
from dataclasses import replace

import pytest
from rich.cells import cell_len

from hvshare.erosion.prefetch_result import (
    BalanceStep,
    Basis,
    ColdComparison,
    ColdPair,
    DiskBlocks,
    FilePages,
    Prefetch,
    VmFilePages,
    Whereabouts,
)
from hvshare.erosion.report import Kind
from hvshare.report.console import report_console, write_report
from hvshare.report.prefetch import prefetch_fields, prefetch_summary, print_prefetch
from tests.golden.sharing_report import ODD_NAME, counts

TIB = 1 << 28
"""Pages of 1 TiB."""

NOW = counts(4096, 2 * TIB, 200_000_000, 10_000_000, 60_000_000)
BEFORE = counts(4096, 2 * TIB, 400_000_000, 8_000_000, 20_000_000)


def pair(image: str, file_pages: int | None) -> ColdPair:
    lost = Whereabouts(TIB - 4, TIB // 2, 1, TIB // 2 - 5)
    places = (1023 << 17, 1023 << 18, TIB - 5)
    return ColdPair(image, "before[/b].raw", TIB, TIB - 1, 3, lost, 12_345, file_pages, *places, 1000, 2000,
                    BEFORE, NOW)  # fmt: skip


def section(basis: Basis) -> Prefetch:
    known = basis is Basis.COLD
    names = ["web01.raw", ODD_NAME]
    pairs = tuple(pair(name, 7 if known else None) for name in names)
    least = BEFORE.saved_inter if known else 0
    cold = ColdComparison(pairs, NOW, BEFORE if known else None, BEFORE.saved_zero, BEFORE.saved_self, least,
                          BEFORE.saved_inter)  # fmt: skip
    disk = FilePages(
        (DiskBlocks("debian.raw", 1 << 30, 5, 123_456_789),),
        tuple(
            VmFilePages(name, TIB, Whereabouts(TIB // 2, TIB // 4, 0, TIB // 4), TIB // 3) for name in names
        ),
        TIB,
        TIB // 3,
        BEFORE,
    )
    balance = tuple(
        BalanceStep(vms, names[vms % 2], vms * 1000, vms * 10, vms * 20, vms * 980, vms * 990)
        for vms in range(1, 41)
    )
    return Prefetch(basis, Kind.MEASURED if known else Kind.BOUNDED, -5, TIB, NOW,
                    cold if basis is not Basis.DISK else None, disk if basis is not Basis.NONE else None,
                    balance if basis is not Basis.NONE else (), ())  # fmt: skip


def printed(prefetch: Prefetch, width: int) -> str:
    file = io.StringIO()
    write_report(report_console(file, width=width), lambda console: print_prefetch(prefetch, console))
    return file.getvalue()


@pytest.mark.parametrize("width", [80, 100, 160])
@pytest.mark.parametrize("basis", list(Basis))
def test_no_figure_is_cut(basis: Basis, width: int) -> None:
    text = printed(section(basis), width)
    assert "…" not in text
    assert max(map(cell_len, text.splitlines())) <= width


def test_all_figures_are_in_the_table() -> None:
    text = printed(section(Basis.COLD), 120)
    assert "before[/b].raw" in text
    for figure in ("1.0 TiB", "50.0 %", "<0.1 %", "511.5 GiB", "123,456,789"):
        assert figure in text
    steps = [line.split()[0] for line in text.splitlines() if line.strip().startswith(tuple("123456789"))]
    assert steps == ["1", "2", "3", "4", "5", "6", "7", "8", "16", "32", "40"]


def test_the_summary_says_which_way_it_goes() -> None:
    cold = section(Basis.COLD)
    zero, more = cold.balance[-1].zero_lost, cold.balance[-1].cache_saved_lower
    assert (zero, more) == (40_000, 400)
    less = replace(cold, lower_frames=256, upper_frames=512)
    assert "saves 1.0 to 2.0 MiB less (measured)" in prefetch_summary(less).plain
    assert "zero pages save 156.2 MiB less" in prefetch_summary(less).plain
    gain = replace(cold, lower_frames=-512, upper_frames=-256)
    assert "saves 1.0 to 2.0 MiB more" in prefetch_summary(gain).plain
    assert "-20.0 KiB to 1.0 TiB" in prefetch_summary(cold).plain
    assert "up to 1.0 TiB more (bounded)" in prefetch_summary(section(Basis.DISK)).plain
    without = replace(section(Basis.NONE), lower_frames=0)
    assert "between nothing and 1.0 TiB (bounded)" in prefetch_summary(without).plain


def test_json_holds_every_figure_once() -> None:
    fields = json.loads(json.dumps(prefetch_fields(section(Basis.COLD))))
    assert fields["basis"] == "cold"
    assert (fields["lower_bytes"], fields["upper_bytes"]) == (-5 * 4096, TIB * 4096)
    assert fields["cold"]["vms"][0]["lost"] == {
        "pages": TIB - 4, "between_vms": TIB // 2, "within_vm": 1, "unique": TIB // 2 - 5
    }  # fmt: skip
    assert fields["cold"]["cold"]["saved"] == BEFORE.saved
    assert fields["disk"]["dropped"]["saved"] == BEFORE.saved
    assert len(fields["balance"]) == 40
    bounded = prefetch_fields(section(Basis.NONE))
    assert bounded["disk"] is None
    assert bounded["balance"] == []

from __future__ import annotations

import io
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hvshare.report.console import report_console
from hvshare.report.esx import esx_fields, print_esx, pshare
from hvshare.sharing.esx import EsxWords, esx_caveats, esx_host, esx_words
from tests.guests import content, page_numbers
from tests.oracle import PAGE, Vm, count

vms = st.lists(st.lists(page_numbers.map(content), min_size=1, max_size=20), min_size=1, max_size=4)


def words_of(domain: list[Vm]) -> EsxWords:
    contents = Counter(page for vm in domain for page in vm)
    zero = contents.pop(bytes(PAGE), 0)
    return esx_words(Counter(contents.values()), zero)


def arrows(domain: list[Vm]) -> tuple[int, int]:
    """Count shared and common as the vendor's picture of arrows does: from guest pages to machine pages."""
    references = Counter(page for vm in domain for page in vm)
    shared = sum(references[page] > 1 for vm in domain for page in vm)
    return shared, sum(number > 1 for number in references.values())


@given(vms)
def test_against_arrows_and_the_counts_of_sharing(domain: list[Vm]) -> None:
    words = words_of(domain)
    assert (words.shared, words.common) == arrows(domain)
    counts = count(domain, 1)
    assert words.pages == counts["frames"]
    assert words.saving == counts["saved_zero"] + counts["saved_self"] + counts["saved_inter"]
    assert words.zero == counts["zero"]


@given(vms)
def test_salts_add_up_and_never_save_more(domain: list[Vm]) -> None:
    salted = esx_host([words_of([vm]) for vm in domain])
    together = words_of(domain)
    assert (salted.pages, salted.zero) == (together.pages, together.zero)
    assert salted.saving <= together.saving
    assert salted.saving == sum(len(vm) - len(set(vm)) for vm in domain)


def test_the_vendor_s_example() -> None:
    # vSphere Resource Management: six guest pages point at three machine pages with two arrows or more.
    example = esx_words({2: 3, 1: 4}, 0)
    assert (example.shared * 4, example.common * 4, example.saving * 4) == (24, 12, 12)


def test_a_lone_zero_page_is_not_shared() -> None:
    assert esx_words({}, 1) == EsxWords("", 1, 0, 0, 1)
    assert esx_words({2: 1}, 2) == EsxWords("", 4, 4, 2, 2)
    assert esx_words({}, 0).saving == 0
    assert esx_host([]) == EsxWords("", 0, 0, 0, 0)


@pytest.mark.parametrize("per_vm", [False, True])
def test_report_fits_80_columns_and_cuts_nothing(per_vm: bool) -> None:
    salts = [
        esx_words({1: 10**9, 2: 10**9, 7: 3}, 10**9, domain=f"web[bold]{n}\x1b" + "long" * 9) for n in (1, 2)
    ]
    file = io.StringIO()
    print_esx(salts, report_console(file, width=80), per_vm=per_vm)
    text = file.getvalue()
    assert max(map(len, text.splitlines())) <= 80
    assert "…" not in text
    assert "web[bold]1\\x1b" in text
    for title in ("SHRD", "SHRDSVD") if per_vm else ("shared", "saving"):
        assert title in text
    for each in (*salts, esx_host(salts)):
        for pages in (each.shared, each.common, each.saving, each.zero):
            assert f"{pages / 256:,.2f}" in text
    assert pshare(esx_host(salts)) in text
    fields = esx_fields(salts)
    host = esx_host(salts)
    assert fields["host"] == {
        "memory_bytes": host.pages * 4096,
        "shared_bytes": host.shared * 4096,
        "common_bytes": host.common * 4096,
        "saving_bytes": host.saving * 4096,
        "zero_bytes": host.zero * 4096,
    }


def test_one_domain_has_no_row_for_the_host() -> None:
    file = io.StringIO()
    print_esx([esx_words({2: 256}, 0)], report_console(file, width=80))
    assert file.getvalue().count("2.00") == 1
    assert "all images" in file.getvalue()
    assert "   2  shared,       1  common:       1 saving" in file.getvalue()
    assert [caveat.code for caveat in esx_caveats()] == ["esx-small-pages"]

"""The arithmetic of ``make validate``, on guests small enough to need no lab."""

from __future__ import annotations

import gzip
import random
import struct
from collections.abc import Sequence
from itertools import combinations
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st

from tests import oracle
from tests.validation.__main__ import DOCUMENT, PROOFS, main
from tests.validation.aslr import prove_aslr
from tests.validation.counting import curve_ends, savings
from tests.validation.document import markdown, put_into, summary
from tests.validation.lab import PAGE, ZERO, Lab, digest, is_as_on_disk, is_file_cache
from tests.validation.large_pages import prove_large_pages
from tests.validation.prefetch import prove_cold, prove_disk
from tests.validation.proofs import PredictionError, Proof, command_in

LARGE = 512
LRU, BUDDY, ANON, SWAP_BACKED, MAPPED_TO_DISK, PRIVATE = (1 << bit for bit in (5, 10, 12, 14, 34, 35))


def page(number: int) -> bytes:
    return number.to_bytes(8, "little") + bytes(PAGE - 8)


def write(folder: Path, name: str, numbers: Sequence[int]) -> None:
    (folder / f"{name}.raw").write_bytes(b"".join(map(page, numbers)))


@given(st.lists(st.lists(st.integers(0, 4), max_size=12), min_size=1, max_size=3), st.sampled_from([1, 2, 4]))
def test_savings_are_those_of_the_oracle(vms: list[list[int]], size: int) -> None:
    expected = oracle.count([[page(number) for number in vm] for vm in vms], size)
    found = savings([[digest(page(number)) for number in vm] for vm in vms], size)
    assert found == (expected["saved_zero"], expected["saved_self"], expected["saved_inter"])
    assert found.saved == expected["frames"] - expected["distinct"]


@given(st.lists(st.lists(st.integers(0, 9), max_size=14), min_size=1, max_size=3))
def test_curve_ends_are_those_of_all_choices(vms: list[list[int]]) -> None:
    size = 4
    large = [tuple(vm[at : at + size]) for vm in vms for at in range(0, len(vm) - size + 1, size)]
    outside = [number for vm in vms for number in vm[len(vm) // size * size :]]
    distinct = set(large)

    def saved(broken: Sequence[tuple[int, ...]]) -> int:
        kept = {number for frame in broken for number in frame} | set(outside)
        frames = len(large) * size + len(outside)
        return frames - (len(distinct) - len(broken)) * size - len(kept)

    best = [max(map(saved, combinations(distinct, count))) for count in range(len(distinct) + 1)]
    last = len(distinct)
    expected = (best[0], best[min(1, last)], best[max(last - 1, 0)], best[last])
    assert curve_ends([[digest(page(number)) for number in vm] for vm in vms], size) == expected


@pytest.mark.parametrize(
    ("flags", "cached", "as_on_disk"),
    [
        (LRU | MAPPED_TO_DISK, True, True),
        (LRU | MAPPED_TO_DISK | PRIVATE, True, False),
        (LRU, True, False),
        (LRU | ANON, False, False),
        (LRU | SWAP_BACKED, False, False),
        (LRU | BUDDY, False, False),
        (0, False, False),
    ],
)
def test_kernel_flags(flags: int, *, cached: bool, as_on_disk: bool) -> None:
    assert is_file_cache(flags) == cached
    assert (is_file_cache(flags) and is_as_on_disk(flags)) == as_on_disk


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Lab:
    """Guests of two large frames and some pages, with a disk of which a part is cached."""
    folder, chance = tmp_path_factory.mktemp("lab"), random.Random(5)  # noqa: S311
    disk = list(range(10_000, 10_600))
    write(folder, "disk", [0, *disk])
    for group, letters in (("aslr", "ab"), ("prefetch", "ab"), ("thp", "ab")):
        for letter in letters:
            cached = chance.sample(disk, 400 if group == "prefetch" else 300)
            work = [chance.randrange(1, 300) for _ in range(200)]
            numbers = [*cached, *work, *[0] * (2 * LARGE + 9 - len(cached) - len(work))]
            write(folder, f"{group}-{letter}", numbers)
            flags = [LRU | MAPPED_TO_DISK] * len(cached) + [LRU | ANON] * len(work)
            packed = struct.pack(f"<{len(numbers)}Q", *flags, *[BUDDY] * (len(numbers) - len(flags)))
            (folder / f"{group}-{letter}.kpageflags.gz").write_bytes(gzip.compress(packed))
    return Lab(folder)


def test_the_command_agrees_on_small_guests(lab: Lab) -> None:
    told: list[str] = []
    predict = command_in(lab.folder, told.append)
    proofs = [prove(lab, predict) for prove in (prove_large_pages, prove_disk, prove_cold)]
    assert [row for proof in proofs for row in proof.rows if not row.holds] == []
    assert [len(proof.rows) for proof in proofs] == [15, 24, 14]
    assert told[0] == "hvshare erosion large-pages --json aslr-a.raw aslr-b.raw"
    assert "Not in this lab: two guests noaslr." in proofs[0].notes
    text = markdown(proofs)
    assert text.startswith("All 53 rows hold.\n")
    assert "| aslr-a | the kernel's file pages | 300 | 300 | 97 % or more | 100.0 % |" in text
    assert str(lab.folder) not in text


def test_a_wrong_prediction_is_told(lab: Lab) -> None:
    truth = command_in(lab.folder, lambda _: None)

    def off_by_one(section: str, options: Sequence[str], guests: Sequence[str]) -> dict[str, Any]:
        found = truth(section, options, guests)
        found["disk"]["vms"][0]["contents"] += 1
        return found

    proof = prove_disk(lab, off_by_one)
    wrong = [row for row in proof.rows if not row.holds]
    assert [row.guests for row in wrong] == ["aslr-a", "prefetch-a", "thp-a"]
    assert wrong[0].predicted.split(" / ")[0] == wrong[0].measured.split(" / ")[0]
    assert markdown([proof]).count("**different**") == 3
    assert summary([proof]) == f"3 of {len(proof.rows)} rows do not hold."


def aslr_lab(folder: Path) -> Lab:
    """Two boots of each kind, of which those without ASLR save 100 frames more between VMs, and 8 within."""
    alike, apart = list(range(1, 101)), [*range(1, 5)] * 2
    for letter, start in (("a", 1_000), ("b", 2_000)):
        write(folder, f"noaslr-{letter}", [0, 0, *alike, *apart])
        write(folder, f"aslr-{letter}", [0, 0, *range(start, start + 100), *range(start + 500, start + 508)])
    return Lab(folder)


@pytest.mark.parametrize(
    ("low", "high", "control", "wrong"),
    [
        (90, 120, 11, []),
        (90, 115, 11, ["saved further, frames"]),
        (117, 130, 11, ["saved further, frames"]),
        (86, 120, 11, ["lower bound"]),
        (90, 120, 12, ["control: lower bound"]),
    ],
)
def test_aslr_is_held_against_boots_without_it(
    tmp_path: Path, low: int, high: int, control: int, wrong: list[str]
) -> None:
    def predict(section: str, options: Sequence[str], guests: Sequence[str]) -> dict[str, Any]:
        assert (section, tuple(options)) == ("aslr", ())
        found = {"upper_saved_frames": high, "explained_saved_self": 5, "explained_saved_inter": low - 5}
        is_control = guests[0].startswith("noaslr")
        return {**found, "explained_saved_frames": control if is_control else low}

    proof = prove_aslr(aslr_lab(tmp_path), predict)
    # Without ASLR: 100 contents in each VM are in both, and 8 pages in each repeat some of them.
    truth = 100 + 8 + 8
    assert [row.figure for row in proof.rows if not row.holds] == wrong
    assert [row.measured for row in proof.rows] == [
        *(f"{each}" for each in (truth, truth, 16, 100)),
        f"{truth}",
    ]
    assert [row.guests for row in proof.rows] == ["aslr-a, aslr-b"] * 4 + ["noaslr-a, noaslr-b"]
    assert [note for note in proof.notes if "kaslronly" in note] == ["Not in this lab: two guests kaslronly."]


def test_a_command_that_fails_is_a_row_that_does_not_hold(tmp_path: Path) -> None:
    def fail(section: str, options: Sequence[str], guests: Sequence[str]) -> dict[str, Any]:
        raise PredictionError("exit 1: no")

    proof = prove_aslr(aslr_lab(tmp_path), fail)
    assert [(row.holds, row.found) for row in proof.rows] == [(False, "exit 1: no")] * 2
    with pytest.raises(PredictionError, match=r"exit [12]: "):
        command_in(tmp_path, lambda _: None)("large-pages", (), ["nowhere"])


def test_marks_in_the_document(tmp_path: Path) -> None:
    document = tmp_path / "validation.md"
    document.write_text("before\n<!-- one -->\nold\n<!-- /one -->\nafter\n")
    for text in ("first", "second"):
        put_into(document, "one", text)
        assert document.read_text() == f"before\n<!-- one -->\n\n{text}\n<!-- /one -->\nafter\n"
    with pytest.raises(ValueError, match="no place for two"):
        put_into(document, "two", "text")


def test_as_a_command(lab: Lab, tmp_path: Path) -> None:
    document = tmp_path / "validation.md"
    document.write_text("<!-- small -->\n<!-- /small -->\n")
    arguments = [str(lab.folder), "--proof", "cold", "--document", str(document)]
    run = CliRunner().invoke(main, arguments)
    assert (run.exit_code, "All 14 rows hold." in run.output) == (0, True)
    assert CliRunner().invoke(main, [*arguments, "--write", "small"]).exit_code == 0
    assert "### Prefetching, with cold images" in document.read_text()
    for wrong in ([*arguments, "--write", "none"], [str(tmp_path)]):
        run = CliRunner().invoke(main, wrong)
        assert (run.exit_code, run.output.count("Error: ")) == (1, 1)


def test_the_document_has_room_and_says_what_is_needed() -> None:
    text = DOCUMENT.read_text(encoding="utf-8")
    for name in ("bookworm", "trixie"):
        assert text.count(f"<!-- {name} -->") == text.count(f"<!-- /{name} -->") == 1
    for group in ("aslr", "noaslr", "kaslronly", "useraslronly", "prefetch", "thp"):
        assert f"| `{group}` |" in text
    assert set(PROOFS) == {"large-pages", "aslr", "disk", "cold"}


def test_cells_keep_their_column() -> None:
    proof = Proof("title", "command", "truth")
    proof.equal(["a|b"], "figure", 1, 2)
    assert "| a\\|b | figure | 1 | 2 | equal | **different** |" in markdown([proof])
    assert digest(bytes(PAGE)) == ZERO

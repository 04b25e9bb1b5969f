from __future__ import annotations

import json
import os
from pathlib import Path

import jsonschema
import pytest

from tests.guests import content, write_raw
from tests.integration.running import PROJECT, check_failed, hvshare
from tests.oracle import PAGE, count

GUESTS = {f"web{number}.raw": [content(each % (20 + number)) for each in range(300)] for number in range(3)}
GUESTS["db.raw"] = [content(each % 90) for each in range(300)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("compare")
    for name, pages in GUESTS.items():
        write_raw(folder / name, pages)
    run = hvshare("fingerprint", "-o", f"{folder}/", folder / "db.raw")
    assert run.returncode == 0, run.stderr
    return folder


def files(folder: Path) -> list[Path]:
    return [*(folder / f"web{number}.raw" for number in range(3)), folder / "db.raw.hvs"]


def test_images_and_fingerprint_files_are_compared(folder: Path) -> None:
    run = hvshare("compare", "--json", "--words", "ksm", "--words", "esx", *files(folder))
    assert (run.returncode, run.stderr) == (0, "")
    result = json.loads(run.stdout)
    jsonschema.validate(result, json.loads((PROJECT / "docs/schema/compare-1.json").read_text()))
    expected = count(list(GUESTS.values()), 1)
    assert {name: result["pooled"][str(PAGE)][name] for name in expected} == expected
    assert len(result["pairs"]) == 6
    (ksm,) = result["ksm"]["domains"]
    saved = expected["frames"] - expected["distinct"]
    assert ksm["use_zero_pages_0"]["pages_sharing"] == saved
    (esx,) = result["esx"]["domains"]
    assert esx["saving_bytes"] == saved * PAGE


def test_domains_by_glob_by_file_and_for_each_vm(folder: Path) -> None:
    pooled = [count(list(GUESTS.values())[:3], 1), count([GUESTS["db.raw"]], 1)]
    (folder / "domains.txt").write_text("# two columns\nblue web*\nred db*\n")
    for options in (["--domain", "blue=web*", "--domain", "red=db*"], ["--domains", folder / "domains.txt"]):
        run = hvshare("compare", "--json", *options, *files(folder))
        result = json.loads(run.stdout)
        assert [each["name"] for each in result["domains"]] == ["blue", "red"]
        for domain, expected in zip(result["domains"], pooled, strict=True):
            assert {name: domain["counts"][str(PAGE)][name] for name in expected} == expected
    run = hvshare("compare", "--json", "--domain-per-vm", *files(folder))
    assert [
        each["saved_inter"] for d in json.loads(run.stdout)["domains"] for each in d["counts"].values()
    ] == [0] * 8
    run = hvshare("compare", "--json", "--domain", "blue=web*", *files(folder))
    assert "in-no-domain" in [caveat["code"] for caveat in json.loads(run.stdout)["caveats"]]


def test_tables_fit_and_say_that_pairs_do_not_add_up(folder: Path) -> None:
    words = ["--words", "ksm", "--words", "esx", "--domain-per-vm", "--settle-within", "60"]
    few = hvshare("compare", *words, *files(folder)).stdout
    many = hvshare("compare", *words, *files(folder)[:3] * 6).stdout
    for text in (few, many):
        assert max(map(len, text.splitlines())) <= 80
        assert "Pairs do not add up" in text
        assert "cost of the walls" in text
        assert "…" not in text
    assert "the closest 10 of 153" in many
    assert "the most distant 10" in many
    assert "Likeness" in few


def test_names_from_a_list_apart_by_nul(folder: Path) -> None:
    names = b"\0".join(os.fsencode(path) for path in files(folder)) + b"\0"
    run = hvshare("compare", "--json", "--files0-from", "-", stdin=names)
    assert run.stdout == hvshare("compare", "--json", *files(folder)).stdout
    check_failed(hvshare("compare", "--files0-from", folder / "nothing"), 1, "nothing", "cannot be read")


def test_domains_that_cannot_be_meant(folder: Path) -> None:
    for options, words in (
        (["--domain", "blue"], "'blue' is no sharing domain"),
        (["--domain", "blue=mail*"], "no image matches 'mail*'"),
        (["--domain", "blue=web*", "--domain", "red=*"], "is in two sharing domains"),
        (["--domain-per-vm", "--domain", "blue=*"], "Give one of"),
        (["--domains", folder / "missing"], "cannot be read"),
        (["--domains", folder / "db.raw.hvs"], "cannot be read"),
    ):
        check_failed(hvshare("compare", *options, *files(folder)), 2, words)
    check_failed(hvshare("compare"), 2, "Name one image at least")


def test_one_bad_input_ends_it_or_is_left_out(folder: Path) -> None:
    bad = folder / "cut.hvs"
    bad.write_bytes((folder / "db.raw.hvs").read_bytes()[:-100])
    check_failed(hvshare("compare", *files(folder), bad), 1, "cut.hvs")
    run = hvshare("compare", "--json", "--skip-unreadable", *files(folder), bad)
    assert run.returncode == 3
    assert len(json.loads(run.stdout)["images"]) == 4

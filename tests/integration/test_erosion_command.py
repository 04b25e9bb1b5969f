"""``hvshare erosion`` as a user has it: the report, its sections, its forms, and what cannot be done."""

from __future__ import annotations

import csv
import io
import json
import os
import random
from collections import Counter
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from tests.guests import ZERO, content, write_raw
from tests.integration.running import PROJECT, check_failed, environment, hvshare
from tests.oracle import PAGE, count

SECTIONS = ("large-pages", "aslr", "prefetch")
FRAME = 512  # pages of 2 MB


def noise(seed: int, pages: int) -> list[bytes]:
    source = random.Random(seed)  # noqa: S311
    return [source.randbytes(PAGE) for _ in range(pages)]


DISK = noise(1, 300)
LARGE = [content(1 + number % 200) for number in range(FRAME)]
COLD = [*LARGE, *[ZERO] * FRAME, *noise(2, 200), *[ZERO] * 312]
WARM = [*LARGE, *DISK[:150], *[ZERO] * 362, *noise(2, 200), *DISK[:100], *[ZERO] * 212]
OTHER = [*LARGE, *[ZERO] * FRAME, *noise(3, 200), *DISK[50:200], *[ZERO] * 162]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("erosion")
    for name, pages in (("warm.raw", WARM), ("other.raw", OTHER), ("cold.raw", COLD), ("disk.img", DISK)):
        write_raw(folder / name, pages)
    run = hvshare(
        "fingerprint", "-q", "-o", f"{folder}/", *(folder / f"{name}.raw" for name in ("warm", "other"))
    )
    assert run.returncode == 0, run.stderr
    return folder


def schema(name: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((PROJECT / "docs" / "schema" / name).read_text(encoding="utf-8"))
    return found


def result(*arguments: str | Path) -> dict[str, Any]:
    run = hvshare("erosion", *arguments, "--json", "-q")
    assert (run.returncode, run.stderr) == (0, "")
    document: dict[str, Any] = json.loads(run.stdout)
    jsonschema.validate(document, schema("erosion-1.json"))
    return document


def codes(document: dict[str, Any]) -> list[str]:
    return [caveat["code"] for caveat in document["caveats"]]


def check_waterfall(document: dict[str, Any], factors: list[str]) -> dict[str, Any]:
    steps = document["waterfall"]
    assert [step["factor"] for step in steps] == factors
    for bound in ("lower_bytes", "upper_bytes"):
        assert steps[0][bound] == sum(step[bound] for step in steps[1:])
    return {step["factor"]: step for step in steps}


@pytest.mark.parametrize("vms", [[WARM], [WARM, OTHER]])
def test_the_report_adds_up_to_an_independent_count(folder: Path, vms: list[list[bytes]]) -> None:
    files = [folder / "warm.raw", folder / "other.raw"][: len(vms)]
    document = result(*files)
    small, large = count(vms, 1), count(vms, FRAME)
    for size, counts in ((PAGE, small), (PAGE * FRAME, large)):
        assert {name: document["pooled"][str(size)][name] for name in counts} == counts
    steps = check_waterfall(document, ["possible", "prefetch", "aslr", "large-pages", "left"])
    left = (large["frames"] - large["distinct"]) * PAGE * FRAME
    lost = (small["frames"] - small["distinct"]) * PAGE - left
    measured = {"kind": "measured"}
    assert steps["left"] == {"factor": "left", **measured, "lower_bytes": left, "upper_bytes": left}
    assert steps["large-pages"] == {
        "factor": "large-pages",
        **measured,
        "lower_bytes": lost,
        "upper_bytes": lost,
    }
    assert steps["aslr"]["kind"] == "bounded"
    assert steps["aslr"]["upper_bytes"] == document["aslr"]["upper_saved_frames"] * PAGE
    assert document["large_pages"]["curve"][0]["saved_bytes"] == left
    assert document["large_pages"]["curve"][-1]["saved_bytes"] == left + lost
    assert document["prefetch"]["basis"] == "none"
    assert ("one-vm" in codes(document)) == (len(vms) == 1)


def test_a_section_alone_leaves_the_others_null(folder: Path) -> None:
    names = {"large-pages": "large_pages", "aslr": "aslr", "prefetch": "prefetch"}
    for section, name in names.items():
        document = result(section, folder / "warm.raw", folder / "other.raw")
        assert [each for each in names.values() if document[each] is not None] == [name]
        assert document["waterfall"] == []
        assert document["pooled"]


def test_file_pages_are_those_of_the_disk(folder: Path) -> None:
    document = result("prefetch", "--disk", folder / "disk.img", folder / "warm.raw", folder / "other.raw")
    assert document["prefetch"]["basis"] == "disk"
    blocks = set(DISK)
    expected = [sum(page in blocks for page in vm) for vm in (WARM, OTHER)]
    assert [vm["file_pages"]["pages"] for vm in document["prefetch"]["disk"]["vms"]] == expected
    kept = hvshare("fingerprint", "-q", "-o", folder / "disk.hvs", folder / "disk.img")
    assert kept.returncode == 0
    again = result("prefetch", "--disk", folder / "disk.hvs", folder / "warm.raw", folder / "other.raw")
    assert again["prefetch"]["disk"]["vms"] == document["prefetch"]["disk"]["vms"]


def test_a_cold_image_measures(folder: Path) -> None:
    document = result("--cold", folder / "cold.raw", folder / "warm.raw")
    prefetch = document["prefetch"]
    assert (prefetch["basis"], prefetch["kind"]) == ("cold", "measured")
    saved = [len(vm) - len(Counter(vm)) for vm in (COLD, WARM)]
    assert prefetch["lower_frames"] == prefetch["upper_frames"] == saved[0] - saved[1]
    steps = check_waterfall(document, ["possible", "prefetch", "aslr", "large-pages", "left"])
    assert steps["prefetch"]["kind"] == "measured"
    assert steps["prefetch"]["lower_bytes"] == (saved[0] - saved[1]) * PAGE


def test_target(folder: Path) -> None:
    for section in ((), ("large-pages",)):
        document = result(*section, "--target", "3M", folder / "warm.raw", folder / "other.raw")
        target = document["large_pages"]["target"]
        assert target["target_bytes"] == 3 << 20
        reached = [each for each in document["large_pages"]["curve"] if each["saved_bytes"] >= 3 << 20]
        assert target["broken_frames"] == reached[0]["broken_frames"]
        text = hvshare(
            "erosion", *section, "--target", "3M", folder / "warm.raw", folder / "other.raw"
        ).stdout
        assert "To free 3.0 MiB" in text


def test_fingerprint_files_do_for_all_but_aslr(folder: Path) -> None:
    images, stored = ([folder / f"{name}.raw{end}" for name in ("warm", "other")] for end in ("", ".hvs"))
    for section in ("large-pages", "prefetch"):
        name = section.replace("-", "_")
        of_images, of_stored = result(section, *images)[name], result(section, *stored)[name]
        for each in (of_images, of_stored):
            each.pop("balance", None)  # names images
        assert of_images == of_stored
    document = result(*stored)
    assert document["aslr"] is None
    assert "aslr-needs-bytes" in codes(document)
    check_waterfall(document, ["possible", "prefetch", "large-pages", "left"])
    mixed = result(images[0], stored[1])
    assert (mixed["aslr"], codes(mixed).count("aslr-needs-bytes")) == (None, 1)
    text = hvshare("erosion", *stored).stdout
    assert "[aslr-needs-bytes]" in text
    assert "\nASLR " not in text
    failed = hvshare("erosion", "aslr", images[0], stored[1])
    check_failed(failed, 1, "other.raw.hvs", "holds digests and no contents", "name the image")


def test_pipes_do_for_all_but_aslr(folder: Path) -> None:
    data = (folder / "warm.raw").read_bytes()
    run = hvshare("erosion", "--json", "-", folder / "other.raw", stdin=data)
    document = json.loads(run.stdout)
    assert document["aslr"] is None
    assert "aslr-needs-bytes" in codes(document)
    assert document["pooled"] == result(folder / "warm.raw", folder / "other.raw")["pooled"]
    check_failed(
        hvshare("erosion", "aslr", "-", stdin=data), 2, "reading images several times", "give it as a file"
    )


def test_tables_fit_and_say_what_kind_each_figure_is(folder: Path) -> None:
    files = [folder / "warm.raw", folder / "other.raw"]
    for section in ((), *((name,) for name in SECTIONS)):
        for columns in ("40", "80", "120"):
            run = hvshare("erosion", *section, *files, env=environment(COLUMNS=columns))
            assert (run.returncode, run.stderr) == (0, "")
            lines = run.stdout.splitlines()
            assert max(map(len, lines)) <= max(80, int(columns))
            assert "…" not in run.stdout
            assert any(kind in run.stdout for kind in ("measured", "bounded", "modelled"))
    text = hvshare("erosion", *files).stdout
    for name in ("possible", "prefetching", "ASLR", "now at 4 KB", "large pages", "left at 2 MB"):
        line = next(line for line in text.splitlines() if line.startswith(name))
        assert "measured" in line or "bounded" in line


def test_lines_and_csv_hold_what_json_holds(folder: Path) -> None:
    files = [folder / "warm.raw", folder / "other.raw"]
    document = result(*files)
    lines = [json.loads(line) for line in hvshare("erosion", "--format", "jsonl", *files).stdout.splitlines()]
    for line in lines:
        jsonschema.validate(line, schema("erosion-lines-1.json"))
    assert [line["type"] for line in lines] == [
        "image",
        "image",
        "large_pages",
        "aslr",
        "prefetch",
        "pooled",
    ]
    for name in ("large_pages", "aslr", "prefetch"):
        line = lines[["image", "image", "large_pages", "aslr", "prefetch"].index(name)].copy()
        assert line.pop("schema") == "hvshare.erosion/1"
        assert line.pop("type") == name
        assert line == document[name]
    assert {name: lines[-1][name] for name in ("pooled", "waterfall", "caveats")} == {
        name: document[name] for name in ("pooled", "waterfall", "caveats")
    }
    table = hvshare("erosion", "--format", "csv", *files)
    assert "digests" in table.stderr  # caveats
    rows = list(csv.DictReader(io.StringIO(table.stdout)))
    found = {(row["section"], row["figure"]): row["value"] for row in rows}
    assert len(found) == len(rows)
    assert found["pooled", "4096.distinct"] == str(document["pooled"]["4096"]["distinct"])
    last = len(document["large_pages"]["curve"]) - 1
    assert found["large_pages", f"curve.{last}.saved_bytes"] == str(
        document["large_pages"]["curve"][last]["saved_bytes"]
    )
    assert found["waterfall", "0.upper_bytes"] == str(document["waterfall"][0]["upper_bytes"])


def test_a_section_is_named_first_and_files_may_be_called_like_one(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "aslr").write_bytes((folder / "warm.raw").read_bytes())
    run = hvshare("erosion", "--json", "./aslr", cwd=tmp_path)
    assert json.loads(run.stdout)["large_pages"] is not None
    check_failed(hvshare("erosion", "aslr", cwd=tmp_path), 2, "Missing argument 'IMAGE...'")
    check_failed(
        hvshare("erosion", "--json", "prefetch", folder / "warm.raw"),
        2,
        "Name a section before anything else",
    )
    check_failed(hvshare("erosion", "ladder"), 1, "ladder", "no such file")
    check_failed(hvshare("erosion"), 2, "Missing argument 'IMAGE...'")


def test_help_lists_the_sections() -> None:
    text = hvshare("erosion", "--help", env=environment(COLUMNS="80")).stdout
    assert "hvshare erosion [SECTION] [OPTIONS] IMAGE..." in text
    for section in SECTIONS:
        assert f"\n  {section} " in text
        own = hvshare("erosion", section, "--help")
        assert f"hvshare erosion {section} [OPTIONS] IMAGE..." in own.stdout
        assert "Examples:" in own.stdout
        assert (own.returncode, own.stderr) == (0, "")
    for option, sections in (
        ("--target", ["large-pages"]),
        ("--cold", ["prefetch"]),
        ("--disk", ["prefetch"]),
    ):
        assert option in text
        assert [name for name in SECTIONS if option in hvshare("erosion", name, "--help").stdout] == sections


def test_completion_offers_sections_and_their_options() -> None:
    def offered(words: str, count: int) -> str:
        env = environment(_HVSHARE_COMPLETE="bash_complete", COMP_WORDS=words, COMP_CWORD=str(count))
        return hvshare(env=env).stdout

    assert "plain,aslr" in offered("hvshare erosion as", 2)
    assert "file" in offered("hvshare erosion as", 2)
    assert "--target" in offered("hvshare erosion large-pages --t", 3)
    assert "--cold" in offered("hvshare erosion prefetch --c", 3)


def test_what_cannot_be_meant(folder: Path, tmp_path: Path) -> None:
    warm, other, cold = (folder / f"{name}.raw" for name in ("warm", "other", "cold"))
    for arguments, words in (
        (["--cold", cold, "--cold", cold, warm], "--cold is given 2 times for 1 images"),
        (["--cold", cold, "--cold", cold, "--skip-unreadable", warm, other], "--skip-unreadable does not go"),
        (["--cold", "-", "-"], "can be read only once"),
        (["--target", "lots", warm], "'lots' is no size"),
        (["aslr", "--target", "1G", warm], "No such option '--target'"),
        (["large-pages", "--disk", folder / "disk.img", warm], "No such option '--disk'"),
        (["--format", "csv", "--json", warm], "contradicts"),
    ):
        check_failed(hvshare("erosion", *arguments), 2, words)
    missing = tmp_path / "missing.raw"
    for option in ((), ("--cold",), ("--disk",)):
        check_failed(hvshare("erosion", *option, missing, warm), 1, "missing.raw", "no such file")
    stranger = write_raw(tmp_path / "stranger.raw", noise(9, len(WARM)))
    check_failed(hvshare("erosion", "--cold", stranger, warm), 1, "stranger.raw")
    check_failed(hvshare("erosion", "--disk", stranger, warm), 1, "stranger.raw")
    qcow2 = tmp_path / "disk.qcow2"
    qcow2.write_bytes(b"QFI\xfb" + bytes(65532))
    check_failed(hvshare("erosion", "--disk", qcow2, warm), 1, "disk.qcow2", "qemu-img convert")
    check_failed(hvshare("erosion", "-o", warm, warm), 1, "warm.raw")
    assert warm.stat().st_size == len(WARM) * PAGE


def test_an_image_that_cannot_be_used_ends_it_or_is_left_out(folder: Path, tmp_path: Path) -> None:
    empty = tmp_path / "empty.raw"
    empty.touch()
    check_failed(hvshare("erosion", folder / "warm.raw", empty), 1, "empty.raw", "it is empty")
    run = hvshare("erosion", "--json", "--skip-unreadable", folder / "warm.raw", empty, folder / "other.raw")
    assert run.returncode == 3
    document = json.loads(run.stdout)
    assert [image["name"] for image in document["images"]] == ["warm.raw", "other.raw"]
    assert "left-out" in codes(document)
    # A cold image is not left out: the figures would be others than those that were asked for.
    run = hvshare("erosion", "--skip-unreadable", "--cold", empty, folder / "warm.raw")
    check_failed(run, 1, "empty.raw", "it is empty")


def test_analyze_closes_with_a_line_a_factor(folder: Path) -> None:
    small, large = count([WARM, OTHER], 1), count([WARM, OTHER], FRAME)
    lost = small["frames"] - small["distinct"] - FRAME * (large["frames"] - large["distinct"])
    for frames in ((), ("--frame", "64K")):
        run = hvshare("analyze", *frames, folder / "warm.raw", folder / "other.raw")
        *_, pages, aslr, prefetch = run.stdout.splitlines()
        assert pages.split()[:4] == ["large", "pages", f"{lost * PAGE / (1 << 20):.1f}", "MiB"]
        assert "measured" in pages
        assert "hvshare erosion large-pages" in pages
        assert "hvshare erosion aslr" in aslr
        assert "hvshare erosion prefetch --disk" in prefetch
        assert max(map(len, run.stdout.splitlines())) <= 80


def test_result_goes_to_a_file_whole(folder: Path, tmp_path: Path) -> None:
    target = tmp_path / "erosion.json"
    run = hvshare("erosion", "--json", "-o", target, folder / "warm.raw")
    assert (run.returncode, run.stdout) == (0, "")
    assert json.loads(target.read_text())["schema"] == "hvshare.erosion/1"
    assert os.listdir(tmp_path) == ["erosion.json"]  # noqa: PTH208

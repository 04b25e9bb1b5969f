"""``hvshare simulate`` as a process: its forms, its guests as files, and what cannot be done."""

from __future__ import annotations

import csv
import io
import json
import os
import re
import signal
import subprocess
import time
from collections.abc import Mapping
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

import jsonschema
import pytest

from tests.integration.running import COMMAND, PROJECT, check_failed, environment, hvshare
from tests.oracle import PAGE, count

SCHEMA = json.loads((PROJECT / "docs/schema/simulate-1.json").read_text(encoding="utf-8"))
SMALL = ("--scale", "1/512", "--vms", "2", "--seeds", "2")
FACTORIAL = ("linux-x64", *SMALL, "--no-waterfall")
FACTORS = ("aslr", "prefetch", "guest-large-pages", "host-large-pages")
RESPONSES = ("saved", "saved_zero", "saved_self", "saved_inter")


def result(*arguments: str | Path) -> dict[str, Any]:
    run = hvshare("simulate", *arguments, "--json")
    assert (run.returncode, run.stderr) == (0, "")
    document: dict[str, Any] = json.loads(run.stdout)
    jsonschema.validate(document, SCHEMA)
    return document


def check_fits(text: str) -> None:
    assert max(map(len, text.splitlines())) <= 80
    assert "…" not in text
    assert "(modelled)" in text
    assert "\nCaveats\n" in text


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Any], Path]:
    """Run a factorial that keeps its guests."""
    folder = tmp_path_factory.mktemp("simulate") / "made" / "here"
    return result(*FACTORIAL, "-j", "2", "--keep", folder), folder


def guest_pages(path: Path) -> list[bytes]:
    data = path.read_bytes()
    return [data[at : at + PAGE] for at in range(0, len(data), PAGE)]


def guest_files(folder: Path, seed: int, levels: Mapping[str, bool]) -> list[Path]:
    large = "[1-9]*" if levels["guest-large-pages"] else "0"
    words = f"aslr-{'on' if levels['aslr'] else 'off'}_prefetch-{'preload' if levels['prefetch'] else 'off'}"
    return sorted(folder.glob(f"linux-x64_seed{seed}_vm*_{words}_*_large-{large}_*.raw"))


def test_cells_are_an_independent_count_of_the_guests_kept(kept: tuple[dict[str, Any], Path]) -> None:
    document, folder = kept
    assert len(list(folder.iterdir())) == 2 * 2 * 2**3  # VMs, seeds, and levels of what guests have
    assert len(document["cells"]) == 16
    for cell in document["cells"]:
        pages_per_frame = 512 if cell["levels"]["host-large-pages"] else 1
        found: dict[str, list[float]] = {name: [] for name in RESPONSES}
        for seed in (1, 2):
            files = guest_files(folder, seed, cell["levels"])
            assert len(files) == 2
            counted = count([guest_pages(file) for file in files], pages_per_frame)
            counted["saved"] = counted["frames"] - counted["distinct"]
            for name in RESPONSES:
                found[name].append(counted[name] / counted["frames"])
        for name, shares in found.items():
            assert cell[name] == {
                "mean": pytest.approx(fmean(shares), abs=1e-12),
                "deviation": pytest.approx(stdev(shares), abs=1e-12),
                "lowest": pytest.approx(min(shares), abs=1e-12),
                "highest": pytest.approx(max(shares), abs=1e-12),
            }


def test_effects_are_contrasts_of_the_cells(kept: tuple[dict[str, Any], Path]) -> None:
    document, _ = kept
    effects = {(*each["factors"], each["response"]): each["mean"] for each in document["effects"]}
    for response in RESPONSES:
        for number, factor in enumerate(FACTORS):
            sides = [
                fmean(cell[response]["mean"] for cell in document["cells"] if cell["levels"][factor] == on)
                for on in (True, False)
            ]
            assert effects[factor, response] == pytest.approx(sides[0] - sides[1], abs=1e-12)
            for other in FACTORS[number + 1 :]:
                signed = [
                    (1 if cell["levels"][factor] == cell["levels"][other] else -1) * cell[response]["mean"]
                    for cell in document["cells"]
                ]
                assert effects[factor, other, response] == pytest.approx(sum(signed) / 8, abs=1e-12)


def test_guests_kept_are_those_of_synth(kept: tuple[dict[str, Any], Path], tmp_path: Path) -> None:
    _, folder = kept
    pattern = re.compile(
        r"linux-x64_seed(\d+)_vm(\d+)_aslr-(\w+)_prefetch-(\w+)_memory-(\d+)_large-(\d+)_apps-(\d+)"
        r"_fragmentation-(\d+)_(\d+)_diversity-3_10\.raw"
    )
    chosen = [path for path in sorted(folder.iterdir()) if "_seed2_vm2_" in path.name][1::3]
    assert len({path.read_bytes() for path in chosen}) > 1
    for path in chosen:
        match = pattern.fullmatch(path.name)
        assert match, path.name
        seed, vm, aslr, prefetch, memory, large, apps, part, whole = match.groups()
        run = hvshare(
            "synth", "linux-x64", "--scale", "1/512", "--template", seed, "--vm", vm, "--boot", vm,
            "--aslr" if aslr == "on" else "--no-aslr", "--prefetch", prefetch, "--memory", memory,
            "--guest-large-pages", large, "--apps", apps, "--fragmentation", f"{part}/{whole}",
            "-o", tmp_path / "guest.raw", "-q",
        )  # fmt: skip
        assert (run.returncode, run.stdout, run.stderr) == (0, "", "")
        assert (tmp_path / "guest.raw").read_bytes() == path.read_bytes()


def test_one_result_however_many_processes_and_whether_guests_are_kept(
    kept: tuple[dict[str, Any], Path],
) -> None:
    assert result(*FACTORIAL, "-j", "1") == kept[0]


def test_csv_holds_what_json_holds(kept: tuple[dict[str, Any], Path]) -> None:
    document, _ = kept
    run = hvshare("simulate", *FACTORIAL, "--format", "csv", "-q")
    assert (run.returncode, run.stderr) == (0, "")
    rows = list(csv.DictReader(io.StringIO(run.stdout)))
    cells = [row for row in rows if row["type"] == "cell"]
    assert len(cells) == len(document["cells"])
    for row, cell in zip(cells, document["cells"], strict=True):
        assert [row[factor.replace("-", "_")] for factor in FACTORS] == [
            "on" if cell["levels"][factor] else "off" for factor in FACTORS
        ]
        for name in RESPONSES:
            for figure, value in cell[name].items():
                assert float(row[f"{name}_{figure}"]) == value


@pytest.mark.parametrize(
    "arguments",
    [
        FACTORIAL,
        ("windows-xp-x86", *SMALL, "--experiment", "clones"),
        ("windows-xp-x86", "--scale", "1/512", "--seeds", "2", "--sweep", "vms=1..4"),
    ],
    ids=["factorial", "clones", "sweep"],
)
def test_tables_fit_in_80_columns(arguments: tuple[str, ...]) -> None:
    run = hvshare("simulate", *arguments, env=environment(COLUMNS="80"))
    assert (run.returncode, run.stderr) == (0, "")
    check_fits(run.stdout)
    shares = [float(each) for each in re.findall(r"(\d+\.\d) %", run.stdout)]
    assert shares
    assert max(shares) <= 100


def test_a_sweep_over_vms_is_what_each_number_of_guests_saves(tmp_path: Path) -> None:
    arguments = ("linux-x64", "--scale", "1/512", "--seeds", "1", "--sweep", "vms=1..4", "--keep", tmp_path)
    document = result(*arguments)
    assert document["experiment"] == "sweep"
    guests = [guest_pages(path) for path in sorted(tmp_path.iterdir())]
    assert len(guests) == 4
    assert len(document["points"]) == 4
    for vms, point in enumerate(document["points"], 1):
        counted = count(guests[:vms], 1)
        counted["saved"] = counted["frames"] - counted["distinct"]
        assert point["value"] == vms
        for name in RESPONSES:
            share = counted[name] / counted["frames"]
            assert point[f"{name}_4k"]["mean"] == pytest.approx(share, abs=1e-12)


def test_clones_save_less_the_more_they_write() -> None:
    document = result("windows-xp-x86", *SMALL, "--experiment", "clones")
    assert document["experiment"] == "clones"
    first, *_, last = document["points"]
    # Of two clones that have not written yet, one is saved whole.
    assert (first["pages_written"], first["saved_2m"]["mean"], first["shared_frames"]["mean"]) == (0, 0.5, 1)
    assert last["saved_2m"]["mean"] == 0
    for name in ("saved_4k", "saved_2m"):
        saved = [point[name]["mean"] for point in document["points"]]
        assert saved == sorted(saved, reverse=True)
        assert saved[-1] < saved[0]


def test_the_series_gives_each_claim_a_verdict() -> None:
    document = result(*SMALL, "--experiment", "series")
    assert document["experiment"] == "series"
    assert len(document["claims"]) >= 5
    claims = {claim["number"]: claim for claim in document["claims"]}
    # What the claims say, looked for in the figures themselves.
    found = {
        number: {(each["label"], each["quantity"]): each for each in claim["findings"]}
        for number, claim in claims.items()
    }
    presets = ("windows7-x86", "windows7-x64", "linux-x64")
    prefetching = []
    for label in (f"{name}, ASLR {word}" for name in presets for word in ("off", "on")):
        gone = found[3][label, "of zero pages, gone with prefetching"]["lowest"]
        more = found[3][label, "saved more at 4 KB, zero apart"]["lowest"]
        prefetching += [label] * (gone >= 0.9 and more >= 0)
    check_verdict(claims[3], prefetching, 2 * len(presets))
    little = []
    for name in presets:
        effects = [
            found[5][name, f"main effect of {factor}"] for factor in ("ASLR", "prefetching", "large pages")
        ]
        # Far enough apart that seeds do not matter, or the figures would not tell.
        aslr, *others = [sorted(abs(each[end]) for end in ("lowest", "highest")) for each in effects]
        assert all(other[1] < aslr[0] or other[0] > aslr[1] for other in others)
        little += [name] * all(other[0] > aslr[1] for other in others)
    check_verdict(claims[5], little, len(presets))
    label = "windows-xp-x86 beside windows7-x64"
    both = (
        found[6][label, "zero pages of windows-xp-x86, of memory"]["lowest"] > 0.5
        and found[6][label, "zero pages of windows7-x64, of memory"]["highest"] < 0.01
        and found[6][label, "saved at 4 KB less of windows7-x64"]["lowest"] > 0
    )
    check_verdict(claims[6], [label] * both, 1)
    failed = hvshare("simulate", "linux-x64", *SMALL, "--experiment", "series")
    check_failed(failed, 2, "PRESET does not go with --experiment series")


def check_verdict(claim: dict[str, Any], holding: list[str], conditions: int) -> None:
    if 0 < len(holding) < conditions:
        assert (claim["verdict"], claim["conditions"]) == (
            "holds under these conditions",
            "; ".join(holding),
        )
    else:
        assert (claim["verdict"], claim["conditions"]) == ("holds" if holding else "does not hold", "")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--sweep", "apps=0,8MiB,100GiB"), "MiB, and memory is 8.0 MiB"),
        (("--sweep", "memory=4GiB,1GiB"), "need"),
        (("--guest-large-pages", "4GiB", "--no-waterfall"), "need"),
    ],
)
def test_what_cannot_be_made_at_the_end_is_told_at_the_start(
    tmp_path: Path, arguments: tuple[str, ...], words: str
) -> None:
    folder, output = tmp_path / "kept", tmp_path / "out.csv"
    output.write_text("as it was")
    run = hvshare(
        "simulate", "linux-x64", *SMALL, *arguments, "--keep", folder, "-o", output, "--format", "csv"
    )
    check_failed(run, 1, words)
    assert not folder.exists()
    assert sorted(os.listdir(tmp_path)) == ["out.csv"]  # noqa: PTH208  # names alone
    assert output.read_text() == "as it was"


@pytest.mark.parametrize(
    ("sweep", "words"),
    [
        ("vms=0..4", "0 is too little; give 1 or more"),
        ("vms", "write it like vms=1..32"),
        ("vms=", "--sweep vms="),
        ("colour=1..2", "there is no parameter 'colour'"),
        ("prefetch=0..2", "2 is too much; give 1 or less"),
        ("vms=4..1", "give the smaller value first"),
        ("vms=1..4:0", "a step of nothing"),
        ("vms=1..x", "vms=1..x"),
        ("memory=3MiB", "3MiB is no multiple of 2 MB"),
        ("memory=4GiB..4100MiB:2MiB", "4 GiB and 4,098 MiB make the same guests"),
    ],
)
def test_sweeps_that_cannot_be(tmp_path: Path, sweep: str, words: str) -> None:
    output = tmp_path / "out.json"
    output.write_text("as it was")
    folder = tmp_path / "kept"
    run = hvshare("simulate", "--scale", "1/512", "--sweep", sweep, "-o", output, "--keep", folder)
    check_failed(run, 2, "--sweep", words)
    assert output.read_text() == "as it was"
    assert os.listdir(tmp_path) == ["out.json"]  # noqa: PTH208  # names alone


@pytest.mark.parametrize(("sent", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_interrupted(tmp_path: Path, sent: signal.Signals, code: int) -> None:
    output = tmp_path / "out.json"
    output.write_text("as it was")
    folder = tmp_path / "kept"
    # At this scale it would take a minute.
    command = [*COMMAND, "simulate", "windows7-x64", "--scale", "1/8", "-j", "2", "-o", str(output)]
    with subprocess.Popen(
        [*command, "--keep", str(folder)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        stdin=subprocess.DEVNULL,
        env=environment(),
        start_new_session=True,
    ) as process:
        deadline = time.monotonic() + 30
        while time.monotonic() < deadline and not list(folder.glob(".*.part")):
            time.sleep(0.005)
        assert list(folder.glob(".*.part"))
        started = time.monotonic()
        # As a terminal does: to every process of the group.
        os.killpg(process.pid, sent)
        output_bytes, errors = process.communicate(timeout=30)
        assert time.monotonic() - started < 5
    assert (process.returncode, output_bytes) == (code, b"")
    assert errors == (b"\nhvshare: interrupted\n" if sent == signal.SIGINT else b"")
    assert output.read_text() == "as it was"
    assert sorted(os.listdir(tmp_path)) == ["kept", "out.json"]  # noqa: PTH208  # names alone
    assert list(folder.glob(".*")) == []

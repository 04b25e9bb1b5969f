"""``hvshare simulate``: what it asks of experiments, and what it refuses."""

from __future__ import annotations

import csv
import dataclasses
import io
import json
from fractions import Fraction
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from click.testing import CliRunner, Result

from hvshare.cli import simulate_run
from hvshare.cli.simulate import simulate
from hvshare.cli.simulate_guests import guest_file_name
from hvshare.cli.synth import synth
from hvshare.errors import OutputError, PresetError
from hvshare.simulation.making import Request
from hvshare.synth.preset_file import load_preset
from tests.formats import pe_writer as pe
from tests.golden import simulation_results as made
from tests.integration.running import PROJECT

SCHEMA = json.loads((PROJECT / "docs/schema/simulate-1.json").read_text(encoding="utf-8"))
SMALL = ("windows-xp-x86", "--scale", "1/128", "--vms", "2", "--seeds", "2")


def invoke(*arguments: str) -> Result:
    return CliRunner().invoke(simulate, arguments)


def unusable(*arguments: str) -> str:
    """Say what ends a command with exit code 1; `hvshare.cli.running` makes it of such errors."""
    run = invoke(*arguments)
    assert isinstance(run.exception, PresetError), (run.output, run.exception)
    assert run.stdout == ""
    return str(run.exception)


def refused(*arguments: str) -> str:
    run = invoke(*arguments)
    assert run.exit_code == 2, (run.output, run.exception)
    assert run.stdout == ""
    return " ".join(run.stderr.split())


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Any, ...]]:
    """Put made-up results in the place of experiments, and keep what was asked of them."""
    calls: list[tuple[Any, ...]] = []

    def found(
        laboratory: object, experiment: str, sweep: str | None, *rest: object, waterfall: bool
    ) -> object:
        assert waterfall
        calls.append((laboratory, experiment, sweep, *rest))
        if sweep is not None:
            return made.sweep()
        results = {"factorial": made.simulation(), "series": made.series(), "clones": made.clones()}
        return results[experiment]

    monkeypatch.setattr(simulate_run, "_found", found)
    return calls


@pytest.mark.parametrize(
    ("arguments", "experiment", "answer"),
    [
        ((), "factorial", "Host large pages change most"),
        (("--experiment", "series"), "series", "Of 3 claims of the series"),
        (("--experiment", "clones"), "clones", "Half of the 2 MB frames"),
        (("--sweep", "vms=1..32"), "sweep", "From vms 1 to 32"),
    ],
)
def test_each_experiment_in_each_format(
    arguments: tuple[str, ...], experiment: str, answer: str, asked: list[tuple[Any, ...]]
) -> None:
    table = invoke(*arguments)
    assert (table.exit_code, table.stderr) == (0, "")
    assert table.stdout.startswith(answer)
    document = json.loads(invoke(*arguments, "--json").stdout)
    jsonschema.validate(document, SCHEMA)
    assert document["experiment"] == experiment
    as_csv = invoke(*arguments, "--format", "csv")
    rows = list(csv.DictReader(io.StringIO(as_csv.stdout)))
    assert len(rows) == {"factorial": 16 + 9 + 5, "series": 10, "clones": 6, "sweep": 6}[experiment]
    # CSV has no place for caveats, so they are told beside it.
    assert "the guests follow presets" in as_csv.stderr
    assert invoke(*arguments, "--format", "csv", "-q").stderr == ""
    assert len(asked) == 4


def test_defaults(asked: list[tuple[Any, ...]]) -> None:
    assert invoke().exit_code == 0
    laboratory, experiment, sweep, of_guest, told = asked[0]
    assert (laboratory.vms, laboratory.seeds, laboratory.jobs) == (4, (1, 2, 3), None)
    assert (experiment, sweep, told) == ("factorial", None, {})
    assert of_guest == simulate_run.Asked(None, Fraction(1, 16), None, None, None, None, None)


def test_options_reach_the_experiment(asked: list[tuple[Any, ...]]) -> None:
    run = invoke(
        "linux-x64", "--vms", "8", "--seeds", "2", "--template", "5", "--scale", "0.25", "--memory", "4GiB",
        "--fragmentation", "1/3", "--apps", "100M", "--prefetch", "0.5", "--guest-large-pages", "0",
        "-j", "1",
    )  # fmt: skip
    assert run.exit_code == 0
    laboratory, _experiment, _sweep, of_guest, told = asked[0]
    assert (laboratory.vms, laboratory.seeds, laboratory.jobs) == (8, (5, 6), 1)
    assert of_guest == simulate_run.Asked(
        "linux-x64", Fraction(1, 4), 4 << 30, Fraction(1, 3), 100 << 20, Fraction(1, 2), 0
    )
    assert told == {
        "memory": "4.0 GiB", "apps": "100.0 MiB", "guest-large-pages": "0 B", "prefetch": 0.5,
        "fragmentation": 1 / 3,
    }  # fmt: skip


def test_a_request_is_scaled_as_a_whole() -> None:
    preset = load_preset("windows7-x64")
    of_preset = simulate_run._request(simulate_run.Asked(None, Fraction(1, 16), None, None, None, None, None))
    assert of_preset.memory_bytes == preset.memory // 16
    assert of_preset.fragmentation == preset.fragmentation
    given = simulate_run._request(
        simulate_run.Asked("linux-x64", Fraction(1, 16), 1 << 30, Fraction(0), 64 << 20, "off", 32 << 20)
    )
    assert (given.memory_bytes, given.apps, given.guest_large_pages) == (64 << 20, 4 << 20, 2 << 20)
    # Applications allocate pages, and no 2 MB at the least.
    small = simulate_run._request(
        simulate_run.Asked("linux-x64", Fraction(1, 64), None, None, 1 << 20, None, None)
    )
    assert (small.apps, small.guest_large_pages) == (16 << 10, 0)
    assert not given.fragmentation
    assert (given.prefetch, given.preset.name) == ("off", "linux-x64")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--vms", "0"), ("--vms",)),
        (("--seeds", "0"), ("--seeds",)),
        (("--scale", "0"), ("--scale", "'0' is no number above 0 and up to 1")),
        (("--scale", "17/16"), ("--scale", "'17/16' is no number above 0 and up to 1")),
        (("--scale", "1/0"), ("--scale", "'1/0' is no number above 0")),
        (("--scale", "nan"), ("--scale", "'nan' is no number above 0")),
        (("--fragmentation", "1.5"), ("--fragmentation", "from 0 to 1")),
        (("--memory", "3M"), ("--memory", "multiple of 2 MB")),
        (("--memory", "0"), ("--memory", "multiple of 2 MB")),
        (("--memory", "much"), ("--memory", "no size")),
        (("--guest-large-pages", "3M"), ("--guest-large-pages", "multiple of 2 MB")),
        (("--guest-large-pages", "16M"), ("16.0 MiB at a scale of 1/16", "less than 2 MB")),
        (("windows-xp-x86", "--sweep", "aslr=off,on"), ("--sweep aslr", "windows-xp-x86 has none")),
        (("--sweep", "memory=3MiB"), ("--sweep", "3MiB is no multiple of 2 MB")),
        (("--sweep", "apps=1K,2K"), ("1.0 KiB and 2.0 KiB", "the same guests")),
        (("--apps", "-1"), ("--apps",)),
        (("--prefetch", "2"), ("--prefetch", "from 0 to 1")),
        (("--prefetch", "readahead"), ("--prefetch", "superfetch")),
        (("--prefetch", "off"), ("--prefetch", "off")),
        (("--prefetch", "0"), ("--prefetch", "off")),
        (("--experiment", "other"), ("--experiment",)),
        (("linux-x64", "--experiment", "series"), ("PRESET", "series")),
        (("--memory", "1G", "--experiment", "series"), ("--memory", "series")),
        (("--guest-large-pages", "1G", "--experiment", "series"), ("--guest-large-pages", "series")),
        (("--experiment", "clones", "--sweep", "vms=1..2"), ("--sweep", "clones")),
        (("--vms", "4", "--sweep", "vms=1..2"), ("--vms", "sweep")),
        (("--guest-large-pages", "1G", "--sweep", "guest-large-pages=0..1G:1G"), ("--guest-large-pages",)),
        (("--no-waterfall", "--sweep", "vms=1..2"), ("--waterfall",)),
        (("--no-waterfall", "--experiment", "series"), ("--waterfall",)),
        (("--sweep", "colour=1..2"), ("--sweep", "colour")),
        (("--sweep", "vms"), ("--sweep vms", "no values")),
        (("--sweep", "prefetch=0..2:1"), ("--sweep", "too much")),
        (("--json", "--format", "csv"), ("--json",)),
    ],
)  # fmt: skip
def test_wrong_usage_names_what_is_wrong(arguments: tuple[str, ...], words: tuple[str, ...]) -> None:
    message = refused(*arguments)
    assert [word for word in words if word not in message] == []


@pytest.mark.parametrize("given", ["-0.1", "3/2", "1/0", "", "nan", "half", "[b]1", "1e400", "1e-2000000000"])
def test_a_fraction_is_refused_as_synth_refuses_it(given: str) -> None:
    message = refused("--fragmentation", given)
    run = CliRunner().invoke(synth, ["linux-x64", "--fragmentation", given])
    assert (run.exit_code, run.stdout) == (2, "")
    assert message.endswith(f"{given!r} is no number from 0 to 1, such as 0.25 or 1/4.")
    assert " ".join(run.stderr.split()).partition("Error: ")[2] == message.partition("Error: ")[2]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("windows-95",), ("windows-95", "windows7-x64")),
        (("./no-such.toml",), ("./no-such.toml",)),
        (("--images", "./no-such-folder", *SMALL), ("./no-such-folder",)),
    ],
)
def test_an_input_that_cannot_be_used_is_named(arguments: tuple[str, ...], words: tuple[str, ...]) -> None:
    message = unusable(*arguments)
    assert [word for word in words if word not in message] == []


def test_more_demanded_than_memory_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    output = tmp_path / "out.json"
    message = unusable(*SMALL[:3], "--apps", "64GiB", "--sweep", "vms=1", "--json", "-o", str(output))
    assert "need" in message
    assert list(tmp_path.iterdir()) == []


def test_the_result_can_lie_beside_the_guests(tmp_path: Path) -> None:
    folder = tmp_path / "not" / "yet"
    output = folder / "out.json"
    run = invoke(
        *SMALL[:3], "--seeds", "1", "--sweep", "vms=1", "--keep", str(folder), "--json", "-o", str(output)
    )
    assert run.exit_code == 0, run.exception
    assert json.loads(output.read_text())["experiment"] == "sweep"
    assert len(list(folder.iterdir())) == 2


def test_a_wrong_key_of_a_preset_is_named(tmp_path: Path) -> None:
    preset = tmp_path / "mine.toml"
    text = (PROJECT / "hvshare/synth/presets/linux-x64.toml").read_text(encoding="utf-8")
    preset.write_text(text.replace("fragmentation", "fragmentatoin", 1), encoding="utf-8")
    assert "fragmentatoin" in unusable(str(preset))


def test_a_folder_for_guests_that_cannot_be_is_named(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.touch()
    run = invoke(*SMALL[:3], "--sweep", "vms=1", "--keep", str(file))
    assert isinstance(run.exception, OutputError)
    assert str(file) in str(run.exception)
    assert run.stdout == ""
    assert invoke(*SMALL[:3], "--sweep", "vms=0", "--keep", str(tmp_path / "none")).exit_code == 2
    assert list(tmp_path.iterdir()) == [file]


def test_file_names_tell_guests_apart() -> None:
    request = Request.of(load_preset("windows7-x64"))
    others: list[dict[str, Any]] = [
        {"vm": 2}, {"template": 2}, {"aslr": False}, {"prefetch": "off"}, {"prefetch": Fraction(1, 3)},
        {"memory_bytes": 2 << 20}, {"guest_large_pages": 2 << 20}, {"apps": 2 << 20},
        {"fragmentation": Fraction(1, 7)}, {"diversity": Fraction(1, 7)},
    ]  # fmt: skip
    names = {guest_file_name(dataclasses.replace(request, **other)) for other in ({}, *others)}
    assert len(names) == 1 + len(others)
    assert [name for name in names if "/" in name or not name.startswith("windows7-x64_seed")] == []
    assert max(map(len, names)) < 255


def test_a_sweep_over_guests_that_are_made(tmp_path: Path) -> None:
    run = invoke(*SMALL[:3], "--seeds", "2", "--sweep", "vms=1,2", "--json", "--keep", str(tmp_path / "kept"))
    assert (run.exit_code, run.stderr) == (0, ""), run.exception
    document = json.loads(run.stdout)
    jsonschema.validate(document, SCHEMA)
    alone, together = document["points"]
    # One VM has none to share with; a second one of the template has.
    assert alone["saved_inter_4k"]["highest"] == 0
    assert together["saved_inter_4k"]["lowest"] > 0
    kept = sorted((tmp_path / "kept").iterdir())
    assert len(kept) == 4
    assert {path.stat().st_size for path in kept} == {document["memory_bytes"]}
    # An independent count over the files that were kept: by bytes, without digests.
    for point, vms in ((alone, 1), (together, 2)):
        shares = []
        for seed in (1, 2):
            files = [path for path in kept if f"_seed{seed}_" in path.name and int(vm_of(path)) <= vms]
            pages = [page for path in files for page in pages_of(path)]
            shares.append(Fraction(len(pages) - len(set(pages)), len(pages)))
        assert point["saved_4k"]["lowest"] == float(min(shares))
        assert point["saved_4k"]["highest"] == float(max(shares))


def vm_of(path: Path) -> str:
    return path.name.partition("_vm")[2].partition("_")[0]


def pages_of(path: Path) -> list[bytes]:
    content = path.read_bytes()
    return [content[start : start + 4096] for start in range(0, len(content), 4096)]


def test_clones_of_a_guest_that_is_made() -> None:
    run = invoke(*SMALL, "--experiment", "clones", "--json")
    assert run.exit_code == 0, run.exception
    document = json.loads(run.stdout)
    jsonschema.validate(document, SCHEMA)
    first, last = document["points"][0], document["points"][-1]
    assert (first["pages_written"], first["shared_frames"]["lowest"]) == (0, 1.0)
    assert last["shared_frames"]["highest"] == 0
    assert 0 < document["half_life_pages"] < last["pages_written"]


def test_a_factorial_of_guests_that_are_made() -> None:
    run = invoke("windows7-x64", "--scale", "1/256", "--vms", "2", "--seeds", "1", "--json")
    assert run.exit_code == 0, run.exception
    document = json.loads(run.stdout)
    jsonschema.validate(document, SCHEMA)
    assert len(document["cells"]) == 16
    assert len(document["effects"]) == 15 * 4
    for response in ("saved", "saved_zero", "saved_self", "saved_inter"):
        on, off = (
            [cell[response]["mean"] for cell in document["cells"] if cell["levels"]["prefetch"] is level]
            for level in (True, False)
        )
        effect = next(
            each
            for each in document["effects"]
            if (each["factors"], each["response"]) == (["prefetch"], response)
        )
        assert effect["mean"] == pytest.approx(sum(on) / 8 - sum(off) / 8, abs=1e-12)
    # The waterfall is of the guests with all on: its last step is what the table has of them at 2 MB.
    left = document["waterfall"][-1]
    last = document["cells"][-1]
    assert (left["factor"], all(last["levels"].values())) == ("left", True)
    assert left["upper_bytes"] == round(last["saved"]["mean"] * last["memory_bytes"])


def test_libraries_are_taken_from_files(tmp_path: Path) -> None:
    pages = 8
    folder = tmp_path / "libraries"
    folder.mkdir()
    for number in range(3):
        code = bytes((number * 7 + place * 13) % 251 + 1 for place in range(pages * 4096))
        fields = [(0x1000 + page * 4096 + 16, pe.HIGHLOW) for page in range(pages)]
        text = pe.PeSection(b".text", code, pe.CODE)
        data = pe.pe_file([text], fields)
        (folder / f"library{number}.dll").write_bytes(data)
    (folder / "readme.txt").write_text("no library")
    command = (*SMALL[:3], "--seeds", "1", "--sweep", "vms=2")
    run = invoke(*command, "--json", "--images", str(folder), "--keep", str(tmp_path / "kept"))
    assert run.exit_code == 0, run.exception
    assert run.stderr.count("1 files left out: no program or library") == 1
    assert json.loads(run.stdout)["settings"] == {"images": str(folder)}
    # What a page of a library holds beside its one address is in the guests, and only with --images.
    mark = bytes((13 * place) % 251 + 1 for place in range(64, 4096))
    kept = [path.read_bytes() for path in (tmp_path / "kept").iterdir()]
    assert [mark in content for content in kept] == [True, True]
    assert invoke(*command, "--keep", str(tmp_path / "without")).exit_code == 0
    without = [path.read_bytes() for path in (tmp_path / "without").iterdir()]
    assert [mark in content for content in without] == [False, False]

"""Where ``hvshare synth`` and ``hvshare simulate`` write to: not over what they read, nor twice there."""

from __future__ import annotations

import json
import os
import resource
import struct
import tomllib
from pathlib import Path

import numpy as np
import pytest

from tests.formats import pe_writer as pe
from tests.formats.pe_writer import PeSection, pe_file
from tests.integration.running import check_failed, hvshare
from tests.integration.test_synth_command import (
    PRESETS,
    TINY,
    check_refused,
    contents,
    here,
    made_here,
    names,
    shell,
)
from tests.oracle import PAGE

SWEEP = ("--scale", "1/512", "--vms", "2", "--seeds", "1", "--sweep", "aslr=off,on", "-q")
FEW_BYTES = 2 << 30
"""Of address space: what would read or plan without end ends there."""


def little_memory() -> None:
    resource.setrlimit(resource.RLIMIT_AS, (FEW_BYTES, FEW_BYTES))


def a_library(key: int, pages: int = 8) -> bytes:
    text = bytes((key * 7 + place * 13) % 251 + 1 for place in range(pages * PAGE))
    fields = [(PAGE + page * PAGE + 16, pe.HIGHLOW) for page in range(pages)]
    return pe_file([PeSection(b".text", text, pe.CODE)], fields)


def image_bytes(file: bytes) -> int:
    """Read SizeOfImage of a PE file."""
    (at,) = struct.unpack_from("<I", file, 60)
    return int(struct.unpack_from("<I", file, at + 80)[0])


@pytest.fixture
def preset(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> bytes:
    """Put a preset in the working directory, under three names."""
    monkeypatch.chdir(tmp_path)
    text = (PRESETS / "windows7-x86.toml").read_bytes()
    Path("mine.toml").write_bytes(text)
    Path("link").symlink_to("mine.toml")
    Path("hard").hardlink_to("mine.toml")
    return text


@pytest.mark.parametrize("name", ["mine.toml", "link", "hard"])
@pytest.mark.parametrize(
    "arguments",
    [
        ("synth", "./mine.toml", "--scale", "1/512", "-o"),
        ("synth", "./mine.toml", "--scale", "1/512", "-o", "new", "--truth"),
        ("synth", "./mine.toml", "--scale", "1/512", "-o", "new", "--disk"),
        ("synth", "./mine.toml", "--show-preset", "-o"),
        ("simulate", "./mine.toml", *SWEEP, "-o"),
    ],
)
def test_a_preset_is_not_overwritten(
    tmp_path: Path, preset: bytes, arguments: tuple[str, ...], name: str
) -> None:
    check_refused(here(*arguments, name), 1, [f"{name}: it is the preset; name another"], tmp_path, {
        "mine.toml": preset, "link": preset, "hard": preset,
    })  # fmt: skip
    assert Path("link").is_symlink()


def test_nothing_is_added_to_a_preset(tmp_path: Path, preset: bytes) -> None:
    for line in (
        "hvshare synth ./mine.toml --scale 1/512 >> mine.toml",
        "hvshare synth mine.toml --scale 1/512 -o new --disk - >> link",
    ):
        code, _, errors = shell(line)
        assert (code, errors.count(b"standard output: it is the preset; ")) == (1, 1), errors
    assert contents(tmp_path) == {"mine.toml": preset, "link": preset, "hard": preset}


def test_a_file_that_is_called_as_a_preset_of_the_package_is_none(tmp_path: Path, preset: bytes) -> None:
    Path("windows7-x86").write_bytes(b"as it was")
    image = made_here(tmp_path / "windows7-x86", *TINY)
    assert image == made_here(tmp_path / "other", *TINY)


@pytest.fixture
def libraries(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, bytes]:
    """Put libraries into a folder, and other names of it and of them beside it."""
    monkeypatch.chdir(tmp_path)
    folder = Path("lib")
    (folder / "below").mkdir(parents=True)
    for number in range(3):
        (folder / f"{number}.dll").write_bytes(a_library(number))
    Path("away.dll").write_bytes(a_library(4))
    (folder / "away.dll").symlink_to(Path("../away.dll"))
    Path("hard.dll").hardlink_to(folder / "0.dll")
    Path("same").symlink_to("lib")
    return everything(tmp_path)


def everything(folder: Path) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


INSIDE = (
    "lib/0.dll",
    "lib/new.raw",
    "lib/below/new.raw",
    "same/new.raw",
    "same/below/../new.raw",
    "hard.dll",
)


@pytest.mark.parametrize("target", [*INSIDE, "away.dll"])
def test_libraries_are_not_overwritten(tmp_path: Path, libraries: dict[str, bytes], target: str) -> None:
    told = f"{target}: it belongs to lib, where --images takes libraries from; name another place for "
    for command, *options in (
        ("synth", *TINY, "-o"),
        ("synth", *TINY, "-o", "new", "--truth"),
        ("synth", *TINY, "-o", "new", "--disk"),
        ("synth", "windows7-x86", "--show-preset", "-o"),
        ("simulate", "windows7-x86", *SWEEP, "-o"),
    ):
        check_failed(here(command, "--images", "lib", *options, target), 1, told + options[-1])
    assert everything(tmp_path) == libraries


@pytest.mark.parametrize("folder", ["lib", "lib/", "lib/new", "same/below", "lib/below/new/new"])
def test_guests_are_not_kept_among_libraries(
    tmp_path: Path, libraries: dict[str, bytes], folder: str
) -> None:
    run = here("simulate", "windows7-x86", *SWEEP, "--images", "lib", "--keep", folder)
    check_failed(run, 1, f"{folder}: it belongs to lib", "name another place for --keep")
    assert everything(tmp_path) == libraries
    assert names(tmp_path / "lib") == ["0.dll", "1.dll", "2.dll", "away.dll", "below"]
    assert names(tmp_path / "lib/below") == []


def test_outside_of_the_folder_of_libraries(tmp_path: Path, libraries: dict[str, bytes]) -> None:
    old = tmp_path / "old.raw"
    old.write_bytes(b"as it was")
    image = made_here(old, *TINY, "--images", "lib", "-q")
    assert image == made_here(tmp_path / "library", *TINY, "--images", "same", "-q")
    assert everything(tmp_path) == {**libraries, str(old): image, str(tmp_path / "library"): image}


def test_one_place_for_two_things(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("old").write_bytes(b"as it was")
    Path("hard").hardlink_to("old")
    os.mkfifo("pipe")
    for options in (
        ("-o", "old", "--truth", "hard"),
        ("-o", "new", "--truth", "old", "--disk", "hard"),
        ("-o", "pipe", "--disk", "./pipe"),
        ("--truth", "-"),
        ("-o", "-", "--disk", "/dev/stdout"),
        ("-o", "new", "--truth", "-", "--disk", "-"),
    ):
        check_failed(here("synth", *TINY, *options), 2, "a name of its own")
    code, _, errors = shell(f"hvshare synth {' '.join(TINY)} --disk old >> hard")
    assert (code, b"a name of its own" in errors) == (2, True)
    assert contents(tmp_path) == {"old": b"as it was", "hard": b"as it was"}
    run = here("synth", *TINY, "-o", "/dev/null", "--truth", "/dev/null", "--disk", "/dev/null")
    assert (run.returncode, run.stdout, run.stderr) == (0, "", "")
    assert names(tmp_path) == ["hard", "old", "pipe"]


def test_a_report_and_a_guest_in_one_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    run = here("simulate", "windows7-x86", *SWEEP, "--keep", "kept")
    assert run.returncode == 0, run.stderr
    before = contents(tmp_path / "kept")
    target = max(before)
    run = here("simulate", "windows7-x86", *SWEEP, "--keep", "kept", "-o", f"./kept/../kept/{target}")
    check_failed(run, 1, f"kept/{target}: the report goes there, too; name another file for -o")
    assert contents(tmp_path / "kept") == before


def test_names_of_standard_output(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    made_here(tmp_path / "image", *TINY, "--truth", tmp_path / "truth", "--disk", tmp_path / "disk")
    files = contents(tmp_path)
    line = f"hvshare synth {' '.join(TINY)} -o again"
    for options, file in (
        ("-o -", "image"), ("-o /dev/stdout", "image"), ("--truth -", "truth"), ("--disk -", "disk"),
        ("--disk /dev/stdout", "disk"),
    ):  # fmt: skip
        assert shell(f"{line} {options} | cat") == (0, files[file], b""), options
    code, output, errors = shell("hvshare analyze image --json -o - | cat")
    assert (code, output[:1], errors) == (0, b"{", b"")
    # What the shell has put in the file stays.
    assert shell(f"(echo before; {line} -o /dev/stdout) > file") == (0, b"", b"")
    assert Path("file").read_bytes() == b"before\n" + files["image"]
    assert names(tmp_path) == ["again", "disk", "file", "image", "truth"]


def test_pipes_that_the_shell_names(tmp_path: Path) -> None:
    arguments = ("--truth", tmp_path / "truth", "-o", tmp_path / "image")
    run = here("synth", *TINY, *arguments)
    assert run.returncode == 0
    line = f'hvshare synth {" ".join(TINY)} --truth >(cat > "$1/piped") > "$1/again"; wait $!'
    assert shell(line, tmp_path) == (0, b"", b"")
    assert (tmp_path / "piped").read_bytes() == (tmp_path / "truth").read_bytes()
    assert (tmp_path / "again").read_bytes() == (tmp_path / "image").read_bytes()


def test_a_report_in_the_folder_of_guests_that_is_not_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    arguments = (
        "simulate",
        "windows7-x86",
        *SWEEP,
        "--keep",
        "new/kept",
        "-o",
        "new/kept/report.json",
        "--json",
    )
    check_failed(here(*arguments, "--apps", "100GiB"), 1, "applications need", "give more memory")
    assert names(tmp_path) == []
    run = here(*arguments)
    assert (run.returncode, run.stdout, run.stderr) == (0, "", "")
    assert [name.endswith(".raw") for name in names(tmp_path / "new/kept")] == [False, *[True] * 4]
    assert (tmp_path / "new/kept/report.json").read_bytes()[:1] == b"{"


@pytest.mark.parametrize("taken", [1, 3])
def test_how_much_of_the_libraries_is_real(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, taken: int
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("lib").mkdir()
    with (PRESETS / "windows7-x86.toml").open("rb") as file:
        amount, unit = tomllib.load(file)["disk"]["libraries"].split()
    wanted = int(amount) * {"MiB": 1 << 20, "GiB": 1 << 30}[unit] // 512
    found = [a_library(number, wanted // PAGE // 4) for number in range(taken)]
    for number, library in enumerate(found):
        Path(f"lib/{number}.dll").write_bytes(library)
    for number in range(2):
        Path(f"lib/large{number}.dll").write_bytes(a_library(number, wanted // PAGE + 1))
    size = sum(map(image_bytes, found))
    shown = f"{size >> 10}.0 KiB" if size < 1 << 20 else f"{size / (1 << 20):.1f} MiB"
    told = f"lib: libraries taken: {taken}, {shown} of the {wanted / (1 << 20):.1f} MiB that the preset has; "
    told += "too large for what was left: 2"
    is_little = 2 * size < wanted
    assert is_little == (taken == 1)
    command = ("synth", *TINY, "--images", "lib", "-o", "one.raw")
    for options in ((), ("-v",), ("-q",)):
        run = here(*command, *options)
        assert run.returncode == 0
        lines = [line for line in run.stderr.splitlines() if "libraries taken" in line]
        if is_little and options != ("-q",):
            (line,) = lines
            assert line.startswith(f"hvshare: warning: {told}; ")
            assert "name a folder that has more" in line
        else:
            assert lines == ([f"hvshare: {told}"] if options == ("-v",) else [])
    run = here("simulate", "windows7-x86", *SWEEP[:-1], "--images", "lib", "-o", "report")
    assert run.returncode == 0
    assert run.stderr.count(f"warning: {told}; ") == int(is_little)


def without_files(preset: str, *, own: bool = False) -> str:
    """Give a preset without a disk, or with nothing in the cache but files that no other guest has."""
    lines = []
    for line in (PRESETS / f"{preset}.toml").read_text(encoding="utf-8").splitlines():
        key = line.partition(" = ")[0]
        if key in ("image", "libraries", "installed", "text", "media", "records", "template"):
            lines.append(f'{key} = "0"' if '"' in line else f"{key} = 0")
        elif key == "own" and not own:
            lines.append('own = "0"')
        else:
            lines.append(f"{key} = 0" if key in ("library-files", "installed-programs") else line)
    return "\n".join(lines)


@pytest.mark.parametrize("preset", ["windows7-x86", "linux-x64"])
def test_without_a_disk_the_cache_holds_what_no_other_guest_has(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, preset: str
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("bare.toml").write_text(without_files(preset, own=True), encoding="utf-8")
    cached = []
    for vm in ("1", "2"):
        run = here("synth", "./bare.toml", "--scale", "1/64", "--vm", vm, "-q", "-o", vm, "--truth", "truth")
        assert (run.returncode, run.stderr) == (0, "")
        with np.load("truth") as truth:
            owners = json.loads(str(truth["about"]))["owners"]
            cached.append(set(truth["content"][truth["owner"] == owners.index("file cache")].tolist()))
    assert len(cached[0]) == len(cached[1]) > 0
    assert not cached[0] & cached[1]


def test_an_empty_disk_is_an_empty_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("bare.toml").write_text(without_files("windows-xp-x86"), encoding="utf-8")
    for jobs in ("1", "2"):
        run = here("synth", "./bare.toml", "--scale", "1/64", "-j", jobs, "-o", "a.raw", "--disk", "d.raw")
        assert (run.returncode, run.stdout) == (0, "")
        (line,) = run.stderr.splitlines()
        assert line.startswith("hvshare: warning: d.raw: the disk of windows-xp-x86 is empty; ")
        assert [Path(name).stat().st_size for name in ("a.raw", "d.raw")] == [2 << 30 >> 6, 0]
    # What the warning says of it.
    check_failed(here("erosion", "prefetch", "--disk", "d.raw", "a.raw"), 1, "d.raw: it is empty")


@pytest.mark.skipif(not Path("/dev/zero").exists(), reason="reads a device that has no end")
def test_what_has_no_end_is_no_preset(tmp_path: Path) -> None:
    for command in ("synth", "simulate"):
        run = hvshare(command, "/dev/zero", "-o", tmp_path / "new", preexec_fn=little_memory)
        check_failed(run, 1, "/dev/zero: it is too large for a preset: more than 1.0 MiB; check the name")
    assert names(tmp_path) == []


def test_a_preset_out_of_a_pipe(tmp_path: Path, preset: bytes) -> None:
    code, output, errors = shell("hvshare synth <(cat mine.toml) --show-preset")
    assert (code, output, errors) == (0, preset, b"")
    image = made_here(tmp_path / "one.raw", "windows7-x86", "--scale", "1/512")
    assert shell("cat mine.toml | hvshare synth /dev/stdin --scale 1/512") == (0, image, b"")


def test_a_guest_too_large_for_this_machine(tmp_path: Path) -> None:
    run = hvshare("synth", *TINY, "--memory", "16TiB", "-o", tmp_path / "new", preexec_fn=little_memory)
    check_failed(run, 1, "out of memory", "plan so large a guest; give the guest less --memory")
    assert "images" not in run.stderr
    assert names(tmp_path) == []

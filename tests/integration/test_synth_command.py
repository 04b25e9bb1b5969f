"""``hvshare synth`` as a user has it: the same bytes however they are written, and nothing or all of them."""

from __future__ import annotations

import contextlib
import io
import json
import os
import resource
import shlex
import signal
import subprocess
import time
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hvshare.cli.running import run as run_command
from hvshare.synth.owners import Owner
from tests.formats import pe_writer as pe
from tests.formats.pe_writer import PeSection, pe_file
from tests.integration.running import COMMAND, PROJECT, check_failed, environment, hvshare
from tests.oracle import PAGE, count

PRESETS = PROJECT / "hvshare/synth/presets"
TINY = ("windows7-x86", "--scale", "1/512")
IN_PARTS = ("windows7-x86", "--memory", "34MiB", "--scale", "1/512")
"""Two processes have a part each, and the second is a short one."""


def made(path: Path, *arguments: str | Path) -> bytes:
    """Make a guest in a file, and give its bytes."""
    run = hvshare("synth", *arguments, "-o", path)
    assert (run.returncode, run.stdout, run.stderr) == (0, "", "")
    return path.read_bytes()


def here(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    """Run the command without a process of its own, where there are many."""
    output, errors = (io.TextIOWrapper(io.BytesIO(), "utf-8", write_through=True) for _ in range(2))
    with contextlib.redirect_stdout(output), contextlib.redirect_stderr(errors):
        before = signal.getsignal(signal.SIGTERM)
        try:
            code = run_command([str(each) for each in arguments])
        finally:
            signal.signal(signal.SIGTERM, before)
    said = [
        each.buffer.getvalue().decode() for each in (output, errors) if isinstance(each.buffer, io.BytesIO)
    ]
    return subprocess.CompletedProcess(arguments, code, *said)


def made_here(path: Path, *arguments: str | Path) -> bytes:
    """Do what `made` does without a process of its own."""
    run = here("synth", *arguments, "-o", path)
    assert (run.returncode, run.stdout, run.stderr) == (0, "", "")
    return path.read_bytes()


def shell(line: str, *arguments: str | Path, env: dict[str, str] | None = None) -> tuple[int, bytes, bytes]:
    """Run a line of a shell, in which $1 and so on stand for the arguments; its output is bytes."""
    command = line.replace("hvshare", shlex.join(COMMAND))
    run = subprocess.run(
        ["bash", "-c", command, "bash", *map(str, arguments)],
        capture_output=True,
        stdin=subprocess.DEVNULL,
        env=env or environment(),
        timeout=60,
        check=False,
    )
    return run.returncode, run.stdout, run.stderr


def pages(image: bytes) -> list[bytes]:
    return [image[at : at + PAGE] for at in range(0, len(image), PAGE)]


def names(folder: Path) -> list[str]:
    """List all files of a folder, those that are begun among them."""
    return sorted(os.listdir(folder))  # noqa: PTH208  # names alone


def test_the_same_bytes_however_they_are_written(tmp_path: Path) -> None:
    image = made(tmp_path / "one.raw", *IN_PARTS, "-j", "1")
    assert len(image) == 34 << 20
    assert made(tmp_path / "two.raw", *IN_PARTS, "-j", "2") == image
    line = f"hvshare synth {shlex.join(IN_PARTS)}"
    for rest in ("-j 2 | cat", "-o - | cat"):
        assert shell(f"{line} {rest}") == (0, image, b"")
    assert shell(f'{line} -j 2 > "$1"', tmp_path / "three.raw") == (0, b"", b"")
    assert (tmp_path / "three.raw").read_bytes() == image


@pytest.mark.parametrize("sign", [">", ">>"])
def test_what_is_before_and_behind_it_in_a_file_stays(tmp_path: Path, sign: str) -> None:
    target = tmp_path / "all"
    if sign == ">>":
        target.write_bytes(b"first ")
    line = f"hvshare synth {shlex.join(IN_PARTS)} -j 2"
    code, _, errors = shell(f'(echo before; {line}; {line}; echo behind) {sign} "$1"', target)
    assert (code, errors) == (0, b"")
    image = made(tmp_path / "one.raw", *IN_PARTS)
    begin = b"first before\n" if sign == ">>" else b"before\n"
    assert target.read_bytes() == begin + image + image + b"behind\n"


@pytest.mark.parametrize("preset", ["linux-x64", "windows-xp-x86", "windows7-x64"])
def test_what_is_piped_into_analyze_is_what_a_file_holds(tmp_path: Path, preset: str) -> None:
    image = made(tmp_path / "one.raw", preset, "--scale", "1/512")
    code, output, _ = shell(f"hvshare synth {preset} --scale 1/512 | hvshare analyze --json -")
    assert code == 0
    piped = json.loads(output)
    for frame in (1, 512):
        counted = count([pages(image)], frame)
        assert {name: piped["pooled"][str(frame * PAGE)][name] for name in counted} == counted
    assert piped["pooled"]["4096"]["distinct"] > 100


@pytest.mark.parametrize("preset", ["linux-x64", "windows-xp-x86"])
def test_a_copy_of_a_preset_makes_the_same_guest(tmp_path: Path, preset: str) -> None:
    text = (PRESETS / f"{preset}.toml").read_text(encoding="utf-8")
    assert hvshare("synth", preset, "--show-preset").stdout == text
    copy = tmp_path / "copy.toml"
    run = here("synth", preset, "--show-preset", "-o", copy)
    assert (run.returncode, run.stdout, run.stderr) == (0, "", "")
    assert here("synth", copy, "--show-preset").stdout == text
    image = made_here(tmp_path / "one.raw", preset, "--scale", "1/512")
    assert made(tmp_path / "copy.raw", copy, "--scale", "1/512") == image
    (line,) = [line for line in text.splitlines() if line.startswith("fragmentation")]
    copy.write_text(text.replace(line, "fragmentation = 1"), encoding="utf-8")
    changed = made_here(tmp_path / "changed.raw", copy, "--scale", "1/512")
    assert changed != image
    assert changed == made_here(tmp_path / "asked.raw", preset, "--scale", "1/512", "--fragmentation", "1")


def test_each_seed_and_factor_makes_another_guest(tmp_path: Path) -> None:
    factors = (
        (), ("--template", "2"), ("--vm", "2"), ("--boot", "2"), ("--no-aslr",), ("--prefetch", "off"),
        ("--prefetch", "1/2"), ("--prefetch", "preload"), ("--guest-large-pages", "2MiB", "--memory", "8MiB"),
        ("--apps", "1MiB"), ("--memory", "8MiB"), ("--fragmentation", "1"),
    )  # fmt: skip
    images = [made_here(tmp_path / "one.raw", *TINY, *factor) for factor in factors]
    assert len(set(images)) == len(factors)
    for default in (
        ("--template", "1", "--vm", "1", "--boot", "1"), ("--aslr", "--memory", "4MiB"),
        ("--prefetch", "superfetch"), ("--apps", "0", "--guest-large-pages", "0"),
    ):  # fmt: skip
        assert made_here(tmp_path / "two.raw", *TINY, *default) == images[0]
    assert made(tmp_path / "two.raw", *TINY) == images[0]


def truth(path: Path) -> dict[str, Any]:
    with np.load(path, allow_pickle=False) as members:
        return dict(members)


@pytest.mark.parametrize("preset", ["windows7-x86", "linux-x64"])
def test_truth_is_what_the_bytes_show(tmp_path: Path, preset: str) -> None:
    arguments = (preset, "--scale", "1/256", "--boot", "3", "--prefetch", "off")
    image = made(tmp_path / "on.raw", *arguments, "--truth", tmp_path / "on.npz")
    assert image == made_here(tmp_path / "again.raw", *arguments)
    fixed = made_here(tmp_path / "off.raw", *arguments, "--no-aslr", "--truth", tmp_path / "off.npz")
    on, off = truth(tmp_path / "on.npz"), truth(tmp_path / "off.npz")
    moved = [one != other for one, other in zip(pages(image), pages(fixed), strict=True)]
    assert on["aslr"].tolist() == moved
    assert any(moved)
    assert not off["aslr"].any()
    for name in ("owner", "content"):
        assert on[name].tolist() == off[name].tolist()
    # Pages have the same digest where they would be alike without ASLR, and nowhere else.
    pairs = Counter(zip(pages(fixed), on["content"].tolist(), strict=True))
    assert len(pairs) == len({page for page, _ in pairs}) == len({digest for _, digest in pairs})
    free = on["owner"] == Owner.FREE
    assert free.any()
    assert not any(page.strip(b"\0") for page, is_free in zip(pages(image), free, strict=True) if is_free)
    about = json.loads(str(on["about"]))
    assert about["owners"] == [owner.title for owner in Owner]
    assert (about["preset"], about["boot"], about["aslr"], about["memory_bytes"]) == (
        preset, 3, True, len(image),
    )  # fmt: skip


def test_truth_does_not_depend_on_processes(tmp_path: Path) -> None:
    found = []
    for jobs in ("1", "2"):
        image = made(tmp_path / f"{jobs}.raw", *IN_PARTS, "-j", jobs, "--truth", tmp_path / f"{jobs}.npz")
        found.append((image, {name: each.tolist() for name, each in truth(tmp_path / f"{jobs}.npz").items()}))
    assert found[0] == found[1]
    assert len(found[0][1]["owner"]) == (34 << 20) // PAGE


def test_the_disk_is_where_the_file_cache_comes_from(tmp_path: Path) -> None:
    image, disk, known = (tmp_path / name for name in ("one.raw", "disk.raw", "one.npz"))
    made_here(image, *TINY, "--memory", "8MiB", "--disk", disk, "--truth", known)
    for jobs in ("1", "2"):
        made(tmp_path / "two.raw", *TINY, "--vm", "7", "-j", jobs, "--disk", tmp_path / "again.raw")
        assert (tmp_path / "again.raw").read_bytes() == disk.read_bytes()  # VMs of one template have one
    run = hvshare("erosion", "prefetch", "--disk", disk, "--json", "-q", image)
    assert (run.returncode, run.stderr) == (0, "")
    (vm,) = json.loads(run.stdout)["prefetch"]["disk"]["vms"]
    blocks = set(pages(disk.read_bytes())) - {bytes(PAGE)}
    on_disk = [page in blocks for page in pages(image.read_bytes())]
    assert vm["file_pages"]["pages"] == sum(on_disk)
    owners = truth(known)["owner"].tolist()
    prefetched = [found for found, owner in zip(on_disk, owners, strict=True) if owner == Owner.PREFETCHED]
    assert len(prefetched) > 100
    assert all(prefetched)


def test_names_are_data(tmp_path: Path) -> None:
    target = tmp_path / "x[/red].raw"
    target.parent.mkdir()
    made(target, *TINY, "--truth", tmp_path / "[b]truth", "--disk", tmp_path / ":x: disk")
    assert names(target.parent) == ["red].raw"]
    assert names(tmp_path) == [":x: disk", "[b]truth", "x["]
    run = hvshare("synth", *TINY, "-o", tmp_path / "[b]no" / "x[/red].raw")
    check_failed(run, 1, "/[b]no/x[/red].raw: ", "No such file")
    check_failed(hvshare("synth", "./[red]x.toml"), 1, "./[red]x.toml: ", "No such file")
    check_failed(hvshare("synth", *TINY, "--images", "a[/b]"), 1, "a[/b]: ", "No such file")


def test_quiet_says_nothing_and_verbose_what_memory_is_for(tmp_path: Path) -> None:
    # A memory all of whose blocks are broken up has no large page to give.
    scarce = (*TINY, "--memory", "16MiB", "--guest-large-pages", "2MiB", "--fragmentation", "1")
    wanted = environment(FORCE_COLOR="1", TERM="xterm")
    run = hvshare("synth", *scarce, "-v", "--progress", "-o", tmp_path / "one.raw", env=wanted)
    assert (run.returncode, run.stdout) == (0, "")
    assert "hvshare: warning: 0 of 1 large pages were to be had" in run.stderr
    told = [line.split(": ")[1] for line in run.stderr.splitlines() if line.count(": ") == 2]
    assert told[1:] == [owner.title for owner in Owner]
    assert "Making memory" in run.stderr
    assert "100%" in run.stderr
    loud = (tmp_path / "one.raw").read_bytes()
    assert made(tmp_path / "one.raw", *scarce, "-q", "--progress") == loud


def contents(folder: Path) -> dict[str, bytes]:
    """Read all files of a folder."""
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}


def check_refused(
    run: subprocess.CompletedProcess[str], code: int, words: list[str], folder: Path, before: dict[str, bytes]
) -> None:
    """Check that a command failed in a line that says why, and that files are as they were."""
    check_failed(run, code, *words)
    if code == 1:
        (line,) = run.stderr.splitlines()
        assert line.startswith("hvshare: error: ")
        assert "; " in line  # the next thing to do
    assert contents(folder) == before


TARGETS = ("-o", "old.raw", "--truth", "new.npz", "--disk", "new.raw")


@pytest.mark.parametrize(
    ("code", "arguments", "words"),
    [
        (1, ["windows-95"], ["windows-95: it is no preset", "windows7-x64"]),
        (1, ["./none.toml"], ["./none.toml: ", "No such file"]),
        (1, ["./old.raw"], ["./old.raw: it is no TOML"]),
        (1, [".//"], ["it cannot be read"]),
        (1, [*TINY, "--apps", "1GiB"], ["need 1.0 GiB", "memory is 4.0 MiB", "give more memory"]),
        (1, [*TINY, "--guest-large-pages", "1GiB"], ["need 1.0 GiB", "memory is 4.0 MiB"]),
        (1, ["windows7-x64", "--memory", "2MiB"], ["memory is 2.0 MiB", "smaller scale"]),
        (2, [*TINY, "--memory", "3MiB"], ["memory of 3,145,728 bytes", "a multiple of 2 MB"]),
        (2, [*TINY, "--memory", "0"], ["memory of 0 bytes", "a multiple of 2 MB"]),
        (2, [*TINY, "--memory", "32TiB"], ["up to 16.0 TiB"]),
        (2, [*TINY, "--memory", "much"], ["--memory", "'much' is no size"]),
        (2, [*TINY, "--fragmentation", "1.5"], ["--fragmentation", "is no number from 0 to 1"]),
        (2, [*TINY, "--fragmentation", "-0.1"], ["--fragmentation", "is no number from 0 to 1"]),
        (2, [*TINY, "--fragmentation", "nan"], ["--fragmentation", "'nan' is no number"]),
        (2, [*TINY, "--scale", "1/0"], ["--scale", "'1/0' is no number"]),
        (2, ["windows7-x86", "--scale", "0"], ["--scale", "'0' is no number above 0 and up to 16"]),
        (2, [*TINY, "--prefetch", "1.5"], ["'1.5'", "a fraction from 0 to 1"]),
        (2, [*TINY, "--prefetch", "readahead"], ["'readahead'", "superfetch, preload"]),
        (2, ["windows-xp-x86", "--aslr"], ["--aslr", "windows-xp-x86 has none", "aslr.kind"]),
        (2, [*TINY, "--boot", "-1"], ["--boot"]),
        (2, [*TINY, "--vm", str(1 << 64)], ["--vm"]),
        (2, [*TINY, "--jobs", "0"], ["--jobs"]),
        (2, [], ["Missing argument 'PRESET'"]),
        (1, [*TINY, "--images", "nowhere"], ["nowhere: it cannot be read (No such file", "check the name"]),
        (1, [*TINY, "--images", "old.raw"], ["old.raw: it is no directory", "name a directory"]),
        (1, [*TINY, "--images", "empty"], ["empty: ", "no file at all", "name a directory"]),
        (1, [*TINY, "--images", "damaged"], ["damaged: ", "for i386", "(damaged: 2)", "name a directory"]),
    ],
)
def test_bad_input_leaves_files_as_they_were(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int, arguments: list[str], words: list[str]
) -> None:
    (tmp_path / "old.raw").write_bytes(b"as it was")
    (tmp_path / "empty").mkdir()
    (tmp_path / "damaged").mkdir()
    whole = pe_file([PeSection(b".text", bytes(PAGE), pe.CODE)], [(PAGE, pe.HIGHLOW)])
    (tmp_path / "damaged" / "cut.dll").write_bytes(whole[:700])
    (tmp_path / "damaged" / "blocks.dll").write_bytes(
        pe_file([PeSection(b".text", bytes(PAGE), pe.CODE)], blocks=bytes([255]) * 64)
    )
    before = contents(tmp_path)
    monkeypatch.chdir(tmp_path)
    check_refused(here("synth", *arguments, *TARGETS), code, words, tmp_path, before)
    if arguments[:1] == ["windows-95"] or arguments[-1:] in (["3MiB"], ["damaged"]):
        check_refused(hvshare("synth", *arguments, *TARGETS), code, words, tmp_path, before)


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("[kernel]", "[kernel]\ncolour = 3", ["kernel.colour is an unknown key", "known here are image"]),
        ("fragmentation = ", "fragmentation = 1 + ", ["it is no TOML", "correct it there"]),
        ("fragmentation = ", "fragmentation = -", ["fragmentation: ", "no share", "from 0 to 1"]),
        ('memory = "', 'memory = "1 KiB" # "', ["memory is no multiple of 2 MB"]),
        ('architecture = "i386"', "", ["architecture"]),
        ("[kernel]", "[core]", ["core is an unknown key"]),
        ('name = "windows7-x86"', 'name = "\\u001b"', ["name: ", "is no text"]),
    ],
)
def test_a_preset_of_a_user_that_cannot_be_names_the_key(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, old: str, new: str, words: list[str]
) -> None:
    text = (PRESETS / "windows7-x86.toml").read_text(encoding="utf-8")
    assert old in text
    (tmp_path / "mine.toml").write_text(text.replace(old, new, 1), encoding="utf-8")
    (tmp_path / "old.raw").write_bytes(b"as it was")
    before = contents(tmp_path)
    monkeypatch.chdir(tmp_path)
    check_refused(here("synth", "./mine.toml", *TARGETS), 1, ["./mine.toml: ", *words], tmp_path, before)
    if "colour" in new:
        check_refused(hvshare("synth", "./mine.toml", *TARGETS), 1, words, tmp_path, before)


def test_files_of_a_folder_that_are_no_libraries_are_counted(tmp_path: Path) -> None:
    folder = tmp_path / "dlls"
    folder.mkdir()
    text = np.arange(8 * PAGE // 4, dtype=np.uint32).tobytes()
    good = pe_file([PeSection(b".text", text, pe.CODE)], [(PAGE + 64 * n, pe.HIGHLOW) for n in range(300)])
    (folder / "good.dll").write_bytes(good)
    (folder / "cut.dll").write_bytes(good[:700])
    (folder / "read[me].txt").write_text("no library")
    (folder / "without.dll").write_bytes(pe_file([PeSection(b".text", text, pe.CODE)], flags=pe.DLL | 1))
    run = hvshare("synth", *TINY, "--images", folder, "-o", tmp_path / "one.raw", "--truth", tmp_path / "t")
    assert (run.returncode, run.stdout) == (0, "")
    *skipped, little = run.stderr.splitlines()
    assert sorted(skipped) == [
        f"hvshare: warning: {folder}: 1 files left out: {reason}"
        for reason in ("damaged", "no program or library", "without relocations")
    ]
    assert little.startswith(f"hvshare: warning: {folder}: libraries taken: 1, 40.0 KiB of the ")
    image = (tmp_path / "one.raw").read_bytes()
    assert made_here(tmp_path / "two.raw", *TINY, "--images", folder, "-q", "-j", "2") == image
    # A page that holds no address of its own is in memory as it is in the file.
    assert text[6 * PAGE : 7 * PAGE] in pages(image)
    assert text[6 * PAGE : 7 * PAGE] not in pages(made_here(tmp_path / "two.raw", *TINY))


def test_one_file_for_two_things(tmp_path: Path) -> None:
    old = tmp_path / "old.raw"
    old.write_bytes(b"as it was")
    (tmp_path / "link").symlink_to(old)
    for options in (
        ("-o", old, "--truth", old),
        ("-o", old, "--disk", tmp_path / "link"),
        ("-o", tmp_path / "new", "--truth", tmp_path / "other", "--disk", tmp_path / "x" / ".." / "other"),
    ):
        check_failed(here("synth", *TINY, *options), 2, "a name of its own")
    assert old.read_bytes() == b"as it was"
    assert names(tmp_path) == ["link", "old.raw"]


@pytest.mark.parametrize("option", ["-o", "--truth", "--disk"])
def test_outputs_that_cannot_be_written(tmp_path: Path, option: str) -> None:
    old = tmp_path / "old.raw"
    old.write_bytes(b"as it was")
    others = {"-o": old, "--truth": tmp_path / "truth", "--disk": tmp_path / "disk"}
    for place, words in (
        ("/dev/full", "No space left"),
        (tmp_path, "it is a directory"),
        (tmp_path / "no" / "x", "No such"),
    ):
        options = [each for pair in (others | {option: place}).items() for each in pair]
        run = here("synth", *TINY, *options)
        check_failed(run, 1, f"{place}: ", words, "; ")
        assert len(run.stderr.splitlines()) == 1
        assert old.read_bytes() == b"as it was"
        assert names(tmp_path) == ["old.raw"]


@pytest.mark.parametrize("jobs", ["1", "2"])
def test_full_disk(tmp_path: Path, jobs: str) -> None:
    old = tmp_path / "old.raw"
    old.write_bytes(b"as it was")

    def little_room() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, 1 << 20))

    for options in (("-o", old), ("-o", tmp_path / "new", "--disk", tmp_path / "disk")):
        run = hvshare("synth", *IN_PARTS, "-j", jobs, *options, preexec_fn=little_room)
        check_failed(run, 1, f"{options[1]}: the result could not be written", "check the free space")
        assert len(run.stderr.splitlines()) == 1
    assert old.read_bytes() == b"as it was"
    assert names(tmp_path) == ["old.raw"]


def test_standard_output_that_is_full_or_that_nobody_reads(tmp_path: Path) -> None:
    line = f"hvshare synth {shlex.join(IN_PARTS)}"
    code, _, errors = shell(f"{line} >/dev/full")
    assert code == 1
    assert b"standard output: the result could not be written (No space left on device)" in errors
    assert len(errors.splitlines()) == 1
    code, output, errors = shell(
        f'{line} --truth "$1" | head -c 4096; exit "${{PIPESTATUS[0]}}"', tmp_path / "t"
    )
    assert (code, len(output), errors) == (141, 4096, b"")
    assert names(tmp_path) == []


def processes_of_group(group: int) -> list[int]:
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError, ValueError):
            fields = (entry / "stat").read_text().rpartition(")")[2].split()
            if int(fields[2]) == group and fields[0] != "Z":
                found.append(int(entry.name))
    return found


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="processes are found through /proc")
@pytest.mark.parametrize("jobs", [1, 2])
@pytest.mark.parametrize(("sent", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_interrupted_while_it_writes(tmp_path: Path, sent: signal.Signals, code: int, jobs: int) -> None:
    old = tmp_path / "old.raw"
    old.write_bytes(b"as it was")
    # Of twice 1 GiB, no more is written than in the moment until it is interrupted.
    arguments = ["windows7-x86", "--memory", "1GiB", "-j", str(jobs), "-o", str(old)]
    arguments += ["--truth", str(tmp_path / "truth"), "--disk", str(tmp_path / "disk")]
    with subprocess.Popen(
        [*COMMAND, "synth", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        stdin=subprocess.DEVNULL,
        env=environment(),
        start_new_session=True,
    ) as process:
        deadline = time.monotonic() + 30
        started = 1 + (jobs if jobs > 1 else 0)
        while time.monotonic() < deadline and (
            len(names(tmp_path)) < 4 or len(processes_of_group(process.pid)) < started
        ):
            time.sleep(0.005)
        assert len(names(tmp_path)) == 4  # the old file, and three that are begun
        assert len(processes_of_group(process.pid)) == started
        # As a terminal does: to every process of the group.
        os.killpg(process.pid, sent)
        output, errors = process.communicate(timeout=30)
    assert process.returncode == code, errors.decode()
    assert output == b""
    assert errors == (b"\nhvshare: interrupted\n" if sent == signal.SIGINT else b"")
    assert processes_of_group(process.pid) == []
    assert names(tmp_path) == ["old.raw"]
    assert old.read_bytes() == b"as it was"

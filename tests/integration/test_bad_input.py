"""Every way in which an input, an output or a user can go wrong: a clear word, and nothing lost."""

from __future__ import annotations

import contextlib
import gzip
import json
import os
import resource
import signal
import subprocess
import time
from pathlib import Path

import pytest

from hvshare.errors import UnreadableImageError
from hvshare.images.registry import open_image
from tests.guests import content, write_raw
from tests.integration.running import COMMAND, check_failed, environment, hvshare
from tests.oracle import PAGE

BOTH = pytest.mark.parametrize("command", ["analyze", "inspect"])


@pytest.fixture
def good(tmp_path: Path) -> Path:
    return write_raw(tmp_path / "good.raw", [content(number % 9) for number in range(64)])


@BOTH
def test_missing_file(tmp_path: Path, command: str) -> None:
    path = tmp_path / "missing.raw"
    check_failed(hvshare(command, path), 1, str(path), "no such file", "check the name")


@BOTH
def test_directory(tmp_path: Path, command: str) -> None:
    check_failed(hvshare(command, tmp_path), 1, str(tmp_path), "directory", "name the image files")


def test_no_permission(good: Path) -> None:
    good.chmod(0)
    pid = os.fork()
    if not pid:
        status = 1
        try:
            # Only now, as the interpreter may lie where other users may not go.
            with contextlib.suppress(PermissionError):
                os.seteuid(65534)
            open_image(str(good))
        except UnreadableImageError as error:
            status = 0 if "no permission to read it" in str(error) else 2
        finally:
            os._exit(status)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0


@BOTH
def test_empty_file(tmp_path: Path, command: str) -> None:
    (tmp_path / "empty.raw").touch()
    check_failed(hvshare(command, tmp_path / "empty.raw"), 1, "empty.raw", "it is empty")


def test_empty_stdin() -> None:
    check_failed(hvshare("analyze", "-", stdin=b""), 1, "-: it is empty")


@BOTH
def test_truncated_stream(tmp_path: Path, command: str) -> None:
    packed = gzip.compress(os.urandom(64 * PAGE))
    (tmp_path / "cut.gz").write_bytes(packed[:100_000])
    run = hvshare(command, tmp_path / "cut.gz")
    check_failed(run, 1, "cut.gz: at byte 100,000: the gzip stream ends too early", "copy or compress")


@BOTH
def test_unsupported_format(tmp_path: Path, command: str) -> None:
    (tmp_path / "disk").write_bytes(b"conectix".ljust(8192, b"\0"))
    check_failed(hvshare(command, tmp_path / "disk"), 1, "VHD", "--image-format raw")
    assert hvshare(command, "--image-format", "raw", tmp_path / "disk").returncode == 0


def test_image_that_shrinks_while_it_is_read(tmp_path: Path) -> None:
    """The size is taken when the image is opened, and a pipe named after it holds the command up."""
    image = write_raw(tmp_path / "shrinks.raw", [content(number % 250) for number in range(4096)])
    fifo = tmp_path / "pipe.raw"
    os.mkfifo(fifo)
    with start("analyze", "--json", "-j", "1", str(image), str(fifo)) as process:
        with fifo.open("wb") as pipe:
            os.truncate(image, 100 * PAGE)
            pipe.write(content(1))
        output, errors = process.communicate(timeout=30)
    check_failed(
        subprocess.CompletedProcess([], process.returncode, output.decode(), errors.decode()),
        1,
        "shrinks.raw",
        "changed its size while it was read",
        "wait until the dump is complete",
    )


@pytest.mark.parametrize("form", ["table", "json", "jsonl", "csv"])
def test_one_bad_input_ends_it_before_any_figure(good: Path, tmp_path: Path, form: str) -> None:
    run = hvshare("analyze", "--format", form, good, tmp_path / "missing.raw")
    check_failed(run, 1, "missing.raw")


def test_bad_inputs_are_left_out_on_request(good: Path, tmp_path: Path) -> None:
    (tmp_path / "cut.gz").write_bytes(gzip.compress(os.urandom(64 * PAGE))[:1000])
    names = [good, tmp_path / "missing.raw", tmp_path / "cut.gz"]
    run = hvshare("analyze", "--json", "--skip-unreadable", *names)
    assert run.returncode == 3
    result = json.loads(run.stdout)
    assert [image["name"] for image in result["images"]] == ["good.raw"]
    left_out = [caveat["message"] for caveat in result["caveats"] if caveat["code"] == "left-out"]
    assert "missing.raw" in left_out[0]
    assert "cut.gz" in left_out[1]
    assert run.stderr.count("warning: left out") == 2
    quiet = hvshare("analyze", "-q", "--json", "--skip-unreadable", *names)
    assert (quiet.returncode, quiet.stderr, quiet.stdout) == (3, "", run.stdout)
    table = hvshare("analyze", "--skip-unreadable", *names)
    assert (table.returncode, "left-out" in table.stdout) == (3, True)
    assert hvshare("inspect", "--skip-unreadable", *names).returncode == 3


@BOTH
def test_nothing_left(tmp_path: Path, command: str) -> None:
    run = hvshare(command, "--skip-unreadable", tmp_path / "missing.raw")
    check_failed(run, 1, "none of the images could be used")


@pytest.mark.parametrize(
    "arguments",
    [
        ["analyze"],
        ["analyze", "--frame", "3K", "x"],
        ["analyze", "--frame", "2G", "x"],
        ["analyze", "--frame", "many", "x"],
        ["analyze", "--jobs", "0", "x"],
        ["analyze", "--format", "xml", "x"],
        ["analyze", "--json", "--format", "csv", "x"],
        ["analyze", "-", "-"],
        ["analyse", "x"],
        ["analyze", "--image-format", "qcow2", "x"],
    ],
)
def test_wrong_usage(arguments: list[str]) -> None:
    check_failed(hvshare(*arguments), 2, "Usage:", "Error:")


def test_full_disk(good: Path, tmp_path: Path) -> None:
    target = tmp_path / "out.json"
    target.write_text("as it was")

    def little_room() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (100, 100))

    run = hvshare("analyze", "--json", "-o", target, good, preexec_fn=little_room)
    check_failed(run, 1, "out.json", "could not be written", "free space")
    assert target.read_text() == "as it was"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["good.raw", "out.json"]
    check_failed(hvshare("analyze", "-o", "/dev/full", good), 1, "/dev/full", "No space left")


def test_full_standard_output(good: Path) -> None:
    with open("/dev/full", "wb") as full:
        run = subprocess.run(
            [*COMMAND, "analyze", str(good)],
            stdout=full,
            stderr=subprocess.PIPE,
            env=environment(),
            check=False,
        )
    assert run.returncode == 1
    assert b"standard output: the result could not be written (No space left on device)" in run.stderr
    assert b"Traceback" not in run.stderr


def test_output_that_cannot_be(good: Path, tmp_path: Path) -> None:
    check_failed(hvshare("analyze", "-o", tmp_path, good), 1, "directory")
    check_failed(hvshare("analyze", "-o", tmp_path / "no" / "out", good), 1, "No such file")
    before = good.read_bytes()
    (tmp_path / "link").symlink_to(good)
    check_failed(hvshare("analyze", "-o", tmp_path / "link", good), 1, "one of the images")
    assert good.read_bytes() == before


def test_output_over_the_image_on_standard_input(good: Path) -> None:
    before = good.read_bytes()
    with good.open("rb") as file:
        check_failed(hvshare("analyze", "--json", "-o", good, "-", stdin=file), 1, "one of the images")
    assert good.read_bytes() == before


def shell(line: str, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
    """Run a line of a shell, in which $0 stands for the command and $1 and so on for the arguments."""
    return subprocess.run(
        ["bash", "-c", line.replace("hvshare", f"{COMMAND[0]} -m hvshare"), "bash", *map(str, arguments)],
        capture_output=True,
        text=True,
        env=environment(),
        timeout=60,
        check=False,
    )


def test_descriptors_that_are_closed(good: Path) -> None:
    run = shell('hvshare analyze "$1" >&-', good)
    assert (run.returncode, "standard output: the result could not be written" in run.stderr) == (1, True)
    assert "Traceback" not in run.stderr
    run = shell('hvshare analyze --json "$1" 2>&-', good)
    assert (run.returncode, json.loads(run.stdout)["schema"]) == (0, "hvshare.sharing/1")
    run = shell('hvshare analyze --json "$1" <&-', good)
    assert (run.returncode, run.stderr) == (0, "")


@pytest.mark.parametrize("options", ["--format csv", "--progress --json", "-v --json"])
def test_nobody_listens_to_warnings(good: Path, options: str) -> None:
    run = shell(f'hvshare analyze {options} "$1" 2>/dev/full', good)
    assert (run.returncode, "schema" in run.stdout or "scope" in run.stdout) == (0, True)


def test_help_that_cannot_be_written() -> None:
    run = shell("hvshare --help >/dev/full")
    assert (run.returncode, "No space left" in run.stderr, "defect" in run.stderr) == (1, True, False)


def test_more_images_than_files_may_be_open(tmp_path: Path) -> None:
    for number in range(300):
        write_raw(tmp_path / f"{number}.raw", [content(number % 250)])
    run = shell('ulimit -Sn 100; hvshare analyze --json "$1"/*.raw', tmp_path)
    assert (run.returncode, len(json.loads(run.stdout)["images"])) == (0, 300)
    run = shell('ulimit -n 100; hvshare analyze --json --skip-unreadable "$1"/*.raw', tmp_path)
    check_failed(run, 1, "too many files are open", "ulimit -n")


@pytest.mark.parametrize("form", ["table", "json", "jsonl", "csv"])
def test_closed_standard_output(good: Path, form: str) -> None:
    read_end, write_end = os.pipe()
    os.close(read_end)
    run = subprocess.run(
        [*COMMAND, "analyze", "--format", form, "-q", str(good)],
        stdout=write_end,
        stderr=subprocess.PIPE,
        env=environment(),
        check=False,
    )
    os.close(write_end)
    assert (run.returncode, run.stderr) == (141, b"")


def test_two_images_of_one_name(tmp_path: Path) -> None:
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        write_raw(tmp_path / folder / "mem.raw", [content(ord(folder))])
    run = hvshare("analyze", "--json", tmp_path / "a" / "mem.raw", tmp_path / "b" / "mem.raw")
    assert [image["name"] for image in json.loads(run.stdout)["images"]] == ["a/mem.raw", "b/mem.raw"]


def test_an_image_given_twice(good: Path) -> None:
    result = json.loads(hvshare("analyze", "--json", good, good).stdout)
    assert [image["name"] for image in result["images"]] == ["good.raw", "good.raw (2)"]
    assert result["pooled"]["4096"]["saved_inter"] == 8
    assert "same-image-twice" in [caveat["code"] for caveat in result["caveats"]]


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        (b"web[bold]01.raw", "web[bold]01.raw"),
        (b"x[/red].raw", "red].raw"),
        (b"a b  c.raw", "a b  c.raw"),
        (b":smile:.raw", ":smile:.raw"),
        (b"a\x1b[31mb.raw", r"a\x1b[31mb.raw"),
        (b"a\nb.raw", r"a\x0ab.raw"),
        (b"a\xffb.raw", r"a\xffb.raw"),
        ("\u202egnp.raw".encode(), r"\u202egnp.raw"),
        (b"-dash.raw", "-dash.raw"),
    ],
)
def test_names_are_data(tmp_path: Path, name: bytes, shown: str) -> None:
    path = os.path.join(os.fsencode(tmp_path), name)  # noqa: PTH118  # names that pathlib cannot hold as text
    os.makedirs(os.path.dirname(path), exist_ok=True)  # noqa: PTH103, PTH120  # as above
    with open(path, "wb") as file:
        file.write(content(1) * 600 + b"tail")
    text = hvshare("analyze", os.fsdecode(path), env=environment(COLUMNS="160")).stdout
    assert text.count(shown) == 4  # images, map, frequent contents, caveat
    assert "\x1b" not in text
    result = hvshare("analyze", "--json", os.fsdecode(path)).stdout
    undecodable = name == b"a\xffb.raw"
    assert json.loads(result)["images"][0]["name"] == (shown if undecodable else Path(os.fsdecode(name)).name)
    os.truncate(path, 0)
    failed = hvshare("analyze", os.fsdecode(path))
    check_failed(failed, 1, shown, "it is empty")
    assert len(failed.stderr.splitlines()) == 1


def start(*arguments: str) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [*COMMAND, *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        stdin=subprocess.DEVNULL,
        env=environment(),
        start_new_session=True,
    )


def processes_of_group(group: int) -> list[int]:
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError, ValueError):
            fields = (entry / "stat").read_text().rpartition(")")[2].split()
            if int(fields[2]) == group and fields[0] != "Z":
                found.append(int(entry.name))
    return found


def wait_for_workers(process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + 30
    while len(processes_of_group(process.pid)) < 3 and time.monotonic() < deadline:
        time.sleep(0.01)
    assert len(processes_of_group(process.pid)) == 3


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="processes are found through /proc")
@pytest.mark.parametrize(("sent", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_interrupted_while_workers_read(tmp_path: Path, sent: signal.Signals, code: int) -> None:
    pipes = [tmp_path / "one.raw", tmp_path / "two.raw"]
    for pipe in pipes:
        os.mkfifo(pipe)
    target = tmp_path / "out.json"
    with (
        start("analyze", "--json", "-o", str(target), "-j", "2", *map(str, pipes)) as process,
        contextlib.ExitStack() as stack,
    ):
        for pipe in pipes:
            stack.enter_context(pipe.open("wb", buffering=0)).write(content(1) * 3)
        wait_for_workers(process)
        # As a terminal does: to every process of the group.
        os.killpg(process.pid, sent)
        output, errors = process.communicate(timeout=30)
    assert process.returncode == code, errors.decode()
    assert output == b""
    assert errors == (b"\nhvshare: interrupted\n" if sent == signal.SIGINT else b"")
    assert processes_of_group(process.pid) == []
    assert not list(tmp_path.glob(".out*"))


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="processes are found through /proc")
def test_workers_end_when_the_main_process_is_killed(tmp_path: Path) -> None:
    pipes = [tmp_path / "one.raw", tmp_path / "two.raw"]
    for pipe in pipes:
        os.mkfifo(pipe)
    with start("analyze", "-j", "2", *map(str, pipes)) as process, contextlib.ExitStack() as stack:
        writers = []
        for pipe in pipes:
            writers.append(stack.enter_context(pipe.open("wb", buffering=0)))
            writers[-1].write(content(1) * 3)
        wait_for_workers(process)
        process.kill()
        process.wait()
        # They notice as soon as they have something to say.
        with contextlib.suppress(BrokenPipeError):
            for _ in range(40_000):
                for writer in writers:
                    writer.write(content(2))
        for writer in writers:
            writer.close()
        deadline = time.monotonic() + 30
        while processes_of_group(process.pid) and time.monotonic() < deadline:
            time.sleep(0.01)
        assert processes_of_group(process.pid) == []

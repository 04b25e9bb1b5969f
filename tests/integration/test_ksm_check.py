"""``hvshare ksm-check`` as a real process, against this machine's kernel."""

from __future__ import annotations

import fcntl
import gzip
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import jsonschema
import pytest

from hvshare.errors import ResourceError
from hvshare.sharing.ksm import predict
from hvshare.sharing.ksm_oracle import check_ready
from hvshare.sharing.ksm_settings import KSM_FOLDER, KsmFolder
from hvshare.sharing.ksm_users import check_memory
from tests.guests import ZERO, content, write_raw
from tests.integration.running import COMMAND, PROJECT, check_failed, environment, hvshare

SCHEMA = json.loads((PROJECT / "docs" / "schema" / "ksm-check-1.json").read_text())

GUEST_A = [ZERO] * 700 + [content(1)] * 600 + [content(2)] * 2 + [content(n) for n in range(3, 200)] * 3
GUEST_B = [ZERO] + [content(1)] * 169 + [content(n) for n in range(100, 240)]


def settings() -> dict[str, str]:
    """All settings of KSM, and what it has merged."""
    counters = {"full_scans", "pages_scanned", "pages_skipped"}
    return {
        path.name: path.read_text()
        for path in KSM_FOLDER.iterdir()
        if path.name not in counters and os.access(path, os.R_OK)
    }


def wait_for_ksm() -> str:
    """Wait until nobody checks KSM, and tell why it cannot be asked."""
    folder = KsmFolder()
    until = time.monotonic() + 20
    while True:
        try:
            check_ready(folder)
            check_memory(100_000)
            os.close(folder.lock())
        except ResourceError as error:
            in_use = "in use" in error.problem or "at work" in error.problem
            if not in_use or time.monotonic() > until:
                return str(error)
            time.sleep(0.05)
        else:
            return ""


@pytest.fixture
def kernel() -> Iterator[dict[str, str]]:
    """Have the kernel's KSM to oneself, and give what has to be found afterwards."""
    with Path(tempfile.gettempdir(), "hvshare-ksm-tests.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if reason := wait_for_ksm():
            pytest.skip(f"the kernel cannot be asked: {reason}")
        before = settings()
        yield before
        assert settings() == before


def check(*arguments: str | Path, stdin: bytes | None = None) -> dict[str, object]:
    run = hvshare("ksm-check", "--json", *arguments, stdin=stdin)
    assert (run.returncode, run.stderr) == (0, "")
    result: dict[str, object] = json.loads(run.stdout)
    jsonschema.validate(result, SCHEMA)
    return result


def expected(pages: list[bytes], *, uses: bool, most: int) -> dict[str, int]:
    contents = Counter(page for page in pages if page != ZERO)
    counters = predict(
        Counter(contents.values()), pages.count(ZERO), use_zero_pages=uses, max_page_sharing=most
    )
    return {**vars(counters), "general_profit": counters.general_profit}


@pytest.mark.parametrize("most", [256, 2, 7])
def test_kernel_counts_what_was_predicted(kernel: dict[str, str], tmp_path: Path, most: int) -> None:
    images = [write_raw(tmp_path / "a[bold].raw", GUEST_A), write_raw(tmp_path / "b.raw", GUEST_B)]
    result = check(*images, "--max-page-sharing", str(most))
    assert result["agrees"] is True
    assert result["max_page_sharing"] == most
    assert result["pages"] == len(GUEST_A) + len(GUEST_B)
    assert result["zero_pages"] == 701
    runs = result["runs"]
    assert isinstance(runs, list)
    assert [run["use_zero_pages"] for run in runs] == [False, True]
    for run in runs:
        predicted = expected(GUEST_A + GUEST_B, uses=run["use_zero_pages"], most=most)
        assert run["predicted"] == predicted
        has = {name: value for name, value in run["actual"].items() if value is not None}
        assert has == {name: predicted[name] for name in has}
        assert run["settled"] is True


def test_one_setting_a_stream_and_a_table(kernel: dict[str, str]) -> None:
    packed = gzip.compress(b"".join(GUEST_A))
    result = check("--no-use-zero-pages", "-", stdin=packed)
    runs = result["runs"]
    assert isinstance(runs, list)
    assert [run["use_zero_pages"] for run in runs] == [False]
    run = hvshare("ksm-check", "--use-zero-pages", "-", stdin=packed)
    assert (run.returncode, run.stderr) == (0, "")
    assert run.stdout.startswith("The kernel agrees with the prediction")
    assert "use_zero_pages 1" in run.stdout
    assert "use_zero_pages 0" not in run.stdout
    assert max(map(len, run.stdout.splitlines())) <= 80


def test_sample_dumps_alone_and_together(kernel: dict[str, str]) -> None:
    samples = sorted((PROJECT / "sample_dumps").glob("*.raw.bz2"))
    for images in (samples[:1], samples):
        result = check(*images)
        assert result["agrees"] is True
        runs = result["runs"]
        assert isinstance(runs, list)
        for run in runs:
            assert run["process"].get("ksm_zero_pages") in {None, run["predicted"]["ksm_zero_pages"]}


@pytest.fixture
def large(tmp_path: Path) -> Path:
    """An image that keeps ksmd busy for a while."""
    path = tmp_path / "large.raw"
    path.write_bytes(os.urandom(48 << 20) + bytes(16 << 20))
    return path


def wait_for_ksmd(process: subprocess.Popen[bytes]) -> None:
    until = time.monotonic() + 20
    while (KSM_FOLDER / "run").read_text() != "1\n" and time.monotonic() < until:
        assert process.poll() is None, process.communicate()
        time.sleep(0.001)


@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGKILL, -signal.SIGKILL)]
)
def test_settings_are_put_back_however_it_ends(
    kernel: dict[str, str], large: Path, number: signal.Signals, code: int
) -> None:
    with subprocess.Popen(
        [*COMMAND, "ksm-check", str(large)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=environment(),
        start_new_session=True,
    ) as process:
        wait_for_ksmd(process)
        assert settings()["sleep_millisecs"] == "0\n"
        os.killpg(process.pid, number)
        out, err = process.communicate(timeout=30)
    assert process.returncode == code
    assert out == b""
    assert b"Traceback" not in err
    until = time.monotonic() + 20
    while settings() != kernel and time.monotonic() < until:
        time.sleep(0.02)
    assert settings() == kernel


def test_ksm_in_use_by_another_process(kernel: dict[str, str], tmp_path: Path) -> None:
    image = write_raw(tmp_path / "a.raw", [content(1)])
    marks = (
        "import mmap, sys\n"
        "memory = mmap.mmap(-1, 1 << 20, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)\n"
        "memory.madvise(mmap.MADV_MERGEABLE)\n"
        "print(flush=True)\n"
        "sys.stdin.read()\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", marks], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as other:
        assert other.stdout is not None
        other.stdout.readline()
        run = hvshare("ksm-check", image)
        other.communicate()
    check_failed(run, 1, "KSM is in use", f"(process {other.pid}")
    assert settings() == kernel


def test_bad_input_leaves_ksm_alone(kernel: dict[str, str], tmp_path: Path) -> None:
    check_failed(hvshare("ksm-check", tmp_path / "none.raw"), 1, "none.raw")
    good, bad = write_raw(tmp_path / "good.raw", GUEST_A), tmp_path / "bad.raw"
    bad.write_bytes(b"")
    check_failed(hvshare("ksm-check", good, bad), 1, "bad.raw")
    run = hvshare("ksm-check", "--json", "--skip-unreadable", "--use-zero-pages", good, bad)
    assert run.returncode == 3
    result = json.loads(run.stdout)
    assert [caveat["code"] for caveat in result["caveats"]] == ["left-out"]
    assert result["pages"] == len(GUEST_A)
    check_failed(hvshare("ksm-check", "--max-page-sharing", "1", good), 2, "max-page-sharing")
    stored = tmp_path / "good.hvs"
    assert hvshare("fingerprint", good, "-o", stored).returncode == 0
    check_failed(hvshare("ksm-check", stored), 1, "good.hvs", "no contents")


def test_memory_that_would_run_short(kernel: dict[str, str], tmp_path: Path) -> None:
    path = tmp_path / "sparse.raw"
    with path.open("wb") as file:
        file.truncate(1 << 43)
    check_failed(hvshare("ksm-check", path), 1, "memory would run short")

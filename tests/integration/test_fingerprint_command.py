"""Fingerprint files as a user makes and uses them, and digests as Parquet."""

from __future__ import annotations

import gzip
import json
import os
import pty
import subprocess
import sys
from pathlib import Path

import pytest

import hvshare as library
from hvshare.cli import export as export_module
from hvshare.fingerprint.pages import ZERO_DIGEST
from tests.guests import content, supports_holes, write_raw, write_sparse
from tests.integration.running import COMMAND, check_failed, environment, hvshare
from tests.oracle import PAGE, count

WEB = [content(number % 9) for number in range(96)]
DB = [content(number % 13) for number in range(64)]


@pytest.fixture
def web(tmp_path: Path) -> Path:
    return write_raw(tmp_path / "web.raw", WEB)


@pytest.fixture
def db(tmp_path: Path) -> Path:
    return write_raw(tmp_path / "db.raw", DB)


def pooled(*paths: Path | str, stdin: bytes | None = None) -> object:
    run = hvshare("analyze", "--json", *paths, stdin=stdin)
    assert run.returncode == 0, run.stderr
    return json.loads(run.stdout)["pooled"]


def test_files_stand_for_their_images(web: Path, db: Path, tmp_path: Path) -> None:
    run = hvshare("fingerprint", web, db, cwd=tmp_path)
    assert (run.returncode, run.stdout, run.stderr) == (0, "", "")
    files = [tmp_path / "web.raw.hvs", tmp_path / "db.raw.hvs"]
    assert pooled(*files) == pooled(web, files[1]) == pooled(web, db)
    expected = count([WEB, DB], 1)
    assert {name: pooled(*files)["4096"][name] for name in expected} == expected  # type: ignore[index]
    again = hvshare("fingerprint", web, cwd=tmp_path)
    check_failed(again, 1, "web.raw.hvs: it exists already", "--force")
    assert hvshare("fingerprint", "--force", web, cwd=tmp_path).returncode == 0
    assert hvshare("fingerprint", web, "-o", files[1]).returncode == 0  # a file that was named is replaced
    assert library.read_fingerprints(str(files[1])).runs.pages == len(WEB)


def test_through_pipes(web: Path, db: Path, tmp_path: Path) -> None:
    with web.open("rb") as file:
        first = subprocess.run(
            [*COMMAND, "fingerprint", "-", "-o", "-"], stdin=file, capture_output=True, check=True
        )
    assert first.stderr == b""
    assert pooled("-", db, stdin=first.stdout) == pooled(web, db)
    assert pooled("-", db, stdin=gzip.compress(first.stdout)) == pooled(web, db)
    (tmp_path / "fetched.hvs").write_bytes(first.stdout)
    shown = json.loads(hvshare("inspect", "--json", tmp_path / "fetched.hvs").stdout)["images"][0]
    assert (shown["format"], shown["details"]["image"]) == ("fingerprints", "stdin")


def test_folder(web: Path, tmp_path: Path) -> None:
    other = tmp_path / "other" / "web.raw"
    other.parent.mkdir()
    write_raw(other, DB)
    odd = write_raw(tmp_path / "x[bold]\x1b:smile:.raw", DB)
    folder = tmp_path / "new" / "folder"
    run = hvshare("fingerprint", "-v", "-o", f"{folder}/", web, other, odd, web)
    assert run.returncode == 0, run.stderr
    names = sorted(path.name for path in folder.iterdir())
    parent = tmp_path.name
    assert names == sorted(
        [
            f"{parent}_web.raw.hvs",
            "other_web.raw.hvs",
            "x[bold]_:smile:.raw.hvs",
            f"{parent}_web.raw (2).hvs",
        ]
    )
    check_failed(hvshare("fingerprint", "-o", folder, web, other), 1, "_web.raw.hvs: it exists already")
    assert hvshare("fingerprint", "-o", folder, db_of(tmp_path)).returncode == 0
    assert (folder / "lone.raw.hvs").is_file()


def db_of(folder: Path) -> Path:
    return write_raw(folder / "lone.raw", DB)


def test_wrong_usage(web: Path, db: Path, tmp_path: Path) -> None:
    check_failed(
        hvshare("fingerprint", web, db, "-o", tmp_path / "one.hvs"), 2, "one file, and there are 2 images"
    )
    check_failed(hvshare("fingerprint", web, db, "-o", "-"), 2, "one file")
    check_failed(hvshare("fingerprint", web, "-o", web), 1, "it is one of the images")
    check_failed(
        hvshare("fingerprint", web, "-o", tmp_path / "no" / "x.hvs"), 1, "x.hvs: the result could not"
    )
    check_failed(hvshare("fingerprint", web, "-o", f"{web}/"), 1, "name another folder")
    hvshare("fingerprint", web, cwd=tmp_path)
    stored = tmp_path / "web.raw.hvs"
    check_failed(hvshare("fingerprint", stored, "-o", "-"), 1, "web.raw.hvs", "digests and no contents")
    check_failed(hvshare("analyze", "--verify", db, stored), 2, "--verify compares bytes", "web.raw.hvs")


def test_a_terminal_is_refused(web: Path) -> None:
    leader, follower = pty.openpty()
    try:
        run = subprocess.run(
            [*COMMAND, "fingerprint", web, "-o", "-"],
            stdout=follower,
            stderr=subprocess.PIPE,
            env=environment(),
            check=False,
        )
    finally:
        os.close(follower)
        os.close(leader)
    assert run.returncode == 1
    assert b"standard output: it is a terminal" in run.stderr


def test_whole_or_not_at_all(web: Path, tmp_path: Path) -> None:
    """A full disk leaves what was there, and no parts."""
    folder = tmp_path / "out"
    folder.mkdir()
    target = folder / "web.hvs"
    target.write_bytes(b"as it was")
    limited = "import resource, sys; resource.setrlimit(resource.RLIMIT_FSIZE, (500, 500)); "
    limited += "import signal; signal.signal(signal.SIGXFSZ, signal.SIG_IGN); "
    limited += "from hvshare.__main__ import main; sys.exit(main())"
    run = subprocess.run(
        [sys.executable, "-c", limited, "fingerprint", web, "-o", target],
        capture_output=True,
        text=True,
        env=environment(),
        check=False,
    )
    assert run.returncode == 1
    assert "the result could not be written" in run.stderr
    assert target.read_bytes() == b"as it was"
    assert list(folder.iterdir()) == [target]


def test_unreadable_images_and_files_are_left_out_by_order(web: Path, db: Path, tmp_path: Path) -> None:
    empty = tmp_path / "empty.raw"
    empty.touch()
    check_failed(hvshare("fingerprint", web, empty, "-o", f"{tmp_path}/a/"), 1, "empty.raw: it is empty")
    run = hvshare("fingerprint", "--skip-unreadable", web, empty, db, "-o", f"{tmp_path}/a/")
    assert run.returncode == 3
    assert sorted(path.name for path in (tmp_path / "a").iterdir()) == ["db.raw.hvs", "web.raw.hvs"]
    cut = tmp_path / "cut.hvs"
    cut.write_bytes((tmp_path / "a" / "web.raw.hvs").read_bytes()[:-1])
    check_failed(hvshare("analyze", db, cut), 1, "cut.hvs: at byte", "copy it again")
    run = hvshare("analyze", "--json", "--skip-unreadable", db, cut, web)
    assert run.returncode == 3
    assert json.loads(run.stdout)["pooled"] == pooled(db, web)
    check_failed(hvshare("inspect", cut), 1, "cut.hvs: at byte")


def test_inspect(db: Path, tmp_path: Path) -> None:
    path = tmp_path / "tail.raw"
    path.write_bytes(db.read_bytes() + b"tail")
    os.utime(path, (1_000_000_000, 1_000_000_000))
    made = hvshare("fingerprint", path, cwd=tmp_path)
    assert made.returncode == 0
    assert "warning: tail.raw: " in made.stderr
    stored = tmp_path / "tail.raw.hvs"
    shown = hvshare("inspect", stored).stdout
    for words in (
        "format             fingerprints: XXH3-64 of each stored page, version 1",
        "image format       raw",
        "image changed      2001-09-09T01:46:40Z",
        "pages, zero        5",
        "pages, not zero    59",
        "tail-left-out",
    ):
        assert words in shown
    found = json.loads(hvshare("inspect", "--json", stored).stdout)["images"][0]
    of_image = json.loads(hvshare("inspect", "--json", path).stdout)["images"][0]
    assert found["runs"] == of_image["runs"]
    assert found["details"]["image path"] == str(path)
    assert found["caveats"][0]["image"] == "tail.raw.hvs"
    analyzed = json.loads(hvshare("analyze", "--json", stored).stdout)
    assert analyzed["images"][0]["format"] == "fingerprints"
    assert "tail-left-out" in [caveat["code"] for caveat in analyzed["caveats"]]


def test_same_contents_under_two_names(db: Path, tmp_path: Path) -> None:
    copy = write_raw(tmp_path / "copy.raw", DB)
    hvshare("fingerprint", copy, cwd=tmp_path)
    run = hvshare("analyze", "--json", db, tmp_path / "copy.raw.hvs")
    told = [each for each in json.loads(run.stdout)["caveats"] if each["code"] == "same-contents-twice"]
    assert [each["image"] for each in told] == ["copy.raw.hvs"]
    assert "as db.raw" in told[0]["message"]


def test_contents_are_known_by_digest_only(db: Path, tmp_path: Path) -> None:
    hvshare("fingerprint", db, cwd=tmp_path)
    assert "known by its digest only" in hvshare("analyze", tmp_path / "db.raw.hvs").stdout


def test_holes_and_their_meaning_are_kept(tmp_path: Path) -> None:
    if not supports_holes(tmp_path):
        pytest.skip("the file system does not tell holes")
    sparse = write_sparse(tmp_path / "sparse.raw", 8 << 20, {2 << 20: b"x" * PAGE})
    for meaning in ("zero", "absent"):
        target = tmp_path / f"{meaning}.hvs"
        assert hvshare("fingerprint", "--holes", meaning, sparse, "-o", target).returncode == 0
        run = hvshare("analyze", "--json", "--holes", meaning, sparse)
        assert json.loads(run.stdout)["pooled"] == pooled(target)


def test_parquet_gives_the_counts(web: Path, db: Path, tmp_path: Path) -> None:
    duckdb = pytest.importorskip("duckdb", reason="DuckDB is not installed")
    pq = pytest.importorskip("pyarrow.parquet", reason="pyarrow is not installed")
    hvshare("fingerprint", db, cwd=tmp_path)
    target = tmp_path / "pages.parquet"
    run = hvshare("export", "--parquet", "-o", target, web, tmp_path / "db.raw.hvs")
    assert (run.returncode, run.stdout, run.stderr) == (0, "", "")
    expected = count([WEB, DB], 1)
    query = (
        "SELECT count(*), count(DISTINCT digest), count(*) FILTER (zero), "
        "count(DISTINCT (image, digest)) FILTER (NOT zero) FROM read_parquet($path)"
    )
    frames, distinct, zero, of_images = duckdb.execute(query, {"path": str(target)}).fetchall()[0]
    assert (frames, distinct, zero) == (expected["frames"], expected["distinct"], expected["zero"])
    assert of_images - (distinct - 1) == expected["saved_inter"]
    assert frames - zero - of_images == expected["saved_self"]
    table = pq.read_table(target)
    assert [str(field.type) for field in table.schema] == [
        "dictionary<values=string, indices=int32, ordered=0>", "uint64", "uint64", "bool",
    ]  # fmt: skip
    assert table["image"].to_pylist() == ["web.raw"] * 96 + ["db.raw.hvs"] * 64
    assert table["gfn"].to_pylist() == [*range(96), *range(64)]
    assert [d == ZERO_DIGEST for d in table["digest"].to_pylist()] == table["zero"].to_pylist()
    told = json.loads(pq.read_metadata(target).metadata[b"hvshare"])
    assert (told["schema"], told["page_size"], told["zero_digest"]) == ("hvshare.pages/1", PAGE, ZERO_DIGEST)
    assert [each["rows"] for each in told["images"]] == [96, 64]
    again = hvshare("export", "--parquet", "--no-zero-pages", "-o", target, web, "-j", "1")
    assert again.returncode == 0
    assert pq.read_metadata(target).num_rows == 96 - WEB.count(bytes(PAGE))


def test_parquet_of_runs_of_all_kinds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pq = pytest.importorskip("pyarrow.parquet", reason="pyarrow is not installed")
    import numpy as np

    from hvshare.report import parquet

    monkeypatch.setattr(parquet, "_BATCH_ROWS", 7)
    monkeypatch.setattr(parquet, "_GROUP_ROWS", 20)
    runs = library.Runs()
    for first, length, kind in ((3, 30, "PRESENT"), (40, 9, "ZERO"), (50, 5, "ABSENT"), (60, 2, "PRESENT")):
        runs.append(first, length, library.RunKind[kind])
    digests = np.array([ZERO_DIGEST, *range(30), (1 << 64) - 1], np.uint64)
    fingerprints = library.Fingerprints("a", "/a", "raw", runs, digests)
    gfns = [*range(3, 33), *range(40, 49), 60, 61]
    known = [*digests[:30].tolist(), *[ZERO_DIGEST] * 9, *digests[30:].tolist()]
    for zero_pages in (True, False):
        target = tmp_path / "a.parquet"
        with target.open("wb") as file, parquet.ParquetPages(file, zero_pages=zero_pages) as pages:
            pages.add(fingerprints)
            pages.add(fingerprints)
        expected = list(zip(gfns, known, strict=True)) * 2
        if not zero_pages:
            expected = [(gfn, digest) for gfn, digest in expected if digest != ZERO_DIGEST]
        table = pq.read_table(target)
        assert list(zip(table["gfn"].to_pylist(), table["digest"].to_pylist(), strict=True)) == expected
        metadata = pq.read_metadata(target)
        assert max(metadata.row_group(n).num_rows for n in range(metadata.num_row_groups)) <= 20
        told = json.loads(metadata.metadata[b"hvshare"])["images"]
        assert [(each["zero_pages"], each["absent_bytes"]) for each in told] == [(10, 5 * PAGE)] * 2


def test_export_goes_on_behind_what_is_left_out(web: Path, db: Path, tmp_path: Path) -> None:
    pq = pytest.importorskip("pyarrow.parquet", reason="pyarrow is not installed")
    hvshare("fingerprint", web, cwd=tmp_path)
    cut = tmp_path / "cut.hvs"
    cut.write_bytes((tmp_path / "web.raw.hvs").read_bytes()[:-1])
    target = tmp_path / "pages.parquet"
    check_failed(hvshare("export", "--parquet", "-o", target, cut, db), 1, "cut.hvs: at byte")
    assert not target.exists()
    piped = subprocess.run(
        [*COMMAND, "export", "--parquet", "-o", "-", db, cut], capture_output=True, check=False
    )
    assert piped.returncode == 1
    assert b"Traceback" not in piped.stderr
    assert not piped.stdout.endswith(b"PAR1") or len(piped.stdout) == 4  # cut, and seen to be
    assert hvshare("export", "--parquet", "--skip-unreadable", "-o", target, web, cut, db).returncode == 3
    assert pq.read_table(target)["image"].to_pylist() == ["web.raw"] * 96 + ["db.raw"] * 64


def test_export_needs_to_be_told_what(web: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    check_failed(hvshare("export", web, "-o", tmp_path / "x"), 2, "--parquet")
    check_failed(hvshare("export", "--parquet", web), 2, "-o")
    monkeypatch.setattr(export_module, "find_spec", lambda _name: None)
    with pytest.raises(library.HvshareError, match=r"pip install 'hvshare\[parquet\]'"):
        export_module._check_pyarrow()

"""``hvshare analyze`` from the outside: the figures, the formats, and what is said beside them."""

from __future__ import annotations

import csv
import gzip
import io
import json
import os
import subprocess
from pathlib import Path

import jsonschema
import pytest

from tests.formats.elf_writer import Load, elf_core
from tests.guests import content, supports_holes, write_raw, write_sparse
from tests.integration.running import COMMAND, environment, hvshare
from tests.oracle import PAGE, count

SCHEMAS = Path(__file__).parents[2] / "docs" / "schema"
WEB = [content(number % 90) for number in range(700)]
DB = [content(number % 70 if number % 3 else 0) for number in range(1030)]


def schema(name: str) -> dict[str, object]:
    found: dict[str, object] = json.loads((SCHEMAS / name).read_text())
    return found


@pytest.fixture
def web(tmp_path: Path) -> Path:
    return write_raw(tmp_path / "web.raw", WEB)


@pytest.fixture
def db(tmp_path: Path) -> Path:
    return write_raw(tmp_path / "db.raw", DB)


def check_counts(found: dict[str, int], expected: dict[str, int], frame_size: int) -> None:
    saved = expected["frames"] - expected["distinct"]
    assert found == {**expected, "saved": saved, "saved_bytes": saved * frame_size}


def test_json_is_what_the_schema_and_the_oracle_say(web: Path, db: Path) -> None:
    run = hvshare("analyze", "--json", "--frame", "64K", "--frame", "2M", web, db)
    assert (run.returncode, run.stderr) == (0, "")
    result = json.loads(run.stdout)
    jsonschema.validate(result, schema("sharing-1.json"))
    assert list(result) == ["schema", "images", "pooled", "caveats"]
    assert [image["name"] for image in result["images"]] == ["web.raw", "db.raw"]
    for size in (4096, 65536, 2 << 20):
        check_counts(result["pooled"][str(size)], count([WEB, DB], size // PAGE), size)
        for image, vm in zip(result["images"], (WEB, DB), strict=True):
            check_counts(image["counts"][str(size)], count([vm], size // PAGE), size)
    web_image = result["images"][0]
    assert web_image["size_bytes"] == web_image["present_bytes"] == 700 * PAGE
    assert web_image["zero_bytes"] == WEB.count(content(0)) * PAGE
    assert web_image["absent_bytes"] == 0


def test_json_lines_come_image_by_image(web: Path, db: Path) -> None:
    run = hvshare("analyze", "--format", "jsonl", web, db)
    lines = [json.loads(line) for line in run.stdout.splitlines()]
    for line in lines:
        jsonschema.validate(line, schema("sharing-lines-1.json"))
    assert [line["type"] for line in lines] == ["image", "image", "pooled"]
    whole = json.loads(hvshare("analyze", "--json", web, db).stdout)
    by_name = {line["name"]: line for line in lines[:-1]}
    for image in whole["images"]:
        assert by_name[image["name"]] == {"schema": whole["schema"], "type": "image", **image}
    assert lines[-1]["pooled"] == whole["pooled"]


def test_a_json_line_does_not_wait_for_other_images(web: Path, tmp_path: Path) -> None:
    fifo = tmp_path / "late.raw"
    os.mkfifo(fifo)
    arguments = [*COMMAND, "analyze", "--format", "jsonl", "-j", "2", str(web), str(fifo)]
    with subprocess.Popen(arguments, stdout=subprocess.PIPE, env=environment()) as process:
        assert process.stdout is not None
        with fifo.open("wb") as late:
            late.write(b"".join(DB[:2]))
            late.flush()
            # The other image is not complete yet.
            assert json.loads(process.stdout.readline())["name"] == "web.raw"
        assert json.loads(process.stdout.readline())["name"] == "late.raw"
        assert json.loads(process.stdout.readline())["type"] == "pooled"
    assert process.returncode == 0


def test_csv_has_a_row_for_each_image_and_frame_size(web: Path, db: Path) -> None:
    run = hvshare("analyze", "--format", "csv", web, db)
    rows = list(csv.DictReader(io.StringIO(run.stdout)))
    whole = json.loads(hvshare("analyze", "--json", web, db).stdout)
    expected = [
        ("image", image["name"], size, counts)
        for image in whole["images"]
        for size, counts in image["counts"].items()
    ] + [("pooled", "", size, counts) for size, counts in whole["pooled"].items()]
    assert [(row["scope"], row["image"], row["frame_bytes"]) for row in rows] == [e[:3] for e in expected]
    for row, (*_, counts) in zip(rows, expected, strict=True):
        assert {name: int(row[name]) for name in counts} == counts
    # Caveats have no place in CSV.
    assert "warning: pages are compared by 64-bit digests" in run.stderr
    assert hvshare("analyze", "-q", "--format", "csv", web, db).stderr == ""


@pytest.mark.parametrize("width", [80, 100, 160])
def test_table_at_any_width(web: Path, db: Path, width: int) -> None:
    run = hvshare("analyze", web, db, env=environment(COLUMNS=str(width)))
    assert (run.returncode, run.stderr) == (0, "")
    assert run.stdout.startswith("Sharing at 4 KB would free ")
    assert "…" not in run.stdout
    assert "\x1b" not in run.stdout
    assert max(map(len, run.stdout.splitlines())) <= width
    assert all(line == line.rstrip() for line in run.stdout.splitlines())
    counts = count([WEB, DB], 1)
    for name in ("frames", "zero", "distinct", "saved_self", "saved_inter"):
        assert f"{counts[name]:,}" in run.stdout


def test_colour_where_it_is_wanted(web: Path) -> None:
    assert "\x1b[" in hvshare("analyze", web, env=environment(FORCE_COLOR="1", TERM="xterm")).stdout
    # NO_COLOR leaves bold and dim, which are no colours.
    plain = hvshare("analyze", web, env=environment(FORCE_COLOR="1", NO_COLOR="1", TERM="xterm")).stdout
    assert "\x1b[36m" not in plain


def test_an_encoding_that_lacks_the_signs(web: Path) -> None:
    run = hvshare("analyze", web, env=environment(PYTHONIOENCODING="ascii"))
    assert run.returncode == 0
    assert run.stdout.isascii()
    assert "= repeated within" in run.stdout


@pytest.mark.parametrize(
    "way", ["stdin file", "stdin pipe", "fifo", "process substitution", "gzip", "gzip stdin"]
)
def test_every_way_in_gives_the_same(web: Path, tmp_path: Path, way: str) -> None:
    expected = json.loads(hvshare("analyze", "--json", web).stdout)["pooled"]
    if way == "stdin file":
        with web.open("rb") as file:
            run = hvshare("analyze", "--json", "-", stdin=file)
    elif way == "stdin pipe":
        run = hvshare("analyze", "--json", "-", stdin=web.read_bytes())
    elif way == "gzip stdin":
        run = hvshare("analyze", "--json", "-", stdin=gzip.compress(web.read_bytes()))
    elif way == "gzip":
        packed = tmp_path / "web.packed"
        packed.write_bytes(gzip.compress(web.read_bytes()))
        run = hvshare("analyze", "--json", packed)
    elif way == "fifo":
        os.mkfifo(tmp_path / "fifo")
        with subprocess.Popen(["sh", "-c", 'cat "$0" >"$1"', str(web), str(tmp_path / "fifo")]):
            run = hvshare("analyze", "--json", tmp_path / "fifo")
    else:
        line = f"{' '.join(COMMAND)} analyze --json <(cat {web})"
        done = subprocess.run(
            ["bash", "-c", line], capture_output=True, text=True, env=environment(), check=False
        )
        run = done
    assert (run.returncode, run.stderr) == (0, "")
    result = json.loads(run.stdout)
    assert result["pooled"] == expected
    assert "-" not in result["images"][0]["name"]


def test_rest_of_a_file_on_stdin(web: Path) -> None:
    with web.open("rb", buffering=0) as file:
        file.read(100 * PAGE)
        run = hvshare("analyze", "--json", "-", stdin=file)
    check_counts(json.loads(run.stdout)["pooled"]["4096"], count([WEB[100:]], 1), PAGE)


def test_holes(tmp_path: Path) -> None:
    if not supports_holes(tmp_path):
        pytest.skip("the file system under the temporary folder tells no holes")
    path = write_sparse(tmp_path / "a.raw", 64 << 20, {32 << 20: content(1) * 16 * 16})
    zero = json.loads(hvshare("analyze", "--json", path).stdout)
    assert (zero["images"][0]["absent_bytes"], zero["images"][0]["size_bytes"]) == (0, 64 << 20)
    absent = json.loads(hvshare("analyze", "--json", "--holes", "absent", path).stdout)
    assert absent["images"][0]["absent_bytes"] == (64 << 20) - 256 * PAGE
    assert absent["pooled"]["4096"]["frames"] == 256
    assert {caveat["code"] for caveat in absent["caveats"]} == {
        "absent-pages",
        "partial-frames",
        "digests-only",
    }


def test_verify_compares_bytes(web: Path, db: Path) -> None:
    result = json.loads(hvshare("analyze", "--json", "--verify", web, db).stdout)
    (caveat,) = [caveat for caveat in result["caveats"] if caveat["code"].startswith("verified")]
    pages = WEB + DB
    contents = {page for page in pages if any(page) and pages.count(page) > 1}
    copies = sum(pages.count(page) - 1 for page in contents)
    assert f"{len(contents)} of {len(contents)} repeated contents" in caveat["message"]
    assert f"{copies:,} pages" in caveat["message"]
    assert "digests-only" not in [caveat["code"] for caveat in result["caveats"]]
    part = json.loads(hvshare("analyze", "--json", "--verify", "--verify-limit", "40K", web, db).stdout)
    (caveat,) = [caveat for caveat in part["caveats"] if caveat["code"] == "verified-in-part"]
    assert f"10 of {len(contents)} repeated contents" in caveat["message"]
    assert hvshare("analyze", "--verify", web, db).returncode == 0


def test_verify_needs_to_read_twice(web: Path) -> None:
    run = hvshare("analyze", "--verify", "-", stdin=web.read_bytes())
    assert (run.returncode, run.stdout) == (2, "")
    assert "can be read only once" in run.stderr


def test_most_frequent_contents(tmp_path: Path) -> None:
    pages = [b"\xcc" * PAGE] * 30 + [b"All work and no play " * 195 + b"x"] * 20 + [content(7)] * 10
    path = write_raw(tmp_path / "a.raw", pages)
    text = hvshare("analyze", "--top", "2", path).stdout
    assert "fill 0xcc" in text
    assert "416c6c20776f726b" in text
    assert "0x1e000" in text
    assert "01" + "07" * 7 not in text
    streamed = hvshare("analyze", "--top", "2", "-", stdin=path.read_bytes()).stdout
    assert "fill 0xcc" in streamed
    assert "not read again" in " ".join(streamed.split())
    assert "Most frequent" not in hvshare("analyze", "--top", "0", path).stdout


def test_jobs_change_nothing(tmp_path: Path) -> None:
    path = write_raw(tmp_path / "a.raw", WEB * 60)
    runs = [hvshare("analyze", "-j", jobs, path).stdout for jobs in ("1", "2", "5")]
    assert runs[0] == runs[1] == runs[2] != ""


def test_verbose_speaks_on_stderr(web: Path) -> None:
    run = hvshare("analyze", "-v", "--json", web)
    assert json.loads(run.stdout)["schema"] == "hvshare.sharing/1"
    assert "hashed 2.7 MiB in " in run.stderr


def test_progress_is_drawn_on_request_and_only_on_stderr(web: Path) -> None:
    run = hvshare("analyze", "--progress", "--json", web, env=environment(FORCE_COLOR="1", TERM="xterm"))
    json.loads(run.stdout)
    assert "Reading" in run.stderr
    assert "MiB" in run.stderr
    assert hvshare("analyze", "--json", web).stderr == ""
    assert hvshare("analyze", "-q", "--progress", "--json", web).stderr == ""


def test_output_file_is_written_whole(web: Path, tmp_path: Path) -> None:
    target = tmp_path / "out" / "report.json"
    target.parent.mkdir()
    run = hvshare("analyze", "--json", "-o", target, web)
    assert (run.returncode, run.stdout, run.stderr) == (0, "", "")
    assert json.loads(target.read_text())["schema"] == "hvshare.sharing/1"
    assert list(target.parent.iterdir()) == [target]
    target.chmod(0o600)
    assert hvshare("analyze", "-o", target, web).returncode == 0
    assert target.read_text().startswith("Sharing at 4 KB")
    assert target.stat().st_mode & 0o777 == 0o600


def test_inspect(web: Path, tmp_path: Path) -> None:
    packed = tmp_path / "packed"
    packed.write_bytes(gzip.compress(web.read_bytes() + b"tail"))
    run = hvshare("inspect", "--json", web, packed)
    result = json.loads(run.stdout)
    jsonschema.validate(result, schema("inspect-1.json"))
    plain, unpacked = result["images"]
    assert (plain["compression"], plain["file_bytes"], plain["size_bytes"]) == (None, 700 * PAGE, 700 * PAGE)
    assert plain["runs"] == unpacked["runs"] == [{"first_gfn": 0, "pages": 700, "kind": "present"}]
    assert (unpacked["compression"], unpacked["file_bytes"]) == ("gzip", packed.stat().st_size)
    assert [caveat["code"] for caveat in unpacked["caveats"]] == ["tail-left-out"]
    text = hvshare("inspect", web, packed).stdout
    assert "2.7 MiB (2,867,200 bytes), 700 pages" in text
    assert "raw: byte N is guest physical address N" in text
    assert "advice: check that the dump is complete" in text


def test_inspect_shows_many_runs_on_request(tmp_path: Path) -> None:
    if not supports_holes(tmp_path):
        pytest.skip("the file system under the temporary folder tells no holes")
    path = write_sparse(tmp_path / "a.raw", 64 << 20, {number << 20: b"x" for number in range(0, 64, 2)})
    assert "44 more; --runs shows all" in hvshare("inspect", path).stdout
    assert hvshare("inspect", "--runs", path).stdout.count("PRESENT") == 32


def test_a_file_of_many_small_extents(tmp_path: Path) -> None:
    if not supports_holes(tmp_path):
        pytest.skip("the file system under the temporary folder tells no holes")
    parts = {number * 2 * PAGE: content(1 + number % 200) for number in range(20_000)}
    path = write_sparse(tmp_path / "a.raw", 20_000 * 2 * PAGE, parts)
    counts = json.loads(hvshare("analyze", "--json", path).stdout)["pooled"]["4096"]
    assert (counts["frames"], counts["zero"], counts["distinct"]) == (40_000, 20_000, 201)
    runs = hvshare("inspect", "--runs", path).stdout
    assert runs.count("PRESENT") == runs.count("ZERO") == 20_000


def test_holes_that_cannot_be_seen_are_told(web: Path, tmp_path: Path) -> None:
    run = hvshare("analyze", "--json", "--holes", "absent", "-", stdin=web.read_bytes())
    assert "holes-not-seen" in [caveat["code"] for caveat in json.loads(run.stdout)["caveats"]]


def test_copying_a_stream_is_shown(tmp_path: Path) -> None:
    data = elf_core([Load(0, b"".join(WEB))])
    wanted = environment(FORCE_COLOR="1", TERM="xterm")
    run = hvshare("analyze", "--progress", "--json", "-", stdin=data, env=wanted)
    assert run.stderr.index("Copying") < run.stderr.index("Reading")
    (tmp_path / "a.elf").write_bytes(data)
    file = hvshare("analyze", "--progress", "--json", tmp_path / "a.elf", env=wanted)
    assert "Copying" not in file.stderr
    assert json.loads(file.stdout)["pooled"] == json.loads(run.stdout)["pooled"]

"""What the documents show and name, held against what the project does."""

from __future__ import annotations

import bz2
import hashlib
import json
import re
from pathlib import Path

import pytest

from hvshare.cli.commands import hvshare as commands
from hvshare.images.compression import COMPRESSIONS
from tests.integration.running import PROJECT, environment, hvshare
from tests.oracle import PAGE, count

SAMPLES = sorted((PROJECT / "sample_dumps").glob("*.raw.bz2"))
README = (PROJECT / "README.md").read_text(encoding="utf-8")


def pages_of(path: Path) -> list[bytes]:
    raw = bz2.decompress(path.read_bytes())
    return [raw[start : start + PAGE] for start in range(0, len(raw), PAGE)]


def test_demo_prints_what_the_readme_shows() -> None:
    names = [str(path.relative_to(PROJECT)) for path in SAMPLES]
    shown = re.search(r"<!-- demo -->\n```text\n(.*)```\n<!-- /demo -->", README, re.DOTALL)
    assert shown
    assert hvshare("analyze", *names, cwd=PROJECT, env=environment(COLUMNS="80")).stdout == shown[1]


def test_samples_hold_what_an_independent_count_finds() -> None:
    assert len(SAMPLES) == 3
    vms = [pages_of(path) for path in SAMPLES]
    result = json.loads(hvshare("analyze", "--json", "--frame", "64K", "--frame", "2M", *SAMPLES).stdout)
    for size, counts in result["pooled"].items():
        expected = count(vms, int(size) // PAGE)
        assert {name: counts[name] for name in expected} == expected


def test_samples_have_the_checksums_beside_them() -> None:
    for line in (PROJECT / "sample_dumps" / "SHA256SUMS").read_text().splitlines():
        digest, name = line.split()
        assert hashlib.sha256((PROJECT / "sample_dumps" / name).read_bytes()).hexdigest() == digest


def test_every_command_is_documented() -> None:
    reference = (PROJECT / "docs" / "cli.md").read_text(encoding="utf-8")
    for name in commands.commands:
        assert f"## `hvshare {name}`" in reference
        assert f"hvshare {name} " in README
        help_text = hvshare(name, "--help")
        assert (help_text.returncode, help_text.stderr) == (0, "")
        assert "Examples:" in help_text.stdout
    for compression in COMPRESSIONS:
        assert compression.name in README


def test_every_caveat_is_in_the_glossary() -> None:
    glossary = (PROJECT / "docs" / "glossary.md").read_text(encoding="utf-8")
    sources = "".join(path.read_text(encoding="utf-8") for path in (PROJECT / "hvshare").rglob("*.py"))
    codes = set(re.findall(r'Caveat\(\s*"([a-z-]+)"', sources)) | {"digests-only"}
    assert len(codes) >= 12
    assert [code for code in sorted(codes) if f"`{code}`" not in glossary] == []


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_is_as_the_readme_says(shell: str) -> None:
    assert f"_HVSHARE_COMPLETE={shell}_source hvshare" in README
    script = hvshare(env=environment(_HVSHARE_COMPLETE=f"{shell}_source"))
    assert script.returncode == 0
    assert f"_HVSHARE_COMPLETE={shell}_complete" in script.stdout
    words = {"COMP_WORDS": "hvshare analyze --ver", "COMP_CWORD": "--ver" if shell == "fish" else "2"}
    offered = hvshare(env=environment(_HVSHARE_COMPLETE=f"{shell}_complete", **words))
    assert "--verify" in offered.stdout
    words = {"COMP_WORDS": "hvshare analyze du", "COMP_CWORD": "du" if shell == "fish" else "2"}
    # The shell completes file names itself when it is told that they are wanted.
    assert "file" in hvshare(env=environment(_HVSHARE_COMPLETE=f"{shell}_complete", **words)).stdout


def test_version() -> None:
    run = hvshare("--version")
    assert re.fullmatch(r"hvshare \d+\.\d+\.\d+\n", run.stdout)

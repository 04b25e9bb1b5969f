"""The arithmetic of ``make validate`` on made guests, on some that are small."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Iterator, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st

from tests import oracle
from tests.formats import pe_writer as pe
from tests.formats.pe_writer import PeSection, pe_file
from tests.validation import __main__ as command
from tests.validation import mapped, synth
from tests.validation.__main__ import DOCUMENT, main
from tests.validation.aslr_cases import AslrCase, aslr_table, measure_case, victims
from tests.validation.counting import Savings
from tests.validation.images import ALL, RUNNING
from tests.validation.lab import PAGE, ZERO
from tests.validation.made import Made, MakingError, make
from tests.validation.mapped import Effect, ImageProofs, is_known, measure_effect
from tests.validation.proofs import Predict, PredictionError, Proof, command_in
from tests.validation.synth import SynthProofs

PRESET = "windows7-x86"
SMALL = Fraction(1, 256)


def silent(_: str) -> None:
    pass


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Made:
    """Guests of 8 MiB, with their disk."""
    return make(tmp_path_factory.mktemp("made"), PRESET, silent, scale=SMALL)


def raw(made: Made, name: str) -> list[bytes]:
    data = (made.folder / f"{name}.raw").read_bytes()
    return [data[at : at + PAGE] for at in range(0, len(data), PAGE)]


@pytest.mark.parametrize("group", ["aslr", "prefetch"])
def test_truth_is_what_guests_without_aslr_hold(made: Made, group: str) -> None:
    as_is, without = (
        [*raw(made, f"{each}-a"), *raw(made, f"{each}-b")]
        for each in (group, f"{group.removeprefix('aslr')}noaslr")
    )
    truths = [made.truth(f"{group}-{letter}") for letter in "ab"]
    touched = [each for truth in truths for each in truth.touched]
    contents = [each for truth in truths for each in truth.contents]
    assert touched == [one != other for one, other in zip(as_is, without, strict=True)]
    assert 0 < sum(touched) < len(touched)
    # One key for one content, and no other; and zero pages are told as those of images are.
    assert len(set(contents)) == len(set(without)) == len(set(zip(contents, without, strict=True)))
    assert [each == ZERO for each in contents] == [page == bytes(PAGE) for page in without]
    owned = [owner for truth in truths for owner in truth.owners]
    assert all(page == bytes(PAGE) for page, owner in zip(as_is, owned, strict=True) if owner == "free")


def test_a_case_is_counted_as_the_oracle_does(made: Made) -> None:
    def predict(section: str, options: Sequence[str], guests: Sequence[str]) -> dict[str, Any]:
        assert (section, tuple(options), list(guests)) == ("aslr", (), ["aslr-a", "aslr-b"])
        return {
            "explained_saved_self": 3,
            "explained_saved_inter": 4,
            "upper_saved_frames": 9,
            "explained_pages": 5,
        }

    off, on = (
        oracle.count([raw(made, f"{group}-{letter}") for letter in "ab"], 1) for group in ("noaslr", "aslr")
    )
    truth, lower, upper, _, explained = measure_case(made, predict, "aslr")
    assert truth == tuple(off[each] - on[each] for each in ("saved_zero", "saved_self", "saved_inter"))
    assert truth.saved > 0
    assert (lower, upper, explained) == ((0, 3, 4), 9, 5)


CONTENTS = st.lists(st.tuples(st.integers(0, 6), st.integers(0, 3)), max_size=12)


@given(st.lists(CONTENTS, min_size=1, max_size=3))
def test_victims_lose_their_copies(vms: list[list[tuple[int, int]]]) -> None:
    as_is = [[bytes([number]) for number, _ in vm] for vm in vms]
    without = [[bytes([number]) for _, number in vm] for vm in vms]
    pages = [pair for vm in vms for pair in vm]
    expected = 0
    for at, (now, then) in enumerate(pages):
        rest = pages[:at] + pages[at + 1 :]
        expected += all(now != other for other, _ in rest) and any(then == other for _, other in rest)
    assert victims(as_is, without) == expected


@pytest.mark.parametrize(
    ("lower", "upper", "holds", "told"),
    [
        (80, 120, True, "| -20 % | 120 | within |"),
        (100, 100, True, "| +0 % | 100 | within |"),
        (101, 120, False, "| +1 % | 120 | **below it** |"),
        (50, 99, False, "| -50 % | 99 | **above it** |"),
    ],
)
def test_an_interval_holds_the_truth_or_not(lower: int, upper: int, *, holds: bool, told: str) -> None:
    case = AslrCase("p", "off", 1, Savings(0, 40, 60), Savings(0, 10, lower - 10), upper, 200, 150)
    assert case.holds is holds
    assert case.error == pytest.approx(lower / 100 - 1)
    text = "\n".join(aslr_table([case, dataclasses.replace(case, lower=Savings(0, 0, 100), upper=150)]))
    assert told in text
    assert f"p: {1 + holds} of 2 intervals hold the truth" in text
    assert "| 100 (self 40, inter-VM 60) |" in text
    assert "150 / 200" in text


class Remembered:
    """Runs the command once for each question, and changes what it says."""

    def __init__(self, predict: Predict) -> None:
        self._predict = predict
        self._known: dict[tuple[str, ...], dict[str, Any]] = {}
        self.change: Callable[[str, dict[str, Any]], dict[str, Any]] = lambda _, found: found

    def __call__(self, section: str, options: Sequence[str], guests: Sequence[str]) -> dict[str, Any]:
        key = (section, *options, "", *guests)
        if key not in self._known:
            self._known[key] = self._predict(section, options, guests)
        return self.change(section, self._known[key])


@pytest.fixture(scope="module")
def remembered(made: Made) -> Remembered:
    return Remembered(command_in(made.folder, silent))


@pytest.fixture
def on_small_guests(
    made: Made, remembered: Remembered, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Remembered]:
    monkeypatch.setattr(synth, "make", lambda *_, **__: made)
    monkeypatch.setattr(synth, "command_in", lambda *_: remembered)
    yield remembered
    remembered.change = lambda _, found: found


def of_small_guests() -> SynthProofs:
    return SynthProofs(silent, scale=SMALL, templates=(1,), presets=(PRESET,))


def wrong(proofs: SynthProofs) -> list[str]:
    return [row.figure for proof in proofs.proofs for row in proof.rows if not row.holds]


@pytest.mark.usefixtures("on_small_guests")
def test_everything_exact_holds() -> None:
    proofs = of_small_guests()
    assert wrong(proofs) == []
    assert [(case.preset, case.prefetching) for case in proofs.cases] == [(PRESET, "off"), (PRESET, "on")]
    text = proofs.markdown()
    assert text.count("\n| windows7-x86") == 2 + sum(len(proof.rows) for proof in proofs.proofs)
    assert "All 2 intervals" not in text
    assert f"All: {sum(case.holds for case in proofs.cases)} of 2 intervals hold the truth." in text
    found, pages = proofs.owners[PRESET, "prefetch"]["prefetched"]
    assert found == pages > 0
    assert proofs.owners[PRESET, "prefetch"]["stacks"][0] == 0


def test_wrong_predictions_are_told(on_small_guests: Remembered) -> None:
    def change(section: str, found: dict[str, Any]) -> dict[str, Any]:
        if section == "aslr":
            return {**found, "explained_saved_frames": 10**6}
        if section == "large-pages":
            ladder = {
                size: {**counts, "saved_inter": counts["saved_inter"] + 1}
                for size, counts in found["ladder"].items()
            }
            curve = [{**point, "saved_bytes": point["saved_bytes"] + PAGE} for point in found["curve"]]
            return {**found, "ladder": ladder, "curve": curve}
        disk = found["disk"] and {
            **found["disk"],
            "vms": [
                {**vm, "file_pages": {**vm["file_pages"], "pages": vm["file_pages"]["pages"] + 1}}
                for vm in found["disk"]["vms"]
            ],
        }
        return {
            **found,
            "disk": disk,
            "lower_frames": found["upper_frames"] + 1,
            "upper_frames": found["upper_frames"] + 1,
        }

    on_small_guests.change = change
    figures = wrong(of_small_guests())
    assert figures[:4] == [
        "control: lower bound of ASLR",
        "saved at 4 KB, frames",
        "saved at 2 MB, frames",
        "ends of the break curve, pages",
    ]
    assert figures[4:6] == ["file pages", "file pages"]
    assert figures[6:] == [
        f"taken away, {named}, frames"
        for named in ("nothing named", "--disk", "one --cold for both", "--cold for each")
    ]


def test_guests_that_cannot_be_made(tmp_path: Path) -> None:
    with pytest.raises(MakingError, match="need"):
        make(tmp_path, PRESET, silent, scale=SMALL, options=("--memory", "2MiB"))


def write_dlls(folder: Path) -> None:
    """A DLL of 8 pages of code an architecture, of which 4 hold a relocation."""
    for name, machine, kind in (("a", pe.I386, pe.HIGHLOW), ("b", pe.X86_64, pe.DIR64)):
        section = PeSection(b".text", bytes(range(256)) * 16 * 8, pe.CODE)
        fields = [(PAGE * (1 + number), kind) for number in range(4)]
        (folder / f"{name}.dll").write_bytes(pe_file([section], fields, machine=machine))
        (folder / f"{name}.ocx").write_bytes(pe_file([section], fields[:1], machine=machine))


@pytest.fixture
def no_series(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mapped, "series_findings", lambda *_: [])


@pytest.mark.usefixtures("no_series")
def test_shares_of_images(tmp_path: Path) -> None:
    write_dlls(tmp_path)
    proofs = ImageProofs(tmp_path, silent, scales={})
    for shares in proofs.shares.values():
        assert shares.images == 1
        assert (shares.sections[".text"].pages, shares.sections[".text"].relocated) == (8, 4)
        assert (shares.sections[ALL].pages, shares.sections[RUNNING].pages) == (10, 9)
    assert proofs.wrong == [
        "i386 " + RUNNING,
        "i386 .text",
        "x86-64 " + RUNNING,
        "x86-64 .rdata",
        "x86-64 .text",
    ]
    text = proofs.markdown()
    assert "| i386 | `.text` | 8 | 4 | **50.0 %** | 99 % |" in text
    assert "| x86-64 | `.reloc` | 1 | 0 | 0.0 % | – |" in text
    assert str(tmp_path) not in text


def test_what_the_series_finds(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    finding = {
        "label": "g",
        "quantity": "less",
        "value": 0.2,
        "lowest": 0.1,
        "highest": 0.25,
        "unit": "share",
    }
    claims = [{"number": number, "findings": [{**finding, "label": f"g{number}"}]} for number in range(1, 7)]

    def run(arguments: Sequence[str], _: Path) -> bytes:
        assert list(arguments[:4]) == ["simulate", "--experiment", "series", "--json"]
        return json.dumps({"claims": claims}).encode()

    write_dlls(tmp_path)
    monkeypatch.setattr(mapped, "run", run)
    text = ImageProofs(tmp_path, silent, scales={}).markdown()
    assert text.count("| less |") == text.count("| g4 | less | 20.0 % | 10.0 % | 25.0 % |") == 1


def test_shares_are_as_known_to_a_point() -> None:
    assert [is_known("i386", ".text", share) for share in (97.9, 98, 99.9, 100.1)] == [
        False,
        True,
        True,
        False,
    ]
    assert is_known("i386", ".rsrc", 12)


def test_an_effect_is_counted_as_the_oracle_does(made: Made) -> None:
    effect = measure_effect(PRESET, None, silent, scale=SMALL)
    names = ("saved_zero", "saved_self", "saved_inter")
    for found, group in ((effect.without, "noaslr"), (effect.with_it, "aslr")):
        counts = oracle.count([raw(made, f"{group}-{letter}") for letter in "ab"], 1)
        assert found == tuple(counts[name] for name in names)
    owned = [
        one != other
        for letter in "ab"
        for owner, one, other in zip(
            made.truth(f"aslr-{letter}").owners,
            raw(made, f"aslr-{letter}"),
            raw(made, f"noaslr-{letter}"),
            strict=True,
        )
        if owner in ("programs", "libraries")
    ]
    assert (effect.touched, effect.images) == (sum(owned), len(owned))


def test_an_effect_on_real_images(tmp_path: Path) -> None:
    write_dlls(tmp_path)
    effect = measure_effect(PRESET, tmp_path, silent, scale=SMALL, prefetching="on")
    assert (effect.libraries, effect.prefetching) == ("real", "on")
    assert effect.without.saved > effect.with_it.saved
    assert 0 < effect.touched < effect.images


@pytest.mark.usefixtures("no_series")
def test_effects_are_shares_of_what_is_saved(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def measure(preset: str, images: Path | None, *_: object, prefetching: str, **__: object) -> Effect:
        return Effect(
            preset,
            "real" if images else "made",
            prefetching,
            Savings(100, 40, 60),
            Savings(100, 30, 45),
            1,
            4,
        )

    write_dlls(tmp_path)
    monkeypatch.setattr(mapped, "measure_effect", measure)
    lines = ImageProofs(tmp_path, silent, scales={"p": SMALL}).markdown().splitlines()
    rest = "| 25.0 % | 40 to 30: 25.0 % | 60 to 45: 25.0 % | 100 to 75: 25.0 % | 200 to 175: 12.5 % |"
    assert [line for line in lines if line.startswith("| p |")] == [
        f"| p | {libraries} | {prefetching} {rest}"
        for libraries in ("made", "real")
        for prefetching in ("off", "on")
    ]


class FakeProofs:
    """What the command is to write."""

    def __init__(self, *, holds: bool) -> None:
        proof = Proof("title", "command", "truth")
        proof.equal(["guest"], "figure", 1, 1 if holds else 2)
        self.proofs, self.wrong = (proof,), [] if holds else ["i386 .text"]

    def markdown(self) -> str:
        return "tables"


@pytest.mark.parametrize("holds", [True, False])
@pytest.mark.parametrize("name", ["synth", "images"])
def test_as_a_command(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, name: str, *, holds: bool) -> None:
    monkeypatch.setattr(command, "SynthProofs", lambda _: FakeProofs(holds=holds))
    monkeypatch.setattr(command, "ImageProofs", lambda *_: FakeProofs(holds=holds))
    document = tmp_path / "validation.md"
    document.write_text(f"before\n<!-- {name} -->\nold\n<!-- /{name} -->\nafter\n")
    asked = ["--synth"] if name == "synth" else ["--images", str(tmp_path)]
    run = CliRunner().invoke(main, [*asked, "--document", str(document)])
    assert (run.exit_code, run.stdout) == (0 if holds else 1, "tables\n")
    assert "old" in document.read_text()
    run = CliRunner().invoke(main, [*asked, "--document", str(document), "--write"])
    assert (run.exit_code, run.stdout) == (0 if holds else 1, "")
    assert document.read_text() == f"before\n<!-- {name} -->\n\ntables\n<!-- /{name} -->\nafter\n"


def test_a_command_that_fails_is_told(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for error in (MakingError("no guest"), PredictionError("no figure")):

        def fail(_: object, error: Exception = error) -> FakeProofs:
            raise error

        monkeypatch.setattr(command, "SynthProofs", fail)
        run = CliRunner().invoke(main, ["--synth"])
        assert (run.exit_code, run.output) == (1, f"Error: {error}\n")
    run = CliRunner().invoke(main, ["--images", str(tmp_path)])
    assert (run.exit_code, run.output.count("Error: ")) == (1, 1)
    for arguments in ([], [str(tmp_path), "--write"]):
        run = CliRunner().invoke(main, arguments)
        assert (run.exit_code, run.output.count("Error: ")) == (2, 1)


def test_the_document_has_room() -> None:
    text = DOCUMENT.read_text(encoding="utf-8")
    for name in ("synth", "images"):
        assert text.count(f"<!-- {name} -->") == text.count(f"<!-- /{name} -->") == 1

"""Sweeps: how values are written, and that each point is the experiment of its value."""

from __future__ import annotations

import dataclasses
from decimal import Decimal
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hvshare.errors import PresetError
from hvshare.simulation.making import Request
from hvshare.simulation.results import Spread
from hvshare.simulation.sweeping import at_value, sweep
from hvshare.simulation.sweeps import MOST_POINTS, PARAMETERS, Value, parse_sweep
from hvshare.synth.preset_file import load_preset
from tests.unit.test_simulation_maker import MEMORY, PAGES, Maker, Progress, expected, laboratory, request


@pytest.mark.parametrize(
    ("text", "values", "labels"),
    [
        ("vms=1..3", (1, 2, 3), ("1", "2", "3")),
        ("vms = 1..9:4", (1, 5, 9), ("1", "5", "9")),
        ("vms=1..10:4", (1, 5, 9), ("1", "5", "9")),
        ("vms=7", (7,), ("7",)),
        ("vms=8,2..3", (8, 2, 3), ("8", "2", "3")),
        (
            "prefetch=off,0.25,superfetch",
            ("off", Fraction(1, 4), "superfetch"),
            ("off", "0.25", "superfetch"),
        ),
        ("diversity=0..1:0.5", (0, Fraction(1, 2), 1), ("0", "0.5", "1")),
        ("memory=1GiB..2G:512MiB", (1 << 30, 3 << 29, 2 << 30), ("1.0 GiB", "1.5 GiB", "2.0 GiB")),
        ("guest-large-pages=0,64M", (0, 64 << 20), ("0 B", "64.0 MiB")),
        ("aslr=off,on", ("off", "on"), ("off", "on")),
        ("written=0..200:100", (0, 100, 200), ("0", "100", "200")),
        # Rounded, these would be two times "4.0 GiB", and "1.0 KiB" beside it.
        (
            "memory=4GiB,4098MiB,6GiB",
            (4 << 30, 4098 << 20, 6 << 30),
            ("4 GiB", "4,098 MiB", "6 GiB"),
        ),
        ("apps=0,1024,1025", (0, 1024, 1025), ("0 B", "1 KiB", "1,025 B")),
        (
            "diversity=0.12345671,0.12345672",
            (Fraction(12345671, 10**8), Fraction(12345672, 10**8)),
            ("12345671/100000000", "1543209/12500000"),
        ),
    ],
)
def test_values(text: str, values: tuple[Value, ...], labels: tuple[str, ...]) -> None:
    axis = parse_sweep(text)
    assert axis.parameter == text.partition("=")[0].strip()
    assert (axis.values, axis.labels) == (values, labels)


@given(st.integers(0, 500), st.integers(0, 500), st.integers(1, 100))
def test_steps_are_exact(first: int, steps: int, thousandths: int) -> None:
    start, step = Decimal(first) / 1000, Decimal(thousandths) / 1000
    last = min(start + step * steps, Decimal(1))
    values = parse_sweep(f"fragmentation={start:f}..{last:f}:{step:f}").values
    wanted = []
    value = start
    while value <= last:
        wanted.append(Fraction(value))
        value += step
    assert list(values) == wanted


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("vms", "names no values"),
        ("vms=", "names no values"),
        ("", "names no values"),
        ("cpus=1..3", "no parameter 'cpus'"),
        ("vms=0..3", "0 is too little"),
        ("vms=3..1", "ends before it starts"),
        ("vms=1..3:0", "a step of nothing"),
        ("vms=one", "'one' is no whole number"),
        ("vms=1.5", "'1.5' is no whole number"),
        ("vms=-1", "'-1' is no whole number"),
        ("vms=1..", "'' is no whole number"),
        ("vms=1,,2", "'' is no whole number"),
        ("vms=1..3:x", "'x' is no whole number"),
        ("vms=1,2,1", "has 1 twice"),
        ("vms=1..3,2", "has 2 twice"),
        ("prefetch=0..1", "has no step"),
        ("prefetch=0..1.5:0.5", "1.5 is too much"),
        ("prefetch=always", "'always' is no number"),
        ("prefetch=nan", "'nan' is no number"),
        ("prefetch=off..superfetch", "'off' is no number"),
        ("memory=1GiB..8GiB", "has no step"),
        ("memory=big", "'big' is no size"),
        ("memory=3MiB", "3MiB is no multiple of 2 MB"),
        ("memory=2MiB..8MiB:3MiB", "3MiB is no multiple of 2 MB"),
        ("memory=0", "0 is too little; give 2.0 MiB or more"),
        ("guest-large-pages=1MiB", "1MiB is no multiple of 2 MB"),
        (f"diversity=0.{'1' * 5000}", "is no number"),
        (f"vms={'9' * 5000}", "is no whole number"),
        ("aslr=0..1:1", "neither off nor on"),
        ("aslr=maybe", "neither off nor on"),
        ("written=1..9999999", f"more than {MOST_POINTS:,} values"),
        ("written=0..1000", f"more than {MOST_POINTS:,} values"),
    ],
)
def test_what_is_wrong_is_named(text: str, problem: str) -> None:
    with pytest.raises(PresetError) as caught:
        parse_sweep(text)
    assert problem in str(caught.value)
    assert str(caught.value).startswith(f"--sweep {text}: ")
    assert caught.value.advice


@pytest.mark.parametrize("parameter", PARAMETERS)
def test_every_parameter_refuses_nonsense_with_advice(parameter: str) -> None:
    with pytest.raises(PresetError) as caught:
        parse_sweep(f"{parameter}=?")
    assert caught.value.advice


@pytest.mark.parametrize(
    ("parameter", "value", "changed"),
    [
        ("prefetch", "off", {"prefetch": "off"}),
        ("prefetch", Fraction(1, 2), {"prefetch": Fraction(1, 2)}),
        ("aslr", "off", {"aslr": False}),
        ("aslr", "on", {"aslr": True}),
        ("memory", 64 << 20, {"memory_bytes": 4 << 20}),
        ("apps", 32 << 20, {"apps": 2 << 20}),
        ("apps", 1 << 20, {"apps": 64 << 10}),
        ("apps", (1 << 20) + 1, {"apps": 64 << 10}),
        ("apps", 1, {"apps": 4096}),
        ("apps", 0, {"apps": 0}),
        ("guest-large-pages", 0, {"guest_large_pages": 0}),
        ("guest-large-pages", 64 << 20, {"guest_large_pages": 4 << 20}),
        ("fragmentation", Fraction(1, 3), {"fragmentation": Fraction(1, 3)}),
        ("diversity", Fraction(1, 3), {"diversity": Fraction(1, 3)}),
        ("vms", 5, {}),
        ("written", 5, {}),
    ],
)
def test_one_parameter_changes_and_sizes_are_scaled(
    parameter: str, value: Value, changed: dict[str, object]
) -> None:
    asked = request()
    found = at_value(asked, parameter, value, Fraction(1, 16))
    assert found == dataclasses.replace(asked, **changed)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("text", "labels"),
    [
        ("memory=64MiB,66MiB", ("64.0 MiB", "66.0 MiB")),
        ("memory=4GiB..4100MiB:2MiB", ("4 GiB", "4,098 MiB")),
        ("apps=1KiB,0,2KiB", ("1.0 KiB", "2.0 KiB")),
        ("guest-large-pages=32MiB,40MiB", ("32.0 MiB", "40.0 MiB")),
    ],
)
def test_values_that_make_the_same_guests_are_both_named(text: str, labels: tuple[str, str]) -> None:
    maker = Maker()
    with pytest.raises(PresetError) as caught:
        sweep(laboratory(maker), request(), parse_sweep(text), scale=Fraction(1, 16))
    assert f"{labels[0]} and {labels[1]} make the same guests" in str(caught.value)
    assert caught.value.advice
    assert not maker.checked


def test_applications_in_large_pages_are_no_less() -> None:
    asked = request(guest_large_pages=2 << 20)
    with pytest.raises(PresetError, match=r"0 B and 1\.0 MiB make the same guests"):
        sweep(laboratory(Maker()), asked, parse_sweep("apps=0,1MiB"), scale=Fraction(1))


@pytest.mark.parametrize(("parameter", "value"), [("memory", 30 << 20), ("guest-large-pages", 30 << 20)])
def test_a_size_below_a_large_frame_is_not_made_larger(parameter: str, value: int) -> None:
    with pytest.raises(PresetError, match=r"30\.0 MiB at a scale of 1/16 is less than 2 MB"):
        at_value(request(), parameter, value, Fraction(1, 16))


def test_aslr_is_not_switched_on_where_there_is_none() -> None:
    maker = Maker()
    asked = dataclasses.replace(Request.of(load_preset("windows-xp-x86")), memory_bytes=MEMORY)
    with pytest.raises(PresetError, match="windows-xp-x86 has none") as caught:
        sweep(laboratory(maker), asked, parse_sweep("aslr=off,on"), scale=Fraction(1))
    assert caught.value.advice
    assert not maker.checked
    found = sweep(laboratory(maker), asked, parse_sweep("aslr=off"), scale=Fraction(1))
    assert [point.label for point in found.points] == ["off"]


@pytest.mark.parametrize("text", ["apps=0,1M,64M", "memory=4M,2M", "guest-large-pages=0,64M"])
def test_all_points_are_checked_before_the_first_guest_is_made(text: str) -> None:
    maker, progress = Maker(), Progress()
    with pytest.raises(PresetError, match="more is asked for"):
        sweep(
            laboratory(maker, 2, (1, 2), progress),
            request(apps=3 << 19),
            parse_sweep(text),
            scale=Fraction(1),
        )
    assert not maker.asked
    assert not progress.passes


def test_guests_are_made_once_where_their_number_varies() -> None:
    maker, progress = Maker(), Progress()
    asked = request(prefetch="off")
    found = sweep(laboratory(maker, 1, (1, 2), progress), asked, parse_sweep("vms=3,1..2"), scale=Fraction(1))
    assert len(maker.asked) == 2 * 3
    assert not maker.open
    assert progress.done == [total for _, total in progress.passes] == [6 * PAGES]
    assert (found.vms, found.parameter, found.memory_bytes) == (3, "vms", MEMORY)
    assert [point.value for point in found.points] == [3, 1, 2]
    for point in found.points:
        check_point(found.points.index(point), [asked] * 3, [3, 1, 2], found.points)


def check_point(index: int, asked: list[Request], vms: list[int], points: object) -> None:
    assert isinstance(points, tuple)
    small = [expected(asked[index], vms[index], seed) for seed in (1, 2)]
    large = [expected(asked[index], vms[index], seed, 2 << 20) for seed in (1, 2)]
    spreads = {name: Spread.of([of_seed[name] for of_seed in small]) for name in small[0]}
    point = points[index]
    assert (point.small, point.zero, point.self_sharing, point.inter_vm) == (
        spreads["saved"], spreads["zero"], spreads["self"], spreads["inter"],
    )  # fmt: skip
    assert point.large == Spread.of([of_seed["saved"] for of_seed in large])


@pytest.mark.parametrize(
    ("text", "values", "asked"),
    [
        ("prefetch=off,0.5", ["off", 0.5], [request(prefetch="off"), request(prefetch=Fraction(1, 2))]),
        ("aslr=on,off", ["on", "off"], [request(aslr=True), request(aslr=False)]),
        (
            "guest-large-pages=2M,0",
            [2 << 20, 0],
            [request(guest_large_pages=2 << 20, apps=2 << 20), request(apps=2 << 20)],
        ),
        ("memory=4M,6M", [4 << 20, 6 << 20], [request(), request(memory_bytes=6 << 20)]),
    ],
)
def test_points_are_experiments_of_their_own(text: str, values: list[object], asked: list[Request]) -> None:
    maker, progress = Maker(), Progress()
    found = sweep(laboratory(maker, 2, (1, 2), progress), request(), parse_sweep(text), scale=Fraction(1))
    assert [point.value for point in found.points] == values
    assert found.memory_bytes == max(each.memory_bytes for each in asked)
    assert progress.done == [total for _, total in progress.passes]
    for index in range(2):
        check_point(index, asked, [2, 2], found.points)


def test_clones_that_write_more_save_less() -> None:
    maker = Maker()
    asked = request(prefetch="off")
    axis = parse_sweep(f"written=0,16,{PAGES}")
    found = sweep(laboratory(maker, 3, (1, 2)), asked, axis, scale=Fraction(1))
    assert len(maker.asked) == 2
    none, some, all_pages = found.points
    assert none.small.mean > some.small.mean > all_pages.small.mean == 0
    assert none.large.mean > some.large.mean
    assert "written-is-unique" in {caveat.code for caveat in found.caveats}

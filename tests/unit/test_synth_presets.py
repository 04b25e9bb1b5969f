"""Presets of synthetic guests: what is in the package, and what is wrong with those of users."""

from __future__ import annotations

import os
import threading
from fractions import Fraction
from pathlib import Path

import pytest

from hvshare.errors import PresetError
from hvshare.synth.preset_file import load_preset, parse_preset, preset_names, preset_text, user_files
from hvshare.synth.settings import Prefetching, Settings

NAMES = ["linux-x64", "windows-xp-x86", "windows7-x64", "windows7-x86"]


def test_the_package_has_the_presets_of_the_documents() -> None:
    assert preset_names() == NAMES
    assert [load_preset(name).name for name in NAMES] == NAMES
    assert all(load_preset(name).source for name in NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_a_copy_is_the_same_preset(name: str, tmp_path: Path) -> None:
    copy = tmp_path / "mine.toml"
    copy.write_text(preset_text(name))
    assert load_preset(str(copy)) == load_preset(name)


def test_measured_densities_are_in_the_presets() -> None:
    # FACTS: 52.5 % of i386 image pages and 8.2 % of x86-64 image pages hold a relocation (PE).
    relocated = {name: load_preset(name).images.relocated for name in NAMES}
    assert relocated["windows7-x86"] == relocated["windows-xp-x86"] == Fraction("0.525")
    assert relocated["windows7-x64"] == Fraction("0.082")


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        ('memory = "2 GiB"', "", "memory is missing"),
        ('memory = "2 GiB"', 'memory = "3 MiB"', "memory is no multiple of 2 MB"),
        ('memory = "2 GiB"', "memory = 2147483648", "memory: 2147483648 is no size"),
        ('memory = "2 GiB"', 'memory = "much"', "memory: 'much' is no size"),
        ('memory = "2 GiB"', 'memory = "99999 TiB"', "memory: 99999 TiB is more than"),
        ('memory = "2 GiB"', 'memory = "2 GiB"\nmemroy = "2 GiB"', "memroy is an unknown key"),
        ("common = 0.05", "common = 1.5", "kernel.common: 1.5 is no share"),
        ("common = 0.05", "common = nan", "kernel.common: nan is no share"),
        ("common = 0.05", "common = true", "kernel.common: True is no share"),
        ("library-files = 1000", "library-files = -1", "disk.library-files: -1 is no count"),
        ("library-files = 1000", "library_files = 1000", "disk.library_files is an unknown key"),
        ("relocated = 0.525", "relocated = 0.6", "images.relocated is more than images.code"),
        ("code = 0.53", "code = 0.9", "more than 1 together"),
        ('kind = "windows"', 'kind = "amiga"', "aslr.kind: 'amiga' is none of none, windows, linux"),
        ('kind = "windows"', 'kind = "linux"', "aslr.kind is linux, and architecture i386"),
        ("heap-places = 32", "heap-places = 0", "aslr.heap-places is not from 1 to 256"),
        ("user-end = 0x7FFF0000", "user-end = 0x7FFF0001", "aslr.user-end: 2147418113 is no address"),
        ("hour = 10", "hour = 168", "prefetcher.hour is more than 167"),
        ('prefetch = "superfetch"', 'prefetch = "preload"', "prefetch is preload, and prefetcher.kind"),
        ("processes = 12", "processes = 1.5", "programs[1].processes: 1.5 is no count"),
        ('name = "svchost"', 'name = "tray"', "two programs have one name"),
        ('name = "svchost"', 'name = "a\\nb"', "programs[1].name: 'a\\nb' is no text"),
        ("[kernel]", "[[kernel]]", "kernel is no table"),
        ("near = 0.10", "near = 0.90", "heaps.common and heaps.near are more than 1 together"),
        ("[kernel]", "[kernel", "it is no TOML"),
    ],
)
def test_an_error_names_the_key(old: str, new: str, told: str) -> None:
    text = preset_text("windows7-x86")
    assert text.count(old) >= 1
    with pytest.raises(PresetError) as caught:
        parse_preset(text.replace(old, new, 1), "mine.toml")
    assert str(caught.value).startswith("mine.toml: ")
    assert told in str(caught.value)
    assert caught.value.advice


def test_an_unknown_key_names_the_known_ones() -> None:
    with pytest.raises(PresetError, match="known here are image, drivers, data, common, firmware"):
        parse_preset(preset_text("linux-x64").replace("drivers =", "modules ="), "mine.toml")


def test_what_is_no_preset_is_told(tmp_path: Path) -> None:
    with pytest.raises(PresetError, match="give one of linux-x64, windows-xp-x86"):
        load_preset("windows95")
    with pytest.raises(PresetError, match="cannot be read"):
        load_preset(str(tmp_path / "none.toml"))
    (tmp_path / "binary.toml").write_bytes(b"name = '\xff'")
    with pytest.raises(PresetError, match="at byte 8: it is no text in UTF-8"):
        load_preset(str(tmp_path / "binary.toml"))
    (tmp_path / "large.toml").write_bytes(bytes(2 << 20))
    with pytest.raises(PresetError, match="too large"):
        load_preset(str(tmp_path / "large.toml"))
    (tmp_path / "folder.toml").mkdir()
    with pytest.raises(PresetError, match=r"cannot be read \(Is a directory\)"):
        load_preset(str(tmp_path / "folder.toml"))


def test_a_preset_has_a_mebibyte_at_the_most(tmp_path: Path) -> None:
    text = preset_text("linux-x64")
    comment = "#" * ((1 << 20) - len(text.encode()))
    (tmp_path / "whole.toml").write_text(text + comment, "utf-8")
    assert load_preset(str(tmp_path / "whole.toml")) == load_preset("linux-x64")
    (tmp_path / "more.toml").write_text(text + comment + "#", "utf-8")
    with pytest.raises(PresetError, match=r"too large for a preset: more than 1\.0 MiB"):
        load_preset(str(tmp_path / "more.toml"))


def test_a_pipe_is_read_no_further_than_a_preset_can_be(tmp_path: Path) -> None:
    pipe, written = tmp_path / "pipe.toml", [0]
    os.mkfifo(pipe)

    def write() -> None:
        with pipe.open("wb", buffering=0) as file:
            try:
                for _ in range(1 << 10):
                    written[0] += file.write(bytes(1 << 16))
            except BrokenPipeError:
                return

    writer = threading.Thread(target=write, daemon=True)
    writer.start()
    with pytest.raises(PresetError, match="too large for a preset"):
        load_preset(str(pipe))
    writer.join(10)
    assert not writer.is_alive()
    assert written[0] <= 2 << 20  # of 64 MiB; the pipe itself holds some


def test_files_of_users_are_known() -> None:
    assert [user_files(name) for name in NAMES] == [[]] * 4
    assert user_files("./linux-x64") == ["./linux-x64"]


def test_a_scale_changes_sizes_and_nothing_else() -> None:
    whole, half = load_preset("windows7-x64"), load_preset("windows7-x64").scaled(Fraction(1, 2))
    assert half.memory * 2 == whole.memory
    assert half.disk.text * 2 == whole.disk.text
    assert half.disk.library_files == whole.disk.library_files
    assert half.images == whole.images
    assert [each.heap * 2 for each in half.programs] == [each.heap for each in whole.programs]
    tiny = load_preset("windows7-x64").scaled(Fraction(1, 1_000_000))
    assert tiny.memory == 2 << 20
    assert {each.heap for each in tiny.programs} == {4096}


def test_prefetching_is_off_a_prefetcher_or_a_fraction() -> None:
    windows, linux = load_preset("windows7-x64"), load_preset("linux-x64")
    assert Prefetching.parse("default", windows) == Prefetching("superfetch")
    assert Prefetching.parse("default", linux) == Prefetching("off")
    assert Prefetching.parse("1/4", linux) == Prefetching("preload", Fraction(1, 4))
    assert Prefetching.parse("0", linux).kind == "off"
    assert Prefetching.parse("preload", windows) == Prefetching("preload")
    for wrong in ("1.5", "-0.1", "much", "1/0", "nan", ""):
        with pytest.raises(PresetError, match="fraction from 0 to 1"):
            Prefetching.parse(wrong, windows)


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        ({"memory": 3 << 20}, "multiple of 2 MB"),
        ({"memory": 0}, "multiple of 2 MB"),
        ({"memory": 1 << 60}, "up to 16.0 TiB"),
        ({"fragmentation": Fraction(3, 2)}, "fragmentation of 3/2"),
        ({"vm": -1}, "vm -1"),
        ({"boot": 1 << 64}, "boot 18446744073709551616"),
        ({"apps": -1}, "apps of -1 bytes"),
    ],
)
def test_settings_that_cannot_be_are_told(wrong: dict[str, int], told: str) -> None:
    asked = {"memory": 64 << 20, **wrong}
    with pytest.raises(PresetError, match=told):
        Settings(load_preset("linux-x64"), **asked)  # type: ignore[arg-type]

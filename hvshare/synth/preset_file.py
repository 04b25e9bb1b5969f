"""Presets of the package, and those of users: TOML files whose every key is checked."""

from __future__ import annotations

import dataclasses
import tomllib
from fractions import Fraction
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal, TypeVar, get_args, get_origin, get_type_hints

from hvshare.errors import PresetError, SizeError
from hvshare.synth.preset import Preset
from hvshare.synth.preset_spaces import check_address_spaces
from hvshare.units import LARGE_FRAME_SIZE, format_size, parse_size

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

T = TypeVar("T")

_LARGEST: Final = 1 << 44
"""No size of a preset is larger: 16 TiB."""
_MOST_THINGS: Final = 10_000
_LARGEST_FILE: Final = 1 << 20


def _size(text: object) -> int:
    if not isinstance(text, str):
        raise SizeError(f"{text!r} is no size", advice='write it like "64 MiB"')
    size = parse_size(text)
    if size > _LARGEST:
        raise SizeError(f"{text} is more than {format_size(_LARGEST)}", advice="give less")
    return size


def _share(number: object) -> Fraction:
    if isinstance(number, bool) or not isinstance(number, (int, float)) or not 0 <= number <= 1:
        raise SizeError(f"{number!r} is no share", advice="give a number from 0 to 1")
    return Fraction(str(number))


def _count(number: object) -> int:
    if isinstance(number, bool) or not isinstance(number, int) or not 0 <= number <= _MOST_THINGS:
        raise SizeError(f"{number!r} is no count", advice=f"give a whole number from 0 to {_MOST_THINGS:,}")
    return number


def _line(value: object) -> str:
    if not isinstance(value, str) or not value.isprintable():
        raise SizeError(f"{value!r} is no text", advice="give it in quotes, on one line")
    return value


def _address(value: object) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value < 1 << 64 or value % 4096:
        raise SizeError(f"{value!r} is no address of a page", advice="give a multiple of 0x1000 below 2^64")
    return value


_PARSERS: Final[Mapping[str, Callable[[object], Any]]] = {
    "size": _size,
    "share": _share,
    "count": _count,
    "line": _line,
    "address": _address,
}


def preset_names() -> list[str]:
    """Name the presets of the package."""
    folder = resources.files("hvshare.synth") / "presets"
    return sorted(each.name.removesuffix(".toml") for each in folder.iterdir() if each.name.endswith(".toml"))


def load_preset(name: str) -> Preset:
    """Load a preset of the package, or one of a user's.

    Parameters
    ----------
    name : str
        One of `preset_names`, or the path of a TOML file: something with a ``/`` or that ends in ``.toml``.

    Returns
    -------
    Preset

    Raises
    ------
    PresetError
        If there is none of that name, or a key of it is missing, unknown, or of a value that cannot be.

    Examples
    --------
    >>> load_preset("windows7-x64").architecture
    'x86-64'
    """
    return parse_preset(preset_text(name), name)


def user_files(name: str) -> list[str]:
    """Name the files of a user that a preset is read from, which no result may overwrite; see `load_preset`.

    Examples
    --------
    >>> user_files("windows7-x64"), user_files("./mine.toml")
    ([], ['./mine.toml'])
    """
    return [] if name in preset_names() else [name]


def preset_text(name: str) -> str:
    """Return a preset as it is written down; see `load_preset`.

    Raises
    ------
    PresetError
        If there is none of that name, or it cannot be read.
    """
    if name in preset_names():
        return (resources.files("hvshare.synth") / "presets" / f"{name}.toml").read_text("utf-8")
    if "/" not in name and not name.endswith(".toml"):
        raise PresetError(
            "it is no preset",
            path=name,
            advice=f"give one of {', '.join(preset_names())}, or the path of a TOML file",
        )
    try:
        with Path(name).open("rb") as file:
            # What is no regular file tells no size, and may have no end.
            content = file.read(_LARGEST_FILE + 1)
        if len(content) > _LARGEST_FILE:
            raise PresetError(
                f"it is too large for a preset: more than {format_size(_LARGEST_FILE)}",
                path=name,
                advice="check the name",
            )
        return content.decode("utf-8")
    except OSError as error:
        raise PresetError(
            f"it cannot be read ({error.strerror or error})", path=name, advice="check the name"
        ) from error
    except UnicodeDecodeError as error:
        raise PresetError(
            "it is no text in UTF-8", path=name, offset=error.start, advice="check the file"
        ) from error


def parse_preset(text: str, path: str) -> Preset:
    """Read a preset.

    Parameters
    ----------
    text : str
        TOML.
    path : str
        What errors call it.

    Raises
    ------
    PresetError
        As `load_preset`.
    """
    try:
        document = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise PresetError(f"it is no TOML: {error}", path=path, advice="correct it there") from error
    preset: Preset = _parse_table(document, Preset, path, "")
    _check(preset, path)
    return preset


def _parse_table(table: Mapping[str, Any], kind: type[T], path: str, place: str) -> T:
    fields = {each.name: each for each in dataclasses.fields(kind)}  # type: ignore[arg-type]
    for key in table:
        if key.replace("-", "_") not in fields or "_" in key:
            keys = ", ".join(name.replace("_", "-") for name in fields)
            raise PresetError(f"{place}{key} is an unknown key", path=path, advice=f"known here are {keys}")
    hints = get_type_hints(kind, include_extras=True)
    values = {}
    for name, each in fields.items():
        key = name.replace("_", "-")
        if key in table:
            values[name] = _parse_value(table[key], hints[name], path, f"{place}{key}")
        elif each.default is dataclasses.MISSING:
            raise PresetError(f"{place}{key} is missing", path=path, advice="give it a value")
    return kind(**values)


def _parse_value(value: object, hint: Any, path: str, key: str) -> Any:  # noqa: ANN401  # as annotations are
    if dataclasses.is_dataclass(hint) and isinstance(hint, type):
        if not isinstance(value, dict):
            raise PresetError(f"{key} is no table", path=path, advice=f"write its keys under [{key}]")
        return _parse_table(value, hint, path, f"{key}.")
    if get_origin(hint) is tuple:
        if not isinstance(value, list) or not value or not all(isinstance(each, dict) for each in value):
            raise PresetError(f"{key} is no list of tables", path=path, advice=f"write each under [[{key}]]")
        kind = get_args(hint)[0]
        return tuple(_parse_table(each, kind, path, f"{key}[{number}].") for number, each in enumerate(value))
    try:
        if get_origin(hint) is Literal:
            return _one_of(value, get_args(hint))
        return _PARSERS[hint.__metadata__[0]](value)
    except SizeError as error:
        raise PresetError(f"{key}: {error.problem}", path=path, advice=error.advice) from error


def _one_of(value: object, known: tuple[str, ...]) -> object:
    if value not in known:
        raise SizeError(f"{value!r} is none of {', '.join(known)}", advice="give one of these")
    return value


def _check(preset: Preset, path: str) -> None:
    """Hold values against each other."""
    images, heaps = preset.images, preset.heaps
    holder = images.code if preset.architecture == "i386" else images.constants
    name = "code" if preset.architecture == "i386" else "constants"
    names = [program.name for program in preset.programs]
    for wrong, problem, advice in (
        (
            not preset.memory or preset.memory % LARGE_FRAME_SIZE,
            "memory is no multiple of 2 MB",
            "memory is given in whole large frames",
        ),
        (
            images.code + images.constants + images.writable > 1,
            "images.code, constants and writable are more than 1 together",
            "lower one of them",
        ),
        (
            images.relocated > holder,
            f"images.relocated is more than images.{name}, the pages that can hold addresses",
            f"lower it, or give more to images.{name}",
        ),
        (
            heaps.common + heaps.near > 1,
            "heaps.common and heaps.near are more than 1 together",
            "lower one of them",
        ),
        (len(set(names)) < len(names), "two programs have one name", "give each a name of its own"),
        (
            not 1 <= preset.aslr.heap_places <= 256,
            "aslr.heap-places is not from 1 to 256",
            "Windows has 32, and 1 leaves heaps alone",
        ),
        (
            preset.aslr.kind == "linux" and preset.architecture != "x86-64",
            "aslr.kind is linux, and architecture i386",
            "give x86-64: how Linux lays out 32-bit programs is not there",
        ),
        (
            preset.prefetcher.hour > 167,
            "prefetcher.hour is more than 167",
            "hours of the week are from 0 to 167",
        ),
        (
            preset.prefetch not in ("off", preset.prefetcher.kind),
            f"prefetch is {preset.prefetch}, and prefetcher.kind {preset.prefetcher.kind}",
            "give the same",
        ),
    ):
        if wrong:
            raise PresetError(problem, path=path, advice=advice)
    check_address_spaces(preset, path)

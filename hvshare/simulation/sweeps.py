"""The values that a parameter takes one after another, as users write them."""

from __future__ import annotations

import dataclasses
import re
from dataclasses import dataclass
from fractions import Fraction
from typing import TYPE_CHECKING, Final

from hvshare.errors import PresetError, SizeError
from hvshare.units import LARGE_FRAME_SIZE, format_size, parse_fraction, parse_size

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

Value = Fraction | int | str

MOST_POINTS: Final = 1000
"""Values of one sweep at the most."""
_COUNTED: Final = re.compile(r"\d{1,30}", re.ASCII)
_UNITS: Final = {"TiB": 1 << 40, "GiB": 1 << 30, "MiB": 1 << 20, "KiB": 1 << 10, "B": 1}


@dataclass(frozen=True)
class Axis:
    """A parameter and its values.

    Attributes
    ----------
    parameter : str
        Out of `PARAMETERS`.
    values : tuple of int, Fraction or str
        In the order given, each once: counts and bytes are ints, shares fractions, and words text.
    labels : tuple of str
        The same for people; no two alike.
    """

    parameter: str
    values: tuple[Value, ...]
    labels: tuple[str, ...]


@dataclass(frozen=True)
class _Scale:
    """How the values of a parameter are read and shown."""

    hint: str
    parse: Callable[[str], Fraction | int]
    show: Callable[[Fraction | int], str]
    show_exactly: Callable[[Fraction | int], str] = str
    lowest: int = 0
    highest: int | None = None
    step: int | None = None
    words: tuple[str, ...] = ()


def _count(text: str) -> int:
    if not _COUNTED.fullmatch(text):
        raise SizeError(f"{text!r} is no whole number")
    return int(text)


def _share(text: str) -> Fraction:
    try:
        return parse_fraction(text)
    except ValueError as error:
        raise SizeError(f"{text!r} is no number") from error


def _whole_frames(text: str) -> int:
    size = parse_size(text)
    if size % LARGE_FRAME_SIZE:
        raise SizeError(f"{text} is no multiple of 2 MB", advice="write it like 512M or 8GiB")
    return size


def _no_number(text: str) -> int:
    raise SizeError(f"{text!r} is neither off nor on")


def _shown_share(value: Fraction | int) -> str:
    return f"{float(value):.6g}"


def _shown_size(value: Fraction | int) -> str:
    return format_size(int(value))


def _exact_size(value: Fraction | int) -> str:
    unit = next(unit for unit, size in _UNITS.items() if not value % size)
    return f"{int(value) // _UNITS[unit]:,} {unit}" if value else "0 B"


_COUNT: Final = _Scale("a whole number", _count, str, step=1)
_SIZE: Final = _Scale("a size such as 1GiB", parse_size, _shown_size, _exact_size)
_FRAMES: Final = _Scale("a size such as 1GiB", _whole_frames, _shown_size, _exact_size)
_SHARE: Final = _Scale("a number from 0 to 1", _share, _shown_share, highest=1)
_SCALES: Final = {
    "vms": _Scale("a whole number", _count, str, lowest=1, step=1),
    "prefetch": _Scale(
        "a number from 0 to 1", _share, _shown_share, highest=1, words=("off", "superfetch", "preload")
    ),
    "aslr": _Scale("", _no_number, str, words=("off", "on")),
    "memory": dataclasses.replace(_FRAMES, lowest=LARGE_FRAME_SIZE),
    "apps": _SIZE,
    "guest-large-pages": _FRAMES,
    "fragmentation": _SHARE,
    "diversity": _SHARE,
    "written": _COUNT,
}

PARAMETERS: Final = tuple(_SCALES)
"""What can be swept over."""


def parse_sweep(text: str) -> Axis:
    """Read a parameter and the values that it is to take.

    Parameters
    ----------
    text : str
        ``PARAMETER=VALUES``, where the values are single ones or ranges ``FIRST..LAST`` or
        ``FIRST..LAST:STEP``, with commas between them. LAST is a value if steps come to it. A step of 1 may
        be left out where values are counts.

    Returns
    -------
    Axis

    Raises
    ------
    PresetError
        If there is no such parameter, or a value is none of it.

    Examples
    --------
    >>> parse_sweep("vms=1..4").values
    (1, 2, 3, 4)
    >>> parse_sweep("prefetch=off,0..0.3:0.1").labels
    ('off', '0', '0.1', '0.2', '0.3')
    >>> parse_sweep("memory=1GiB..2GiB:512M").labels
    ('1.0 GiB', '1.5 GiB', '2.0 GiB')
    """
    parameter, equals, listed = (part.strip() for part in text.partition("="))
    if not equals or not listed:
        raise _error(text, "it names no values", "write it like vms=1..32 or prefetch=0..1:0.1")
    if parameter not in _SCALES:
        raise _error(text, f"there is no parameter {parameter!r}", f"sweep over {', '.join(PARAMETERS)}")
    scale = _SCALES[parameter]
    values: list[Value] = []
    try:
        for item in listed.split(","):
            values.extend(_values(item.strip(), scale))
    except SizeError as error:
        raise _error(text, error.problem, error.advice or _advice(scale)) from error
    if len(values) > MOST_POINTS:
        raise _error(text, f"it has more than {MOST_POINTS:,} values", "take larger steps")
    labels = _labels(values, scale.show)
    if len(set(values)) < len(values):
        twice = next(label for label, value in zip(labels, values, strict=True) if values.count(value) > 1)
        raise _error(text, f"it has {twice} twice", "give each value once")
    if len(set(labels)) < len(labels):
        labels = _labels(values, scale.show_exactly)
    return Axis(parameter, tuple(values), tuple(labels))


def _labels(values: Sequence[Value], show: Callable[[Fraction | int], str]) -> list[str]:
    return [value if isinstance(value, str) else show(value) for value in values]


def _values(item: str, scale: _Scale) -> Iterator[Value]:
    if item in scale.words:
        yield item
        return
    first, dots, rest = item.partition("..")
    low = _value(first, scale)
    if not dots:
        yield low
        return
    last, colon, stride = rest.partition(":")
    high = _value(last, scale)
    if high < low:
        raise SizeError(f"{item!r} ends before it starts", advice="give the smaller value first")
    if not colon and scale.step is None:
        raise SizeError(f"{item!r} has no step", advice=f"give one, as in {item}:STEP")
    step = scale.parse(stride.strip()) if colon else scale.step
    if not step:
        raise SizeError(f"{item!r} has a step of nothing", advice="give one above 0")
    # More than may be is refused anyhow.
    for index in range(min(int((high - low) / Fraction(step)), MOST_POINTS) + 1):
        yield low + index * step


def _value(text: str, scale: _Scale) -> Fraction | int:
    value = scale.parse(text.strip())
    if value < scale.lowest:
        raise SizeError(f"{text.strip()} is too little", advice=f"give {scale.show(scale.lowest)} or more")
    if scale.highest is not None and value > scale.highest:
        raise SizeError(f"{text.strip()} is too much", advice=f"give {scale.highest} or less")
    return value


def _advice(scale: _Scale) -> str:
    return f"give {' or '.join(filter(None, (*scale.words, scale.hint)))}"


def _error(text: str, problem: str, advice: str) -> PresetError:
    return PresetError(f"--sweep {text}: {problem}", advice=advice)

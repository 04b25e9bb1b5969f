"""The values of options on QEMU's command line.

Source: QEMU, ``util/keyval.c`` and ``util/qemu-option.c`` (``,,`` stands for a comma; the first part may
leave its name out; a name alone means on), ``qapi/qobject-input-visitor.c`` (JSON where a value starts with a
brace), and ``util/cutils.c`` (sizes).
"""

from __future__ import annotations

import json
import re
from fractions import Fraction
from typing import Final

_SIZE: Final = re.compile(r"(?:(0x[0-9a-f]+)|(\d+(?:\.\d*)?|\.\d+))([bkmgtpe]?)", re.IGNORECASE | re.ASCII)
_SHIFTS: Final = {each: 10 * power for power, each in enumerate("bkmgtpe")}

Options = dict[str, str]


def parse_option(text: str, implied: str) -> Options:
    """Read the value of an option.

    Parameters
    ----------
    text : str
        As it is on the command line.
    implied : str
        Name of what comes first, if that has none.

    Examples
    --------
    >>> parse_option("q35,accel=kvm,usb", "type")
    {'type': 'q35', 'accel': 'kvm', 'usb': 'on'}
    >>> parse_option('{"qom-type":"memory-backend-ram","share":true,"size":4096}', "qom-type")
    {'qom-type': 'memory-backend-ram', 'share': 'on', 'size': '4096'}
    >>> parse_option("memory-backend-file,mem-path=/a,,b", "qom-type")["mem-path"]
    '/a,b'
    """
    if text.startswith("{"):
        try:
            found = json.loads(text)
        except ValueError:
            return {}
        return {name: _word(value) for name, value in found.items()}
    options = {}
    for number, part in enumerate(re.findall(r"(?:[^,]|,,)+", text)):
        name, equals, value = part.replace(",,", ",").partition("=")
        if equals:
            options[name] = value
        elif number:
            options[name] = "on"
        else:
            options[implied] = name
    return options


def _word(value: object) -> str:
    return ("on" if value else "off") if isinstance(value, bool) else str(value)


def parse_size(text: str, unit: int = 1) -> int:
    """Read a size as QEMU does.

    Parameters
    ----------
    text : str
        A number, maybe with a fraction or hexadecimal, and maybe one of the letters B, K, M, G, T, P, E.
    unit : int
        Bytes that a number without a letter counts.

    Raises
    ------
    ValueError
        If it is no such size.

    Examples
    --------
    >>> parse_size("64", 1 << 20) == parse_size("64M") == parse_size("0x4000000") == parse_size("0.0625g")
    True
    """
    match = _SIZE.fullmatch(text.strip())
    if match is None:
        raise ValueError(f"a size of {text!r}")
    hexadecimal, decimal, letter = match.groups()
    number = Fraction(int(hexadecimal, 16)) if hexadecimal else Fraction(decimal)
    return int(number * (1 << _SHIFTS[letter.lower()] if letter else unit))

"""The command line of a running QEMU: what memory the guest was given.

Source: QEMU, ``qemu-options.hx`` (-m, -machine, -object, -numa, -name, -device), ``hw/core/numa.c`` (the RAM
of nodes follows each other by their numbers) and ``hw/core/machine.c`` (128 MiB where nothing is said).
"""

from __future__ import annotations

import os
import re
from itertools import pairwise
from typing import TYPE_CHECKING, Final, NamedTuple

from hvshare.errors import UnsupportedImageError
from hvshare.images.live.qemu_options import Options, parse_option, parse_size

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

_MIB: Final = 1 << 20
_DEFAULT_RAM: Final = 128 * _MIB
_RAM_ALIGNMENT: Final = 8192
_IMPLIED: Final = {
    "m": "size",
    "machine": "type",
    "object": "qom-type",
    "numa": "type",
    "device": "driver",
    "name": "guest",
    "mem-path": "path",
}
_ALIASES: Final = {"M": "machine"}
_PROGRAM: Final = re.compile(r"qemu-system-(\w+)|qemu-kvm|kvm")
_DEFAULT_MACHINES: Final = {
    "x86_64": "pc",
    "i386": "pc",
    "ppc64": "pseries",
    "s390x": "s390-ccw-virtio",
}


class Backend(NamedTuple):
    """A part of the guest's RAM, as QEMU was told to get it.

    Attributes
    ----------
    name : str
        What the command line calls it.
    number : int
        Its position among the objects of the command line, which QEMU makes in that order.
    kind : {"ram", "memfd", "file"}
        Anonymous memory, a file in memory without a name, or a named file.
    size : int
        Bytes.
    shared : bool
        Whether other processes may map it.
    path : str
        Of the file, or of the folder that QEMU makes it in.
    """

    name: str
    number: int
    kind: str
    size: int
    shared: bool
    path: str

    @property
    def description(self) -> str:
        """What it is, in a few words."""
        if self.kind == "ram":
            return "shared anonymous memory" if self.shared else "private anonymous memory"
        shared = "shared" if self.shared else "private"
        return f"{shared} memfd" if self.kind == "memfd" else f"{shared} mapping of {self.path}"


class QemuCommand(NamedTuple):
    """What the command line tells.

    Attributes
    ----------
    program : str
        Name of the program, such as ``qemu-system-x86_64``.
    machine : str or None
        Machine type; None where that program has no default one.
    guest : str
        Name of the guest, if it was given one.
    backends : tuple of Backend
        The RAM, in order of offsets into it.
    device_bytes : int
        Memory in DIMMs and other devices, which is not among them.
    low_ram : str
        ``max-ram-below-4g``, if that was set.
    by_libvirt : bool
        Whether libvirt has started it.
    """

    program: str
    machine: str | None
    guest: str
    backends: tuple[Backend, ...]
    device_bytes: int
    low_ram: str
    by_libvirt: bool

    @property
    def ram_bytes(self) -> int:
        """Bytes of RAM."""
        return sum(each.size for each in self.backends)


def parse_command(program: str, arguments: Sequence[str], path: str) -> QemuCommand:
    """Read the command line of QEMU.

    Parameters
    ----------
    program : str
        Path of the program.
    arguments : sequence of str
        All of them, the first being what it was called as.
    path : str
        The image, for errors.

    Returns
    -------
    QemuCommand

    Raises
    ------
    UnsupportedImageError
        If it is no QEMU that runs a whole machine, or its memory cannot be told.

    Examples
    --------
    >>> command = parse_command("/usr/bin/qemu-system-x86_64", ["qemu", "-M", "q35", "-m", "size=1.5G"], "")
    >>> command.machine, command.ram_bytes >> 20, command.backends[0].description
    ('q35', 1536, 'private anonymous memory')
    """
    names = [os.path.basename(each) for each in (program, *arguments[:1])]  # noqa: PTH119
    known = next((match for each in names if (match := _PROGRAM.match(each))), None)
    if known is None:
        raise UnsupportedImageError(
            f"the process runs {names[0] or names[-1]}, which is no qemu-system program",
            path=path,
            advice=f"check the number, or name pid:{path.partition(':')[2]} for all private memory of it",
        )
    given = _options(arguments)
    try:
        return _command(known[0], known[1] or os.uname().machine, given, arguments)
    except (ValueError, KeyError) as error:
        raise UnsupportedImageError(
            f"its command line gives memory in a way that is not known here ({error})",
            path=path,
            advice=f"take a dump, or name pid:{path.partition(':')[2]} for all private memory of the process",
        ) from error


def _command(
    program: str, architecture: str, given: Mapping[str, list[Options]], arguments: Sequence[str]
) -> QemuCommand:
    machine = _merged(given["machine"])
    objects = {each["id"]: each for each in given["object"] if "id" in each}
    guest = _merged(given["name"]).get("guest", "")
    devices = [objects[each["memdev"]] for each in given["device"] if each.get("memdev") in objects]
    return QemuCommand(
        program,
        machine.get("type", _DEFAULT_MACHINES.get(architecture)),
        guest,
        tuple(_backends(given, machine, objects)),
        sum(parse_size(each["size"]) for each in devices),
        machine.get("max-ram-below-4g", ""),
        any("libvirt" in each for each in arguments),
    )


def _backends(
    given: Mapping[str, list[Options]], machine: Options, objects: Mapping[str, Options]
) -> list[Backend]:
    memory = _merged(given["m"])
    nodes = [each for each in given["numa"] if each.get("type") == "node"]
    if any("memdev" in each for each in nodes):
        numbered = sorted(
            (int(each.get("nodeid", number)), each["memdev"])
            for number, each in enumerate(nodes)
            if "memdev" in each
        )
        return [_backend(objects, name) for _, name in numbered]
    if named := machine.get("memory-backend"):
        return [_backend(objects, named)]
    size = _DEFAULT_RAM
    if "size" in memory:
        size = parse_size(memory["size"], _MIB)
    elif "memory.size" in machine:
        size = parse_size(machine["memory.size"])
    size += -size % _RAM_ALIGNMENT
    if given["mem-path"]:
        return [Backend("RAM", 0, "file", size, False, _merged(given["mem-path"])["path"])]
    return [Backend("RAM", 0, "ram", size, False, "")]


def _backend(objects: Mapping[str, Options], name: str) -> Backend:
    options = objects[name]
    kind = options["qom-type"].removeprefix("memory-backend-")
    if kind not in {"ram", "memfd", "file"}:
        raise ValueError(f"as {options['qom-type']}")
    shared = options.get("share", "on" if kind == "memfd" else "off") in {"on", "yes", "true", "y"}
    number = list(objects).index(name)
    return Backend(name, number, kind, parse_size(options["size"]), shared, options.get("mem-path", ""))


def _options(arguments: Sequence[str]) -> dict[str, list[Options]]:
    found: dict[str, list[Options]] = {name: [] for name in _IMPLIED}
    for name, value in pairwise(arguments):
        if not name.startswith("-"):
            continue
        key = name.removeprefix("-").removeprefix("-")
        key = _ALIASES.get(key, key)
        if key in found:
            found[key].append(parse_option(value, _IMPLIED[key]))
    return found


def _merged(given: Sequence[Options]) -> Options:
    merged: Options = {}
    for each in given:
        merged |= each
    return merged

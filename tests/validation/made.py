"""Folders of guests that ``hvshare synth`` makes, with what it says is true of their pages."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Sequence
from fractions import Fraction
from functools import cache
from pathlib import Path
from typing import Final, NamedTuple

import numpy as np

from tests.validation.counting import Pages
from tests.validation.lab import DISK, ZERO, Lab

LETTERS: Final = "ab"
PREFETCHERS: Final = {"windows7-x64": "superfetch", "windows7-x86": "superfetch", "linux-x64": "preload"}
"""The presets, and what fills free memory of theirs where anything does."""

_OFF: Final = ("--prefetch", "off")


class MakingError(Exception):
    """The command did not make a guest."""


class Truth(NamedTuple):
    """What is true of each page of a guest.

    Attributes
    ----------
    owners : list of str
        What it is used for.
    touched : list of bool
        Whether ASLR changed it.
    contents : list of bytes
        What stands for it as it would be without ASLR.
    """

    owners: list[str]
    touched: list[bool]
    contents: Pages


class Made(Lab):
    """Guests of one template of a preset: ``aslr``, ``noaslr``, ``prefetch`` and ``prefetchnoaslr``, a and b.

    Parameters
    ----------
    folder : Path
        Holds what `make` made.
    """

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.truth = cache(self._truth)

    def _truth(self, name: str) -> Truth:
        with np.load(self.folder / f"{name}.npz", allow_pickle=False) as members:
            titles = json.loads(str(members["about"]))["owners"]
            owners = [titles[owner] for owner in members["owner"].tolist()]
            touched, keys = members["aslr"].tolist(), members["content"].tolist()
        # A zero page holds no address, so what it would be without ASLR is known by what it is.
        zero = {
            key for page, key, is_touched in zip(self.pages(name), keys, touched, strict=True)
            if page == ZERO and not is_touched
        }  # fmt: skip
        contents = [ZERO if key in zero else key.to_bytes(8, "little") for key in keys]
        return Truth(owners, touched, contents)


def make(
    folder: Path,
    preset: str,
    tell: Callable[[str], None],
    *,
    scale: Fraction,
    template: int = 1,
    groups: Sequence[str] = ("aslr", "noaslr", "prefetch", "prefetchnoaslr"),
    options: Sequence[str] = (),
) -> Made:
    """Make two VMs a group, and the disk of their template.

    Raises
    ------
    MakingError
        If the command fails.
    """
    on = ("--prefetch", PREFETCHERS[preset])
    of_groups = {
        "aslr": _OFF,
        "noaslr": (*_OFF, "--no-aslr"),
        "prefetch": on,
        "prefetchnoaslr": (*on, "--no-aslr"),
    }
    disk = ["--disk", f"{DISK}.raw"]
    for group in groups:
        for number, letter in enumerate(LETTERS, 1):
            name = f"{group}-{letter}"
            arguments = [
                *("synth", preset, "--scale", str(scale), "--template", str(template)),
                *("--vm", str(number), "--boot", str(number), *of_groups[group], *options),
                *("--truth", f"{name}.npz", "-o", f"{name}.raw", *disk),
            ]
            disk = []
            tell(f"hvshare {' '.join(arguments)}")
            run(arguments, folder)
    return Made(folder)


def run(arguments: Sequence[str], folder: Path) -> bytes:
    """Run the command in a folder, and give what it writes.

    Raises
    ------
    MakingError
        If it fails.
    """
    done = subprocess.run(
        [sys.executable, "-m", "hvshare", *arguments, "--quiet"],
        capture_output=True,
        check=False,
        cwd=folder,
        stdin=subprocess.DEVNULL,
    )
    if done.returncode:
        raise MakingError(done.stderr.decode(errors="replace").strip())
    return done.stdout

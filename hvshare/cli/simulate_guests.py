"""Guests for ``hvshare simulate``: planned as they are asked for, and written to files on request."""

from __future__ import annotations

from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, cast

from hvshare.cli.guest_options import enough_memory, real_libraries
from hvshare.errors import OutputError
from hvshare.report.output import are_distinct, file_names, open_binary_output
from hvshare.simulation.synthesis import SynthMaker
from hvshare.synth.writing import write_guest

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from hvshare.simulation.making import MadeGuest, Request
    from hvshare.synth.image import SynthImage


class Guests:
    """Makes guests, and keeps them as files where that is asked for.

    Parameters
    ----------
    images : str or None
        A directory of programs and libraries that take the place of made ones.
    keep : str or None
        A directory to write every guest to.
    jobs : int
        Processes that write, at the most.
    warn : callable
        Is told what could not be used of `images`.
    tell : callable
        Is told what was.
    output : str or None
        What the report is written to; None for standard output.
    inputs : sequence of str
        Files of presets, which no guest may overwrite.
    """

    def __init__(
        self,
        images: str | None,
        keep: str | None,
        jobs: int,
        warn: Callable[[str], None],
        *,
        tell: Callable[[str], None] = lambda _: None,
        output: str | None = None,
        inputs: Sequence[str] = (),
    ) -> None:
        self._images = images
        self._keep = keep
        self._jobs = jobs
        self._warn = warn
        self._tell = tell
        self._output = output
        self._inputs = inputs
        self._told: set[str] = set()
        self._maker: SynthMaker | None = None
        self._made_for: tuple[str, int, int] | None = None

    def __call__(self, request: Request, name: str) -> MadeGuest:
        """Plan a guest; see `hvshare.simulation.making.Maker`.

        Raises
        ------
        PresetError
            If there can be no such guest.
        OutputError
            If it cannot be written.
        """
        with enough_memory():
            guest = self._maker_for(request)(request, name)
        if self._keep is not None:
            self._write(guest, str(Path(self._keep, guest_file_name(request))))
        return guest

    def check(self, requests: Sequence[Request]) -> None:
        """See that there can be some guests; see `hvshare.simulation.making.Maker`.

        Raises
        ------
        PresetError
            If there can be no such guest.
        """
        for _, of_preset in groupby(requests, key=lambda request: request.preset):
            together = list(of_preset)
            with enough_memory():
                self._maker_for(together[0]).check(together)

    def _write(self, guest: MadeGuest, path: str) -> None:
        if not are_distinct([path, self._output]):
            raise OutputError("the report goes there, too", path=path, advice="name another file for -o")
        with open_binary_output(path, self._inputs, inputs_are="the preset") as file:
            plan = cast("SynthImage", guest.image).plan
            write_guest(plan, file, jobs=self._jobs, name=path)

    def _maker_for(self, request: Request) -> SynthMaker:
        """Give what makes guests of a template, with the images that ``hvshare synth`` gives it."""
        preset = request.preset
        key = None
        if self._images is not None:
            key = (preset.architecture, preset.disk.libraries, request.template)
        # Real images may take as much memory as guests, so those of one template are kept.
        if self._maker is None or self._made_for != key:
            libraries = real_libraries(preset, request.template, self._images, self._warn_once, self._tell)
            self._maker, self._made_for = SynthMaker(libraries), key
        return self._maker

    def _warn_once(self, message: str) -> None:
        if message not in self._told:
            self._told.add(message)
            self._warn(message)


def guest_file_name(request: Request) -> str:
    """Name the file of a guest by all that tells it from others of an experiment.

    Returns
    -------
    str
        Without a directory.
    """
    shown = {
        "": request.preset.name,
        "seed": request.template,
        "vm": request.vm,
        "aslr-": "on" if request.aslr else "off",
        "prefetch-": request.prefetch,
        "memory-": request.memory_bytes,
        "large-": request.guest_large_pages,
        "apps-": request.apps,
        "fragmentation-": request.fragmentation,
        "diversity-": request.diversity,
    }
    return file_names(["_".join(f"{key}{value}" for key, value in shown.items())], ".raw")[0]

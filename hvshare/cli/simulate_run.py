"""What ``hvshare simulate`` does: guests made, one experiment with them, and the result."""

from __future__ import annotations

import dataclasses
from functools import partial
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import click
from click.core import ParameterSource

from hvshare.cli.interrupts import deferred_interrupts
from hvshare.errors import BudgetError, PresetError
from hvshare.report.output import open_output, output_folder
from hvshare.units import LARGE_FRAME_SIZE, format_size

if TYPE_CHECKING:
    from fractions import Fraction

    from hvshare.cli.options import Talk
    from hvshare.report.simulation_machine import Result
    from hvshare.simulation.making import Request
    from hvshare.simulation.running import Laboratory
    from hvshare.synth.preset import Preset

EXPERIMENTS: Final = ("factorial", "series", "clones")
DEFAULT_PRESET: Final = "windows7-x64"
_OF_ONE_GUEST: Final = ("preset", "memory", "fragmentation", "apps", "prefetch", "guest_large_pages")
"""What the series has of its own."""
_PARAMETER_OPTIONS: Final = ("vms", "prefetch", "memory", "apps", "fragmentation", "guest_large_pages")
"""What is given once, by an option or by a sweep."""


class Asked(NamedTuple):
    """What was asked for, of one guest; sizes are those of a guest of full size."""

    preset: str | None
    scale: Fraction
    memory: int | None
    fragmentation: Fraction | None
    apps: int | None
    prefetch: str | Fraction | None
    guest_large_pages: int | None


def run(
    ctx: click.Context,
    *,
    experiment: str,
    sweep: str | None,
    vms: int,
    seeds: int,
    template: int,
    images: str | None,
    keep: str | None,
    waterfall: bool,
    jobs: int | None,
    form: str,
    output: str | None,
    talk: Talk,
    **of_guest: Any,
) -> None:
    """Run the experiment that was asked for, and write what it found.

    Raises
    ------
    click.UsageError
        If options do not fit each other, or there can be no such guests.
    HvshareError
        If the result, or a guest, cannot be written.
    """
    _check_options(ctx, experiment, sweep)
    asked = Asked(**of_guest)
    told = _told(asked, images)
    with deferred_interrupts():
        from hvshare.cli.guest_options import check_outside
        from hvshare.cli.simulate_guests import Guests
        from hvshare.fingerprint.workers import default_jobs
        from hvshare.simulation.running import Laboratory
        from hvshare.synth.preset_file import user_files
    inputs = user_files(asked.preset or DEFAULT_PRESET)
    check_outside(images, {"-o": output, "--keep": keep})
    try:
        with (
            output_folder(keep),
            open_output(output, inputs, inputs_are="the preset") as out,
            talk.passes() as passes,
        ):
            laboratory = Laboratory(
                Guests(
                    images,
                    keep,
                    jobs or default_jobs(),
                    talk.warn,
                    tell=talk.tell,
                    output=output,
                    inputs=inputs,
                ),
                vms,
                tuple(range(template, template + seeds)),
                jobs=jobs,
                progress=passes,
            )
            result = _found(laboratory, experiment, sweep, asked, told, waterfall=waterfall)
            _write(result, form, out, talk)
    except PresetError as error:
        if error.path or isinstance(error, BudgetError):
            raise
        # It is no file that is wrong, but what options ask for.
        raise click.UsageError(str(error), ctx) from error


def _check_options(ctx: click.Context, experiment: str, sweep: str | None) -> None:
    given = {
        name
        for name in ctx.params
        if ctx.get_parameter_source(name) not in (ParameterSource.DEFAULT, ParameterSource.DEFAULT_MAP)
    }
    if sweep is not None and experiment != "factorial":
        raise click.UsageError(f"--sweep does not go with --experiment {experiment}.", ctx)
    if experiment == "series":
        for name in _OF_ONE_GUEST:
            if name in given:
                raise click.UsageError(
                    f"{_shown(name)} does not go with --experiment series, whose guests are its own.", ctx
                )
    if "waterfall" in given and (sweep is not None or experiment != "factorial"):
        raise click.UsageError("--waterfall goes with the factorial alone.", ctx)
    if sweep is not None:
        parameter = sweep.partition("=")[0].strip().replace("-", "_")
        if parameter in _PARAMETER_OPTIONS and parameter in given:
            raise click.UsageError(f"{_shown(parameter)} does not go with a sweep over it.", ctx)
    elif experiment == "factorial" and ctx.params["prefetch"] in ("off", 0):
        raise click.UsageError(
            "--prefetch tells what prefetching is like where it is on, which off is not.", ctx
        )


def _shown(name: str) -> str:
    return "PRESET" if name == "preset" else f"--{name.replace('_', '-')}"


def _told(asked: Asked, images: str | None) -> dict[str, str | int | float]:
    """Give the settings that a reader is told of: those that were given."""
    told: dict[str, str | int | float] = {}
    for name in ("memory", "apps", "guest_large_pages"):
        size = getattr(asked, name)
        if size is not None:
            told[name.replace("_", "-")] = format_size(size)
    if asked.prefetch is not None:
        told["prefetch"] = asked.prefetch if isinstance(asked.prefetch, str) else float(asked.prefetch)
    if asked.fragmentation is not None:
        told["fragmentation"] = float(asked.fragmentation)
    if images is not None:
        told["images"] = images
    return told


def _found(
    laboratory: Laboratory,
    experiment: str,
    sweep: str | None,
    asked: Asked,
    told: dict[str, str | int | float],
    *,
    waterfall: bool,
) -> Result:
    """Run an experiment."""
    scale = asked.scale
    if sweep is not None:
        with deferred_interrupts():
            from hvshare.simulation.sweeping import sweep as measure_sweep
            from hvshare.simulation.sweeps import parse_sweep
        axis = parse_sweep(sweep)
        return measure_sweep(laboratory, _request(asked), axis, scale=scale, settings=told)
    match experiment:
        case "series":
            with deferred_interrupts():
                from hvshare.simulation.series import PRESETS, run_series
            presets = [_scaled(name, scale) for name in PRESETS]
            return run_series(laboratory, presets, scale=scale, settings=told)
        case "clones":
            with deferred_interrupts():
                from hvshare.simulation.clones import measure_clones
            return measure_clones(laboratory, _request(asked), scale=scale, settings=told)
        case _:
            with deferred_interrupts():
                from hvshare.simulation.factorial import simulate
                from hvshare.simulation.levels import OnLevels
            request = _request(asked)
            on = OnLevels.of(request)
            if asked.prefetch is not None:
                on = dataclasses.replace(on, prefetch=asked.prefetch)
            if asked.guest_large_pages is not None:
                on = dataclasses.replace(on, guest_large_pages=request.guest_large_pages)
            return simulate(laboratory, request, on, scale=scale, waterfall=waterfall, settings=told)


def _scaled(name: str, scale: Fraction) -> Preset:
    with deferred_interrupts():
        from hvshare.synth.preset_file import load_preset
    return load_preset(name).scaled(scale)


def _request(asked: Asked) -> Request:
    """Ask for a guest: that of the preset, with what was given in place of the preset's."""
    with deferred_interrupts():
        from hvshare.simulation.making import Request, scaled_size
    request = Request.of(_scaled(asked.preset or DEFAULT_PRESET, asked.scale))
    given: dict[str, Any] = {
        "memory_bytes": asked.memory and scaled_size(asked.memory, asked.scale, LARGE_FRAME_SIZE),
        "fragmentation": asked.fragmentation,
        "apps": None if asked.apps is None else scaled_size(asked.apps, asked.scale),
        "prefetch": asked.prefetch,
        "guest_large_pages": (
            None
            if asked.guest_large_pages is None
            else scaled_size(asked.guest_large_pages, asked.scale, LARGE_FRAME_SIZE)
        ),
    }
    return dataclasses.replace(request, **{name: value for name, value in given.items() if value is not None})


def _write(result: Result, form: str, out: Any, talk: Talk) -> None:
    with deferred_interrupts():
        from hvshare.report.clones import print_clones
        from hvshare.report.console import report_console, write_report
        from hvshare.report.series import print_series
        from hvshare.report.simulation import print_simulation
        from hvshare.report.simulation_csv import simulate_csv
        from hvshare.report.simulation_machine import simulate_json
        from hvshare.report.sweep import print_sweep
        from hvshare.simulation.results import Clones, Simulation
        from hvshare.simulation.series_results import Series
    if form == "json":
        out.write(simulate_json(result))
        return
    if form == "csv":
        out.write(simulate_csv(result))
        talk.warn_of(result.caveats)
        return
    match result:
        case Simulation():
            show = partial(print_simulation, result)
        case Series():
            show = partial(print_series, result)
        case Clones():
            show = partial(print_clones, result)
        case _:
            show = partial(print_sweep, result)
    write_report(report_console(out), show)

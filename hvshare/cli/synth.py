"""``hvshare synth``: guests made to order."""

from __future__ import annotations

import io
from contextlib import ExitStack
from typing import IO, TYPE_CHECKING, Any

import click

from hvshare.cli.guest_options import (
    FractionType,
    check_outside,
    enough_memory,
    fragmentation_option,
    libraries_option,
    real_libraries,
)
from hvshare.cli.interrupts import deferred_interrupts
from hvshare.cli.options import SizeType, Talk, jobs_option, talk_options
from hvshare.errors import PresetError
from hvshare.report.output import are_distinct, is_standard_output, open_binary_output, open_output
from hvshare.units import format_size

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from fractions import Fraction

    from hvshare.synth.guest import GuestPlan
    from hvshare.synth.preset import Preset
    from hvshare.synth.settings import Settings
    from hvshare.synth.template import Template


class SeedType(click.ParamType[int]):
    """A whole number of 64 bits, which other things follow from."""

    name = "seed"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """Read a seed, or fail as wrong usage."""
        try:
            number = int(value)
        except ValueError:
            self.fail(f"{value!r} is no whole number.", param, ctx)
        if not 0 <= number < 1 << 64:
            self.fail(f"{value} is not in range: give a whole number from 0 to 2^64 - 1.", param, ctx)
        return number


@click.command(short_help="Make the memory image of a guest, every factor a switch.")
@click.argument("preset_name", metavar="PRESET")
@click.option(
    "-o",
    "--output",
    metavar="FILE",
    type=click.Path(allow_dash=True),
    help="Write the image to a file, whole or not at all.  [default: standard output]",
)
@click.option(
    "--memory", type=SizeType(), metavar="SIZE", help="A multiple of 2 MB.  [default: the preset's]"
)
@click.option(
    "--scale",
    type=FractionType(16, zero=False),
    default="1",
    metavar="FRACTION",
    help="All sizes of the preset, so many times as large; sizes given here are not scaled.  [default: 1]",
)
@click.option(
    "--template", type=SeedType(), default=1, show_default=True, metavar="SEED", help="System files and disk."
)
@click.option("--vm", type=SeedType(), default=1, show_default=True, metavar="SEED", help="Files of its own.")
@click.option(
    "--boot",
    type=SeedType(),
    default=1,
    show_default=True,
    metavar="N",
    help="Randomized addresses, private data, and where frames lie.",
)
@click.option(
    "--aslr/--no-aslr", default=None, help="Randomize addresses.  [default: as the system of the preset does]"
)
@click.option(
    "--prefetch",
    default="default",
    metavar="off|superfetch|preload|FRACTION",
    help="What fills free memory, or so much of it that the preset's own prefetcher fills.  [default: the "
    "preset's]",
)
@click.option(
    "--guest-large-pages",
    type=SizeType(),
    default=0,
    metavar="SIZE",
    help="What applications allocate in large pages.  [default: 0]",
)
@click.option(
    "--apps",
    type=SizeType(),
    default=0,
    metavar="SIZE",
    help="What applications allocate beside the preset's programs, those in large pages among it.  [default: "
    "0]",
)
@fragmentation_option
@libraries_option
@click.option(
    "--truth",
    metavar="FILE",
    type=click.Path(allow_dash=True),
    help="Write who owns each page, and which pages ASLR touched: an .npz file of numpy.",
)
@click.option(
    "--disk",
    metavar="FILE",
    type=click.Path(allow_dash=True),
    help="Write the disk, for hvshare erosion prefetch --disk.",
)
@click.option(
    "--show-preset", is_flag=True, help="Print the preset as TOML, to be changed and given by its path."
)
@jobs_option("make pages")
@talk_options
def synth(
    preset_name: str,
    output: str | None,
    truth: str | None,
    disk: str | None,
    images: str | None,
    template: int,
    show_preset: bool,
    jobs: int | None,
    talk: Talk,
    **asked: Any,
) -> None:
    """Make the raw image of a guest's memory: the same arguments give the same bytes, on every machine.

    PRESET is windows-xp-x86, windows7-x86, windows7-x64, linux-x64, or the path of a TOML file like theirs;
    --show-preset prints one to start from. Guests of one template and other --vm and --boot are VMs of one
    kind on a host; of other --boot alone, one VM at another time.

    \b
    Examples:
      hvshare synth windows7-x64 --scale 1/16 -o one.raw
      hvshare synth windows7-x64 --vm 2 --boot 2 --no-aslr -o two.raw
      hvshare synth linux-x64 --apps 1GiB --prefetch 0.5 --truth a.npz -o a.raw
      hvshare synth windows-xp-x86 | hvshare analyze -
      hvshare synth windows7-x86 --show-preset > mine.toml
      hvshare synth ./mine.toml -o mine.raw
    """
    with deferred_interrupts():
        from hvshare.fingerprint.workers import default_jobs
        from hvshare.synth.preset_file import parse_preset, preset_text, user_files
    inputs = user_files(preset_name)
    # Read once: it may be a pipe.
    text = preset_text(preset_name)
    preset = parse_preset(text, preset_name)
    check_outside(images, {"-o": output, "--truth": truth, "--disk": disk})
    if show_preset:
        with open_output(output, inputs, inputs_are="the preset") as file:
            file.write(text)
        return
    if not are_distinct([output, *(path for path in (truth, disk) if path is not None)]):
        raise click.UsageError("Image, truth and disk are different files: give each a name of its own.")
    preset = preset.scaled(asked.pop("scale"))
    with deferred_interrupts():
        from hvshare.synth.guest import plan_guest
        from hvshare.synth.template import Template

    try:
        settings = _settings(preset, template=template, **asked)
    except PresetError as error:
        # The preset has been checked: it is options that cannot be, or do not go with it.
        raise click.UsageError(str(error)) from error
    with enough_memory():
        libraries = real_libraries(preset, template, images, talk.warn, talk.tell)
        made_from = Template(preset, template, libraries)
        plan = plan_guest(settings, made_from)
    if plan.large_blocks < plan.settings.large_blocks:
        talk.warn(
            f"{plan.large_blocks:,} of {plan.settings.large_blocks:,} large pages were to be had, memory "
            "being fragmented; the rest of what applications allocate lies in small pages"
        )
    for owner, pages in plan.pages_of_owners.items():
        talk.tell(f"{owner.title}: {format_size(pages * 4096)}")
    if disk is not None and not len(made_from.disk):
        talk.warn(f"{disk}: the disk of {preset.name} is empty; hvshare erosion prefetch --disk refuses it")
    with enough_memory():
        _write(plan, made_from, output, truth, disk, inputs, jobs or default_jobs(), talk)


def _settings(
    preset: Preset,
    *,
    memory: int | None,
    aslr: bool | None,
    prefetch: str,
    fragmentation: Fraction | None,
    **asked: Any,
) -> Settings:
    from hvshare.synth.settings import Prefetching, Settings

    randomizes = preset.aslr.kind != "none"
    if aslr and not randomizes:
        raise PresetError(
            f"--aslr: {preset.name} has none",
            advice="take another preset, or give aslr.kind in one of your own",
        )
    return Settings(
        preset,
        preset.memory if memory is None else memory,
        aslr=randomizes if aslr is None else aslr,
        prefetch=Prefetching.parse(prefetch, preset),
        fragmentation=preset.fragmentation if fragmentation is None else fragmentation,
        **asked,
    )


def _write(
    plan: GuestPlan,
    template: Template,
    output: str | None,
    truth: str | None,
    disk: str | None,
    inputs: Sequence[str],
    jobs: int,
    talk: Talk,
) -> None:
    """Write all files; they take their places together, when the last one is complete."""
    with deferred_interrupts():
        from hvshare.synth.writing import write_disk, write_guest
    with ExitStack() as files:

        def opened(path: str | None) -> IO[bytes]:
            return files.enter_context(open_binary_output(path, inputs, inputs_are="the preset"))

        of_image = opened(output)
        of_truth = None if truth is None else opened(truth)
        of_disk = None if disk is None else opened(disk)
        with talk.passes() as passes:

            def start(name: str, pages: int) -> Callable[[int], None] | None:
                if passes is None:
                    return None
                passes.start(name, pages)
                return passes.advance

            known = write_guest(
                plan,
                of_image,
                jobs=jobs,
                truth=truth is not None,
                on_pages=start("Making memory", len(plan)),
                name=_shown(output),
            )
            if known is not None and of_truth is not None:
                # numpy seeks and flushes on its own, past what names the file in errors.
                whole = io.BytesIO()
                known.write(whole, plan)
                of_truth.write(whole.getbuffer())
            if of_disk is not None:
                on_pages = start("Making disk", len(template.disk))
                write_disk(template, of_disk, jobs=jobs, on_pages=on_pages, name=_shown(disk))


def _shown(path: str | None) -> str:
    return path if path is not None and not is_standard_output(path) else "standard output"

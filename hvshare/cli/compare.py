"""``hvshare compare``: many VMs beside each other."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from hvshare.caveats import Caveat
from hvshare.cli.inputs import Inputs
from hvshare.cli.interrupts import deferred_interrupts
from hvshare.cli.options import Talk, frame_option, image_options, jobs_option, output_options
from hvshare.errors import OutputError
from hvshare.fingerprint.hashing import Hashing
from hvshare.report.output import open_output
from hvshare.sharing.domains import Domain, DomainError, assign, one_per_vm, parse_rule, parse_rules

if TYPE_CHECKING:
    from hvshare.fingerprint.fingerprints import Fingerprints


@click.command(short_help="What many VMs share, in pairs, in sharing domains, in KSM's or ESX's words.")
@click.argument("paths", metavar="IMAGE...", nargs=-1, type=click.Path(allow_dash=True))
@click.option(
    "--files0-from",
    metavar="FILE",
    type=click.Path(allow_dash=True),
    help="Take the names of images from a file, apart by NUL, as find -print0 writes them; - for stdin.",
)
@frame_option
@click.option(
    "--domain",
    "domain_rules",
    multiple=True,
    metavar="NAME=GLOB",
    help="A sharing domain, and which images are in it; repeatable, also for one domain.",
)
@click.option(
    "--domains",
    "domain_file",
    metavar="FILE",
    type=click.Path(),
    help="Sharing domains from a file: a domain and a pattern a line, apart by blanks.",
)
@click.option("--domain-per-vm", is_flag=True, help="Each VM shares with itself alone, as on ESX since 2014.")
@click.option(
    "--words",
    type=click.Choice(["ksm", "esx"]),
    multiple=True,
    help="Tell the same in the words of a hypervisor; repeatable.",
)
@click.option(
    "--max-page-sharing",
    type=click.IntRange(min=2),
    default=256,
    show_default=True,
    metavar="N",
    help="KSM: pages that may share one page.",
)
@click.option(
    "--pages-to-scan",
    type=click.IntRange(min=1),
    default=100,
    show_default=True,
    metavar="N",
    help="KSM: pages that ksmd looks at before it sleeps.",
)
@click.option(
    "--sleep-millisecs",
    type=click.IntRange(min=0),
    default=20,
    show_default=True,
    metavar="MS",
    help="KSM: how long ksmd sleeps.",
)
@click.option(
    "--settle-within",
    type=click.FloatRange(min=0, min_open=True),
    metavar="SECONDS",
    help="KSM: tell the settings by which it would settle in this time.",
)
@jobs_option()
@image_options
@output_options("table", "json")
@click.pass_context
def compare(
    ctx: click.Context,
    /,
    paths: tuple[str, ...],
    files0_from: str | None,
    frame_sizes: tuple[int, ...],
    domain_rules: tuple[str, ...],
    domain_file: str | None,
    domain_per_vm: bool,
    words: tuple[str, ...],
    max_page_sharing: int,
    pages_to_scan: int,
    sleep_millisecs: int,
    settle_within: float | None,
    jobs: int | None,
    form: str,
    output: str | None,
    talk: Talk,
    skip_unreadable: bool,
    **reading: Any,
) -> None:
    """Compare many VMs: what they share, what each contributes, which are alike, and what walls cost.

    IMAGE is whatever analyze reads, or a fingerprint file (.hvs), of which nothing has to be hashed.

    \b
    Examples:
      hvshare compare *.hvs new.elf
      hvshare compare --domain blue='web*' --domain red='db*' *.hvs
      hvshare compare --domain-per-vm --words esx *.hvs
      hvshare compare --words ksm --settle-within 600 *.hvs
      find /var/fingerprints -name '*.hvs' -print0 | hvshare compare --json --files0-from -
    """
    paths += _read_names(files0_from)
    if not paths:
        raise click.UsageError("Name one image at least.")
    rules = _read_rules(domain_rules, domain_file, domain_per_vm=domain_per_vm)
    with (
        open_output(output, paths) as out,
        Inputs(paths, skip=skip_unreadable, talk=talk, **reading) as inputs,
    ):
        with Hashing(inputs.images, jobs=jobs, on_error=inputs.on_error) as hashing:
            with deferred_interrupts():
                from hvshare.report.comparison import comparison_json, print_comparison
                from hvshare.report.console import report_console, write_report
                from hvshare.sharing.comparison import compare as compare_fingerprints
                from hvshare.sharing.hypervisor_words import HypervisorWords
            found: dict[int, Fingerprints] = {}
            with talk.reading("Reading", inputs.total_bytes) as hashing.on_progress:
                found.update(hashing)
        inputs.keep(sorted(found))
        measured = [found[index] for index in sorted(found)]
        try:
            domains, caveats = _domains(measured, rules, domain_per_vm=domain_per_vm)
        except DomainError as error:
            raise click.UsageError(f"{error}.") from error
        comparison = compare_fingerprints(
            measured,
            frame_sizes,
            domains=domains,
            jobs=jobs,
            further_caveats=[*inputs.caveats, *caveats],
        )
        spoken = HypervisorWords.of(
            comparison,
            words,
            max_page_sharing=max_page_sharing,
            pages_to_scan=pages_to_scan,
            sleep_millisecs=sleep_millisecs,
            within_seconds=settle_within,
        )
        if form == "json":
            out.write(comparison_json(comparison, spoken))
        else:
            write_report(report_console(out), partial(print_comparison, comparison, spoken))
    ctx.exit(inputs.exit_code)


def _read_names(path: str | None) -> tuple[str, ...]:
    if path is None:
        return ()
    import os
    import sys

    try:
        data = sys.stdin.buffer.read() if path == "-" else Path(path).read_bytes()
    except OSError as error:
        raise OutputError(
            f"names of images cannot be read ({error.strerror or error})", path=path, advice="check the file"
        ) from error
    return tuple(os.fsdecode(name) for name in data.split(b"\0") if name)


def _read_rules(rules: tuple[str, ...], path: str | None, *, domain_per_vm: bool) -> list[tuple[str, str]]:
    if domain_per_vm + bool(rules) + bool(path) > 1:
        raise click.UsageError("Give one of --domain, --domains and --domain-per-vm.")
    try:
        if path is None:
            return [parse_rule(rule) for rule in rules]
        return parse_rules(Path(path).read_text(encoding="utf-8").splitlines(), path)
    except DomainError as error:
        raise click.UsageError(f"{error}.") from error
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "it is no text"
        raise click.UsageError(f"{path} cannot be read: {reason}.") from error


def _domains(
    measured: list[Fingerprints], rules: list[tuple[str, str]], *, domain_per_vm: bool
) -> tuple[list[Domain], list[Caveat]]:
    names = [each.name for each in measured]
    if domain_per_vm:
        return one_per_vm(names), []
    if not rules:
        return [], []
    domains, rest = assign(rules, names, [each.path for each in measured])
    return [*domains, *(Domain(names[vm], (vm,)) for vm in rest)], [
        Caveat(
            "in-no-domain",
            "no sharing domain was named for it, so it shares with itself alone",
            "name one with --domain, if it may share with others",
            names[vm],
        )
        for vm in rest
    ]

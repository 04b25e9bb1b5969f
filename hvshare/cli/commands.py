"""All commands of hvshare."""

from __future__ import annotations

import click

from hvshare import __version__
from hvshare.cli.analyze import analyze
from hvshare.cli.compare import compare
from hvshare.cli.erosion import erosion
from hvshare.cli.export import export
from hvshare.cli.fingerprint import fingerprint
from hvshare.cli.inspect import inspect
from hvshare.cli.ksm_check import ksm_check
from hvshare.cli.simulate import simulate
from hvshare.cli.synth import synth


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(__version__, "--version", prog_name="hvshare", message="%(prog)s %(version)s")
def hvshare() -> None:
    """Tell how much memory page sharing would free, from images of guest memory.

    \b
    Examples:
      hvshare analyze dump.bin
      hvshare analyze --json web01.raw web02.raw.zst | jq .pooled
      hvshare inspect dump.bin
      hvshare compare *.hvs
      hvshare erosion web01.raw web02.raw
      hvshare synth windows7-x64 -o made.raw
      hvshare simulate --experiment series
      hvshare fingerprint web01.raw && hvshare analyze web01.raw.hvs web02.raw

    Exit status: 0 done; 1 an input could not be used or the result not be written; 2 wrong usage; 3 done,
    but some inputs were left out; 130 interrupted.
    """


hvshare.add_command(analyze)
hvshare.add_command(compare)
hvshare.add_command(erosion)
hvshare.add_command(export)
hvshare.add_command(fingerprint)
hvshare.add_command(inspect)
hvshare.add_command(ksm_check)
hvshare.add_command(simulate)
hvshare.add_command(synth)

"""All commands of hvshare."""

from __future__ import annotations

import click

from hvshare import __version__
from hvshare.cli.analyze import analyze
from hvshare.cli.inspect import inspect


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(__version__, "--version", prog_name="hvshare", message="%(prog)s %(version)s")
def hvshare() -> None:
    """Tell how much memory page sharing would free, from images of guest memory.

    \b
    Examples:
      hvshare analyze dump.bin
      hvshare analyze --json web01.raw web02.raw.zst | jq .pooled
      hvshare inspect dump.bin

    Exit status: 0 done; 1 an input could not be used or the result not be written; 2 wrong usage; 3 done,
    but some inputs were left out; 130 interrupted.
    """


hvshare.add_command(analyze)
hvshare.add_command(inspect)

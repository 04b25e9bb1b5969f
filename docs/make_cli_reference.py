"""Write docs/cli.md from the help texts of the commands, or check that it is in step with them."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from hvshare.cli.commands import hvshare

if TYPE_CHECKING:
    from collections.abc import Iterator

TARGET = Path(__file__).with_name("cli.md")
HEAD = """# Command line

Made from the help texts by `make docs`; `make check` fails when it is out of step.
"""


def help_texts(command: click.Command, parent: click.Context | None = None) -> Iterator[tuple[str, str]]:
    """Give the name of a command and its help text, then those of its subcommands."""
    name = command.name or ""
    context = click.Context(
        command,
        info_name=name,
        parent=parent,
        terminal_width=80,
        help_option_names=hvshare.context_settings["help_option_names"],
    )
    yield context.command_path, command.get_help(context)
    if isinstance(command, click.Group):
        for subcommand in command.list_commands(context):
            found = command.get_command(context, subcommand)
            if found is not None:
                yield from help_texts(found, context)


def reference() -> str:
    """Put the reference together."""
    parts = [HEAD]
    for path, text in help_texts(hvshare):
        body = "\n".join(line.rstrip() for line in text.splitlines())
        parts.append(f"## `{path}`\n\n```text\n{body}\n```\n")
    return "\n".join(parts)


def main() -> int:
    """Write the reference, or compare it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="fail if docs/cli.md is out of step")
    if not parser.parse_args().check:
        TARGET.write_text(reference(), encoding="utf-8")
        return 0
    if TARGET.is_file() and TARGET.read_text(encoding="utf-8") == reference():
        return 0
    print("docs/cli.md is out of step with the help texts: run make docs", file=sys.stderr)
    return 1


if __name__ == "__main__":
    sys.exit(main())

"""Hold what ``hvshare erosion`` predicts of real guests against what is measured of them."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Final

import click

from tests.validation.aslr import prove_aslr
from tests.validation.document import markdown, put_into, summary
from tests.validation.lab import Lab
from tests.validation.large_pages import prove_large_pages
from tests.validation.prefetch import prove_cold, prove_disk
from tests.validation.proofs import command_in

DOCUMENT: Final = Path(__file__).parents[2] / "docs" / "validation.md"
PROOFS: Final = {
    "large-pages": prove_large_pages,
    "aslr": prove_aslr,
    "disk": prove_disk,
    "cold": prove_cold,
}


@click.command()
@click.argument("folder", metavar="LAB", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option(
    "--proof", "names", multiple=True, type=click.Choice(tuple(PROOFS)), help="Only this one. Repeatable."
)
@click.option("--write", metavar="NAME", help="Write docs/validation.md, between the marks of NAME.")
@click.option("--document", type=click.Path(dir_okay=False, path_type=Path), default=DOCUMENT, hidden=True)
@click.pass_context
def main(
    ctx: click.Context, /, folder: Path, names: tuple[str, ...], write: str | None, document: Path
) -> None:
    """Hold what hvshare predicts of the guests in LAB against what is measured of them.

    docs/validation.md says what LAB holds. The tables are written to standard output in Markdown. Ends with
    exit code 1 if a row does not hold.
    """
    lab = Lab(folder)
    predict = command_in(folder, partial(click.echo, err=True))
    proofs = [PROOFS[name](lab, predict) for name in names or PROOFS]
    if not any(proof.rows for proof in proofs):
        raise click.ClickException(
            f"{folder} holds no guests to compare; docs/validation.md says what it needs"
        )
    if write is None:
        click.echo(markdown(proofs))
    else:
        try:
            put_into(document, write, markdown(proofs))
        except ValueError as error:
            raise click.ClickException(str(error)) from error
    click.echo(summary(proofs), err=True)
    ctx.exit(0 if all(row.holds for proof in proofs for row in proof.rows) else 1)


if __name__ == "__main__":
    main()

"""Hold what ``hvshare erosion`` predicts against what is measured of real guests, or is true of made ones."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Final

import click

from hvshare.errors import HvshareError
from tests.validation.aslr import prove_aslr
from tests.validation.document import markdown, put_into, summary
from tests.validation.lab import Lab
from tests.validation.large_pages import prove_large_pages
from tests.validation.made import MakingError
from tests.validation.mapped import ImageProofs
from tests.validation.prefetch import prove_cold, prove_disk
from tests.validation.proofs import PredictionError, command_in
from tests.validation.synth import SynthProofs

DOCUMENT: Final = Path(__file__).parents[2] / "docs" / "validation.md"
PROOFS: Final = {
    "large-pages": prove_large_pages,
    "aslr": prove_aslr,
    "disk": prove_disk,
    "cold": prove_cold,
}
_FOLDER: Final = click.Path(exists=True, file_okay=False, path_type=Path)


@click.command()
@click.argument("folder", metavar="[LAB]", required=False, type=_FOLDER)
@click.option(
    "--proof", "names", multiple=True, type=click.Choice(tuple(PROOFS)), help="Only this one. Repeatable."
)
@click.option("--synth", is_flag=True, help="Hold the estimators against guests of hvshare synth.")
@click.option(
    "--images", metavar="DIR", type=_FOLDER, help="Count what relocation touches of the DLLs in DIR."
)
@click.option(
    "--write",
    metavar="[NAME]",
    is_flag=False,
    flag_value="",
    help="Write docs/validation.md, between the marks of NAME; --synth and --images have marks of their own.",
)
@click.option("--document", type=click.Path(dir_okay=False, path_type=Path), default=DOCUMENT, hidden=True)
@click.pass_context
def main(
    ctx: click.Context,
    /,
    folder: Path | None,
    names: tuple[str, ...],
    synth: bool,
    images: Path | None,
    write: str | None,
    document: Path,
) -> None:
    """Hold what hvshare predicts of the guests in LAB against what is measured of them.

    docs/validation.md says what LAB holds. The tables are written to standard output in Markdown. Ends with
    exit code 1 if a row does not hold.
    """
    if folder is None and not synth and images is None:
        raise click.UsageError("name a folder of guests, --synth or --images DIR; see docs/validation.md")
    if folder is not None and write == "":
        raise click.UsageError("name the marks in docs/validation.md that the guests in LAB belong to")
    tell = partial(click.echo, err=True)
    parts: list[tuple[str, str]] = []
    wrong = False
    try:
        if folder is not None:
            text, holds = _of_lab(folder, names)
            parts.append((write or "", text))
            wrong = not holds
        if synth:
            made = SynthProofs(tell)
            parts.append(("synth", made.markdown()))
            tell(summary(made.proofs))
            wrong = wrong or not all(row.holds for proof in made.proofs for row in proof.rows)
        if images is not None:
            counted = ImageProofs(images, tell)
            parts.append(("images", counted.markdown()))
            tell(f"Not as known: {', '.join(counted.wrong) or 'nothing'}.")
            wrong = wrong or bool(counted.wrong)
        for name, text in parts:
            if write is None:
                click.echo(text)
            else:
                put_into(document, name, text)
    except (HvshareError, MakingError, PredictionError, ValueError) as error:
        raise click.ClickException(str(error)) from error
    ctx.exit(1 if wrong else 0)


def _of_lab(folder: Path, names: tuple[str, ...]) -> tuple[str, bool]:
    """Hold what is predicted of the guests of a folder, and tell whether it holds."""
    lab = Lab(folder)
    predict = command_in(folder, partial(click.echo, err=True))
    proofs = [PROOFS[name](lab, predict) for name in names or PROOFS]
    if not any(proof.rows for proof in proofs):
        raise click.ClickException(
            f"{folder} holds no guests to compare; docs/validation.md says what it needs"
        )
    click.echo(summary(proofs), err=True)
    return markdown(proofs), all(row.holds for proof in proofs for row in proof.rows)


if __name__ == "__main__":
    main()

"""Proofs as Markdown, and where ``docs/validation.md`` has them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

from tests.validation.proofs import Proof

_TITLES = ("Guests", "Figure", "Predicted", "Measured", "Asked", "Found")


def summary(proofs: Sequence[Proof]) -> str:
    """Say how many rows hold."""
    rows = [row for proof in proofs for row in proof.rows]
    wrong = sum(not row.holds for row in rows)
    return f"{wrong:,} of {len(rows):,} rows do not hold." if wrong else f"All {len(rows):,} rows hold."


def markdown(proofs: Sequence[Proof]) -> str:
    """Write a table a proof; what does not hold is bold."""
    return "\n".join([summary(proofs), "", *(line for proof in proofs for line in _section(proof))])


def _section(proof: Proof) -> Iterable[str]:
    yield from (f"### {proof.title}", "", f"Predicted: `{proof.command}`", "", f"Measured: {proof.truth}", "")
    if proof.rows:
        yield from (_line(_TITLES), _line("---" for _ in _TITLES))
        for row in proof.rows:
            found = row.found if row.holds else f"**{row.found}**"
            yield _line((row.guests, row.figure, row.predicted, row.measured, row.asked, found))
        yield ""
    for note in proof.notes:
        yield from (note, "")


def _line(cells: Iterable[str]) -> str:
    return f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |"


def put_into(document: Path, name: str, text: str) -> None:
    """Replace what stands between the marks of a name.

    Raises
    ------
    ValueError
        If the document has no such marks.
    """
    whole = document.read_text(encoding="utf-8")
    start, end = f"<!-- {name} -->\n", f"<!-- /{name} -->"
    if whole.count(start) != 1 or whole.count(end) != 1:
        raise ValueError(f"{document.name} has no place for {name}: add <!-- {name} --> and <!-- /{name} -->")
    before, rest = whole.split(start)
    _, after = rest.split(end)
    document.write_text(f"{before}{start}\n{text}\n{end}{after}", encoding="utf-8")

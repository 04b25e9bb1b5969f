"""How measurements and limits are shown."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from rich.table import Table

from hvshare.units import format_size
from tests.benchmarks.measuring import Measurement, Race

_NONE = "–"


@dataclass(frozen=True)
class Limit:
    """A value that the project has set itself a limit for.

    Attributes
    ----------
    subject : str
        What is limited.
    measured : float or None
        None if what it takes was not measured.
    limit : float
        The largest value that is good.
    exclusive : bool
        The limit itself is not good any more.
    show : callable
        Writes a value.
    """

    subject: str
    measured: float | None
    limit: float
    exclusive: bool = False
    show: Callable[[float], str] = "{:.3f}".format

    @property
    def missed(self) -> bool:
        """Whether it was measured and is beyond the limit."""
        if self.measured is None:
            return False
        return self.measured >= self.limit if self.exclusive else self.measured > self.limit

    @property
    def verdict(self) -> str:
        """What became of it, in a word or two."""
        if self.measured is None:
            return "not measured"
        return "MISSED" if self.missed else "ok"


def races_table(title: str, races: Iterable[Race], rounds: int) -> Table:
    """Put races one under the other, with a rule between them."""
    table = Table(
        title=title,
        caption=(
            f"seconds: median of {rounds} interleaved rounds. GB/s: of guest memory, holes left out. ratio: "
            "seconds of the first command of its group / seconds of this one. peak memory: of all processes "
            "of a command together, in runs of their own; an upper bound, as pages that forked processes "
            "share count in each."
        ),
        caption_justify="left",
    )
    table.add_column("command")
    for heading in ("size", "seconds", "GB/s", "ratio", "peak memory"):
        table.add_column(heading, justify="right", no_wrap=True)
    for each in races:
        table.add_section()
        table.add_row(*_cells(each.leader, None))
        for competitor in each.competitors:
            table.add_row(*_cells(competitor, each.ratio(competitor.contestant.name)))
        for contestant, reason in each.failures.items():
            table.add_row(f"{contestant.name}: {reason}", _size(contestant.size), *[_NONE] * 4)
    return table


def limits_list(limits: Iterable[Limit]) -> Table:
    """List limits with their values and what became of them."""
    table = Table.grid(padding=(0, 2))
    for justify in ("left", "right", "left", "left"):
        table.add_column(justify=justify)
    for limit in limits:
        table.add_row(
            limit.subject,
            _NONE if limit.measured is None else limit.show(limit.measured),
            f"{'<' if limit.exclusive else '<='} {limit.show(limit.limit)}",
            limit.verdict,
        )
    return table


def mebibytes(size: float) -> str:
    """Write a number of bytes in MiB, for limits."""
    return f"{size / (1 << 20):.1f} MiB"


def _cells(measurement: Measurement, ratio: float | None) -> tuple[str, ...]:
    contestant = measurement.contestant
    return (
        contestant.name,
        _size(contestant.size),
        f"{measurement.seconds:.3f}",
        f"{contestant.data_bytes / measurement.seconds / 1e9:.2f}" if contestant.data_bytes else _NONE,
        _NONE if ratio is None else f"{ratio:.3f}",
        format_size(measurement.peak_bytes),
    )


def _size(size: int) -> str:
    return format_size(size) if size else _NONE

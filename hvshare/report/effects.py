"""What factors change on average, alone and together, for people."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from rich.text import Text

from hvshare.report.console import add_figure_column, data_table
from hvshare.report.made import factor_name
from hvshare.report.spreads import format_change_spread, signs

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from rich.table import Table

    from hvshare.simulation.results import Effect, Spread

_SHOWN: Final = {"saved": "Saved", "zero": "Zero", "self": "Self", "inter": "Inter-VM"}
_LEAST_NAME: Final = 16
_LEAST_POINTS: Final = 0.05


def main_effects(effects: Sequence[Effect], response: str) -> list[Effect]:
    """Give the main effects on one response, the largest first."""
    found = [effect for effect in effects if len(effect.factors) == 1 and effect.response == response]
    return sorted(found, key=lambda effect: -abs(effect.spread.mean))


def effects_by_factors(effects: Sequence[Effect]) -> dict[tuple[str, ...], dict[str, Spread]]:
    """Put the effects of the same factors on all responses together, in the order in which they come.

    Returns
    -------
    dict of tuple of str to dict of str to Spread
        By factors, then by response.
    """
    found: dict[tuple[str, ...], dict[str, Spread]] = {}
    for effect in effects:
        found.setdefault(effect.factors, {})[effect.response] = effect.spread
    return found


def effects_table(effects: Sequence[Effect], *, ascii_only: bool) -> Table:
    """Lay effects out: all main effects, then the interactions that are not small, the largest first.

    Parameters
    ----------
    effects : sequence of Effect
        On all responses.
    ascii_only : bool
        Whether no other signs can be shown.
    """
    table = data_table()
    table.add_column(Text("Of"), overflow="fold", min_width=_LEAST_NAME)
    for title in _SHOWN.values():
        add_figure_column(table, title)
    by_factors = effects_by_factors(effects)
    shown = [
        factors for factors, spreads in by_factors.items() if len(factors) == 1 or not _is_small(spreads)
    ]
    times = f" {signs(ascii_only=ascii_only).times} "
    for factors in sorted(shown, key=lambda each: (len(each) > 1, -_largest(by_factors[each]))):
        spreads = by_factors[factors]
        table.add_row(
            times.join(map(factor_name, factors)),
            *(
                format_change_spread(spreads[response], ascii_only=ascii_only) if response in spreads else ""
                for response in _SHOWN
            ),
        )
    return table


def effects_note(effects: Sequence[Effect]) -> Text | None:
    """Tell of the interactions that the table leaves out because they are small."""
    small = [
        spreads
        for factors, spreads in effects_by_factors(effects).items()
        if len(factors) > 1 and _is_small(spreads)
    ]
    if not small:
        return None
    what = "1 interaction" if len(small) == 1 else f"{len(small):,} interactions"
    return Text(f"{what} below {_LEAST_POINTS} points left out; --json has all.", "dim")


def _largest(spreads: Mapping[str, Spread]) -> float:
    return max(abs(spread.mean) for spread in spreads.values())


def _is_small(spreads: Mapping[str, Spread]) -> bool:
    return 100 * _largest(spreads) < _LEAST_POINTS

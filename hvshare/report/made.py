"""What guests an experiment has made, and the words for its factors."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from rich.text import Text

from hvshare.report.console import data
from hvshare.simulation.results import OfOnePreset
from hvshare.units import format_size

if TYPE_CHECKING:
    from collections.abc import Mapping

    from hvshare.simulation.series_results import Series

_FACTORS: Final = {
    "aslr": "ASLR",
    "prefetch": "prefetching",
    "guest-large-pages": "guest large pages",
    "host-large-pages": "host large pages",
}
MODELLED: Final = "(modelled)"
"""Stands where a result is told: guests made to order are a model, however exactly they are counted."""


def factor_name(factor: str) -> str:
    """Give the words for a factor, which is shown as it is where there are none.

    Examples
    --------
    >>> factor_name("aslr"), factor_name("apps")
    ('ASLR', 'apps')
    """
    return _FACTORS.get(factor, factor)


def made_guests(result: OfOnePreset | Series, further: Mapping[str, str] | None = None) -> Text:
    """Say which guests an experiment was made with.

    Parameters
    ----------
    result : OfOnePreset or Series
        What was found.
    further : mapping of str to str, optional
        What to say beside the settings.
    """
    text = Text("Made: ", overflow="fold")
    text.append(f"{result.vms:,} {'VM' if result.vms == 1 else 'VMs'} of ")
    presets = (result.preset,) if isinstance(result, OfOnePreset) else result.presets
    for index, preset in enumerate(presets):
        text.append(", " if index else "").append_text(data(preset))
    if isinstance(result, OfOnePreset):
        text.append(f", {format_size(result.memory_bytes)} each")
    if result.scale != "1":
        text.append(f" (sizes scaled to {result.scale})")
    text.append(f"; {'seed' if len(result.seeds) == 1 else 'seeds'} {', '.join(map(str, result.seeds))}")
    if len(result.seeds) > 1 and isinstance(result, OfOnePreset):
        text.append(", with the standard deviation over them")
    for name, value in {**result.settings, **(further or {})}.items():
        text.append("; ").append_text(data(f"{name} {value}"))
    return text.append(".")

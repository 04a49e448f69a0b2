"""Parameters on a page: by dotted name, as a reader would write them, and where they depart from published ones.

Decided here: a departure is found by comparing parameters, not by remembering to mention it.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from cgn.core.page import Html, element, join, table, text

Departure = tuple[str, Any, Any]
"""Dotted parameter, published value, value of a run."""


def flat(tree: Mapping[str, Any], *, prefix: str = "") -> dict[str, Any]:
    """Nested parameters by dotted name."""
    found: dict[str, Any] = {}
    for key, value in tree.items():
        found |= flat(value, prefix=f"{prefix}{key}.") if isinstance(value, Mapping) else {f"{prefix}{key}": value}
    return found


def departures(settings: Mapping[str, Any], params: Mapping[str, Mapping[str, Any]]) -> list[Departure]:
    """Where a run's `params` (by verb) tell of a published setting (by dotted name) and differ."""
    told = flat(params)
    return [(key, value, told[key]) for key, value in settings.items() if key in told and told[key] != value]


def departure_table(differing: Sequence[Departure]) -> Html:
    """The table of `departures`; there is at least one."""
    cells = [[element("code", text(key)), text(shown(theirs)), text(shown(ours))] for key, theirs, ours in differing]
    columns = [text("Setting"), text("Published"), text("Here")]
    caption = "Settings in which this run departs from the published ones"
    return table(caption=caption, columns=columns, rows=cells, class_="settings")


def about(facts: Sequence[tuple[str, object]], *, everything: Mapping[str, Any]) -> Html:
    """What was run: chosen facts (label, value) in sight, all parameters (by dotted name) folded away."""
    rows = [[text(label), text(value)] for label, value in facts]
    blocks = [table(caption="What was run", columns=[text("Fact"), text("Value")], rows=rows, class_="settings")]
    if everything:
        cells = [[element("code", text(key)), text(shown(value))] for key, value in everything.items()]
        full = table(
            caption="All parameters", columns=[text("Parameter"), text("Value")], rows=cells, class_="settings"
        )
        blocks.append(element("details", element("summary", text("All parameters")), full))
    return join(blocks, between="\n")


def shown(value: Any) -> str:
    """A parameter's value as a reader would write it."""
    if isinstance(value, list | tuple):
        return ", ".join(shown(entry) for entry in value)
    if isinstance(value, bool) or value is None:
        return {True: "yes", False: "no", None: "none"}[value]
    return f"{value:,}" if isinstance(value, int) else str(value)

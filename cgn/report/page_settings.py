"""Parameters on a page: by dotted name, as a reader would write them, and where they depart from published ones.

Decided here: a departure is found by comparing parameters, not by remembering to mention it. A count or a length has
its unit, known by the parameter's name; where a parameter leaves the choice to the machine, the page says what it
became.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from cgn.report.page import Html, element, join, table, text

Departure = tuple[str, Any, Any]
"""Dotted parameter, published value, value of a run."""


UNITS = {
    "updates": ("updates", "intervals.log", "intervals.checkpoint", "intervals.sheet", "log_updates"),
    "epochs": ("epochs", "decay_epochs"),
    "images": (
        *("batch_size", "train_images", "factual_images", "counterfactual_images", "corruption_images"),
        *("images_per_shard", "images_per_class", "images_per_mask", "train_per_class", "val_per_class"),
        *("per_pair", "per_variation", "examples"),
    ),
    "batches": ("batches_per_update",),
    "pixels": ("image_size", "patches.size", "patches.resolution"),
    "processes": ("workers",),
    "frames": ("frames",),
    "degrees": ("rotation_degrees",),
}
"""Unit -> the ends of the dotted parameters that are counted or measured in it."""
ONE = {"batches": "batch", "processes": "process"}
"""What does not lose its s alone where there is one."""


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
    cells = [
        [element("code", text(key)), text(shown(theirs, key=key)), text(shown(ours, key=key))]
        for key, theirs, ours in differing
    ]
    columns = [text("Setting"), text("Published"), text("Here")]
    caption = "Settings in which this run departs from the published ones"
    return table(caption=caption, columns=columns, rows=cells, class_="settings")


def about(facts: Sequence[tuple[str, object]], *, everything: Mapping[str, Any]) -> Html:
    """What was run: chosen facts (label, value) in sight, all parameters (by dotted name) folded away."""
    rows = [[text(label), text(value)] for label, value in facts]
    blocks = [table(caption="What was run", columns=[text("Fact"), text("Value")], rows=rows, class_="settings")]
    if everything:
        cells = [[element("code", text(key)), text(shown(value, key=key))] for key, value in everything.items()]
        full = table(
            caption="All parameters", columns=[text("Parameter"), text("Value")], rows=cells, class_="settings"
        )
        blocks.append(element("details", element("summary", text("All parameters")), full))
    return join(blocks, between="\n")


def resolved(everything: Mapping[str, Any], *, devices: Mapping[str, str]) -> dict[str, Any]:
    """All parameters (by dotted name), `auto` with what it became: `devices` holds verb -> "cpu" or "cuda"."""

    def became(key: str, value: Any) -> Any:
        if value != "auto":
            return value
        device = devices.get(key.partition(".")[0])
        return f"auto: {device}" if device else "auto (what it became was not recorded)"

    return {key: became(key, value) for key, value in everything.items()}


def shown(value: Any, *, key: str = "") -> str:
    """A parameter's value as a reader would write it, with its unit where `key`, its dotted name, has one."""
    if isinstance(value, Mapping):
        return " ".join(f"{name} {shown(entry, key=name)}" for name, entry in value.items())
    if isinstance(value, list | tuple):
        return ", ".join(shown(entry) for entry in value) or "empty"
    if isinstance(value, bool) or value is None:
        return {True: "yes", False: "no", None: "none"}[value]
    number = f"{value:,}" if isinstance(value, int) else str(value)
    unit = _unit(key) if isinstance(value, int | float) else ""
    return f"{number} {ONE.get(unit, unit.removesuffix('s')) if value == 1 else unit}".rstrip()


def _unit(key: str) -> str:
    """Of a dotted parameter; empty where it is a plain number."""
    dotted = f".{key}"
    return next((unit for unit, ends in UNITS.items() if any(dotted.endswith(f".{end}") for end in ends)), "")

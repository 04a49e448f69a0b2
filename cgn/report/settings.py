"""The parameters of a run on its page: by dotted name and with units, and where they depart from published values."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from cgn.report.page import PAPER, Block, Group
from cgn.report.tables import Cell, Row, Table, table

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
SINGULAR = {"batches": "batch", "processes": "process"}
"""The units that do not just lose their s."""


@dataclass(frozen=True, kw_only=True)
class Departure:
    """A parameter of a run that is not the published one; `source` published it."""

    key: str
    value: Any
    published: Any
    source: str


def departures(
    params: Mapping[str, Mapping[str, Any]], *, published: Mapping[str, Any], source: str = PAPER
) -> list[Departure]:
    """Where a run's `params` (by verb) differ from `published` (by dotted name); what it does not say is left out."""
    ours = flat(params)
    return [
        Departure(key=key, value=ours[key], published=value, source=source)
        for key, value in published.items()
        if key in ours and ours[key] != value
    ]


def departure_table(differing: Sequence[Departure]) -> Table:
    """The table of `departures`; there is at least one."""
    rows = [
        {
            "Setting": each.key,
            "Published": shown(each.published, key=each.key),
            "Here": shown(each.value, key=each.key),
            "Source": each.source,
        }
        for each in differing
    ]
    caption = "Settings in which this run departs from the published ones"
    return table(caption, rows, style="settings", summary=False)


def settings(
    params: Mapping[str, Mapping[str, Any]],
    *,
    devices: Mapping[str, str],
    facts: Mapping[str, object],
    known: Mapping[str, str],
) -> list[Block]:
    """What was run: `facts` and the `known` parameters (dotted name -> label) in a table, all `params` folded.

    `devices`: verb -> what the accelerator `auto` became there.
    """
    everything = {key: _resolved(key, value, devices=devices) for key, value in flat(params).items()}
    chosen = {label: shown(everything[key], key=key) for key, label in known.items() if key in everything}
    rows: list[Row] = [{"Fact": Cell(value=label), "Value": str(value)} for label, value in {**facts, **chosen}.items()]
    blocks: list[Block] = [table("What was run", rows, style="settings", summary=False)]
    if everything:
        all_rows = [{"Parameter": key, "Value": shown(value, key=key)} for key, value in everything.items()]
        full = table("All parameters", all_rows, style="settings", summary=False)
        blocks.append(Group(title="All parameters", blocks=[full]))
    return blocks


def flat(tree: Mapping[str, Any], *, prefix: str = "") -> dict[str, Any]:
    """Nested parameters by dotted name."""
    found: dict[str, Any] = {}
    for key, value in tree.items():
        found |= flat(value, prefix=f"{prefix}{key}.") if isinstance(value, Mapping) else {f"{prefix}{key}": value}
    return found


def shown(value: Any, *, key: str = "") -> str:
    """A parameter's value in words, with its unit where `key`, its dotted name, has one."""
    if isinstance(value, Mapping):
        return " ".join(f"{name} {shown(entry, key=name)}" for name, entry in value.items())
    if isinstance(value, list | tuple):
        return ", ".join(shown(entry) for entry in value) or "empty"
    if isinstance(value, bool) or value is None:
        return {True: "yes", False: "no", None: "none"}[value]
    number = f"{value:,}" if isinstance(value, int) else str(value)
    unit = _unit(key) if isinstance(value, int | float) else ""
    return f"{number} {SINGULAR.get(unit, unit.removesuffix('s')) if value == 1 else unit}".rstrip()


def _resolved(key: str, value: Any, *, devices: Mapping[str, str]) -> Any:
    """`auto` with the device that it became."""
    if value != "auto":
        return value
    device = devices.get(key.partition(".")[0])
    return f"auto: {device}" if device else "auto (what it became was not recorded)"


def _unit(key: str) -> str:
    dotted = f".{key}"
    return next((unit for unit, ends in UNITS.items() if any(dotted.endswith(f".{end}") for end in ends)), "")

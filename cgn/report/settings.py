"""The parameters of a run on its page: by dotted name and with units, and where they depart from published values."""

from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel

from cgn.core.errors import ConfigError
from cgn.core.parameters import EXTENSION, departures, units
from cgn.core.validation import stored
from cgn.report.page import Group, Heading, PageBlock, Text
from cgn.report.tables import Cell, Row, table

SINGULAR = {"batches": "batch", "processes": "process"}
"""The units that do not just lose their s."""


def departure_blocks(track: type[BaseModel], params: Mapping[str, Mapping[str, Any]]) -> list[PageBlock]:
    """Where a run's `params` (by verb) depart from what is published, by the models of its track."""
    try:
        differing = departures(stored(track, params))
    except ConfigError as error:
        return [Text(words=f"The run's parameters are not those of this version, so none is compared: {error}.")]
    if not differing:
        return [Text(words="The folders of this run record no departure from a published setting.")] if params else []
    rows: list[Row] = [
        {
            "Setting": each.key,
            "Published": None if each.source == EXTENSION else shown(each.published, unit=each.unit),
            "Here": shown(each.value, unit=each.unit),
            "Source": each.source,
        }
        for each in differing
    ]
    caption = "Settings in which this run departs from the published ones"
    heading = Heading(title="Departures from the published settings")
    return [heading, table(caption, rows, style="settings", summary=False)]


def settings(
    track: type[BaseModel],
    params: Mapping[str, Mapping[str, Any]],
    *,
    devices: Mapping[str, str],
    facts: Mapping[str, object],
    known: Mapping[str, str],
) -> list[PageBlock]:
    """What was run: `facts` and the `known` parameters (dotted name -> label) in a table, all `params` folded.

    `devices`: verb -> what the accelerator `auto` became there. Units are those of the track's models.
    """
    unit_of = units(track)
    everything = {
        key: shown(_resolved(key, value, devices=devices), unit=unit_of.get(key, ""))
        for key, value in flat(params).items()
    }
    chosen = {label: everything[key] for key, label in known.items() if key in everything}
    rows: list[Row] = [{"Fact": Cell(value=label), "Value": str(value)} for label, value in {**facts, **chosen}.items()]
    blocks: list[PageBlock] = [table("What was run", rows, style="settings", summary=False)]
    if everything:
        all_rows = [{"Parameter": key, "Value": value} for key, value in everything.items()]
        full = table("All parameters", all_rows, style="settings", summary=False)
        blocks.append(Group(title="All parameters", blocks=[full]))
    return blocks


def flat(tree: Mapping[str, Any], *, apart: str = ".") -> dict[str, Any]:
    """Nested values by the names on their way."""
    found: dict[str, Any] = {}
    for key, value in tree.items():
        below = flat(value, apart=apart) if isinstance(value, Mapping) else None
        found |= {key: value} if below is None else {f"{key}{apart}{name}": each for name, each in below.items()}
    return found


def shown(value: Any, *, unit: str = "") -> str:
    """A parameter's value in words, with its plural unit."""
    if isinstance(value, Mapping):
        return ", ".join(f"{name}: {shown(entry)}" for name, entry in value.items())
    if isinstance(value, list | tuple):
        apart = "; " if any(isinstance(entry, Mapping) for entry in value) else ", "
        return apart.join(shown(entry) for entry in value) or "empty"
    if isinstance(value, bool) or value is None:
        return {True: "yes", False: "no", None: "none"}[value]
    number = f"{value:,}" if isinstance(value, int) else str(value).replace("e-0", "e-")
    counted = isinstance(value, int | float) and unit
    return f"{number} {SINGULAR.get(unit, unit.removesuffix('s')) if value == 1 else unit}" if counted else number


def _resolved(key: str, value: Any, *, devices: Mapping[str, str]) -> Any:
    """`auto` with the device that it became."""
    if value != "auto":
        return value
    device = devices.get(key.partition(".")[0])
    return f"auto: {device}" if device else "auto (what it became was not recorded)"

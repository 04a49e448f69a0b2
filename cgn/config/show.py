"""python -m cgn params TRACK/VARIANT: every resolved value, with its unit and where it comes from."""

import argparse
from collections.abc import Iterator, Mapping, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from cgn.config.load import load
from cgn.core.parameters import EXTENSION, Setting, settings


def show(argv: Sequence[str]) -> None:
    """Print the resolved values of a variant; `--departures`: only those that are not the published ones."""
    parser = argparse.ArgumentParser(prog="python -m cgn params", description=show.__doc__)
    parser.add_argument("target", metavar="TRACK/VARIANT", help="for example mnist/digits")
    parser.add_argument("--params", type=Path, default=Path("params.yaml"), help="default: %(default)s")
    parser.add_argument("--departures", action="store_true", help="only what departs from the published values")
    given = parser.parse_args(argv)
    params = load(given.params)
    record = params.variant(given.target)
    track, _, variant = given.target.partition("/")
    chosen = [setting for setting in settings(record) if setting.departs or not given.departures]
    print("\n".join(table(chosen, stated=leaves(params.file[track][variant]))) or "nothing departs")


def table(chosen: Sequence[Setting], *, stated: Mapping[str, Any]) -> Iterator[str]:
    """Aligned lines, grouped by verb. `stated`: what params.yaml itself sets, by dotted key."""
    rows = [(setting.key, _text(setting.value), setting.unit, origin(setting, stated)) for setting in chosen]
    widths = [max((len(row[column]) for row in rows), default=0) for column in range(3)]
    for place, (_, group) in enumerate(groupby(rows, key=lambda row: row[0].partition(".")[0])):
        yield from [""] * (place > 0)
        for key, value, unit, source in group:
            yield f"{key:{widths[0]}}  {value:>{widths[1]}} {unit:{widths[2]}}  {source}".rstrip()


def origin(setting: Setting, stated: Mapping[str, Any]) -> str:
    """Where a value comes from: its published source, params.yaml, or a default of ours."""
    above = [setting.key.rsplit(".", cut)[0] for cut in range(setting.key.count(".") + 1)]
    ours = "params.yaml" if any(key in stated for key in above) else "default"
    if not setting.departs:
        return setting.source or ours
    published = "not in it" if setting.source == EXTENSION else _text(setting.published)
    return f"{ours} (paper: {published})"


def leaves(values: Any, *above: str) -> dict[str, Any]:
    """Nested mappings as dotted keys."""
    if not isinstance(values, Mapping):
        return {".".join(above): values}
    return {key: leaf for name, value in values.items() for key, leaf in leaves(value, *above, str(name)).items()}


def _text(value: Any) -> str:
    """A value as YAML has it."""
    if isinstance(value, BaseModel):
        return "{" + ", ".join(f"{name}: {_text(entry)}" for name, entry in value) + "}"
    if isinstance(value, tuple):
        return "[" + ", ".join(map(_text, value)) + "]"
    return "null" if value is None else str(value)

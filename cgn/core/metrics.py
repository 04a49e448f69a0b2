"""How numbers and images leave the library: a small protocol, and the sink that is always there, files.

`metrics.jsonl` is the record: one line a step, appended and flushed; all else replaces a file as a whole, so whoever
holds a link to one keeps what it was. `details.json` holds all final values, `metrics.json` those of them that one
compares between runs (the verb says which; how fast a run was is never among them), `headlines.json` two or three of
these by short names and rounded, for tables, and `curves.csv` the steps, one line a value, so that one plot shows any
number of curves. A run that continues from step n drops the lines after n first, so a resumed record reads like an
unbroken one. A line that cannot be read (half a line of a killed run, a damaged file) is left out and stops nothing.
The platform adds a sink of its own (for MLflow).
"""

import csv
import io
import json
import math
import time
from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, Protocol

from cgn.core.errors import TrainingError
from cgn.core.files import explained, json_value, write_json, write_text

PACES = frozenset({"seconds", "images_per_second"})
"""Last parts of names that say how fast a run was, not what it computed."""


class MetricSink(Protocol):
    """Where a stage sends what it measures. Names use `/` for groups: `loss/adversarial`, `accuracy/test_random`."""

    def log(self, values: Mapping[str, float], *, step: int) -> None:
        """Values at a step (updates for training, images for the rest). Steps rise; a resumed run may repeat some."""

    def summary(self, values: Mapping[str, float]) -> None:
        """Final values of the stage: what tables and `dvc metrics` show."""

    def picture(self, path: Path) -> None:
        """A sheet or page that was just written (PNG, GIF or HTML), inside the folder being built."""

    def rewind(self, step: int) -> None:
        """The run continues after `step`, -1 for a new one; run.json was written. Forget what was logged later."""


class Silent:
    """The null sink: measures nothing, for use of the library without a run."""

    def log(self, values: Mapping[str, float], *, step: int) -> None: ...
    def summary(self, values: Mapping[str, float]) -> None: ...
    def picture(self, path: Path) -> None: ...
    def rewind(self, step: int) -> None: ...


class Fanout:
    """One sink that passes everything on to several, in order."""

    def __init__(self, sinks: Sequence[MetricSink]) -> None:
        self.sinks = tuple(sinks)

    def log(self, values: Mapping[str, float], *, step: int) -> None:
        for sink in self.sinks:
            sink.log(values, step=step)

    def summary(self, values: Mapping[str, float]) -> None:
        for sink in self.sinks:
            sink.summary(values)

    def picture(self, path: Path) -> None:
        for sink in self.sinks:
            sink.picture(path)

    def rewind(self, step: int) -> None:
        for sink in self.sinks:
            sink.rewind(step)


class Files:
    """The sink that is always there: a log folder beside the stage's output.

    `compared`: patterns of the final values' names that go to metrics.json; `headlines`: short name -> name of those
    that go to headlines.json, which is not written without them.
    """

    def __init__(
        self, folder: Path, *, compared: Sequence[str] = ("*",), headlines: Mapping[str, str] | None = None
    ) -> None:
        self.folder, self.compared, self.headlines = folder, tuple(compared), headlines or {}
        self.record = folder / "metrics.jsonl"
        with explained(folder):
            folder.mkdir(parents=True, exist_ok=True)
            self.record.touch()

    def log(self, values: Mapping[str, float], *, step: int) -> None:
        line = json.dumps({"step": step, "time": round(time.time(), 3), **values}, allow_nan=False)
        with explained(self.record), self.record.open("a", encoding="utf-8") as file:
            file.write(line + "\n")

    def summary(self, values: Mapping[str, float]) -> None:
        compared = {
            name: value
            for name, value in values.items()
            if not _is_pace(name) and any(fnmatchcase(name, pattern) for pattern in self.compared)
        }
        write_json(self.folder / "metrics.json", _nested(compared))
        if self.headlines:
            found = {short: round(values[name], 4) for short, name in self.headlines.items() if name in values}
            write_json(self.folder / "headlines.json", found)
        write_json(self.folder / "details.json", _nested(values))
        write_text(self.folder / "curves.csv", _table(read_lines(self.record)))

    def picture(self, path: Path) -> None:
        """Nothing: the picture already is a file."""

    def rewind(self, step: int) -> None:
        kept = [line for line in read_lines(self.record) if line["step"] <= step]
        write_text(self.record, "".join(json.dumps(line) + "\n" for line in kept))


def read_lines(record: Path) -> list[dict[str, Any]]:
    """The lines of a metrics.jsonl that are whole: a whole number as `step`, and numbers by their names."""
    return parse_lines(record.read_bytes())


def parse_lines(data: bytes) -> list[dict[str, Any]]:
    """As `read_lines`, of a part of the record."""
    lines = []
    for text in data.splitlines():
        try:
            line = json_value(text)
        except ValueError:
            continue
        numbers = line.values() if isinstance(line, dict) and type(line.get("step")) is int else [None]
        if all(isinstance(value, int | float) for value in numbers):
            lines.append(line)
    return lines


def finite(values: Mapping[str, float], *, update: int) -> None:
    """Raise TrainingError naming the first value that is not a finite number."""
    for name, value in values.items():
        if not math.isfinite(value):
            raise TrainingError(
                f"{name} is {value} at update {update}: stopped; the last good checkpoint is kept. "
                "Lower the learning rate or the loss's weight (that starts the training anew)"
            )


def _nested(values: Mapping[str, float]) -> dict[str, Any]:
    tree: dict[str, Any] = {}
    for name, value in values.items():
        *groups, leaf = name.split("/")
        branch = tree
        for group in groups:
            branch = branch.setdefault(group, {})
        branch[leaf] = value
    return tree


def _table(lines: list[dict[str, Any]]) -> str:
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(["step", "name", "value"])
    for line in lines:
        writer.writerows([line["step"], name, value] for name, value in line.items() if name not in ("step", "time"))
    return buffer.getvalue()


def _is_pace(name: str) -> bool:
    return name.rpartition("/")[2] in PACES

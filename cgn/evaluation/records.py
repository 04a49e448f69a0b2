"""What a run recorded of itself, read from the log folder beside its output.

A log belongs to no output (a cached or copied folder comes without one), so a missing log, or a broken file in it, is
no error: what it does not say is None.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cgn.core.errors import ArtifactError
from cgn.core.files import read_json
from cgn.core.outputs import log_folder


@dataclass(frozen=True, kw_only=True)
class Record:
    """The last run that wrote an output."""

    seconds: float | None
    """Of its last start, to the finished output."""
    starts: int
    """More than one where it was interrupted and continued."""
    finished: str | None
    machine: Mapping[str, Any]
    """As `cgn.core.devices.describe_machine` returns it; empty where it was not recorded."""
    metrics: Mapping[str, Any]
    """Final values, nested by the parts of their names."""

    @property
    def device(self) -> str | None:
        """What the accelerator `auto` became, "cpu" or "cuda"; None where the machine was not recorded."""
        if not self.machine:
            return None
        return "cuda" if self.machine.get("gpus") else "cpu"

    def metric(self, name: str) -> float | None:
        """A final value by its name, "loss/binary"; None where there is none."""
        value: Any = self.metrics
        for part in name.split("/"):
            value = value.get(part) if isinstance(value, Mapping) else None
        return _number(value)


def read_record(out: Path) -> Record:
    """The record beside the output folder `out`."""
    run = _mapping(log_folder(out) / "run.json")
    metrics = _mapping(log_folder(out) / "details.json") or _mapping(log_folder(out) / "metrics.json")
    starts, finished, machine = run.get("starts"), run.get("finished"), run.get("machine")
    return Record(
        seconds=_number(run.get("seconds")),
        starts=len(starts) if isinstance(starts, list) else 0,
        finished=finished if isinstance(finished, str) else None,
        machine=machine if isinstance(machine, Mapping) else {},
        metrics=metrics,
    )


def _mapping(path: Path) -> Mapping[str, Any]:
    try:
        stored = read_json(path)
    except (ArtifactError, OSError):
        return {}
    return stored if isinstance(stored, Mapping) else {}


def _number(value: Any) -> float | None:
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else None

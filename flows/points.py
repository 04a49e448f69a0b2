"""One point of a sweep: an experiment of DVC (`flows.experiment`) and what is kept of it to compare.

A point is the values that it sets. It runs in its experiment's workspace, so one that was killed continues there, and
it is saved where `dvc exp show` has it. Then its evaluation is copied from DVC's cache to

    runs/sweeps/SWEEP/EXPERIMENT/            evaluate/, metrics.json and point.json; there as a whole or not at all

which is the mark of a point that is done: it is not run again. Where the folder was removed, DVC restores from its
cache, and no stage runs.
"""

import json
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from flows.experiment import name_of
from flows.untracked import write_json

SWEEPS = Path("runs") / "sweeps"
POINT, METRICS, EVALUATE = "point.json", "metrics.json", "evaluate"
SAVED, SHOWN = "compare.json", "compare.md"

Run = Callable[[Mapping[str, Any]], None]
"""Bring the experiment with these overrides up to date, and save it. Raises RuntimeError where a stage fails."""


@dataclass(frozen=True, kw_only=True)
class Sweep:
    """Experiments of one variant that belong together."""

    root: Path
    variant: str
    """"track/variant"."""
    name: str
    targets: tuple[str, ...] = ("*",)
    """Patterns of the stages that each point needs."""

    @cached_property
    def key(self) -> str:
        """What identifies it in tracking: its name, and the files that it starts from."""
        return f"{self.name}-{name_of(self.root, overrides={}, variants=[self.variant]).rpartition('-')[2]}"

    @property
    def folder(self) -> Path:
        """Where its points are kept."""
        return self.root / SWEEPS / self.name

    @property
    def lock(self) -> Path:
        """Held by the process that works on it."""
        return self.root / ".dvc" / "tmp" / f"sweep-{self.name}.lock"


def finish(sweep: Sweep, overrides: Mapping[str, Any], *, run: Run, log: Callable[[str], object]) -> Path:
    """The folder of a point, which is run if it is not done. Raises RuntimeError where it fails."""
    name = name_of(sweep.root, overrides=overrides, variants=[sweep.variant])
    folder = sweep.folder / name
    if (folder / POINT).is_file():
        log(f"{in_words(overrides)}: done before ({name})")
        return folder
    log(f"{in_words(overrides)}: {name}")
    run(overrides)
    _keep(sweep, name, folder=folder, overrides=overrides)
    return folder


def metrics(folder: Path) -> dict[str, float]:
    """The values that DVC compares of a point, by their names: accuracy/original/test_random."""
    return _flat(json.loads((folder / METRICS).read_text(encoding="utf-8")))


def in_words(overrides: Mapping[str, Any]) -> str:
    """The values that a point sets."""
    return ", ".join(f"{key}={value}" for key, value in overrides.items())


def compare(runs: Sequence[str], *words: str) -> str:
    """What `python -m cgn compare` prints of these runs. Raises RuntimeError with what it refuses."""
    command = [sys.executable, "-m", "cgn", "compare", *runs, *words]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"compare: {done.stderr.strip() or done.stdout.strip()}")
    return done.stdout


def _keep(sweep: Sweep, name: str, *, folder: Path, overrides: Mapping[str, Any]) -> None:
    """Copy the evaluation of an experiment from DVC's cache."""
    from dvc.api import DVCFileSystem  # type: ignore[import-untyped]

    partial = folder.with_name(f"{folder.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    evaluated = f"runs/{sweep.variant}/{EVALUATE}"
    stored = DVCFileSystem(str(sweep.root), rev=name)
    stored.get(evaluated, str(partial / EVALUATE), recursive=True)
    stored.get(f"{evaluated}.log/{METRICS}", str(partial / METRICS))
    write_json(partial / POINT, {"experiment": name, "overrides": dict(overrides), "variant": sweep.variant})
    partial.replace(folder)


def _flat(values: Mapping[str, Any], above: str = "") -> dict[str, float]:
    found: dict[str, float] = {}
    for name, value in values.items():
        found |= _flat(value, f"{above}{name}/") if isinstance(value, Mapping) else {f"{above}{name}": float(value)}
    return found

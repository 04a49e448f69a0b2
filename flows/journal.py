"""A stage's journal: what it has to tell the tracker, in files, so that telling costs nothing and loses nothing.

Decided here: the stage appends events to `runs/untracked/<pipeline>/<journal>/events.jsonl`; the pipeline's tracker
(`flows.tracking`, a process of its own) carries them to MLflow. The stage neither loads MLflow nor waits for a server.
A journal is removed once all of it has arrived, so what lies in `runs/untracked` is not tracked yet. It lies at the
project's root, not beside the stage's output, because `dvc exp run --temp` throws that away; pictures are copied for
the same reason, and because the folder they are written to is moved at the end. Nothing in here ever stops a stage.
"""

import json
import os
import shutil
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from flows.lineage import Pipeline, alive

EVENTS = "events.jsonl"
UNTRACKED = Path("runs") / "untracked"
EXPERIMENT = ("DVC_EXP_NAME", "DVC_EXP_BASELINE_REV")


def project_root() -> Path:
    """The checkout that holds this run, also for a stage that DVC runs in a temporary copy of it."""
    here = Path.cwd()
    for folder in here.parents:
        if folder.name == "exps" and folder.parent.name == "tmp" and folder.parent.parent.name == ".dvc":
            return folder.parents[2]
    return here


class Journal:
    """A MetricSink that appends to the journal. `begin` and `end` stand around what a stage measures."""

    def __init__(self, root: Path, *, pipeline: Pipeline) -> None:
        self.pipeline = pipeline
        self.started = time.time()
        self.folder = root / UNTRACKED / pipeline.key / f"{time.time_ns()}-{os.getpid()}"
        self.out = Path()
        self.log_folder = Path()
        self.pictures = 0
        self.step = 0
        self.noted = False
        self.broken = False

    def begin(self, facts: Mapping[str, Any], *, out: Path, log: Path) -> None:
        """What is run: `facts` become tags, the paths in `facts["inputs"]` and `out` are hashed by the tracker."""
        self.out, self.log_folder = out, log
        self._tell(
            event="begin",
            facts=dict(facts),
            cwd=str(Path.cwd()),
            out=str(out),
            process=alive(os.getpid()),
            pipeline={"key": self.pipeline.key, "name": self.pipeline.name},
            experiment={name.lower(): os.environ[name] for name in EXPERIMENT if name in os.environ},
        )

    def log(self, values: Mapping[str, float], *, step: int) -> None:
        """Values at a step."""
        self._note()
        self.step = max(self.step, step)
        self._tell(event="metrics", step=step, values=dict(values))

    def summary(self, values: Mapping[str, float]) -> None:
        """Final values, at the last step, so that MLflow shows them as the latest."""
        self._note()
        self._tell(event="metrics", step=self.step, values=dict(values))

    def picture(self, path: Path) -> None:
        """A picture or page: copied, because the stage goes on to move or change it."""
        self._note()
        self.pictures += 1
        copy = f"{self.pictures:06d}{path.suffix}"
        try:
            shutil.copyfile(path, self.folder / copy)
        except OSError as error:
            self._give_up(error)
            return
        partial = self.out.with_name(self.out.name + ".partial")
        base = next((base for base in (partial, self.out) if path.is_relative_to(base)), path.parent)
        self._tell(event="picture", copy=copy, place=path.relative_to(base).as_posix())

    def rewind(self, step: int) -> None:
        """A run that continues: its MLflow run gets the curve up to here from the record on disk."""
        self._note()
        for line in _lines(self.log_folder / "metrics.jsonl"):
            at, moment = line.pop("step", 0), line.pop("time", time.time())
            if at <= step:
                self.step = max(self.step, at)
                self._tell(event="metrics", step=at, values=line, time=moment)

    def end(self, status: str, *, message: str = "") -> None:
        """`status` is MLflow's: FINISHED, FAILED or KILLED. A stage that never began leaves nothing."""
        self._note()
        if self.folder.is_dir():
            self._tell(event="end", status=status, message=message)

    def _note(self) -> None:
        """The front door writes run.json before the first step: pass it on once it is there."""
        file = self.log_folder / "run.json"
        try:
            # file systems may round a file's time down
            if not self.noted and self.folder.is_dir() and file.stat().st_mtime > self.started - 0.05:
                self.noted = True
                self._tell(event="note", run=json.loads(file.read_text(encoding="utf-8")))
        except (OSError, ValueError, RecursionError):
            return

    def _tell(self, **event: Any) -> None:
        if self.broken:
            return
        line = json.dumps({"time": time.time(), **event}) + "\n"
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            with (self.folder / EVENTS).open("a", encoding="utf-8") as file:
                file.write(line)
        except OSError as error:
            self._give_up(error)

    def _give_up(self, error: OSError) -> None:
        self.broken = True
        print(f"note: this run is not tracked from here on, it goes on without: {error}", file=sys.stderr, flush=True)


def _lines(record: Path) -> list[dict[str, Any]]:
    try:
        texts = record.read_bytes().splitlines()
    except OSError:  # no record
        return []
    lines = []
    for text in texts:
        try:
            line = json.loads(text.decode("utf-8"))
        except (ValueError, RecursionError):  # the last line of a killed run, or a damaged file
            continue
        numbers = line.values() if isinstance(line, dict) else [None]
        if all(isinstance(value, int | float) for value in numbers):
            lines.append(line)
    return lines

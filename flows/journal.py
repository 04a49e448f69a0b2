"""A stage's journal: what it has to tell the tracker, in files, so that telling costs nothing and loses nothing.

Decided here: the stage appends events to `runs/untracked/<pipeline>/<journal>/events.jsonl`; the pipeline's tracker
(`flows.tracking`, a process of its own) carries them to MLflow. The stage neither loads MLflow nor waits for a server.
A journal is removed once all of it has arrived, so what lies in `runs/untracked` is not tracked yet. It lies at the
project's root, not beside the stage's output, because `dvc exp run --temp` throws that away; pictures are copied for
the same reason, and because the folder they are written to is moved at the end. Nothing in here ever stops a stage.
Final values are those of the stage's metrics.json, the few that one compares; where the stage measured more, all of
them go along as a table. An evaluation's values by step are results of its parts, not a curve: only its progress is
passed on.
"""

import fcntl
import json
import os
import shutil
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any

from flows.lineage import Pipeline, alive

EVENTS, REFUSED, COUNTS = "events.jsonl", "refused.txt", "counts.json"
RUN, METRICS = "run.json", "metrics.json"
UNTRACKED = Path("runs") / "untracked"
EVALUATE = "evaluate"
EXPERIMENT = ("DVC_EXP_NAME", "DVC_EXP_BASELINE_REV")


def project_root() -> Path:
    """The checkout that holds this run, also for a stage that DVC runs in a temporary copy of it."""
    here = Path.cwd()
    for folder in here.parents:
        if folder.name == "exps" and folder.parent.name == "tmp" and folder.parent.parent.name == ".dvc":
            return folder.parents[2]
    return here


@contextmanager
def alone(path: Path, *, wait: bool = True) -> Iterator[None]:
    """Hold a file lock, which the kernel frees with the process. Raises BlockingIOError where it may not wait.

    Its holder may remove the file: a lock on a removed file excludes nobody, so it is taken again on the new one.
    """
    while True:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            file = path.open("ab")
        except FileNotFoundError:  # the folder was removed this moment
            continue
        with file:
            fcntl.flock(file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
            if _is_named(file, path):
                yield
                return


def _is_named(file: IO[bytes], path: Path) -> bool:
    """Whether an open file still is the one that lies at a path."""
    try:
        return os.path.samestat(os.fstat(file.fileno()), path.stat())
    except FileNotFoundError:
        return False


def count_stages(root: Path, *, key: str, counts: Mapping[str, int]) -> None:
    """Leave a pipeline's numbers of stages for its tracker. Nothing where no stage ran: there is no run in MLflow."""
    folder = root / UNTRACKED / key
    with suppress(FileNotFoundError):
        (folder / COUNTS).write_text(json.dumps(dict(counts)), encoding="utf-8")


class Journal:
    """A MetricSink that appends to the journal. `begin` and `end` stand around what a stage measures."""

    def __init__(self, root: Path, *, pipeline: Pipeline) -> None:
        self.pipeline = pipeline
        self.folder = root / UNTRACKED / pipeline.key / f"{time.time_ns()}-{os.getpid()}"
        self.out = Path()
        self.log_folder = Path()
        self.pictures = 0
        self.step = 0
        self.verb = ""
        self.noted = False
        self.stale: tuple[int, ...] | None = None
        self.broken = False

    def begin(self, facts: Mapping[str, Any], *, out: Path, log: Path) -> None:
        """What is run: `facts` become tags, the paths in `facts["inputs"]` and `out` are hashed by the tracker."""
        self.out, self.log_folder, self.verb = out, log, facts.get("verb", "")
        self.stale = _version(log / RUN)
        self._tell(
            event="begin",
            facts=dict(facts),
            cwd=str(Path.cwd()),
            out=str(out),
            process=alive(os.getpid()),
            pipeline={
                "key": self.pipeline.key,
                "name": self.pipeline.name,
                "parameters": dict(self.pipeline.parameters),
            },
            experiment={name.lower(): os.environ[name] for name in EXPERIMENT if name in os.environ},
        )

    def log(self, values: Mapping[str, float], *, step: int) -> None:
        """Values at a step."""
        self._note()
        self.step = max(self.step, step)
        self._tell(event="metrics", step=step, values={"images": step} if self.verb == EVALUATE else dict(values))

    def summary(self, values: Mapping[str, float]) -> None:
        """Final values, at the last step, so that MLflow shows them as the latest; all values as a table, if more."""
        self._note()
        compared = _numbers(self.log_folder / METRICS) or dict(values)
        self._tell(event="metrics", step=self.step, values=compared)
        if not set(values) <= set(compared):
            self._tell(event="table", values=dict(values))

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
        file = self.log_folder / RUN
        try:
            # compared with what lay there before: times would depend on the clock
            if not self.noted and self.folder.is_dir() and _version(file) not in (None, self.stale):
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


def _version(file: Path) -> tuple[int, ...] | None:
    """What changes with a file; None where there is none."""
    try:
        facts = file.stat()
    except OSError:
        return None
    return (facts.st_ino, facts.st_mtime_ns, facts.st_size)


def _numbers(file: Path) -> dict[str, float]:
    """The numbers of metrics.json by their names with slashes."""
    found: dict[str, float] = {}
    try:
        branches = [("", json.loads(file.read_text(encoding="utf-8")))]
    except (OSError, ValueError):
        return found
    while branches:
        name, value = branches.pop()
        if isinstance(value, dict):
            branches += [(f"{name}/{key}" if name else key, below) for key, below in value.items()]
        elif isinstance(value, int | float) and name:
            found[name] = value
    return dict(sorted(found.items()))


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

"""What a stage leaves for the uploader: links to the files that it writes anyway, so tracking costs and loses nothing.

A stage that runs has a folder `runs/untracked/<pipeline>/<run>/`. `flows.tracking`, in a process of its own, sends it
to MLflow and removes once all of it has arrived. The stage neither loads MLflow nor waits for a server.

    stage.json                 what runs: written first
    run.json metrics.jsonl metrics.json details.json     hard links into `<output>.log`
    images/                    hard links to sheets and pages, by their place in the output
    model/                     hard links to a trained network and what describes it
    verdict/                   hard links to gate.json, evaluate's definition.json and the judged classifier
    values.json                tags, params and metrics that are in none of these files
    end.json                   how it ended: written last
    inputs.json output.json    what the uploader sees of the stage: DVC's hashes, datasets, changed parameters
    system.jsonl               what it sees of the machine
    sent.json refused.txt      how far it is sent; why MLflow does not take it

Links, because the next run of the stage replaces these files, an unfinished output is moved, and the whole folder of
`dvc exp run --temp` is removed; the library never changes a file in place but to append to metrics.jsonl. The folder is
at the project's root for the same reason. Nothing in here ever stops a stage.
"""

import fcntl
import json
import os
import re
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from flows.processes import alive, dvc_above

UNTRACKED = Path("runs") / "untracked"
STAGE, INPUTS, OUTPUT, END, IMAGES = "stage.json", "inputs.json", "output.json", "end.json", "images"
RUN, RECORD, METRICS, DETAILS = "run.json", "metrics.jsonl", "metrics.json", "details.json"
VALUES, SYSTEM = "values.json", "system.jsonl"
MODEL, WEIGHTS = "model", "model.safetensors"
VERDICT, GATE, EVALUATED, CLASSIFIER = "verdict", "gate.json", "evaluate.json", "classifier"
SENT, REFUSED = "sent.json", "refused.txt"
LOCK, DOWN, LOG, ENDED = "uploader.lock", "uploader.down", "uploader.log", "ended.json"
SYNC = "python -m flows.tracking sync"
PIPELINE, SWEEP = "CGN_PIPELINE", "CGN_SWEEP"
TRAIN_CLASSIFIER = "train_classifier"
EXPERIMENT = ("DVC_EXP_NAME", "DVC_EXP_BASELINE_REV")


def current_sweep() -> dict[str, str]:
    """The `key` and `name` of the sweep that this process works on; empty for none."""
    found: dict[str, str] = json.loads(os.environ.get(SWEEP, "{}"))
    return found


@dataclass(frozen=True, kw_only=True)
class Pipeline:
    """One run of a pipeline: a key of its own, a name to show, the process it lives in (`alive`), its parameters.

    `sweep`: what it belongs to; its run in MLflow is below that one's.
    """

    key: str
    name: str
    process: str
    parameters: Mapping[str, str] = field(default_factory=dict)
    sweep: Mapping[str, str] = field(default_factory=current_sweep)

    @property
    def environment(self) -> dict[str, str]:
        """The variable by which stages below know that they are part of it."""
        return {PIPELINE: json.dumps(asdict(self))}


def current_pipeline() -> Pipeline:
    """What this process is a stage of: the flow run that started it, else the outermost DVC above it, else itself."""
    if given := os.environ.get(PIPELINE):
        return Pipeline(**json.loads(given))
    process, words = [(alive(os.getpid()), ["python -m flows.stage"]), *dvc_above()][-1]
    experiment, command = os.environ.get("DVC_EXP_NAME", ""), " ".join(words)
    key = "-".join(filter(None, [socket.gethostname(), process, experiment]))
    return Pipeline(
        key=re.sub(r"[^\w.-]+", "-", key),
        name=experiment or command[:200],
        process=process,
        parameters={"command": command},
    )


def project_root() -> Path:
    """The checkout that holds this run, also for a stage that DVC runs in a temporary copy of it."""
    here = Path.cwd()
    for folder in here.parents:
        if folder.name == "exps" and folder.parent.name == "tmp" and folder.parent.parent.name == ".dvc":
            return folder.parents[2]
    return here


class UntrackedRun:
    """A MetricSink that links what the stage wrote. `begin` and `end` stand around what a stage measures.

    `nested`: whether its run in MLflow is below the pipeline's.
    """

    def __init__(self, root: Path, *, pipeline: Pipeline, nested: bool = True) -> None:
        self.pipeline, self.nested = pipeline, nested
        self.folder = root / UNTRACKED / pipeline.key / f"{time.time_ns()}-{os.getpid()}"
        self.out = self.log_folder = Path()
        self.decisions: list[Path] = []
        self.broken = False

    def begin(self, facts: Mapping[str, Any], *, out: Path, log: Path) -> None:
        """Say what runs, and start the pipeline's uploader if it has none.

        `facts` become tags; the uploader adds DVC's hashes of the paths in `facts["inputs"]` and `out`.
        """
        self.out, self.log_folder = out, log
        self.decisions = [Path(path) for path in facts["inputs"].get("decisions", ())]
        described = {"time": time.time(), "facts": dict(facts), "cwd": str(Path.cwd()), "out": str(out)}
        experiment = {name.lower(): os.environ[name] for name in EXPERIMENT if name in os.environ}
        described |= {"process": alive(os.getpid()), "pipeline": asdict(self.pipeline), "experiment": experiment}
        described |= {"nested": self.nested}
        self.write(STAGE, described)
        start_uploader(self.folder.parent, process=self.pipeline.process)

    def log(self, values: Mapping[str, float], *, step: int) -> None:
        """Nothing is written twice: the record already has these values."""
        del values, step
        self._follow(RUN, RECORD)

    def summary(self, values: Mapping[str, float]) -> None:
        """Final values: all are in details.json, the few that one compares in metrics.json."""
        del values
        self._follow(RUN, RECORD, METRICS, DETAILS)

    def picture(self, path: Path) -> None:
        """A sheet or page, under its place in the output."""
        partial = self.out.with_name(self.out.name + ".partial")
        base = next((base for base in (partial, self.out) if path.is_relative_to(base)), path.parent)
        self.link(path, f"{IMAGES}/{path.relative_to(base).as_posix()}")

    def values(
        self,
        *,
        tags: Mapping[str, str] | None = None,
        params: Mapping[str, Any] | None = None,
        metrics: Mapping[str, float] | None = None,
    ) -> None:
        """Replace what the run has besides what the stage wrote."""
        self.write(VALUES, {"tags": tags or {}, "params": params or {}, "metrics": metrics or {}})

    def rewind(self, step: int) -> None:
        """The run begins or continues: run.json and the record up to here were just written anew."""
        del step
        self._follow(RUN, RECORD)

    def end(self, status: str, *, message: str = "") -> None:
        """`status` is MLflow's: FINISHED, FAILED or KILLED. A stage that never began leaves nothing."""
        if (self.folder / STAGE).is_file():
            # the files of the run before are still there where this one was refused before it wrote its own
            self._follow(*(name for name in (RUN, RECORD) if (self.folder / name).exists()))
            if status == "FINISHED":
                with self._optional():
                    self._link_models()
            self.write(END, {"time": time.time(), "status": status, "message": message})
            if refused := read_text(self.folder / REFUSED):
                _note(f"this run is not in MLflow: {refused}")
            elif down := read_text(self.folder.parent / DOWN):
                later = f"it is tracked once the server is back (by the next run, or: {SYNC})"
                _note(f"MLflow has not all of this run; {later}: {down}")

    def _follow(self, *names: str) -> None:
        for name in names:
            self.link(self.log_folder / name, name)

    def _link_models(self) -> None:
        """What is registered of the stage (`flows.models`): a trained network, or a verdict and whom it is of."""
        if (self.out / WEIGHTS).is_file():
            self._link_folder(self.out, MODEL)
        if (self.out / GATE).is_file() and self.decisions:
            with suppress(KeyError, TypeError, ValueError):  # without the classifier, the verdict moves nothing
                name = json.loads(read_text(self.out / GATE))["classifier"]
                self._link_folder(self.out.parent / TRAIN_CLASSIFIER / name, f"{VERDICT}/{CLASSIFIER}")
            self.link(self.decisions[0] / "definition.json", f"{VERDICT}/{EVALUATED}")
            self.link(self.out / GATE, f"{VERDICT}/{GATE}")

    def _link_folder(self, folder: Path, name: str) -> None:
        """The files of a folder, without those in folders below."""
        for file in sorted(folder.glob("*")):
            self.link(file, f"{name}/{file.name}")

    def link(self, file: Path, name: str) -> None:
        """Hold a file as it is now and as it grows; where links are not possible a copy, renewed at every call."""
        target = self.folder / name
        temporary = target.with_name(f".{target.name}")
        with self._optional():
            if self.broken or not file.is_file() or (target.exists() and target.samefile(file)):
                return
            target.parent.mkdir(parents=True, exist_ok=True)
            temporary.unlink(missing_ok=True)
            try:
                temporary.hardlink_to(file)
            except OSError:
                shutil.copy2(file, temporary)
            temporary.replace(target)

    def write(self, name: str, values: Mapping[str, Any]) -> None:
        """Leave a small file for the uploader (`flows.tracked_run.KINDS` says what sends it)."""
        with self._optional():
            if not self.broken:
                self.folder.mkdir(parents=True, exist_ok=True)
                write_json(self.folder / name, values)

    @contextmanager
    def _optional(self) -> Iterator[None]:
        """A disk that fails ends the tracking, not the stage."""
        try:
            yield
        except OSError as error:
            self.broken = True
            _note(f"this run is not tracked from here on, it goes on without: {error}")


def start_uploader(folder: Path, *, process: str) -> None:
    """Start the uploader of the pipeline that has this folder and lives in this process, unless it has one."""
    refused = len(list(folder.parent.glob(f"*/*/{REFUSED}")))
    environment = os.environ | {"PYTHONWARNINGS": "ignore"}
    environment["PYTHONPATH"] = os.pathsep.join(filter(None, [str(Path(__file__).parents[1]), os.getenv("PYTHONPATH")]))
    command = [sys.executable, "-m", "flows.tracking", "upload", str(folder), process]
    try:
        with alone(folder / LOCK, wait=False):
            pass
        if refused:
            _note(f"MLflow refuses {refused} earlier runs; {SYNC} says why")
        with (folder / LOG).open("ab") as log:
            # not in the stage's folder: DVC removes that of an experiment
            subprocess.Popen(
                command, cwd=project_root(), env=environment, stdin=subprocess.DEVNULL, stdout=log, stderr=log
            )
    except BlockingIOError:  # it has one
        return
    except OSError as error:
        _note(f"this run is tracked later, by {SYNC}: {error}")


def end_pipeline(root: Path, *, key: str, metrics: Mapping[str, float]) -> None:
    """Tell a pipeline's uploader that it has ended, and metrics that its run gets beside those of the stages that ran.

    Nothing where no stage ran: there is no run in MLflow.
    """
    with suppress(FileNotFoundError):
        write_json(root / UNTRACKED / key / ENDED, metrics)


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
            named = False
            with suppress(FileNotFoundError):
                named = os.path.samestat(os.fstat(file.fileno()), path.stat())
            if named:
                yield
                return


def read_text(file: Path) -> str:
    """A small file's text; empty where it does not exist (its writer may remove it at any moment)."""
    try:
        return file.read_text(encoding="utf-8")
    except OSError:
        return ""


def write_json(file: Path, value: Any) -> None:
    """Write JSON, whole or not at all."""
    temporary = file.with_name(f".{file.name}.tmp")
    temporary.write_text(json.dumps(value), encoding="utf-8")
    temporary.replace(file)


def _note(text: str) -> None:
    print(f"note: {text}", file=sys.stderr, flush=True)

"""All that is said to MLflow: one run a stage, nested in the run of its pipeline.

The low-level client only, never the active run, so that one process can serve several stages. The store is SQLite at
the project's root unless MLFLOW_TRACKING_URI names another; a relative SQLite path means the project's root too,
wherever DVC runs the stage. The pipeline's run is open while one of its stages is, and ends as the worst of them; of a
stage that was tried again, the last try counts. It has the revision, the command or the flow's parameters, each
variant's seed and changed parameters, the final values of the evaluations, and the numbers of stages. What the server
answers with a refusal is a RefusedError, which says what to do; any other error may pass by itself.
"""

import csv
import io
import os
import re
import socket
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from urllib.request import getproxies

from flows.database import ARTIFACTS, adopt, create, sqlite_file
from flows.untracked import UNTRACKED, alone

EXPERIMENT = "cgn"
PIPELINE, PARENT, HOME = "cgn.pipeline", "mlflow.parentRunId", "cgn.store"
EXPERIMENT_TAGS = {
    "mlflow.experimentKind": "custom_model_development",  # else MLflow opens it on its view for language models
    "mlflow.note.content": "Counterfactual Generative Networks: one run a stage, nested in the run of its pipeline "
    "(`dvc repro`, `dvc exp run` or a Prefect flow run). Compare pipelines by the metrics of their evaluations, and "
    "trainings by their curves.",
}
VALUE_LENGTH = 5000
PROBE_SECONDS = 3.0
TRANSIENT = (408, 425, 429, 499)  # the server is busy: HTTP statuses of a client's error that pass by themselves
DROP = "python -m flows.tracking drop"
ENDS = {"FAILED": "failed", "KILLED": "killed", "FINISHED": "made"}
"""How a stage ends, the worst first, and what the pipeline's run calls that in its metrics."""

NOTHING: Mapping[str, str] = {}

# A server that does not answer must cost a few seconds, not minutes. What a user sets is kept.
PATIENCE = {
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "4",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    "DO_NOT_TRACK": "true",
}


class RefusedError(Exception):
    """MLflow answered and does not take this: it says what and why, and `remedy` what to do. It never passes by itself.

    {run} in the remedy stands for the folder of the untracked run.
    """

    def __init__(self, reason: str, *, remedy: str) -> None:
        super().__init__(" ".join(reason.split())[:400])
        self.remedy = remedy


def address(root: Path) -> str:
    """The tracking URI in force, absolute."""
    given = os.environ.get("MLFLOW_TRACKING_URI") or "sqlite:///mlflow.db"
    scheme, separator, path = given.partition(":///")
    if separator and scheme.startswith("sqlite") and not path.startswith("/") and path:
        return f"{scheme}:///{root.resolve() / path}"
    return given


def shown(uri: str) -> str:
    """A tracking URI without a password."""
    return re.sub(r"//[^/@]*@", "//", uri)


def probe(uri: str) -> None:
    """Raise OSError where nothing listens at an http(s) address: MLflow need not be loaded to find that out.

    Not where a proxy is set, which stands between.
    """
    parts = urlsplit(uri)
    if parts.scheme in ("http", "https") and not getproxies():
        port = parts.port or {"http": 80, "https": 443}[parts.scheme]
        socket.create_connection((parts.hostname or "", port), timeout=PROBE_SECONDS).close()


def refusal_status(error: Exception) -> int | None:
    """The HTTP status of an answer that will be the same next time; None for anything that may pass by itself."""
    from mlflow.exceptions import MlflowException

    status = int(getattr(getattr(error, "response", None), "status_code", 0))  # of requests, for an artifact
    if isinstance(error, MlflowException):
        status = error.get_http_status_code()  # type: ignore[no-untyped-call]
        # MLflow knows few statuses, and takes the others for an internal error
        if status >= 500 and (answered := re.search(r"failed with error code (\d{3}) != 200", str(error))):
            status = int(answered[1])
    return status if 400 <= status < 500 and status not in TRANSIENT else None


def flat(values: Mapping[str, Any], *, separator: str = ".") -> dict[str, Any]:
    """Nested mappings as one, its keys joined."""
    found: dict[str, Any] = {}
    for name, value in values.items():
        below = flat(value, separator=separator) if isinstance(value, Mapping) else None
        found |= {name: value} if below is None else {f"{name}{separator}{key}": leaf for key, leaf in below.items()}
    return found


class Client:
    """An MLflow client for the project's experiment."""

    def __init__(self, *, root: Path) -> None:
        """Open or create the experiment. Raises RefusedError, or whatever MLflow raises where it does not answer."""
        for name, value in PATIENCE.items():
            os.environ.setdefault(name, value)
        from mlflow import MlflowClient

        self.uri = address(root)
        self.file = sqlite_file(self.uri)
        self.experiment = ""
        # Several first users at once break a SQLite file: all checkouts that use it meet at the file's own lock.
        self.lock = self.file.with_name(f"{self.file.name}.lock") if self.file else root / UNTRACKED / "mlflow.lock"
        with alone(self.lock):
            if self.file:
                create(self.file)
            self.mlflow = MlflowClient(self.uri)
            with self.refusals():
                self.experiment = self._experiment()

    def _experiment(self) -> str:
        """The experiment's id; it is made where it does not exist."""
        from mlflow.exceptions import MlflowException

        name = os.environ.get("MLFLOW_EXPERIMENT_NAME") or EXPERIMENT
        experiment = self.mlflow.get_experiment_by_name(name)
        if experiment is None:
            place = (self.file.parent / ARTIFACTS).as_uri() if self.file else None
            try:
                self.mlflow.create_experiment(name, artifact_location=place, tags=EXPERIMENT_TAGS)
            except MlflowException as error:
                if error.error_code != "RESOURCE_ALREADY_EXISTS":  # another checkout was faster
                    raise
            experiment = self.mlflow.get_experiment_by_name(name)
            assert experiment is not None, "it was made just now"
        if experiment.lifecycle_stage == "deleted":
            raise self._deleted_experiment(experiment)
        tags = {key: value for key, value in EXPERIMENT_TAGS.items() if key not in experiment.tags}
        if self.file:
            adopt(self.file, experiment=str(experiment.experiment_id), home=experiment.tags.get(HOME))
            tags |= {HOME: str(self.file)} if experiment.tags.get(HOME) != str(self.file) else {}
        try:
            for key, value in tags.items():
                self.mlflow.set_experiment_tag(experiment.experiment_id, key, value)
        except MlflowException as error:
            if not refusal_status(error):  # who may only write runs needs no description
                raise
        return str(experiment.experiment_id)

    @contextmanager
    def refusals(self, run_id: str = "") -> Iterator[None]:
        """Turn a refusal of MLflow's into a RefusedError that says what to do; other errors pass unchanged."""
        try:
            yield
        except Exception as error:
            if (status := refusal_status(error)) is None:
                raise
            raise self._refused(error, status=status, run_id=run_id) from error

    def lacks(self, run_id: str) -> bool:
        """Whether the server has never had this run, or no longer has it (a deleted one is still there)."""
        return self._run(run_id) is None

    def begin(self, stage: Mapping[str, Any]) -> str:
        """Open a stage's run under its pipeline's, which is made if it is the first. Call it under the lock."""
        facts, pipeline, start = stage["facts"], stage["pipeline"], _milliseconds(stage["time"])
        parent = self._pipeline(pipeline["key"])
        if parent is None:
            tags = {PIPELINE: pipeline["key"]}
            run = self.mlflow.create_run(self.experiment, start_time=start, run_name=pipeline["name"], tags=tags)
            parent = str(run.info.run_id)
            self._params(parent, pipeline["parameters"])
        tags = {f"cgn.{key}": value for key, value in facts.items() if key not in ("name", "inputs")}
        tags |= {f"dvc.{key}": value for key, value in stage["experiment"].items()} | {PARENT: parent}
        tags = {key: str(value)[:VALUE_LENGTH] for key, value in tags.items()}
        run = self.mlflow.create_run(self.experiment, start_time=start, run_name=facts["name"], tags=tags)
        self.mlflow.update_run(parent, status="RUNNING")
        return str(run.info.run_id)

    def note(self, run_id: str, record: Mapping[str, Any]) -> None:
        """What run.json says: parameters as params, revision and versions as tags, the whole as an artifact.

        The pipeline's run gets the revision, and the seed of this stage's variant.
        """
        seed = record.get("seed")
        values = {**flat(record.get("params", {})), "seed": seed, **flat(record.get("options", {}))}
        self._params(run_id, {key: value for key, value in values.items() if value is not None})
        revision = record.get("git_revision") or (record.get("starts") or [{}])[-1].get("git_revision") or ""
        revisions = {"mlflow.source.git.commit": revision.rstrip("+"), "git_revision": revision}
        versions = {f"version.{name}": text for name, text in record.get("versions", {}).items()}
        self.log(run_id, tags=versions | revisions)
        self.mlflow.log_dict(run_id, dict(record), "run.json")
        if parent := self._parent(run_id):
            self.log(parent.info.run_id, tags=revisions)
            tags = self.mlflow.get_run(run_id).data.tags
            variant = ".".join(filter(None, [tags.get("cgn.track"), tags.get("cgn.variant")]))
            if variant and seed is not None:
                self._params(parent.info.run_id, {f"{variant}.seed": seed})

    def changed(self, run_id: str, values: Mapping[str, str]) -> None:
        """Parameters that differ from the revision's, into the pipeline's run."""
        if values and (parent := self._parent(run_id)):
            self._params(parent.info.run_id, values)

    def log(self, run_id: str, *, metrics: Sequence[Mapping[str, Any]] = (), tags: Mapping[str, str] = NOTHING) -> None:
        """Values by step, each mapping with its `step` and `time` in seconds; and tags that are not empty."""
        from mlflow.entities import Metric, RunTag

        values = [
            Metric(name, float(value), _milliseconds(line.get("time") or time.time()), line["step"])
            for line in metrics
            for name, value in line.items()
            if name not in ("step", "time")
        ]
        named = [RunTag(key, value) for key, value in tags.items() if value]
        if values or named:
            self.mlflow.log_batch(run_id, metrics=values, tags=named, synchronous=True)

    def table(self, run_id: str, values: Mapping[str, float]) -> None:
        """All final values as the artifact metrics.csv, which MLflow shows as a table."""
        text = io.StringIO()
        csv.writer(text, lineterminator="\n").writerows([("metric", "value"), *values.items()])
        self.mlflow.log_text(run_id, text.getvalue(), "metrics.csv")

    def end(self, run_id: str, end: Mapping[str, Any]) -> None:
        """Close a stage's run, and its pipeline's when no other stage runs. Call it under the lock."""
        self.log(run_id, tags={"cgn.message": end.get("message", "")[:VALUE_LENGTH]})
        self.mlflow.set_terminated(run_id, end["status"], _milliseconds(end["time"]))
        if not (parent := self._parent(run_id)):
            return
        number = parent.info.run_id
        run = self.mlflow.get_run(run_id)
        if run.data.tags.get("cgn.verb") == "evaluate" and end["status"] == "FINISHED":
            name = run.info.run_name.removeprefix("evaluate ").removesuffix("/evaluate")
            values = {f"{name}/{key}": value for key, value in run.data.metrics.items() if key != "images"}
            self.log(number, metrics=[{**values, "step": 0, "time": end["time"]}])
        below = self.mlflow.search_runs(
            [self.experiment], f"tags.`{PARENT}` = '{number}'", max_results=1000, order_by=["attributes.start_time ASC"]
        )
        if all(stage.info.status != "RUNNING" for stage in below):
            last = {stage.info.run_name: stage.info.status for stage in below}  # the last try of a stage counts
            over = max(stage.info.end_time or 0 for stage in below)
            counts = {f"stages/{word}": list(last.values()).count(status) for status, word in ENDS.items()}
            seconds = (over - parent.info.start_time) / 1000
            # the newest value counts, and stages may come here in another order than they ended in
            self.log(number, metrics=[{**counts, "seconds": seconds, "step": 0}])
            self.mlflow.set_terminated(number, next(status for status in ENDS if status in last.values()), over)

    def count(self, key: str, counts: Mapping[str, int]) -> None:
        """What only the pipeline itself knows of its stages, as metrics of its run; nothing where it has no run."""
        if run_id := self._pipeline(key):
            self.log(run_id, metrics=[{**{f"stages/{name}": value for name, value in counts.items()}, "step": 0}])

    def _pipeline(self, key: str) -> str | None:
        found = self.mlflow.search_runs([self.experiment], f"tags.`{PIPELINE}` = '{key}'", max_results=1)
        return str(found[0].info.run_id) if found else None

    def _parent(self, run_id: str) -> Any:
        """The pipeline's run; None where the user has deleted it."""
        parent = self._run(self.mlflow.get_run(run_id).data.tags[PARENT])
        return parent if parent and parent.info.lifecycle_stage == "active" else None

    def _run(self, run_id: str) -> Any:
        """A run, deleted or not; None where it does not exist."""
        from mlflow.exceptions import MlflowException

        try:
            return self.mlflow.get_run(run_id)
        except MlflowException as error:
            if error.error_code != "RESOURCE_DOES_NOT_EXIST":
                raise
            return None

    def _params(self, run_id: str, values: Mapping[str, Any]) -> None:
        """Params that the run does not have yet: MLflow refuses another value, and the first one stays."""
        from mlflow.entities import Param

        known = self.mlflow.get_run(run_id).data.params
        params = [Param(key, str(value)[:VALUE_LENGTH]) for key, value in values.items() if key not in known]
        self.mlflow.log_batch(run_id, params=params, synchronous=True)

    def _refused(self, error: Exception, *, status: int, run_id: str) -> RefusedError:
        """What was refused, why, and what to do: MLflow is asked what it knows of the experiment and the run."""
        if status in (401, 403):
            account = "MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD, or MLFLOW_TRACKING_TOKEN"
            reason = f"{shown(self.uri)} does not permit it (HTTP {status})"
            return RefusedError(reason, remedy=f"set {account}, of an account that may write, or {DROP} {{run}}")
        with suppress(Exception):  # the explanation is optional
            if self.experiment:
                experiment = self.mlflow.get_experiment(self.experiment)
                if experiment.lifecycle_stage == "deleted":
                    return self._deleted_experiment(experiment)
            if run_id and (run := self.mlflow.get_run(run_id)).info.lifecycle_stage == "deleted":
                restore = f"MLFLOW_TRACKING_URI={shown(self.uri)} mlflow runs restore --run-id {run_id}"
                reason = f"its run {run.info.run_name} ({run_id}) was deleted in MLflow"
                return RefusedError(reason, remedy=f"{restore}, or {DROP} {{run}}")
        reason = f"MLflow refuses it (HTTP {status}): {error}"
        return RefusedError(reason, remedy=f"correct the cause, or {DROP} {{run}}")

    def _deleted_experiment(self, experiment: Any) -> RefusedError:
        number = experiment.experiment_id
        restore = f"MLFLOW_TRACKING_URI={shown(self.uri)} mlflow experiments restore --experiment-id {number}"
        return RefusedError(
            f"the experiment {experiment.name} ({number}) was deleted in MLflow",
            remedy=f"{restore}, or set MLFLOW_EXPERIMENT_NAME to another, or {DROP} {{run}}",
        )


def _milliseconds(seconds: float) -> int:
    return int(seconds * 1000)

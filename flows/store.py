"""All that is said to MLflow: one run a stage, nested in the run of its pipeline.

Decided here: the low-level client only, never the active run, so that several stages can be carried by one process.
The store is SQLite at the project's root unless MLFLOW_TRACKING_URI names another; a relative SQLite path means the
project's root too, wherever DVC runs the stage. The pipeline's run is open while one of its stages is, and ends as the
worst of them; of a stage that was tried again, the last try counts. It has the revision, the command or the flow's
parameters, each variant's seed and changed parameters, the final values of the evaluations, and the numbers of stages.
What the store answers with a refusal is a RefusedError, which says what to do; any other error may pass by itself.
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
from urllib.request import getproxies, proxy_bypass

from flows.database import ARTIFACTS, adopt, create, sqlite_file
from flows.journal import EVALUATE, UNTRACKED, alone

EXPERIMENT = "cgn"
PIPELINE = "cgn.pipeline"
PARENT = "mlflow.parentRunId"
HOME = "cgn.store"
EXPERIMENT_TAGS = {
    "mlflow.experimentKind": "custom_model_development",  # else MLflow opens it on its view for language models
    "mlflow.note.content": "Counterfactual Generative Networks: one run a stage, nested in the run of its pipeline "
    "(`dvc repro`, `dvc exp run` or a Prefect flow run). Compare pipelines by the metrics of their evaluations, and "
    "trainings by their curves.",
}
BATCH = 900  # MLflow takes 1000 values a request
PARAM_BATCH = 100
VALUE_LENGTH = 5000
PROBE_SECONDS = 3.0
TRANSIENT = (408, 425, 429, 499)  # the server is busy: HTTP statuses of a client's error that pass by themselves
DROP = "python -m flows.tracking drop"

# A server that does not answer must cost a few seconds, not minutes. What a user sets is kept.
PATIENCE = {
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "4",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    "DO_NOT_TRACK": "true",
}


class RefusedError(Exception):
    """MLflow answered and does not take this: it says what and why, and `remedy` what to do. It never passes by itself.

    {journal} in the remedy stands for the journal's folder.
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
    """Raise OSError where nothing listens at an http(s) address: MLflow need not be loaded to find that out."""
    parts = urlsplit(uri)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        return
    if parts.scheme in getproxies() and not proxy_bypass(parts.hostname):
        return
    port = parts.port or {"http": 80, "https": 443}[parts.scheme]
    socket.create_connection((parts.hostname, port), timeout=PROBE_SECONDS).close()


def refusal_status(error: Exception) -> int | None:
    """The HTTP status of an answer that will be the same next time; None for anything that may pass by itself."""
    from mlflow.exceptions import MlflowException

    status = int(getattr(getattr(error, "response", None), "status_code", 0))  # of requests, for an artifact
    if isinstance(error, MlflowException):
        status = error.get_http_status_code()  # type: ignore[no-untyped-call]
        # MLflow knows few statuses, and takes the others for an internal error
        if status >= 500 and (said := re.search(r"failed with error code (\d{3}) != 200", str(error))):
            status = int(said[1])
    return status if 400 <= status < 500 and status not in TRANSIENT else None


class Store:
    """An open tracking store with the project's experiment in it."""

    def __init__(self, *, root: Path) -> None:
        """Open or create it. Raises RefusedError, or whatever MLflow raises where it does not answer."""
        for name, value in PATIENCE.items():
            os.environ.setdefault(name, value)
        from mlflow import MlflowClient

        self.uri = address(root)
        self.file = sqlite_file(self.uri)
        self.experiment = ""
        # Several first users at once break a SQLite store: all checkouts that use it meet at the file's own lock.
        self.lock = self.file.with_name(f"{self.file.name}.lock") if self.file else root / UNTRACKED / "store.lock"
        with alone(self.lock):
            if self.file:
                create(self.file)
            self.client = MlflowClient(self.uri)
            with self.refusals():
                self.experiment = self._experiment()

    def _experiment(self) -> str:
        """The experiment's id; it is made where there is none."""
        from mlflow.exceptions import MlflowException

        name = os.environ.get("MLFLOW_EXPERIMENT_NAME") or EXPERIMENT
        experiment = self.client.get_experiment_by_name(name)
        if experiment is None:
            place = (self.file.parent / ARTIFACTS).as_uri() if self.file else None
            try:
                self.client.create_experiment(name, artifact_location=place, tags=EXPERIMENT_TAGS)
            except MlflowException as error:
                if error.error_code != "RESOURCE_ALREADY_EXISTS":  # another checkout was faster
                    raise
            experiment = self.client.get_experiment_by_name(name)
            assert experiment is not None, "it was made just now"
        if experiment.lifecycle_stage == "deleted":
            raise self._deleted_experiment(experiment)
        number = str(experiment.experiment_id)
        wanted = dict(EXPERIMENT_TAGS)
        if self.file:
            adopt(self.file, experiment=number, home=experiment.tags.get(HOME))
            wanted[HOME] = str(self.file)
        for key, value in wanted.items():
            if key not in experiment.tags or (key == HOME and experiment.tags[key] != value):
                try:
                    self.client.set_experiment_tag(number, key, value)
                except MlflowException as error:
                    if not refusal_status(error):  # who may only write runs needs no description
                        raise
        return number

    @contextmanager
    def refusals(self, run_id: str | None = None) -> Iterator[None]:
        """Turn a refusal of MLflow's into a RefusedError that says what to do; other errors pass unchanged."""
        try:
            yield
        except Exception as error:
            if (status := refusal_status(error)) is None:
                raise
            raise self._refused(error, status=status, run_id=run_id) from error

    def lacks(self, run_id: str) -> bool:
        """Whether the store has never had this run, or no longer has it (a deleted one is still there)."""
        from mlflow.exceptions import MlflowException

        try:
            self.client.get_run(run_id)
        except MlflowException as error:
            return bool(error.error_code == "RESOURCE_DOES_NOT_EXIST")
        return False

    def begin(self, event: Mapping[str, Any]) -> str:
        """Open a stage's run under its pipeline's, which is made if it is the first. Call it under the store's lock."""
        facts, start = event["facts"], _milliseconds(event)
        parent = self._pipeline(event["pipeline"], start=start)
        described = {key: value for key, value in facts.items() if key not in ("name", "inputs")}
        tags = {f"cgn.{key}": str(value)[:VALUE_LENGTH] for key, value in described.items()}
        tags |= {f"dvc.{key}": value for key, value in event["experiment"].items()}
        run = self.client.create_run(
            self.experiment, start_time=start, run_name=facts["name"], tags={**tags, PARENT: parent}
        )
        self.client.update_run(parent, status="RUNNING")
        return str(run.info.run_id)

    def note(self, run_id: str, note: Mapping[str, Any]) -> None:
        """What run.json says: parameters as params, revision and versions as tags, the whole as an artifact.

        The pipeline's run gets the revision, and the seed of this stage's variant.
        """
        from mlflow.entities import RunTag

        values = {**flat(note.get("params", {})), "seed": note.get("seed"), **flat(note.get("options", {}))}
        self._params(run_id, {key: value for key, value in values.items() if value is not None})
        starts = note.get("starts") or [{}]
        revision = note.get("git_revision") or starts[-1].get("git_revision")
        tags = [RunTag(f"version.{name}", text) for name, text in note.get("versions", {}).items()]
        revisions = []
        if revision:
            revisions = [RunTag("mlflow.source.git.commit", revision.rstrip("+")), RunTag("git_revision", revision)]
        self.client.log_batch(run_id, tags=[*tags, *revisions][:PARAM_BATCH])
        self.client.log_dict(run_id, dict(note), "run.json")
        if parent := self._parent(run_id):
            self.client.log_batch(parent.info.run_id, tags=revisions)
            variant = _variant(self.client.get_run(run_id))
            if variant and note.get("seed") is not None:
                self._params(parent.info.run_id, {f"{variant}.seed": note["seed"]})

    def changed(self, run_id: str, values: Mapping[str, str]) -> None:
        """Parameters that differ from the revision's, into the pipeline's run."""
        if parent := self._parent(run_id):
            self._params(parent.info.run_id, values)

    def metrics(self, run_id: str, events: Sequence[Mapping[str, Any]]) -> None:
        """Values by step."""
        from mlflow.entities import Metric

        values = [
            Metric(name, float(value), _milliseconds(event), event["step"])
            for event in events
            for name, value in event["values"].items()
        ]
        for first in range(0, len(values), BATCH):
            self.client.log_batch(run_id, metrics=values[first : first + BATCH], synchronous=True)

    def table(self, run_id: str, values: Mapping[str, float]) -> None:
        """All final values as the artifact metrics.csv, which MLflow shows as a table."""
        text = io.StringIO()
        csv.writer(text, lineterminator="\n").writerows([("metric", "value"), *values.items()])
        self.client.log_text(run_id, text.getvalue(), "metrics.csv")

    def tags(self, run_id: str, values: Mapping[str, str]) -> None:
        """Tags of a stage's run."""
        from mlflow.entities import RunTag

        self.client.log_batch(run_id, tags=[RunTag(key, value) for key, value in values.items()])

    def picture(self, run_id: str, file: Path, *, place: str) -> None:
        """A file as the artifact `place`."""
        named = file.with_name(file.stem) / Path(place).name
        named.parent.mkdir(exist_ok=True)
        named.unlink(missing_ok=True)
        named.hardlink_to(file)  # MLflow has no other way to give an artifact a name
        folder = Path(place).parent.as_posix()
        self.client.log_artifact(run_id, str(named), None if folder == "." else folder)

    def end(self, run_id: str, event: Mapping[str, Any]) -> None:
        """Close a stage's run, and its pipeline's when no other stage runs. Call it under the store's lock."""
        if event.get("message"):
            self.client.set_tag(run_id, "cgn.message", event["message"][:VALUE_LENGTH])
        self.client.set_terminated(run_id, event["status"], _milliseconds(event))
        if not (parent := self._parent(run_id)):
            return
        number = parent.info.run_id
        stages = self.client.search_runs(
            [self.experiment], f"tags.`{PARENT}` = '{number}'", max_results=1000, order_by=["attributes.start_time ASC"]
        )
        last = {stage.info.run_name: stage for stage in stages}  # a stage that was tried again counts as its last try
        statuses = [stage.info.status for stage in last.values()]
        self._summarize(parent, self.client.get_run(run_id), event=event)
        if "RUNNING" not in [stage.info.status for stage in stages]:
            worst = next(status for status in ("FAILED", "KILLED", "FINISHED") if status in statuses)
            over = max(stage.info.end_time or 0 for stage in stages)
            counts = {"made": "FINISHED", "failed": "FAILED", "killed": "KILLED"}
            numbers = {f"stages/{name}": statuses.count(status) for name, status in counts.items()}
            seconds = {"seconds": (over - parent.info.start_time) / 1000}
            # the last word counts, and stages may come here in another order than they ended in
            self.metrics(number, [{"time": time.time(), "step": 0, "values": numbers | seconds}])
            self.client.set_terminated(number, worst, over)

    def count(self, key: str, counts: Mapping[str, int]) -> None:
        """What only the pipeline itself knows of its stages, as metrics of its run; nothing where it has no run."""
        if run := self._found(key):
            values = {f"stages/{name}": value for name, value in counts.items()}
            self.metrics(run, [{"time": time.time(), "step": 0, "values": values}])

    def _summarize(self, parent: Any, stage: Any, *, event: Mapping[str, Any]) -> None:
        """The final values of an evaluation, into the pipeline's run, under its variant's name."""
        if stage.data.tags.get("cgn.verb") != EVALUATE or stage.info.status != "FINISHED":
            return
        name = stage.info.run_name.removesuffix(f"/{EVALUATE}")
        values = {f"{name}/{key}": value for key, value in stage.data.metrics.items() if key != "images"}
        self.metrics(parent.info.run_id, [{**event, "step": 0, "values": values}])

    def _pipeline(self, pipeline: Mapping[str, Any], *, start: int) -> str:
        if found := self._found(pipeline["key"]):
            return found
        tags = {PIPELINE: pipeline["key"]}
        run = self.client.create_run(self.experiment, start_time=start, run_name=pipeline["name"], tags=tags)
        self._params(run.info.run_id, pipeline.get("parameters", {}))
        return str(run.info.run_id)

    def _found(self, key: str) -> str | None:
        found = self.client.search_runs([self.experiment], f"tags.`{PIPELINE}` = '{key}'", max_results=1)
        return str(found[0].info.run_id) if found else None

    def _parent(self, run_id: str) -> Any:
        """The pipeline's run; None where the user has deleted it."""
        from mlflow.exceptions import MlflowException

        try:
            parent = self.client.get_run(self.client.get_run(run_id).data.tags[PARENT])
        except MlflowException as error:
            if error.error_code != "RESOURCE_DOES_NOT_EXIST":
                raise
            return None
        return parent if parent.info.lifecycle_stage == "active" else None

    def _params(self, run_id: str, values: Mapping[str, Any]) -> None:
        """Params that the run does not have yet: MLflow refuses another value, and the first one stays."""
        from mlflow.entities import Param

        known = self.client.get_run(run_id).data.params
        params = [Param(key, str(value)[:VALUE_LENGTH]) for key, value in values.items() if key not in known]
        for first in range(0, len(params), PARAM_BATCH):
            self.client.log_batch(run_id, params=params[first : first + PARAM_BATCH])

    def _refused(self, error: Exception, *, status: int, run_id: str | None) -> RefusedError:
        """What was refused, why, and what to do: MLflow is asked what it knows of the experiment and the run."""
        if status in (401, 403):
            account = "MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD, or MLFLOW_TRACKING_TOKEN"
            return RefusedError(
                f"{shown(self.uri)} does not permit it (HTTP {status})",
                remedy=f"set {account}, of an account that may write, or {DROP} {{journal}}",
            )
        with suppress(Exception):  # the explanation is optional
            if self.experiment:
                experiment = self.client.get_experiment(self.experiment)
                if experiment.lifecycle_stage == "deleted":
                    return self._deleted_experiment(experiment)
            if run_id and (run := self.client.get_run(run_id)).info.lifecycle_stage == "deleted":
                restore = f"MLFLOW_TRACKING_URI={shown(self.uri)} mlflow runs restore --run-id {run_id}"
                return RefusedError(
                    f"its run {run.info.run_name} ({run_id}) was deleted in MLflow",
                    remedy=f"{restore}, or {DROP} {{journal}}",
                )
        return RefusedError(
            f"MLflow refuses it (HTTP {status}): {error}", remedy=f"correct the cause, or {DROP} {{journal}}"
        )

    def _deleted_experiment(self, experiment: Any) -> RefusedError:
        number = experiment.experiment_id
        restore = f"MLFLOW_TRACKING_URI={shown(self.uri)} mlflow experiments restore --experiment-id {number}"
        return RefusedError(
            f"the experiment {experiment.name} ({number}) was deleted in MLflow",
            remedy=f"{restore}, or set MLFLOW_EXPERIMENT_NAME to another, or {DROP} {{journal}}",
        )


def flat(values: Mapping[str, Any], *above: str) -> dict[str, Any]:
    """Nested mappings as dotted keys."""
    found: dict[str, Any] = {}
    for name, value in values.items():
        found |= flat(value, *above, name) if isinstance(value, Mapping) else {".".join((*above, name)): value}
    return found


def _variant(run: Any) -> str:
    tags = run.data.tags
    return ".".join(filter(None, [tags.get("cgn.track"), tags.get("cgn.variant")]))


def _milliseconds(event: Mapping[str, Any]) -> int:
    return int(event["time"] * 1000)

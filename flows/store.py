"""All that is said to MLflow: one run a stage, nested in the run of its pipeline.

Decided here: the low-level client only, never the active run, so that several stages can be carried by one process.
The store is SQLite at the project's root unless MLFLOW_TRACKING_URI names another; a relative SQLite path means the
project's root too, wherever DVC runs the stage. The pipeline's run is open while one of its stages is, and ends as the
worst of them.
"""

import os
import socket
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

EXPERIMENT = "cgn"
PIPELINE = "cgn.pipeline"
PARENT = "mlflow.parentRunId"
BATCH = 900  # MLflow takes 1000 values a request
VALUE_LENGTH = 5000
PROBE_SECONDS = 3.0

# A server that does not answer must cost a few seconds, not minutes. What a user sets is kept.
PATIENCE = {
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "4",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    "DO_NOT_TRACK": "true",
}


def address(root: Path) -> str:
    """The tracking URI in force, absolute."""
    given = os.environ.get("MLFLOW_TRACKING_URI") or "sqlite:///mlflow.db"
    scheme, separator, path = given.partition(":///")
    if separator and scheme.startswith("sqlite") and not path.startswith("/") and path:
        return f"{scheme}:///{root.resolve() / path}"
    return given


def probe(uri: str) -> None:
    """Raise OSError where nothing listens at an http(s) address: MLflow need not be loaded to find that out."""
    parts = urlsplit(uri)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        return
    if parts.scheme in getproxies() and not proxy_bypass(parts.hostname):
        return
    port = parts.port or {"http": 80, "https": 443}[parts.scheme]
    socket.create_connection((parts.hostname, port), timeout=PROBE_SECONDS).close()


def is_refusal(error: Exception) -> bool:
    """Whether the store answered and will not have what it was told: another journal may well be taken."""
    from mlflow.exceptions import MlflowException

    return isinstance(error, MlflowException) and 400 <= error.get_http_status_code() < 500  # type: ignore[no-untyped-call]


class Store:
    """An open tracking store with the project's experiment in it."""

    def __init__(self, *, root: Path) -> None:
        for name, value in PATIENCE.items():
            os.environ.setdefault(name, value)
        from mlflow import MlflowClient

        self.uri = address(root)
        self.client = MlflowClient(self.uri)
        name = os.environ.get("MLFLOW_EXPERIMENT_NAME") or EXPERIMENT
        if experiment := self.client.get_experiment_by_name(name):
            self.experiment = str(experiment.experiment_id)
        else:
            place = None if self.uri.startswith("http") else (root.resolve() / "mlartifacts").as_uri()
            self.experiment = self.client.create_experiment(name, artifact_location=place)

    def begin(self, event: Mapping[str, Any]) -> str:
        """Open a stage's run under its pipeline's, which is made if it is the first. Call it under a lock."""
        facts, start = event["facts"], _milliseconds(event)
        parent = self._pipeline(event["pipeline"], start=start)
        told = {key: value for key, value in facts.items() if key not in ("name", "inputs")}
        tags = {f"cgn.{key}": str(value)[:VALUE_LENGTH] for key, value in told.items()}
        tags |= {f"dvc.{key}": value for key, value in event["experiment"].items()}
        run = self.client.create_run(
            self.experiment, start_time=start, run_name=facts["name"], tags={**tags, PARENT: parent}
        )
        self.client.update_run(parent, status="RUNNING")
        return str(run.info.run_id)

    def note(self, run_id: str, note: Mapping[str, Any]) -> None:
        """What run.json says: parameters as params, revision and versions as tags, the whole as an artifact."""
        from mlflow.entities import Param, RunTag

        values = {**flat(note.get("params", {})), "seed": note.get("seed"), **flat(note.get("options", {}))}
        params = [Param(key, str(value)[:VALUE_LENGTH]) for key, value in values.items() if value is not None]
        starts = note.get("starts") or [{}]
        revision = note.get("git_revision") or starts[-1].get("git_revision")
        tags = [RunTag(f"version.{name}", text) for name, text in note.get("versions", {}).items()]
        if revision:
            tags += [RunTag("mlflow.source.git.commit", revision.rstrip("+")), RunTag("git_revision", revision)]
        self.client.log_batch(run_id, params=params[:100], tags=tags[:100])
        self.client.log_dict(run_id, dict(note), "run.json")

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
        """Close a stage's run, and its pipeline's when no other stage runs. Call it under a lock."""
        if event.get("message"):
            self.client.set_tag(run_id, "cgn.message", event["message"][:VALUE_LENGTH])
        self.client.set_terminated(run_id, event["status"], _milliseconds(event))
        parent = self.client.get_run(run_id).data.tags[PARENT]
        stages = self.client.search_runs([self.experiment], f"tags.`{PARENT}` = '{parent}'", max_results=1000)
        statuses = {stage.info.status for stage in stages}
        if "RUNNING" not in statuses:
            worst = next(status for status in ("FAILED", "KILLED", "FINISHED") if status in statuses)
            self.client.set_terminated(parent, worst, max(stage.info.end_time or 0 for stage in stages))

    def _pipeline(self, pipeline: Mapping[str, str], *, start: int) -> str:
        key, name = pipeline["key"], pipeline["name"]
        if found := self.client.search_runs([self.experiment], f"tags.`{PIPELINE}` = '{key}'", max_results=1):
            return str(found[0].info.run_id)
        run = self.client.create_run(self.experiment, start_time=start, run_name=name, tags={PIPELINE: key})
        return str(run.info.run_id)


def flat(values: Mapping[str, Any], *above: str) -> dict[str, Any]:
    """Nested mappings as dotted keys."""
    found: dict[str, Any] = {}
    for name, value in values.items():
        found |= flat(value, *above, name) if isinstance(value, Mapping) else {".".join((*above, name)): value}
    return found


def _milliseconds(event: Mapping[str, Any]) -> int:
    return int(event["time"] * 1000)

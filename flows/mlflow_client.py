"""MLflow's client, opened on the project's experiment, and what its refusals mean.

The low-level client only, never the active run, so that one process can serve several stages. The store is SQLite at
the project's root unless MLFLOW_TRACKING_URI names another; a relative SQLite path means the project's root too,
wherever DVC runs the stage. What the server answers with a refusal is a RefusedError, which says what to do; any other
error may pass by itself.
"""

import getpass
import json
import os
import re
import shutil
import tempfile
import time
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from flows.database import ARTIFACTS, adopt, create, sqlite_file
from flows.untracked import UNTRACKED, alone

EXPERIMENT = "cgn"
PIPELINE, SWEEP, RUN, PARENT, HOME = "cgn.pipeline", "cgn.sweep", "cgn.run", "mlflow.parentRunId", "cgn.store"
EXPERIMENT_TAGS = {
    # the view of trainings; the page of MLflow 3.17 follows ?workflowType=machine_learning or the browser's last choice
    "mlflow.experimentKind": "custom_model_development",
    "mlflow.note.content": "Counterfactual Generative Networks: one run a stage, nested in the run of its pipeline "
    "(`dvc repro`, `dvc exp run` or a Prefect flow run). Compare pipelines by the metrics of their evaluations, and "
    "trainings by their curves.",
}
VALUE_LENGTH = 5000
SHOWN_PIXELS = 1024  # of the longer side of an image on the page
TRANSIENT = (408, 425, 429, 499)  # the server is busy: HTTP statuses of a client's error that pass by themselves
DROP = "python -m flows.tracking drop"

NOTHING: Mapping[str, Any] = {}

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
    return re.sub(r"//[^/]*@", "//", uri)


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
        """The experiment's id; it is created where it does not exist."""
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
        number = str(experiment.experiment_id)
        if self.file and experiment.tags.get(HOME) != str(self.file):
            adopt(self.file, experiment=number, home=experiment.tags.get(HOME))
            self.mlflow.set_experiment_tag(number, HOME, str(self.file))
        return number

    def create(self, name: str, *, start: float, tags: Mapping[str, Any]) -> str:
        """Open a run that started at this time, in seconds. Its id."""
        short = {key: str(value)[:VALUE_LENGTH] for key, value in tags.items()}
        run = self.mlflow.create_run(self.experiment, start_time=int(start * 1000), run_name=name, tags=short)
        return str(run.info.run_id)

    def log(
        self,
        run_id: str,
        *,
        metrics: Sequence[Mapping[str, Any]] = (),
        tags: Mapping[str, str] = NOTHING,
        params: Mapping[str, Any] = NOTHING,
    ) -> None:
        """Metrics by step, each mapping with its `step` and `time` in seconds; tags that are not empty; params.

        A param that is None is left out, and one that the run has keeps its value: MLflow would refuse another.
        """
        from mlflow.entities import Metric, Param, RunTag

        values = [
            Metric(name, float(value), int((line.get("time") or time.time()) * 1000), line["step"])
            for line in metrics
            for name, value in line.items()
            if name not in ("step", "time")
        ]
        named = [RunTag(key, value[:VALUE_LENGTH]) for key, value in tags.items() if value]
        known = self.mlflow.get_run(run_id).data.params if params else {}
        new = {key: value for key, value in params.items() if value is not None and key not in known}
        given = [Param(key, str(value)[:VALUE_LENGTH]) for key, value in new.items()]
        if values or named or given:
            self.mlflow.log_batch(run_id, metrics=values, tags=named, params=given, synchronous=True)

    def described(self, source: str, *, note: str) -> dict[str, str]:
        """The tags by which MLflow's page shows where a run comes from, by whom, and what it is."""
        user = str(os.getuid())
        with suppress(KeyError, OSError):  # a container's user may have no name
            user = getpass.getuser()
        tags = {"source.name": source, "source.type": "LOCAL", "user": user, "note.content": note}
        return {f"mlflow.{key}": value for key, value in tags.items()}

    def log_datasets(self, run_id: str, datasets: Sequence[Mapping[str, str]]) -> None:
        """Datasets, each with its `name`, `digest`, `path` and `context`. One that the run has stays one."""
        from mlflow.entities import Dataset, DatasetInput, InputTag

        inputs = [
            DatasetInput(
                Dataset(given["name"], given["digest"], "local", json.dumps({"uri": given["path"]})),
                [InputTag("mlflow.data.context", given["context"])],
            )
            for given in datasets
        ]
        if inputs:
            self.mlflow.log_inputs(run_id, inputs)

    def log_image(self, run_id: str, file: Path, *, key: str, step: int) -> bool:
        """A PNG for the page's image grid, which has a slider over steps. False where the file is no image.

        As `MlflowClient.log_image` writes it, but under names that are the same when it is sent again, and with a
        copy for the page that is large enough to see something (MLflow's has 256 pixels).
        """
        from PIL import Image

        with tempfile.TemporaryDirectory() as scratch:
            time, key = int(file.stat().st_mtime * 1000), key.replace("/", "~")
            whole = Path(scratch) / f"{key}+step+{step}+timestamp+{time}+{uuid.uuid5(uuid.NAMESPACE_URL, key)}.png"
            shutil.copyfile(file, whole)
            try:
                with Image.open(file) as image:
                    image.thumbnail((SHOWN_PIXELS, SHOWN_PIXELS))
                    image.save(whole.with_name(f"{whole.stem}+compressed.webp"), lossless=True)
            except (OSError, SyntaxError, ValueError):  # what Pillow raises for a broken file
                return False
            self.mlflow.log_artifacts(run_id, scratch, "images")
        self.log(run_id, tags={"mlflow.loggedImages": "True"})
        return True

    def run(self, run_id: str) -> Any:
        """A run, deleted or not; None where it does not exist."""
        from mlflow.exceptions import MlflowException

        try:
            return self.mlflow.get_run(run_id)
        except MlflowException as error:
            if error.error_code != "RESOURCE_DOES_NOT_EXIST":
                raise
            return None

    def search(self, condition: str) -> list[Any]:
        """The runs that are not deleted and for which this holds, oldest first."""
        order = ["attributes.start_time ASC"]
        return list(self.mlflow.search_runs([self.experiment], condition, max_results=1000, order_by=order))

    def pipeline(self, key: str) -> str | None:
        """The id of a pipeline's run; None where it has none."""
        return self.tagged(PIPELINE, key)

    def tagged(self, tag: str, value: str) -> str | None:
        """The id of the first run that has a tag of this value; None where there is none."""
        return next((str(run.info.run_id) for run in self.search(f"tags.`{tag}` = '{value}'")), None)

    @contextmanager
    def refusals(self, run_id: str = "") -> Iterator[None]:
        """Turn a refusal of MLflow's into a RefusedError that says what to do; other errors pass unchanged."""
        try:
            yield
        except Exception as error:
            if (status := refusal_status(error)) is None:
                raise
            raise self._refused(error, status=status, run_id=run_id) from error

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

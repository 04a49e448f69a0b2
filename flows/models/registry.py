"""Trained networks in MLflow: logged models with their metrics, versions of registered models, and the alias.

A network is known by the SHA-256 of its weights. One that was trained again to the same bytes is no new version. All of
it is repeated without harm: what exists is found and not created again.

The alias `champion` moves to a version when a gate has passed this very classifier, and never back to an older verdict.
"""

import json
import os
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from flows.mlflow_client import PATIENCE, Client
from flows.models.saving import CLASSIFIER, Weights, save

CHAMPION = "champion"
SHA256, FOLDER, GATE, JUDGED, SINCE = "sha256", "folder", "gate", "gate_time", "champion_since"
PASSED, REFUSED = "passed", "refused"
LARGEST = "CGN_MODEL_MB"
LARGEST_MB = 256.0
"""Of weights that are copied into MLflow: classifiers of ImageNet are, its generator (900 MB) is not."""
UPLOAD_BYTES_A_SECOND = 1 << 20
TIMEOUT = "MLFLOW_HTTP_REQUEST_TIMEOUT"
TAG_LENGTH = 5000
VERSIONS = "mlflow.modelVersions"
ADDRESS = "MLFLOW_TRACKING_URI"


@dataclass(frozen=True, kw_only=True)
class Origin:
    """Where weights come from: the run that trained them, or none, with tags and parameters; versions of packages."""

    run_id: str = ""
    tags: Mapping[str, str]
    params: Mapping[str, Any] = field(default_factory=dict)
    versions: Mapping[str, str] = field(default_factory=dict)


class Registry:
    """The registered models of the project, through an open client."""

    def __init__(self, client: Client) -> None:
        self.client, self.mlflow = client, client.mlflow

    def add(self, weights: Weights, *, origin: Origin) -> Any:
        """The version of these weights, which is created if it does not exist, and their logged model with it."""
        version = self.version(weights.registered_name, sha256=weights.sha256)
        model = self._model(version) or self._logged(weights, origin=origin)
        if origin.run_id:
            self._link_output(model, run_id=origin.run_id)
        if self._model(version) is None:
            version = self._register(weights, model, origin=origin)
        shown = json.dumps([{"name": version.name, "version": str(version.version)}])  # on the model's page
        if model.tags.get(VERSIONS) != shown:
            self.mlflow.set_logged_model_tags(model.model_id, {VERSIONS: shown})
        return version

    def version(self, name: str, *, sha256: str) -> Any:
        """The newest version of a registered model that has these weights; None where it has none."""
        return self._newest(f"name = '{name}' and tags.{SHA256} = '{sha256}'")

    def by_folder(self, digest: str) -> Any:
        """The newest version that was trained to a folder of this digest (the library's); None where there is none."""
        return self._newest(f"tags.{FOLDER} = '{digest}'")

    def _newest(self, condition: str) -> Any:
        found = self.mlflow.search_model_versions(condition)
        return max(found, key=lambda version: int(version.version), default=None)

    def versions(self) -> list[Any]:
        """All versions of the project's registered models, by name, oldest first."""
        found = self.mlflow.search_model_versions("name LIKE 'cgn-%'")
        return sorted(found, key=lambda version: (version.name, int(version.version)))

    def is_champion(self, version: Any) -> bool:
        """Whether a version has the alias."""
        aliases = self.mlflow.get_registered_model(version.name).aliases
        return str(aliases.get(CHAMPION)) == str(version.version)

    def measured(
        self, version: Any, values: Mapping[str, float], *, run_id: str, step: int, time: float, dataset: str
    ) -> None:
        """Link metrics of a run to the logged model of a version, with the run's dataset of this name, if it has it."""
        from mlflow.entities import Metric

        model = self._model(version)
        if model is None:
            return
        run = self.mlflow.get_run(run_id)
        given = run.inputs.dataset_inputs if run.inputs else []
        found = [input.dataset for input in given if input.dataset.name == dataset]
        named = {"dataset_name": dataset, "dataset_digest": found[0].digest} if found else {}
        metrics = [
            Metric(name, float(value), int(time * 1000), step, model_id=model.model_id, run_id=run_id, **named)
            for name, value in values.items()
        ]
        self.mlflow.log_batch(run_id, metrics=metrics, synchronous=True)

    def used(self, version: Any, *, run_id: str) -> None:
        """Link the logged model of a version to a run as its input."""
        from mlflow.entities import LoggedModelInput

        model, run = self._model(version), self.mlflow.get_run(run_id)
        known = {given.model_id for given in run.inputs.model_inputs} if run.inputs else set()
        if model and model.model_id not in known:
            self.mlflow.log_inputs(run_id, models=[LoggedModelInput(model_id=model.model_id)])

    def judge(self, version: Any, verdict: Mapping[str, Any], *, time: float) -> None:
        """Note a gate's verdict on a version. One that passed is the champion, unless that was chosen later."""
        if version.tags.get(JUDGED, "") <= _stamp(time):
            self.mlflow.set_model_version_tag(version.name, version.version, GATE, verdict_words(verdict))
            self.mlflow.set_model_version_tag(version.name, version.version, JUDGED, _stamp(time))
            since = self.mlflow.get_registered_model(version.name).tags.get(SINCE, "")
            if verdict["passed"] is True and since <= _stamp(time):
                self.promote(version, time=time)

    def promote(self, version: Any, *, time: float) -> None:
        """Make a version the champion."""
        self.mlflow.set_registered_model_alias(version.name, CHAMPION, version.version)
        self.mlflow.set_registered_model_tag(version.name, SINCE, _stamp(time))

    def _model(self, version: Any) -> Any:
        """The logged model of a version; None where there is none, or it was deleted."""
        from mlflow.exceptions import MlflowException

        if version is None or not version.source.startswith("models:/"):
            return None
        try:
            return self.mlflow.get_logged_model(version.source.removeprefix("models:/"))
        except MlflowException as error:
            if error.error_code != "RESOURCE_DOES_NOT_EXIST":
                raise
            return None

    def _logged(self, weights: Weights, *, origin: Origin) -> Any:
        """The logged model of these weights; one whose upload was interrupted is completed."""
        experiment, named = self.client.experiment, f"name = '{weights.name}' and tags.{SHA256} = '{weights.sha256}'"
        found = self.mlflow.search_logged_models([experiment], named, max_results=1)
        if found:
            model = found[0]
        else:
            verb = "train_classifier" if weights.kind == CLASSIFIER else "train_cgn"
            source = f"cgn/{weights.facts['track']}/{verb}.py"
            tags = self._tags(weights, origin=origin) | self.client.described(source, note=_described(weights))
            params = {key: str(value) for key, value in origin.params.items()}
            model = self.mlflow.create_logged_model(
                experiment, weights.name, origin.run_id or None, tags=tags, params=params, model_type=weights.kind
            )
        if str(model.status) == "READY":
            return model
        if copied(weights):
            self._upload(weights, model, origin=origin)
        return self.mlflow.finalize_logged_model(model.model_id, "READY")

    def _upload(self, weights: Weights, model: Any, *, origin: Origin) -> None:
        from mlflow.models import Model

        described = Model(
            artifact_path=model.artifact_location,
            model_uuid=model.model_id,
            model_id=model.model_id,
            run_id=origin.run_id or None,
        )
        with tempfile.TemporaryDirectory() as temporary:
            folder = Path(temporary) / "model"
            save(weights, folder, versions=origin.versions, model=described)
            with _patience(weights.file.stat().st_size):
                self.mlflow.log_model_artifacts(model.model_id, str(folder))

    def _link_output(self, model: Any, *, run_id: str) -> None:
        from mlflow.entities import LoggedModelOutput

        run = self.mlflow.get_run(run_id)
        if model.model_id not in {made.model_id for made in (run.outputs.model_outputs if run.outputs else ())}:
            self.mlflow.log_outputs(run_id, [LoggedModelOutput(model_id=model.model_id, step=0)])

    def _register(self, weights: Weights, model: Any, *, origin: Origin) -> Any:
        from mlflow.exceptions import MlflowException

        name, target = weights.registered_name, f"{weights.facts['track']}/{weights.facts['variant']}"
        try:
            about = f"The trained {weights.kind}s of {target}."
            if weights.kind == CLASSIFIER:
                about += " The alias `champion` names the last version that a gate has passed."
            self.mlflow.create_registered_model(name, description=about)
        except MlflowException as error:
            if error.error_code != "RESOURCE_ALREADY_EXISTS":
                raise
        with _address_of_process(self.client.uri):
            return self.mlflow.create_model_version(
                name,
                f"models:/{model.model_id}",
                run_id=origin.run_id or None,
                tags=self._tags(weights, origin=origin),
                description=_described(weights),
                model_id=model.model_id,
                await_creation_for=0,
            )

    def _tags(self, weights: Weights, *, origin: Origin) -> dict[str, str]:
        tags = {SHA256: weights.sha256, "arm": str(weights.facts.get("arm", "")), **origin.tags}
        if not copied(weights):
            tags["weights"] = f"not copied: larger than {LARGEST}; DVC has them as dvc.path and dvc.output say"
        return {name: text[:TAG_LENGTH] for name, text in tags.items() if text}


def verdict_words(verdict: Mapping[str, Any]) -> str:
    """A gate's verdict as a tag: "passed", or "refused" with the reasons."""
    reasons = [f"{check['name']}: {check['reason']}" for check in verdict["checks"] if not check["passed"]]
    said = PASSED if verdict["passed"] is True else f"{REFUSED}: {'; '.join(reasons)}"
    return said[:TAG_LENGTH]


def _stamp(time: float) -> str:
    """Seconds as text that sorts by time."""
    return datetime.fromtimestamp(time, UTC).isoformat(timespec="milliseconds")


def _described(weights: Weights) -> str:
    arm = f", arm `{weights.facts['arm']}`" if weights.kind == CLASSIFIER else ""
    return f"{weights.kind.capitalize()} of {weights.facts['track']}/{weights.facts['variant']}{arm}"


def copied(weights: Weights) -> bool:
    """Whether weights of this size are copied into MLflow: CGN_MODEL_MB says up to which, 0 copies none."""
    return weights.file.stat().st_size <= float(os.environ.get(LARGEST) or LARGEST_MB) * 1e6


@contextmanager
def _address_of_process(uri: str) -> Iterator[None]:
    """MLflow's SQL store resolves models:/ID by the address that is set for the whole process, not by its client's."""
    import mlflow

    given = os.environ.get(ADDRESS)
    mlflow.set_tracking_uri(uri)
    try:
        yield
    finally:
        mlflow.set_tracking_uri(None)  # type: ignore[arg-type]  # it takes the variable away, too
        if given is not None:
            os.environ[ADDRESS] = given


@contextmanager
def _patience(size: int) -> Iterator[None]:
    """Let the server take as long for an upload as its size needs, unless the user has said how long."""
    given = os.environ.get(TIMEOUT)
    if given == PATIENCE[TIMEOUT]:
        os.environ[TIMEOUT] = str(int(given) + size // UPLOAD_BYTES_A_SECOND)
    try:
        yield
    finally:
        if given is not None:
            os.environ[TIMEOUT] = given

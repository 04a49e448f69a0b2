"""What an untracked run holds for the registry: a trained network, a gate's verdict, an evaluation of classifiers.

Each function takes what the stage left in the folder of its run (`flows.untracked`), and may be called again. A verdict
and an evaluation say which classifiers they are of by the digests of their folders, as the library wrote them before
its first step; so nothing that was trained since can take their place.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cgn.core.files import folder_digest
from flows import untracked
from flows.mlflow_client import Client, flat
from flows.models.registry import FOLDER, PASSED, REFUSED, Origin, Registry
from flows.models.saving import read_weights
from flows.observed import read_json


@dataclass(frozen=True, kw_only=True)
class Noted:
    """A stage's run: its id in MLflow, its last step, its stage.json, and its folder."""

    client: Client
    run_id: str
    step: int
    stage: Mapping[str, Any]
    folder: Path

    @property
    def dataset(self) -> str:
        """The name of its images in MLflow."""
        return f"{self.stage['facts']['track']}/{self.stage['facts']['variant']}"

    @property
    def time(self) -> float:
        """Of its final values, in seconds."""
        return (self.folder / untracked.DETAILS).stat().st_mtime


def register(model: Path, *, values: Mapping[str, float], run: Noted) -> None:
    """A version of the network in the folder `model`, linked to the run that trained it and to its final values."""
    registry, record = Registry(run.client), read_json(run.folder / untracked.RUN)
    origin = Origin(
        run_id=run.run_id,
        tags={
            FOLDER: folder_digest(model),
            "git_revision": str((record.get("starts") or [{}])[-1].get("git_revision") or ""),
            "dvc.path": run.stage["out"],
            **read_json(run.folder / untracked.OUTPUT)["tags"],
        },
        params={**flat(record["params"]), "seed": record.get("seed")},
        versions=record["versions"],
    )
    version = registry.add(read_weights(model / untracked.WEIGHTS), origin=origin)
    registry.measured(version, values, run_id=run.run_id, step=run.step, time=run.time, dataset=run.dataset)


def evaluated(values: Mapping[str, float], *, run: Noted) -> None:
    """Link an evaluation's metrics to the classifiers that it is of, each by its own name in theirs."""
    registry = Registry(run.client)
    digests = read_json(run.folder / untracked.RUN).get("inputs", {}).get("classifier", [])
    for version in filter(None, map(registry.by_folder, digests)):
        own = {name: value for name, value in values.items() if version.tags["arm"] in name.split("/")}
        registry.measured(version, own, run_id=run.run_id, step=run.step, time=run.time, dataset=run.dataset)
        registry.used(version, run_id=run.run_id)


def judge(verdict: Path, *, run: Noted) -> None:
    """Note a gate's verdict on the version of its classifier, which is added if it was trained elsewhere."""
    registry, classifier = Registry(run.client), verdict / untracked.CLASSIFIER
    gate, time = read_json(verdict / untracked.GATE), read_json(run.folder / untracked.END)["time"]
    seen = read_json(verdict / untracked.EVALUATED)["inputs"]["classifier"]
    if not classifier.is_dir() or (digest := folder_digest(classifier)) not in seen:
        said = f"of no version: the classifier {gate['classifier']} is not the one that was evaluated"
    else:
        weights, origin = read_weights(classifier / untracked.WEIGHTS), Origin(tags={FOLDER: digest})
        known = registry.version(weights.registered_name, sha256=weights.sha256)
        version = known or registry.add(weights, origin=origin)
        registry.judge(version, gate, time=time)
        registry.used(version, run_id=run.run_id)
        said = f"{PASSED if gate['passed'] is True else REFUSED}: {version.name} version {version.version}"
    run.client.log(run.run_id, tags={"cgn.gate": said})

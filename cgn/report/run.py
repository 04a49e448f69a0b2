"""What the folders of a run say of it: parameters, how classifiers were trained, times and devices.

Parameters are read from the definition in each finished folder; a folder of another variant is refused. Times, devices
and metrics are in the log beside a folder, where there is one.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cgn.core.errors import ArtifactError
from cgn.core.facts import refuse_foreign
from cgn.core.files import folder_digest, read_json, read_object
from cgn.core.outputs import DEFINITION
from cgn.evaluation import gate
from cgn.evaluation.predictions import FILE, Predictions, read_predictions
from cgn.evaluation.records import Record, read_record


@dataclass(frozen=True, kw_only=True)
class Run:
    """The input folders of a report and what they say."""

    target: str
    """"track/variant"."""
    data: Path
    model: Path
    images: Path
    decisions: Path
    params: Mapping[str, Mapping[str, Any]]
    """Verb -> resolved parameters, of the verbs whose folder has a definition."""
    trainings: Mapping[str, Mapping[str, Any]]
    """Classifier -> what its training recorded, as evaluate repeats it."""
    records: Mapping[str, Record]
    """Verb -> the log beside its folder."""

    @property
    def devices(self) -> dict[str, str]:
        """Verb -> what the accelerator became there, "cpu" or "cuda", where that was recorded."""
        chosen = {verb: device for verb, record in self.records.items() if (device := record.device)}
        trained = [str(training["device"]) for training in self.trainings.values() if training.get("device")]
        return chosen | ({"train_classifier": trained[0]} if trained else {})


def read_run(target: str, *, data: Path, model: Path, images: Path, decisions: Path) -> Run:
    """Read the folders of the run of "track/variant".

    Raises ArtifactError where a folder is another variant's, or classifiers.json is not what evaluate writes.
    """
    track, _, variant = target.partition("/")
    folders = {"prepare": data, "train_cgn": model, "generate": images, "evaluate": decisions}
    params: dict[str, Mapping[str, Any]] = {}
    for folder in folders.values():
        if (path := folder / DEFINITION).is_file():
            definition = read_json(path)
            if not isinstance(definition, dict) or not {"verb", "track", "variant", "params"} <= definition.keys():
                raise ArtifactError(f"{path} does not say what {folder} is: run the stage that makes it again")
            refuse_foreign(definition, source=folder, track=track, variant=variant)
            params[str(definition["verb"]).removesuffix("_network")] = definition["params"]
    classifiers = _by_classifier(decisions / "classifiers.json")
    trained = [record["params"] for record in classifiers.values() if "params" in record]  # all have the same
    trainings = _by_classifier(decisions / "accuracy.json") or classifiers
    return Run(
        target=target,
        data=data,
        model=model,
        images=images,
        decisions=decisions,
        params=params | ({"train_classifier": trained[0]} if trained else {}),
        trainings={name: record.get("training", {}) for name, record in trainings.items()},
        records={verb: read_record(folder) for verb, folder in folders.items()},
    )


def read_decisions(run: Run) -> Predictions:
    """The stored decisions of a run. Raises ArtifactError where they are missing, broken or another variant's."""
    stored = read_predictions(run.decisions / FILE)
    track, _, variant = run.target.partition("/")
    refuse_foreign(stored.facts, source=run.decisions, track=track, variant=variant)
    return stored


def read_verdict(folder: Path | None, *, run: Run) -> str:
    """What the gate says of the run's classifier, in one line; empty without its folder.

    Raises ArtifactError for a folder that is broken, another variant's, or a verdict on other decisions.
    """
    if folder is None:
        return ""
    definition, found = read_object(folder / DEFINITION), read_object(folder / gate.FILE)
    track, _, variant = run.target.partition("/")
    refuse_foreign(definition, source=folder, verb="gate", track=track, variant=variant)
    if definition.get("inputs") != {"decisions": [folder_digest(run.decisions)]}:
        raise ArtifactError(f"{folder} is a verdict on other decisions than {run.decisions}: run gate again")
    refused = [f"{check['name']}: {check['reason']}" for check in found["checks"] if not check["passed"]]
    verdict = f"{gate.TITLES[False]}; {'; '.join(refused)}" if refused else f"{gate.TITLES[True]} every check"
    return f"{found['classifier']} {verdict} ({', '.join(check['name'] for check in found['checks'])})"


def _by_classifier(path: Path) -> dict[str, Mapping[str, Any]]:
    """Classifier -> {"params", "training", ...}, of a file that may be absent."""
    stored = read_json(path) if path.is_file() else {}
    records: list[Any] = list(stored.values()) if isinstance(stored, Mapping) else [None]
    if not all(isinstance(record, Mapping) and isinstance(record.get("params", {}), Mapping) for record in records):
        raise ArtifactError(f"{path} is not what evaluate writes (a record for each classifier): run evaluate again")
    if not all(isinstance(record.get("training", {}), Mapping) for record in records):
        raise ArtifactError(f"{path} holds trainings that evaluate does not write: run evaluate again")
    return dict(stored)

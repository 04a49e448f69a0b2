"""What the folders of a run say of it: parameters, how classifiers were trained, times and devices.

Parameters and seed are read from the definition in each finished folder; a folder of another variant is refused.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cgn.core.errors import ArtifactError
from cgn.core.facts import refuse_foreign
from cgn.core.files import read_json
from cgn.core.outputs import DEFINITION
from cgn.evaluation.predictions import Predictions, read
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
    """Classifier -> what its training recorded."""
    records: Mapping[str, Record]
    """Verb -> the log beside its folder."""

    @property
    def devices(self) -> dict[str, str]:
        """Verb -> what the accelerator became there, "cpu" or "cuda", where that was recorded."""
        trained = [training.get("device") for training in self.trainings.values()]
        chosen = {verb: record.device for verb, record in self.records.items()}
        chosen["train_classifier"] = next((device for device in trained if device), None)
        return {verb: device for verb, device in chosen.items() if device}


def read_run(target: str, *, data: Path, model: Path, images: Path, decisions: Path) -> Run:
    """Read the folders of the run of "track/variant".

    Raises ArtifactError where a folder is another variant's, or classifiers.json is not what evaluate writes.
    """
    track, _, variant = target.partition("/")
    folders = {"prepare": data, "train_cgn": model, "generate": images, "evaluate": decisions}
    params: dict[str, Mapping[str, Any]] = {}
    for folder in folders.values():
        if definition := _definition(folder):
            refuse_foreign(definition, source=folder, track=track, variant=variant)
            verb = str(definition["verb"])
            params["evaluate" if verb == "evaluate_network" else verb] = definition["params"]
    classifiers = _classifiers(decisions / "classifiers.json")
    trained = [record["params"] for record in classifiers.values() if "params" in record]
    return Run(
        target=target,
        data=data,
        model=model,
        images=images,
        decisions=decisions,
        params=params | ({"train_classifier": trained[0]} if trained else {}),
        trainings={name: record.get("training", {}) for name, record in classifiers.items()},
        records={verb: read_record(folder) for verb, folder in folders.items()},
    )


def read_decisions(run: Run) -> Predictions:
    """The stored decisions of a run. Raises ArtifactError where they are missing, broken or another variant's."""
    stored = read(run.decisions / "decisions.parquet")
    track, _, variant = run.target.partition("/")
    refuse_foreign(stored.facts, source=run.decisions, track=track, variant=variant)
    return stored


def _definition(folder: Path) -> Mapping[str, Any]:
    """What the command line wrote into the folder; empty for a folder that it did not make."""
    if not (folder / DEFINITION).is_file():
        return {}
    definition = read_json(folder / DEFINITION)
    if not isinstance(definition, dict) or not {"verb", "track", "variant", "params"} <= definition.keys():
        raise ArtifactError(f"{folder / DEFINITION} does not say what {folder} is: run the stage that makes it again")
    return definition


def _classifiers(path: Path) -> dict[str, Mapping[str, Any]]:
    """Classifier -> {"params", "training", ...}; all classifiers of a run have the same parameters."""
    stored = read_json(path) if path.is_file() else {}
    records: list[Any] = list(stored.values()) if isinstance(stored, Mapping) else [None]
    if not all(isinstance(record, Mapping) and isinstance(record.get("params", {}), Mapping) for record in records):
        raise ArtifactError(f"{path} is not what evaluate writes (a record for each classifier): run evaluate again")
    if not all(isinstance(record.get("training", {}), Mapping) for record in records):
        raise ArtifactError(f"{path} holds trainings that evaluate does not write: run evaluate again")
    return dict(stored)

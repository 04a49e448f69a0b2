"""What an MNIST page is made of: the stage's material, with the decisions read.

Decided here: evaluate's one parameter, the size of its batches, decides nothing and is not shown.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cgn.core.checkpoints import refuse_foreign
from cgn.core.files import read_json
from cgn.evaluation.expected import Figure, remarks
from cgn.evaluation.metrics import accuracies
from cgn.evaluation.predictions import Predictions, read
from cgn.mnist.arms import ARMS
from cgn.report.records import read_record
from cgn.stages.report import Material

RANDOMISED = "test_random"
"""The condition that is the question: only the shape tells."""


@dataclass(frozen=True, kw_only=True)
class Evidence:
    """Folders, parameters by verb, and what the classifiers decided."""

    decisions: Predictions
    trainings: Mapping[str, Mapping[str, Any]]
    """Arm -> what its training said of itself."""
    params: Mapping[str, Mapping[str, Any]]
    devices: Mapping[str, str]
    """Verb -> what the accelerator became there, "cpu" or "cuda", where that is told."""
    data: Path
    model: Path
    images: Path
    remarks: Sequence[str]
    """Whether the figures lie within what was measured over seeds and machines; empty for other parameters."""


def figures(decisions: Predictions) -> list[Figure]:
    """The headline figures, for `cgn.evaluation.expected`: each arm's accuracy on random looks."""
    found = accuracies(decisions)
    return [
        Figure(name=f"accuracy on random looks ({title})", value=found[arm][RANDOMISED].share)
        for arm, title in ARMS.items()
        if RANDOMISED in found.get(arm, {})
    ]


def gather(material: Material, *, variant: str) -> Evidence:
    """Read what evaluate stored. Raises ArtifactError when it is missing, broken or another variant's."""
    decisions = read(material.decisions / "decisions.parquet")
    refuse_foreign(decisions.facts, source=material.decisions, track="mnist", variant=variant)
    told = read_json(material.decisions / "accuracy.json")
    trainings = {arm: measured.get("training", {}) for arm, measured in told.items()}
    chosen = {
        "train_cgn": read_record(material.model).device,
        "train_classifier": next((of["device"] for of in trainings.values() if "device" in of), None),
    }
    return Evidence(
        decisions=decisions,
        trainings=trainings,
        devices={verb: device for verb, device in chosen.items() if device},
        params={verb: params for verb, params in material.params.items() if verb != "evaluate"},
        data=material.data,
        model=material.model,
        images=material.images,
        remarks=remarks(figures(decisions), target=f"mnist/{variant}", params=material.params),
    )

"""What an MNIST page is made of: the stage's material, with the decisions read.

Decided here: evaluate's one parameter, the size of its batches, decides nothing and is not shown.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cgn.core.checkpoints import refuse_foreign
from cgn.core.files import read_json
from cgn.evaluation.decisions import Decisions, read
from cgn.stages.report import Material


@dataclass(frozen=True, kw_only=True)
class Evidence:
    """Folders, parameters by verb, and what the classifiers decided."""

    decisions: Decisions
    trainings: Mapping[str, Mapping[str, Any]]
    """Arm -> what its training said of itself."""
    params: Mapping[str, Mapping[str, Any]]
    data: Path
    model: Path
    images: Path


def gather(material: Material, *, variant: str) -> Evidence:
    """Read what evaluate stored. Raises ArtifactError when it is missing, broken or another variant's."""
    decisions = read(material.decisions / "decisions.parquet")
    refuse_foreign(decisions.facts, source=material.decisions, track="mnist", variant=variant)
    told = read_json(material.decisions / "accuracy.json")
    return Evidence(
        decisions=decisions,
        trainings={arm: measured.get("training", {}) for arm, measured in told.items()},
        params={verb: params for verb, params in material.params.items() if verb != "evaluate"},
        data=material.data,
        model=material.model,
        images=material.images,
    )

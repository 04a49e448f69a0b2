"""What an ImageNet page is made of: the stage's material, with the examination read and measured.

Decided here: `measured` holds one record for each head, in the order of tables, baseline first; all that a table shows
of a head comes from there. A head is called by its place in the paper; one of another network by its own names.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from cgn.core.checkpoints import refuse_foreign
from cgn.core.errors import ArtifactError
from cgn.core.files import read_json
from cgn.evaluation.corruption_error import (
    CorruptionErrors,
    CorruptionEstimates,
    corruption_errors,
    corruption_estimates,
)
from cgn.evaluation.expected import Figure, remarks
from cgn.evaluation.intervals import Proportion
from cgn.evaluation.metrics import Gap, ShapeBias, background_gap, by_shape, by_variation, shape_bias, top, undecided
from cgn.evaluation.predictions import CLEAN, CUE_CONFLICT, STYLIZED, Predictions, read
from cgn.report.records import Record, read_record
from cgn.stages.report import Material

BASELINE = ("baseline", "label")
SHAPE, TEXTURE, BACKGROUND, AVERAGE, SHAPE_TEXTURE = (
    ("ensemble", head) for head in ("shape", "texture", "background", "avg", "shape_texture")
)
TITLES = {
    BASELINE: "baseline",
    SHAPE: "shape head",
    TEXTURE: "texture head",
    BACKGROUND: "background head",
    AVERAGE: "mean of heads",
    SHAPE_TEXTURE: "shape + texture",
}
"""(Classifier, head) -> how tables call it, in their order."""
OWNERS = {"baseline": "one head", "ensemble": "ensemble"}
"""Classifier -> what stands below the title."""


@dataclass(frozen=True, kw_only=True)
class Head:
    """One head's results; None or empty where its suite was not run."""

    key: tuple[str, str]
    clean: tuple[Proportion, Proportion] | None
    """Top-1 and top-5."""
    stylized: tuple[Proportion, Proportion] | None
    bias: ShapeBias | None
    undecided: str | None
    """Why its shape bias must not be quoted; None where it may be."""
    by_category: Mapping[str, ShapeBias]
    variations: Mapping[str, Proportion]
    gap: Gap | None
    corruptions: CorruptionErrors | None
    estimates: CorruptionEstimates | None

    @property
    def title(self) -> str:
        """How tables call it."""
        return title(self.key)

    @property
    def conflict_chance(self) -> float:
        """What guessing a category gets right of the conflicts; needs `by_category`."""
        return 1 / len(self.by_category)

    @property
    def owner(self) -> str:
        """Whose head it is, where the title does not say so."""
        return OWNERS.get(self.key[0], "")


@dataclass(frozen=True, kw_only=True)
class Evidence:
    """All that the page says comes from here."""

    examination: Predictions
    heads: Sequence[Head]
    trainings: Mapping[str, Mapping[str, Any]]
    """Classifier -> what its training said of itself."""
    material: Material
    variant: str

    @property
    def params(self) -> Mapping[str, Mapping[str, Any]]:
        """Verb -> resolved parameters."""
        return self.material.params

    @property
    def classes(self) -> int:
        """Of the networks."""
        return int(self.examination.facts["classes"])

    @property
    def shown(self) -> Mapping[str, Any]:
        """Networks, preparations and how each suite's pictures were shown; empty where the decisions do not say."""
        told: Mapping[str, Any] = self.examination.facts.get("shown", {})
        return told

    def head(self, key: tuple[str, str]) -> Head | None:
        """One head's results; None where it was not examined."""
        return next((head for head in self.heads if head.key == key), None)

    @cached_property
    def remarks(self) -> Sequence[str]:
        """Whether its figures lie within what was measured over seeds and machines; empty for other parameters."""
        return remarks(figures(self.heads), target=f"imagenet/{self.variant}", params=self.params)

    @property
    def devices(self) -> Mapping[str, str]:
        """Verb -> what the accelerator became there, "cpu" or "cuda", where that is told."""
        trained = [training.get("device") for training in self.trainings.values()]
        chosen = {verb: record.device for verb, record in self.records.items()}
        chosen["train_classifier"] = next((device for device in trained if device), None)
        return {verb: device for verb, device in chosen.items() if device}

    @cached_property
    def records(self) -> Mapping[str, Record]:
        """Verb -> what its run said of itself, of the verbs whose folders are at hand."""
        folders = {
            "prepare": self.material.data,
            "train_cgn": self.material.model,
            "generate": self.material.images,
            "evaluate": self.material.decisions,
        }
        return {verb: read_record(folder) for verb, folder in folders.items()}


def title(key: tuple[str, str]) -> str:
    """How tables call a head."""
    classifier, head = key
    return TITLES.get(key, classifier if head == "label" else f"{classifier}: {head}")


def gather(material: Material, *, variant: str) -> Evidence:
    """Read what evaluate stored. Raises ArtifactError when it is missing, broken or another variant's."""
    examination = read(material.decisions / "decisions.parquet")
    refuse_foreign(examination.facts, source=material.decisions, track="imagenet", variant=variant)
    return Evidence(
        examination=examination,
        heads=measured(examination),
        trainings=_trainings(material.decisions / "classifiers.json"),
        material=material,
        variant=variant,
    )


def _trainings(path: Path) -> dict[str, Mapping[str, Any]]:
    """Classifier -> what its training said of itself; the stage has looked at the form of all else."""
    told = read_json(path) if path.is_file() else {}
    trainings = {name: of.get("training", {}) for name, of in told.items()}
    if not all(isinstance(training, Mapping) for training in trainings.values()):
        raise ArtifactError(f"{path} holds trainings that evaluate does not write: run evaluate again")
    return trainings


def figures(heads: Sequence[Head]) -> list[Figure]:
    """The headline figures of these heads, for `cgn.evaluation.expected`: of those that were examined."""
    by_key = {head.key: head for head in heads}

    def of(*keys: tuple[str, str]) -> list[Head]:
        return [by_key[key] for key in keys if key in by_key]

    found = []
    for head in of(BASELINE, AVERAGE, SHAPE):
        if head.bias:
            quoted = head.bias.bias.share if head.bias.bias and not head.undecided else None
            found.append(Figure(name=f"shape bias ({head.title})", value=quoted))
    for head in of(SHAPE):
        if head.bias and head.bias.accuracy:
            found.append(Figure(name=f"shape accuracy ({head.title})", value=head.bias.accuracy.share))
    for head in of(BASELINE, AVERAGE, SHAPE, SHAPE_TEXTURE):
        if head.gap:
            width = None if head.gap.undecided else head.gap.gap
            found.append(Figure(name=f"background gap ({head.title})", value=width, unit="points"))
    for head in of(BASELINE, AVERAGE, SHAPE):
        if head.clean:
            found.append(Figure(name=f"top-1 ({head.title})", value=head.clean[0].share))
    for head in of(BASELINE, AVERAGE):
        if head.estimates and head.estimates.mean_error:
            found.append(Figure(name=f"error under corruption ({head.title})", value=head.estimates.mean_error.value))
    return found


def measured(examination: Predictions) -> list[Head]:
    """Every head's results, in the order of tables."""
    present = [(name, head) for name in examination.classifiers for head in examination.heads(name)]
    order = [*(key for key in TITLES if key in present), *(key for key in present if key not in TITLES)]
    superclass_of = np.array(examination.facts["superclass_of"], dtype=np.int64)
    variations = by_variation(examination, superclass_of=superclass_of)
    corrupted = {(one.classifier, one.head): one for one in corruption_errors(examination)}
    return [
        _measured(examination, key, variations=variations.get(key[0], {}).get(key[1], {}), errors=corrupted.get(key))
        for key in order
    ]


def _measured(
    examination: Predictions,
    key: tuple[str, str],
    *,
    variations: dict[str, Proportion],
    errors: CorruptionErrors | None,
) -> Head:
    classifier, head = key
    suites = {name: examination.of(name, classifier=classifier, head=head) for name in (CLEAN, STYLIZED, CUE_CONFLICT)}
    tops = {name: (top(rows, kept=1), top(rows, kept=5)) for name, rows in suites.items() if len(rows)}
    stimuli, names = suites[CUE_CONFLICT], examination.facts["categories"]
    return Head(
        key=key,
        clean=tops.get(CLEAN),
        stylized=tops.get(STYLIZED),
        bias=shape_bias(stimuli) if len(stimuli) else None,
        undecided=undecided(stimuli, suites[CLEAN], categories=len(names)) if len(stimuli) else None,
        by_category=by_shape(stimuli, names=names) if len(stimuli) else {},
        variations=variations,
        gap=background_gap(variations),
        corruptions=errors if errors and errors.errors else None,
        estimates=corruption_estimates(examination, errors) if errors and errors.errors else None,
    )

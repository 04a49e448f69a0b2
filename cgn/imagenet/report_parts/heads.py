"""What every head of the ImageNet classifiers measured, computed from the stored decisions: numbers with intervals."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from cgn.evaluation.corruption_error import (
    CorruptionErrors,
    CorruptionEstimates,
    corruption_errors,
    corruption_estimates,
)
from cgn.evaluation.expected import Headline
from cgn.evaluation.intervals import Proportion
from cgn.evaluation.metrics import Gap, ShapeBias, background_gap, by_shape, by_variation, shape_bias, top, undecided
from cgn.evaluation.predictions import CLEAN, CUE_CONFLICT, STYLIZED, Predictions
from cgn.report.run import Run, read_decisions

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
"""(Classifier, head) -> its name in tables, in their order."""
OWNERS = {"baseline": "one head", "ensemble": "ensemble"}
"""Classifier -> what stands below the name of its heads."""


@dataclass(frozen=True, kw_only=True)
class Head:
    """One head's results; None or empty where its suite was not evaluated."""

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
        """Its name in tables."""
        return title(self.key)

    @property
    def owner(self) -> str:
        """Whose head it is, where the title does not say so."""
        return OWNERS.get(self.key[0], "")

    @property
    def conflict_chance(self) -> float:
        """What guessing a category gets right of the conflicts; needs `by_category`."""
        return 1 / len(self.by_category)


@dataclass(frozen=True, kw_only=True)
class Results:
    """The stored decisions of a run and what its heads measured, in the order of tables, baseline first."""

    run: Run
    stored: Predictions
    heads: Sequence[Head]

    @property
    def classes(self) -> int:
        """Of the networks."""
        return int(self.stored.facts["classes"])

    @property
    def preparation(self) -> Mapping[str, Any]:
        """Networks, preparations and how each suite's pictures were shown; empty where the decisions do not say."""
        shown: Mapping[str, Any] = self.stored.facts.get("shown", {})
        return shown

    def head(self, key: tuple[str, str]) -> Head | None:
        """One head's results; None where it was not evaluated."""
        return next((head for head in self.heads if head.key == key), None)


def title(key: tuple[str, str]) -> str:
    """A head's name in tables."""
    classifier, head = key
    return TITLES.get(key, classifier if head == "label" else f"{classifier}: {head}")


def read_results(run: Run) -> Results:
    """Read what evaluate stored. Raises ArtifactError when it is missing, broken or another variant's."""
    stored = read_decisions(run)
    return Results(run=run, stored=stored, heads=measured(stored))


def headlines(heads: Sequence[Head]) -> list[Headline]:
    """The headline figures of these heads, for `cgn.evaluation.expected`: of those that were evaluated."""
    by_key = {head.key: head for head in heads}

    def of(*keys: tuple[str, str]) -> list[Head]:
        return [by_key[key] for key in keys if key in by_key]

    found = []
    for head in of(BASELINE, AVERAGE, SHAPE):
        if head.bias:
            quoted = head.bias.bias.share if head.bias.bias and not head.undecided else None
            found.append(Headline(name=f"shape bias ({head.title})", value=quoted))
    for head in of(SHAPE):
        if head.bias and head.bias.accuracy:
            found.append(Headline(name=f"shape accuracy ({head.title})", value=head.bias.accuracy.share))
    for head in of(BASELINE, AVERAGE, SHAPE, SHAPE_TEXTURE):
        if head.gap:
            width = None if head.gap.undecided else head.gap.gap
            found.append(Headline(name=f"background gap ({head.title})", value=width, unit="points"))
    for head in of(BASELINE, AVERAGE, SHAPE):
        if head.clean:
            found.append(Headline(name=f"top-1 ({head.title})", value=head.clean[0].share))
    for head in of(BASELINE, AVERAGE):
        if head.estimates and head.estimates.mean_error:
            found.append(Headline(name=f"error under corruption ({head.title})", value=head.estimates.mean_error.value))
    return found


def measured(stored: Predictions) -> list[Head]:
    """Every head's results, in the order of tables."""
    present = [(name, head) for name in stored.classifiers for head in stored.heads(name)]
    order = [*(key for key in TITLES if key in present), *(key for key in present if key not in TITLES)]
    superclass_of = np.array(stored.facts["superclass_of"], dtype=np.int64)
    variations = by_variation(stored, superclass_of=superclass_of)
    corrupted = {(one.classifier, one.head): one for one in corruption_errors(stored)}
    return [
        _measured(stored, key, variations=variations.get(key[0], {}).get(key[1], {}), errors=corrupted.get(key))
        for key in order
    ]


def _measured(
    stored: Predictions, key: tuple[str, str], *, variations: dict[str, Proportion], errors: CorruptionErrors | None
) -> Head:
    classifier, head = key
    suites = {name: stored.of(name, classifier=classifier, head=head) for name in (CLEAN, STYLIZED, CUE_CONFLICT)}
    tops = {name: (top(rows, kept=1), top(rows, kept=5)) for name, rows in suites.items() if len(rows)}
    stimuli, names = suites[CUE_CONFLICT], stored.facts["categories"]
    errors = errors if errors and errors.errors else None
    return Head(
        key=key,
        clean=tops.get(CLEAN),
        stylized=tops.get(STYLIZED),
        bias=shape_bias(stimuli) if len(stimuli) else None,
        undecided=undecided(stimuli, suites[CLEAN], categories=len(names)) if len(stimuli) else None,
        by_category=by_shape(stimuli, names=names) if len(stimuli) else {},
        variations=variations,
        gap=background_gap(variations),
        corruptions=errors,
        estimates=corruption_estimates(stored, errors) if errors else None,
    )

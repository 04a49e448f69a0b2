"""What every head of the ImageNet classifiers measured, from the stored decisions: numbers with intervals, by name.

top_1, top_5, stylized/top_1, stylized/top_5     of clean and of stylized images
bias, shape_accuracy                             of the cue-conflict test
original, mixed_same, ...; gap                   of ImageNet-9, by variation; its background gap
clean_error, mean_error, mce, relative_mce       of corrupted images
error/fog, ce/fog, error/fog/3                   by corruption, and by severity
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from cgn.evaluation.corruption_error import (
    SEVERITIES,
    CorruptionErrors,
    CorruptionEstimates,
    corruption_errors,
    corruption_estimates,
)
from cgn.evaluation.expected import Headline
from cgn.evaluation.intervals import Estimate
from cgn.evaluation.metrics import CHANCE, ShapeBias
from cgn.evaluation.predictions import CLEAN, CUE_CONFLICT, CUES, IN9, STYLIZED, Predictions
from cgn.evaluation.seeds import Figure
from cgn.evaluation.suites import numbers
from cgn.report.run import Run, read_decisions
from cgn.report.tables import Measure, measure, percent

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
CHOSEN = (BASELINE, AVERAGE, SHAPE)
"""The heads that are shown where all would be too many."""
HEADLINES = (
    ("bias", "shape bias", (BASELINE, AVERAGE, SHAPE)),
    ("shape_accuracy", "shape accuracy", (BASELINE, AVERAGE, SHAPE)),
    ("gap", "background gap", (BASELINE, AVERAGE, SHAPE, SHAPE_TEXTURE)),
    ("top_1", "top-1", (BASELINE, AVERAGE, SHAPE)),
    ("mean_error", "error under corruption", (BASELINE, AVERAGE)),
)
"""Measure, its name, and the heads of which it is a headline figure."""


@dataclass(frozen=True, kw_only=True)
class Head:
    """One head's results."""

    key: tuple[str, str]
    measures: Mapping[str, Measure]
    """By name; without those whose suite was not evaluated."""
    by_category: Mapping[str, ShapeBias]
    """Shape -> decisions on the stimuli of that shape."""
    corruptions: CorruptionErrors | None

    @property
    def title(self) -> str:
        """Its name in tables."""
        classifier, head = self.key
        return TITLES.get(self.key, classifier if head == "label" else f"{classifier}: {head}")

    @property
    def owner(self) -> str:
        """Whose head it is, where the title does not say so."""
        return OWNERS.get(self.key[0], "")


@dataclass(frozen=True, kw_only=True)
class Results:
    """The stored decisions of a run and what its heads measured, in the order of tables, baseline first."""

    run: Run
    stored: Predictions
    heads: Sequence[Head]
    counts: Mapping[str, Sequence[int]]
    """Suite -> images of each of its conditions, of the suites that were evaluated."""

    @property
    def preparation(self) -> Mapping[str, Any]:
        """Networks, preparations and how each suite's pictures were shown; empty where the decisions do not say."""
        shown: Mapping[str, Any] = self.stored.facts.get("shown", {})
        return shown

    def head(self, key: tuple[str, str]) -> Head | None:
        """One head's results; None where it was not evaluated."""
        return next((head for head in self.heads if head.key == key), None)

    def measure(self, key: tuple[str, str], name: str) -> Measure | None:
        """One number of a head; None where it was not measured."""
        return head.measures.get(name) if (head := self.head(key)) else None


def read_results(run: Run) -> Results:
    """Read what evaluate stored. Raises ArtifactError when it is missing, broken or another variant's."""
    stored = read_decisions(run)
    corrupted = corruption_errors(stored)
    found, errors = numbers(stored, corrupted=corrupted), {(one.classifier, one.head): one for one in corrupted}
    present = [(classifier, head) for classifier, heads in found.items() for head in heads]
    order = [*(key for key in TITLES if key in present), *(key for key in present if key not in TITLES)]
    counts: dict[str, list[int]] = {}
    for names, rows in stored.rows.groupby(["suite", "condition"]):
        counts.setdefault(str(names[0]), []).append(rows["image"].nunique())
    heads = [_head(key, found[key[0]][key[1]], stored=stored, errors=errors.get(key)) for key in order]
    return Results(run=run, stored=stored, heads=heads, counts=counts)


def headlines(heads: Sequence[Head]) -> list[Headline]:
    """The headline figures of these heads, for `cgn.evaluation.expected`: of those that were evaluated."""
    return [figure.headline for figure in figures(heads)]


def figures(heads: Sequence[Head]) -> list[Figure]:
    """The headline figures of these heads with their intervals and counts."""
    by_key, found = {head.key: head for head in heads}, []
    for name, words, keys in HEADLINES:
        for head in (by_key[key] for key in keys if key in by_key):
            if number := head.measures.get(name):
                hits = round(number.of.value * number.counted) if number.of and number.counted else None
                counts = "" if hits is None else f"{hits} of {number.counted}"
                found.append(
                    Figure(
                        measure=words,
                        head=head.title,
                        of=number.of,
                        unit=number.unit_in_words,
                        undecided=number.undecided,
                        counts=counts,
                    )
                )
    return found


def _head(
    key: tuple[str, str], suites: Mapping[str, Any], *, stored: Predictions, errors: CorruptionErrors | None
) -> Head:
    """From the `suites` of `cgn.evaluation.suites.numbers`, and the corruption errors with their intervals."""
    cue: dict[str, Any] = {"cue": key[1] if key[1] in CUES else ""}
    found: dict[str, Measure] = {}
    for suite, prefix in ((CLEAN, ""), (STYLIZED, "stylized/")):
        for name, of in suites.get(suite, {}).items():
            chance = min(int(name.removeprefix("top_")) / stored.classes, 1.0)
            found[prefix + name] = Measure(of=_estimate(of), chance=chance, **cue)
    for name, of in suites.get(IN9, {}).items():
        if name == "bg_gap":
            found["gap"] = Measure(of=_estimate(of), unit="pt", undecided=of.get("undecided", ""), chance=0.0, **cue)
        else:
            found[name] = Measure(of=_estimate(of), chance=CHANCE, **cue)
    conflict = suites.get(CUE_CONFLICT, {})
    found |= _conflict_measures(conflict, **cue) if conflict.get("conflicts") else {}
    errors = errors if errors and errors.errors else None
    found |= _corruption_measures(errors, corruption_estimates(stored, errors)) if errors else {}
    by_category = {
        name: ShapeBias(**{count: of[count] for count in ("shape", "texture", "conflicts")})
        for name, of in conflict.get("by_category", {}).items()
    }
    return Head(key=key, measures=found, by_category=by_category, corruptions=errors)


def _conflict_measures(of: Mapping[str, Any], **cue: Any) -> dict[str, Measure]:
    """A shape bias is quoted with how many decisions it counts, and with the shape accuracy beside chance."""
    right = Measure(of=_estimate(of["shape_accuracy"]), chance=of["chance"], **cue)
    counts = f"{of['decided']:,} of {of['conflicts']:,} decided"
    bias = Measure(
        of=_estimate(of["shape_bias"]) if "shape_bias" in of else None,
        undecided=of.get("undecided", ""),
        counted=of["decided"],
        note=f"{counts}; shape accuracy {right}, chance {percent(of['chance'])}",
        **cue,
    )
    return {"bias": bias, "shape_accuracy": right}


def _corruption_measures(errors: CorruptionErrors, estimates: CorruptionEstimates) -> dict[str, Measure]:
    found: dict[str, Measure | None] = {"clean_error": measure(errors.clean)}
    bare = {"mean_error": estimates.mean_error, "mce": estimates.mce, "relative_mce": estimates.relative_mce}
    bare |= {f"error/{name}": of for name, of in estimates.errors.items()}
    bare |= {f"ce/{name}": of for name, of in estimates.ce.items()}
    for name, of in bare.items():
        found[name] = Measure(of=of, bar="error" in name) if of else None
    for name, by_severity in errors.errors.items():
        for severity, error in zip(SEVERITIES, by_severity, strict=True):
            found[f"error/{name}/{severity}"] = measure(error, bar=False)
    return {name: of for name, of in found.items() if of}


def _estimate(of: Mapping[str, Any]) -> Estimate:
    return Estimate(value=of["value"], low=of["low"], high=of["high"])

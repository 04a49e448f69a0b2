"""Metrics of stored predictions: accuracy, confusion and cues, shape bias, background gap. No network is needed.

Accuracy: how often `top_1` (or one of the best k) is the label, the shape's.
Cues: the share of decisions equal to a cue's label. Where looks are drawn at random, the labels of two cues coincide in
one image of ten, so the shares overlap and need not add up to 1; an ignored cue ends near chance, 1 / classes. A cue
whose label is the shape's on every image cannot be distinguished from shape and is not listed.
Shape bias (Geirhos et al., ICLR 2019): of the decisions for one of two conflicting cues, the share for shape, among 16
categories. Only pictures whose shape and texture differ count (1,200 of the published 1,280); decisions for a third
category are left out, but counted. It is a ratio of two counts that may both be accidents: guessing gives 50 %. So it
is quoted with its counts and the accuracy on the conflicts, and `undecided` says where it must not be quoted at all.
Background gap (ImageNet-9, Xiao et al., ICLR 2021): accuracy on mixed_same - accuracy on mixed_rand, what is lost where
the background is of another class. A decision is the superclass of `top_1`; the 630 classes that have none are wrong.
Guessing has no gap at all, so the gap of a head that is no better than chance on mixed_same is undecided.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from cgn.evaluation.intervals import Estimate, Proportion
from cgn.evaluation.predictions import CUES, IN9, Predictions

Matrix = np.ndarray[Any, np.dtype[np.int64]]
Shares = np.ndarray[Any, np.dtype[np.float64]]
Superclasses = np.ndarray[Any, np.dtype[np.int64]]
SAME, RANDOM = "mixed_same", "mixed_rand"
CHANCE = 1 / 9
"""What guessing gets right of ImageNet-9's nine superclasses."""


def accuracy(rows: pd.DataFrame) -> Proportion:
    """How many decisions in `rows` are the label, the shape's. `rows` holds at least one."""
    return Proportion(hits=int((rows["top_1"] == rows["label"]).sum()), images=len(rows))


def accuracies(predictions: Predictions) -> dict[str, dict[str, Proportion]]:
    """The accuracy of every classifier under every condition, where each has one suite and one head, as on MNIST."""
    found: dict[str, dict[str, Proportion]] = {}
    for (classifier, condition), rows in predictions.rows.groupby(["classifier", "condition"], sort=True):
        found.setdefault(str(classifier), {})[str(condition)] = accuracy(rows)
    return found


def top(rows: pd.DataFrame, *, kept: int) -> Proportion:
    """How often the label is among the `kept` best classes, 1 to 5."""
    if not 1 <= kept <= 5:
        raise ValueError(f"top-{kept}: the five best classes are kept, so 1 to 5 can be asked for")
    ranked = rows[[f"top_{rank}" for rank in range(1, kept + 1)]]
    return Proportion(hits=int(ranked.eq(rows["label"], axis=0).any(axis=1).sum()), images=len(rows))


def confusion(rows: pd.DataFrame, *, classes: int, cue: str = "shape") -> Matrix:
    """(classes, classes) counts: at [i, j] the images whose label of `cue` is i and whose decision is j."""
    if cue not in CUES:
        raise ValueError(f"unknown cue {cue!r}; known: {', '.join(CUES)}")
    places = rows[CUES[cue]].to_numpy(np.int64) * classes + rows["top_1"].to_numpy(np.int64)
    return np.bincount(places, minlength=classes * classes).reshape(classes, classes)


def separable(rows: pd.DataFrame) -> tuple[str, ...]:
    """Shape, and the cues whose labels differ from the shape's on some image."""
    return tuple(cue for cue, column in CUES.items() if cue == "shape" or bool((rows[column] != rows["label"]).any()))


def followed(rows: pd.DataFrame) -> dict[str, Proportion]:
    """For each separable cue the share of decisions equal to its label; shape's is the accuracy."""
    return {
        cue: Proportion(hits=int((rows["top_1"] == rows[CUES[cue]]).sum()), images=len(rows)) for cue in separable(rows)
    }


def largest_error(matrix: Matrix) -> tuple[int, int, float] | None:
    """(label, decision, share of the label's images) of the error made most often; None when there is no error."""
    shares = by_label(matrix)
    np.fill_diagonal(shares, 0.0)
    label, decision = np.unravel_index(int(shares.argmax()), shares.shape)
    share = float(shares[label, decision])
    return (int(label), int(decision), share) if share > 0 else None


def by_label(matrix: Matrix) -> Shares:
    """Every row divided by its sum, in [0,1]; a row without images stays 0."""
    sums = matrix.sum(axis=1, keepdims=True)
    shares: Shares = matrix / np.maximum(sums, 1)
    return shares


@dataclass(frozen=True, kw_only=True)
class ShapeBias:
    """Counts of decisions on `conflicts` pictures, those whose cues differ."""

    shape: int
    texture: int
    conflicts: int

    @property
    def bias(self) -> Proportion | None:
        """shape / (shape + texture); None where no decision was for either cue."""
        decided = self.shape + self.texture
        return Proportion(hits=self.shape, images=decided) if decided else None

    @property
    def decided(self) -> Proportion | None:
        """How many of the conflicts were decided for one of the two cues; None where there are no conflicts."""
        return Proportion(hits=self.shape + self.texture, images=self.conflicts) if self.conflicts else None

    @property
    def accuracy(self) -> Proportion | None:
        """Shape accuracy: how many of the conflicts were decided for the shape; None where there are no conflicts."""
        return Proportion(hits=self.shape, images=self.conflicts) if self.conflicts else None


def shape_bias(rows: pd.DataFrame) -> ShapeBias:
    """Counts from one head's rows with `label` (the shape's), `texture` and `category`, all of the same categories."""
    conflicts = rows[rows["label"] != rows["texture"]]
    return ShapeBias(
        shape=int((conflicts["category"] == conflicts["label"]).sum()),
        texture=int((conflicts["category"] == conflicts["texture"]).sum()),
        conflicts=len(conflicts),
    )


def by_shape(rows: pd.DataFrame, *, names: Sequence[str]) -> dict[str, ShapeBias]:
    """The same for the pictures of each shape, in the order of `names` (the categories')."""
    return {name: shape_bias(rows[rows["label"] == number]) for number, name in enumerate(names)}


def undecided(stimuli: pd.DataFrame, clean: pd.DataFrame, *, categories: int) -> str | None:
    """Why a head's shape bias is no result, in words; None where it may be quoted.

    `stimuli`, `clean`: the head's rows of both suites. Three reasons: no decision for either cue; no better than chance
    on clean pictures (the low end of top-1 is not above what one answer for all would get), or, where none were shown,
    no more decisions for either cue than guessing gives, 2 / categories; an interval that holds 50 %, the guesser's.
    """
    counts = shape_bias(stimuli)
    if counts.bias is None or counts.decided is None:
        return "no decision was for either cue"
    if len(clean):
        first, chance = top(clean, kept=1), float(clean["label"].value_counts(normalize=True).max())
        if first.low <= chance:
            return f"no better than chance on clean pictures: top-1 {first}, chance {100 * chance:.1f} %"
    elif counts.decided.low <= 2 / categories:
        return f"no more decisions for either cue than guessing gives: {counts.decided}, {200 / categories:.1f} %"
    if counts.bias.low <= 0.5 <= counts.bias.high:
        return "its interval holds the 50 % that guessing gives"
    return None


@dataclass(frozen=True, kw_only=True)
class Gap:
    """The accuracies whose difference is the background gap, with Newcombe's 95 % interval."""

    same: Proportion
    random: Proportion

    @property
    def gap(self) -> float:
        """In [-1,1]; positive where the right background helps."""
        return self.same.share - self.random.share

    @property
    def undecided(self) -> str | None:
        """Why the gap says nothing, in words; None where it may be quoted."""
        if self.same.low > CHANCE:
            return None
        return f"no better than chance on {SAME}: {self.same}, chance {100 * CHANCE:.1f} %"

    @property
    def low(self) -> float:
        """The lower end of the interval."""
        return self.gap - math.hypot(self.same.share - self.same.low, self.random.high - self.random.share)

    @property
    def high(self) -> float:
        """The upper end of the interval."""
        return self.gap + math.hypot(self.same.high - self.same.share, self.random.share - self.random.low)


def superclass_accuracy(rows: pd.DataFrame, *, superclass_of: Superclasses) -> Proportion:
    """How often the superclass of `top_1` is the label. `superclass_of`: (classes,), -1 for none; `rows` not empty."""
    decided = superclass_of[rows["top_1"].to_numpy(np.int64)]
    return Proportion(hits=int((decided == rows["label"].to_numpy()).sum()), images=len(rows))


def by_variation(
    predictions: Predictions, *, superclass_of: Superclasses
) -> dict[str, dict[str, dict[str, Proportion]]]:
    """Classifier -> head -> variation -> accuracy, of all that were evaluated on ImageNet-9."""
    found: dict[str, dict[str, dict[str, Proportion]]] = {}
    for names, rows in predictions.of(IN9).groupby(["classifier", "head", "condition"], sort=True):
        classifier, head, variation = map(str, names)
        share = superclass_accuracy(rows, superclass_of=superclass_of)
        found.setdefault(classifier, {}).setdefault(head, {})[variation] = share
    return found


def background_gap(variations: Mapping[str, Proportion]) -> Gap | None:
    """The gap of one head's accuracies by variation; None where one of the two variations was not evaluated."""
    if not {SAME, RANDOM} <= variations.keys():
        return None
    return Gap(same=variations[SAME], random=variations[RANDOM])


def estimate(measured: Proportion | Gap) -> Estimate:
    """A share, or a background gap, with its own interval."""
    value = measured.gap if isinstance(measured, Gap) else measured.share
    return Estimate(value=value, low=measured.low, high=measured.high)

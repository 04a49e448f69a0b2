"""Shape bias: of the decisions for one of two conflicting cues, the share for shape (Geirhos et al., ICLR 2019).

A decision falls among 16 categories: softmax over the network's classes, the *mean* over each category's members, the
largest. Only pictures whose shape and texture differ count (1,200 of the published 1,280); decisions for a third
category say nothing about either cue and are left out, but counted. Decided here: the interval is Wilson's on the
decisions for either cue; it covers the chance of the pictures, not that of another training. A shape bias is a ratio of
two counts that may both be accidents: somebody who guesses has 50 %. So it is quoted with its counts and with the
accuracy on the conflicts, and `undecided` says where it must not be quoted as a result at all.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import pandas as pd
import torch

from cgn.evaluation.accuracy import Proportion, top


@dataclass(frozen=True, kw_only=True)
class ShapeBias:
    """Counts of decisions on `conflicts` pictures, those whose cues differ."""

    shape: int
    texture: int
    conflicts: int

    @property
    def bias(self) -> Proportion | None:
        """shape / (shape + texture) with its 95 % interval; None where no decision was for either cue."""
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


def categories(probabilities: torch.Tensor, *, members: Sequence[Sequence[int]]) -> torch.Tensor:
    """(B,K) probabilities -> (B,) int64: the category whose members' probabilities have the largest mean."""
    means = [probabilities[:, list(classes)].mean(dim=1) for classes in members]
    return torch.stack(means, dim=1).argmax(dim=1)


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
            return f"no better than chance on clean pictures: top-1 {_told(first)}, chance {100 * chance:.1f} %"
    elif counts.decided.low <= 2 / categories:
        return (
            f"no more decisions for either cue than guessing gives: {_told(counts.decided)}, {200 / categories:.1f} %"
        )
    if counts.bias.low <= 0.5 <= counts.bias.high:
        return "its interval holds the 50 % that guessing gives"
    return None


def _told(share: Proportion) -> str:
    return f"{100 * share.share:.1f} % ({100 * share.low:.1f} to {100 * share.high:.1f})"

"""Shape bias: of the decisions for one of two conflicting cues, the share for shape (Geirhos et al., ICLR 2019).

A decision falls among 16 categories: softmax over the network's classes, the *mean* over each category's members, the
largest. Only pictures whose shape and texture differ count (1,200 of the published 1,280); decisions for a third
category say nothing about either cue and are left out, but counted. Decided here: the interval is Wilson's on the
decisions for either cue; it covers the chance of the pictures, not that of another training.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import pandas as pd
import torch

from cgn.evaluation.accuracy import Proportion


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

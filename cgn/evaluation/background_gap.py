"""ImageNet-9, the backgrounds challenge (Xiao et al., ICLR 2021): accuracy by variation, and the background gap.

A decision is the superclass of the network's best class; the 630 classes that have none are wrong. Accuracy divides by
the number of pictures. BG-gap = accuracy on mixed_same - accuracy on mixed_rand: what is lost where the background is
of another class.
Decided here: the gap's interval is Newcombe's ("Interval estimation for the difference between independent
proportions", Statistics in Medicine 17 (1998), method 10), made of the two Wilson intervals. The two variations show
the same objects, so it is, if anything, too wide. Guessing has no gap at all, so that of a head which is no better than
chance where the background is of the right class is undecided and not quoted as a small one.
"""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from cgn.evaluation.accuracy import Proportion
from cgn.evaluation.examination import Examination

SUITE = "in9"
SAME, RANDOM = "mixed_same", "mixed_rand"
SUPERCLASSES = 9
CHANCE = 1 / SUPERCLASSES
Superclasses = np.ndarray[Any, np.dtype[np.int64]]


@dataclass(frozen=True, kw_only=True)
class Gap:
    """The accuracies whose difference is the background gap."""

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
        share = f"{100 * self.same.share:.1f} % ({100 * self.same.low:.1f} to {100 * self.same.high:.1f})"
        return f"no better than chance on {SAME}: {share}, chance {100 * CHANCE:.1f} %"

    @property
    def low(self) -> float:
        """The lower end of Newcombe's 95 % interval."""
        return self.gap - math.hypot(self.same.share - self.same.low, self.random.high - self.random.share)

    @property
    def high(self) -> float:
        """The upper end of Newcombe's 95 % interval."""
        return self.gap + math.hypot(self.same.high - self.same.share, self.random.share - self.random.low)


def superclass_accuracy(rows: pd.DataFrame, *, superclass_of: Superclasses) -> Proportion:
    """How often the superclass of `top_1` is the label. `superclass_of`: (classes,), -1 for none; `rows` not empty."""
    decided = superclass_of[rows["top_1"].to_numpy(np.int64)]
    return Proportion(hits=int((decided == rows["label"].to_numpy()).sum()), images=len(rows))


def by_variation(
    examination: Examination, *, superclass_of: Superclasses
) -> dict[str, dict[str, dict[str, Proportion]]]:
    """Classifier -> head -> variation -> accuracy, of all that were examined on ImageNet-9."""
    found: dict[str, dict[str, dict[str, Proportion]]] = {}
    for names, rows in examination.of(SUITE).groupby(["classifier", "head", "condition"], sort=True):
        classifier, head, variation = map(str, names)
        accuracy = superclass_accuracy(rows, superclass_of=superclass_of)
        found.setdefault(classifier, {}).setdefault(head, {})[variation] = accuracy
    return found


def background_gap(variations: dict[str, Proportion]) -> Gap | None:
    """The gap of one head's accuracies by variation; None where one of the two variations was not examined."""
    if not {SAME, RANDOM} <= variations.keys():
        return None
    return Gap(same=variations[SAME], random=variations[RANDOM])

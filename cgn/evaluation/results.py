"""The results of a run as rows: what each classifier scored, beside what was published for it.

Accuracies come from the stored predictions, also that on the original training set; the one number that does not, the
running accuracy in training, is a plain float without an interval. The two keep these names everywhere, because on most
arms they differ.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from cgn.evaluation.intervals import Proportion
from cgn.evaluation.metrics import accuracies, followed
from cgn.evaluation.predictions import Predictions


@dataclass(frozen=True, kw_only=True)
class Published:
    """Train and test accuracy in percent, as a source prints them for one arm of one variant.

    `train` is what the published scripts print: the running accuracy of the last epoch on the arm's own images.
    """

    variant: str
    arm: str
    source: str
    train: float
    test: float
    remark: str | None = None
    """How the published arm differs from ours of that name."""


@dataclass(frozen=True, kw_only=True)
class Result:
    """One classifier: `measured` by condition, `cues` followed under the randomised condition."""

    arm: str
    title: str
    training: Mapping[str, Any]
    measured: Mapping[str, Proportion]
    cues: Mapping[str, Proportion]
    published: tuple[Published, ...]

    @property
    def running_accuracy(self) -> float | None:
        """In [0,1], what its training counted over its last epoch on its own images; None where it is not recorded."""
        value = self.training.get("running_accuracy")
        return float(value) if isinstance(value, int | float) else None


def results(
    predictions: Predictions,
    *,
    arms: Mapping[str, str],
    randomised: str,
    trainings: Mapping[str, Mapping[str, Any]],
    published: Sequence[Published],
) -> list[Result]:
    """One row for each arm that decided, in the order of `arms` (arm -> title); unknown arms come last."""
    measured = accuracies(predictions)
    order = [*(arm for arm in arms if arm in measured), *(arm for arm in measured if arm not in arms)]
    rows = {arm: predictions.of(classifier=arm, condition=randomised) for arm in order}
    return [
        Result(
            arm=arm,
            title=arms.get(arm, arm),
            training=trainings.get(arm, {}),
            measured=measured[arm],
            cues=followed(rows[arm]) if len(rows[arm]) else {},
            published=tuple(row for row in published if row.arm == arm),
        )
        for arm in order
    ]

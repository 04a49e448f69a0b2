"""Numbers with a 95 % interval that are no plain proportion: differences, and weighted sums over pictures shown often.

A picture is shown under many conditions (a corruption's severities), and a network that errs on it under one is
likely to err under the next. So pictures, not answers, are what was drawn at random: the variance of a weighted sum of
errors is that of its sum over each picture (a cluster), as in survey sampling.
Decided here: a mean error is bounded by 0 and 1, so its interval is Wilson's for as many independent answers as would
have this variance; it has width at 0 and at 1, too. A sum that can leave [0,1] has the normal interval. A difference's
interval is Newcombe's (1998, method 10) from the two intervals; what was measured on the same pictures is taken for
independent there, so it is, if anything, too wide.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass

import pandas as pd

from cgn.evaluation.accuracy import Z_95, Proportion, wilson
from cgn.evaluation.background_gap import Gap


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """A number and the ends of its 95 % interval."""

    value: float
    low: float
    high: float

    def times(self, factor: float) -> "Estimate":
        """All three multiplied by a positive factor."""
        assert factor > 0, factor
        return Estimate(value=factor * self.value, low=factor * self.low, high=factor * self.high)


def estimate(measured: Proportion | Gap) -> Estimate:
    """A share, or a background gap, with its own interval."""
    value = measured.gap if isinstance(measured, Gap) else measured.share
    return Estimate(value=value, low=measured.low, high=measured.high)


def difference(after: Estimate, before: Estimate) -> Estimate:
    """after - before."""
    value = after.value - before.value
    return Estimate(
        value=value,
        low=value - math.hypot(after.value - after.low, before.high - before.value),
        high=value + math.hypot(after.high - after.value, before.value - before.low),
    )


def mean_error(outcomes: pd.DataFrame, weights: Mapping[str, float]) -> Estimate:
    """As `weighted`, for weights that are positive and sum to 1: bounded by 0 and 1."""
    value, variance = _moments(outcomes, weights)
    pictures = int(outcomes[list(weights)].notna().any(axis=1).sum())
    effective = value * (1 - value) / variance if variance > 0 else float(pictures)
    low, high = wilson(value * effective, images=effective)
    return Estimate(value=value, low=max(low, 0.0), high=min(high, 1.0))


def weighted(outcomes: pd.DataFrame, weights: Mapping[str, float]) -> Estimate:
    """The sum over conditions of weight x error.

    `outcomes`: a row for each picture, a column for each condition: 1 wrong, 0 right, NaN where it was not shown.
    """
    value, variance = _moments(outcomes, weights)
    half = Z_95 * math.sqrt(variance)
    return Estimate(value=value, low=value - half, high=value + half)


def _moments(outcomes: pd.DataFrame, weights: Mapping[str, float]) -> tuple[float, float]:
    """The weighted sum of the conditions' mean errors, and its variance with pictures as clusters."""
    shown = outcomes[list(weights)]
    factors = pd.Series(dict(weights), dtype=float)
    means, counts = shown.mean(), shown.notna().sum()
    parts = ((shown - means).fillna(0.0) * (factors / counts)).sum(axis=1)
    return float((factors * means).sum()), float((parts**2).sum())

"""Numbers with a 95 % interval: proportions, differences, and weighted sums over pictures that are shown many times.

A proportion has Wilson's interval (E. B. Wilson, "Probable inference, the law of succession, and statistical
inference", Journal of the American Statistical Association 22, 1927): every true rate p from which the measured share
is no more than z standard errors away, the error taken at p. It stays inside [0,1] and has width at 0 and at 1, where
the normal approximation collapses. A difference has Newcombe's, made of the two intervals ("Interval estimation for the
difference between independent proportions", Statistics in Medicine 17, 1998, method 10); what was measured on the same
pictures is treated as independent there, so the interval is, if anything, too wide.

A picture is shown under many conditions (a corruption's severities), and a network that is wrong on it under one is
likely to be wrong under the next. So pictures, not answers, are the random draws: the variance of a weighted sum of
errors is that of its sum over each picture (a cluster), as in survey sampling. A mean error is bounded by 0 and 1, so
its interval is Wilson's for as many independent answers as would have this variance; a sum that can leave [0,1] has
the normal interval.

All intervals are two-sided. They cover the chance of the finite test set for one trained network and say nothing about
another seed.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, Protocol

import pandas as pd

Z_95 = 1.959963984540054
"""The standard normal's 97.5 % quantile."""
EQUAL = "equal within the interval"


class Interval(Protocol):
    """The two ends of a 95 % interval."""

    @property
    def low(self) -> float: ...
    @property
    def high(self) -> float: ...


@dataclass(frozen=True, kw_only=True)
class Proportion:
    """`hits` of `images`; both are counts, images at least 1."""

    hits: int
    images: int

    def __post_init__(self) -> None:
        if not (self.images >= 1 and 0 <= self.hits <= self.images):
            raise ValueError(f"{self.hits} hits of {self.images} images: expected 0 <= hits <= images, images >= 1")

    @property
    def share(self) -> float:
        """hits / images, in [0,1]."""
        return self.hits / self.images

    @property
    def low(self) -> float:
        """The lower end of Wilson's 95 % interval."""
        return wilson(self.hits, images=self.images)[0]

    @property
    def high(self) -> float:
        """The upper end of Wilson's 95 % interval."""
        return wilson(self.hits, images=self.images)[1]

    def __str__(self) -> str:
        return f"{100 * self.share:.1f} % ({100 * self.low:.1f} to {100 * self.high:.1f})"


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


def wilson(hits: float, *, images: float, z: float = Z_95) -> tuple[float, float]:
    """Wilson's score interval (low, high) in [0,1] for `hits` of `images`; both may be effective numbers, not whole."""
    share, weight = hits / images, z * z / images
    centre = (share + weight / 2) / (1 + weight)
    half = z * math.sqrt(share * (1 - share) / images + weight / (4 * images)) / (1 + weight)
    # At 0 and at 1 one end is exact; rounding would leave it 1e-17 off.
    return (0.0 if hits == 0 else centre - half), (1.0 if hits == images else centre + half)


def compared(
    measured: Interval,
    published: float,
    *,
    better: Literal["higher", "lower"] = "higher",
    rounding: float = 0.0005,
) -> str:
    """How a measured number compares with a published one: "better", "worse", or EQUAL.

    It is better or worse where its whole 95 % interval is on one side of the published number, else EQUAL. All are
    shares in [0,1] or differences of shares; `rounding` is half the last digit that the source prints, by which the
    published number may be off. Neither the source's own test set nor another seed is considered, so this is about
    one trained network, and a difference that it finds may still be chance.
    """
    if measured.low > published + rounding:
        return "better" if better == "higher" else "worse"
    if measured.high < published - rounding:
        return "worse" if better == "higher" else "better"
    return EQUAL


def difference(after: Estimate, before: Estimate) -> Estimate:
    """after - before, with Newcombe's interval."""
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

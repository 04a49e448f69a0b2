"""Accuracy with its uncertainty: a proportion of images, and Wilson's interval around it.

E. B. Wilson, "Probable inference, the law of succession, and statistical inference", Journal of the American
Statistical Association 22 (1927): the interval holds every true rate p from which the measured share lies no more
than z standard errors away, the error taken at p and not at the measurement. So it stays inside [0,1] and has width
at 0 and at 1, where the common normal approximation collapses.
Decided here: 95 %, two-sided. It covers the chance of the finite test set for one trained classifier; it says nothing
about another seed.
"""

import math
from dataclasses import dataclass
from typing import Literal, Protocol

import pandas as pd

from cgn.evaluation.decisions import Decisions

Z_95 = 1.959963984540054
"""The standard normal's 97.5 % quantile."""


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


def wilson(hits: float, *, images: float, z: float = Z_95) -> tuple[float, float]:
    """Wilson's score interval (low, high) in [0,1] for `hits` of `images`; both may be effective numbers, not whole."""
    share, weight = hits / images, z * z / images
    centre = (share + weight / 2) / (1 + weight)
    half = z * math.sqrt(share * (1 - share) / images + weight / (4 * images)) / (1 + weight)
    # At 0 and at 1 one end is exact; rounding would leave it at 1e-17 beside.
    return (0.0 if hits == 0 else centre - half), (1.0 if hits == images else centre + half)


EQUAL = "equal within the interval"


def compared(
    measured: Interval,
    published: float,
    *,
    better: Literal["higher", "lower"] = "higher",
    rounding: float = 0.0005,
) -> str:
    """How a measured number stands to a published one: "better", "worse", or EQUAL.

    It is better or worse where its whole 95 % interval lies on one side of the published number, else EQUAL. All are
    shares in [0,1] or differences of shares; `rounding` is half the last digit that the source prints, by which the
    published number may be off. Neither the source's own test set nor another seed is allowed for, so this is about
    one trained network, and a difference that it finds may still be chance.
    """
    if measured.low > published + rounding:
        return "better" if better == "higher" else "worse"
    if measured.high < published - rounding:
        return "worse" if better == "higher" else "better"
    return EQUAL


def accuracy(rows: pd.DataFrame) -> Proportion:
    """How many decisions in `rows` are the label, the shape's. `rows` holds at least one."""
    return Proportion(hits=int((rows["decision"] == rows["label"]).sum()), images=len(rows))


def accuracies(decisions: Decisions) -> dict[str, dict[str, Proportion]]:
    """The accuracy of every classifier under every condition that it was run in."""
    found: dict[str, dict[str, Proportion]] = {}
    for (classifier, condition), rows in decisions.rows.groupby(["classifier", "condition"], sort=True):
        found.setdefault(str(classifier), {})[str(condition)] = accuracy(rows)
    return found


def top(rows: pd.DataFrame, *, kept: int) -> Proportion:
    """How often the label is among the `kept` best classes, 1 to 5. `rows` as in `cgn.evaluation.examination`."""
    if not 1 <= kept <= 5:
        raise ValueError(f"top-{kept}: the five best classes are kept, so 1 to 5 can be asked for")
    ranked = rows[[f"top_{rank}" for rank in range(1, kept + 1)]]
    return Proportion(hits=int(ranked.eq(rows["label"], axis=0).any(axis=1).sum()), images=len(rows))

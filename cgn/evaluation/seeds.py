"""The headline figures of trained runs, and their mean over seeds.

A run's own interval covers the finite test set for one trained network. Another seed trains other networks, so the mean
over n seeds has Student's interval, mean +- t(n-1; 97.5 %) * s / sqrt(n), with s the standard deviation of the seeds'
values (Student, "The probable error of a mean", Biometrika 6, 1908). With few seeds it is wide (t = 4.3 for three), and
it takes the seeds' values for normally distributed. A share's interval is cut at 0 and 1.
"""

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

from cgn.evaluation.expected import Headline
from cgn.evaluation.intervals import Estimate

CONFIDENCE = 0.975


@dataclass(frozen=True, kw_only=True)
class Figure:
    """What one head of one run measured: a share in [0,1] or a difference of shares, with its 95 % interval."""

    measure: str
    head: str
    of: Estimate | None
    """None where nothing was decided, so there is nothing to count."""
    unit: Literal["%", "points"] = "%"
    undecided: str = ""
    """Why the value must not be quoted; its interval may be."""
    counts: str = ""
    """"33 of 43", where the share is of few decisions."""

    @property
    def headline(self) -> Headline:
        """The same for `cgn.evaluation.expected`."""
        return Headline(name=f"{self.measure} ({self.head})", value=self.value, unit=self.unit)

    @property
    def value(self) -> float | None:
        """The number, where it may be quoted."""
        return None if self.undecided or self.of is None else self.of.value


@dataclass(frozen=True, kw_only=True)
class SeedRun:
    """The figures of one trained run. Runs of one target and group differ in nothing but their seed."""

    target: str
    """"track/variant"."""
    seed: int
    figures: Sequence[Figure]
    group: str = ""
    """What sets it apart from the other runs of its target; empty for the target as params.yaml has it."""

    def figure(self, measure: str, head: str) -> Figure | None:
        """One figure; None where it was not measured."""
        return next((one for one in self.figures if (one.measure, one.head) == (measure, head)), None)

    @property
    def as_json(self) -> dict[str, Any]:
        """As it is stored; `read_seed_run` reads it."""
        return asdict(self)


@dataclass(frozen=True, kw_only=True)
class SeedMean:
    """A figure over the seeds of a group."""

    target: str
    group: str
    measure: str
    head: str
    unit: Literal["%", "points"]
    seeds: Sequence[int]
    undecided: int
    """In how many of the seeds the figure is undecided."""
    mean: float | None
    """None where a seed is undecided: the mean of the others would be a choice among them."""
    low: float | None
    high: float | None
    """None for one seed as well, whose own interval says nothing of another."""


def read_seed_run(stored: Mapping[str, Any]) -> SeedRun:
    """A run as `as_json` has it. Raises KeyError or TypeError for anything else."""

    def estimate(of: Mapping[str, float] | None) -> Estimate | None:
        return None if of is None else Estimate(**of)

    figures = [Figure(**{**figure, "of": estimate(figure["of"])}) for figure in stored["figures"]]
    return SeedRun(**{**stored, "figures": figures})


def mean_interval(values: Sequence[float]) -> tuple[float, float]:
    """Student's 95 % interval of the mean of at least two values."""
    from scipy.special import stdtrit

    half = float(stdtrit(len(values) - 1, CONFIDENCE)) * statistics.stdev(values) / math.sqrt(len(values))
    mean = statistics.fmean(values)
    return mean - half, mean + half


def over_seeds(runs: Sequence[SeedRun]) -> list[SeedMean]:
    """The mean of each figure over the seeds of each group, in the order of the runs and of their figures."""
    found = []
    for target, group in dict.fromkeys((run.target, run.group) for run in runs):
        of = [run for run in runs if (run.target, run.group) == (target, group)]
        for measure, head in dict.fromkeys((one.measure, one.head) for run in of for one in run.figures):
            figures = {run.seed: figure for run in of if (figure := run.figure(measure, head))}
            found.append(_mean(figures, target=target, group=group))
    return found


def _mean(figures: Mapping[int, Figure], *, target: str, group: str) -> SeedMean:
    """The mean of one figure, given by seed."""
    first = next(iter(figures.values()))
    values = [figure.value for figure in figures.values() if figure.value is not None]
    decided = len(values) == len(figures)
    low, high = mean_interval(values) if decided and len(values) > 1 else (None, None)
    if low is not None and high is not None and first.unit == "%":
        low, high = max(low, 0.0), min(high, 1.0)
    return SeedMean(
        target=target,
        group=group,
        measure=first.measure,
        head=first.head,
        unit=first.unit,
        seeds=list(figures),
        undecided=len(figures) - len(values),
        mean=statistics.fmean(values) if decided else None,
        low=low,
        high=high,
    )

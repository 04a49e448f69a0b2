"""Corruption errors: how often a classifier is wrong under each corruption, alone and relative to AlexNet.

Hendrycks & Dietterich, "Benchmarking neural network robustness to common corruptions and perturbations", ICLR 2019:
CE_c = sum over the severities of the error / the same of AlexNet; mCE is the mean of CE over fifteen corruptions; the
relative CE subtracts the clean error from every error, of the classifier as of AlexNet.
A condition of the suite is "<corruption>/<severity>", or "clean": the same pictures before they were corrupted; where
it is missing, as with ImageNet-C's own files, the clean error is that of the suite `clean`. A corruption counts with
all its severities or is refused; mCE is given where all fifteen are there. On other images than ImageNet's 50,000
(Mini-ImageNet-C's are 3,923) the AlexNet of the paper is a mere yardstick: such a CE is not comparable with a published
one, and the plain error belongs beside it.
In the intervals pictures are clusters (`cgn.evaluation.intervals`): a corruption's mean error and its CE have Wilson's;
mCE and the relative ones, which leave [0,1], the normal one. A picture's clean decision is part of its cluster where it
is the same picture by its name.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from statistics import fmean

import pandas as pd

from cgn.core.errors import ArtifactError
from cgn.evaluation.intervals import Estimate, Proportion, mean_error, weighted
from cgn.evaluation.predictions import CLEAN, IMAGENET_C, Predictions

SEVERITIES = (1, 2, 3, 4, 5)
ALEXNET_CLEAN = 0.43478
"""On ImageNet's validation images: 1 - 0.56522, torchvision's documented accuracy of the AlexNet that the benchmark's
own test script loads (alexnet-owt)."""
ALEXNET: Mapping[str, float] = {
    "gaussian_noise": 0.886428,
    "shot_noise": 0.894468,
    "impulse_noise": 0.922640,
    "defocus_blur": 0.819880,
    "glass_blur": 0.826268,
    "motion_blur": 0.785948,
    "zoom_blur": 0.798360,
    "snow": 0.866816,
    "frost": 0.826572,
    "fog": 0.819324,
    "brightness": 0.564592,
    "contrast": 0.853204,
    "elastic_transform": 0.646056,
    "pixelate": 0.717840,
    "jpeg_compression": 0.606500,
}
"""AlexNet's mean error over the five severities on ImageNet-C, for the fifteen corruptions of mCE."""


@dataclass(frozen=True, kw_only=True)
class CorruptionErrors:
    """The errors of one head of a classifier; a `Proportion` here counts wrong decisions."""

    classifier: str
    head: str
    errors: Mapping[str, tuple[Proportion, ...]]
    """Corruption -> severities 1 to 5."""
    clean: Proportion | None
    """None where there are no decisions on clean images."""

    @property
    def title(self) -> str:
        """Whose they are, for a legend."""
        return f"{self.classifier}, {self.head}"

    def mean(self, corruption: str) -> float:
        """The mean error over the severities, in [0,1]."""
        return fmean(error.share for error in self.errors[corruption])

    def ce(self, corruption: str) -> float | None:
        """The mean error as a share of AlexNet's; None for a corruption outside the fifteen."""
        return self.mean(corruption) / ALEXNET[corruption] if corruption in ALEXNET else None

    def relative_ce(self, corruption: str) -> float | None:
        """What corruption adds to the clean error, as a share of what it adds to AlexNet's; None without either."""
        if corruption not in ALEXNET or self.clean is None:
            return None
        return (self.mean(corruption) - self.clean.share) / (ALEXNET[corruption] - ALEXNET_CLEAN)

    @property
    def mean_error(self) -> float | None:
        """The plain error over the fifteen corruptions and their severities; None where some are missing."""
        return _mean([self.mean(name) if name in self.errors else None for name in ALEXNET])

    @property
    def mce(self) -> float | None:
        """The mean of CE over the fifteen, 1 for AlexNet (published in percent); None where some are missing."""
        return _mean([self.ce(name) if name in self.errors else None for name in ALEXNET])

    @property
    def relative_mce(self) -> float | None:
        """The mean of the relative CE over the fifteen; None where some, or the clean decisions, are missing."""
        return _mean([self.relative_ce(name) if name in self.errors else None for name in ALEXNET])


def condition(corruption: str, severity: int) -> str:
    """The condition of a corrupted split, "fog/3"."""
    return f"{corruption}/{severity}"


def corruption_errors(predictions: Predictions) -> list[CorruptionErrors]:
    """The errors of every head of every classifier; corruptions in the paper's order, others after them.

    Raises ArtifactError where a head lacks a severity or has one that does not exist.
    """
    rows = predictions.of(IMAGENET_C)
    return [
        _of(rows[(rows["classifier"] == name) & (rows["head"] == head)], predictions, classifier=name, head=head)
        for name in predictions.classifiers
        for head in predictions.heads(name)
        if ((rows["classifier"] == name) & (rows["head"] == head)).any()
    ]


def wrong(rows: pd.DataFrame) -> dict[str, Proportion]:
    """Condition -> how often `top_1` is not the label."""
    counts = (rows["top_1"] != rows["label"]).groupby(rows["condition"]).agg(["sum", "size"])
    return {
        str(name): Proportion(hits=int(hits), images=int(images))
        for name, hits, images in zip(counts.index, counts["sum"], counts["size"], strict=True)
    }


def _of(rows: pd.DataFrame, predictions: Predictions, *, classifier: str, head: str) -> CorruptionErrors:
    found = wrong(rows)
    clean = found.pop(CLEAN, None)
    if clean is None and len(plain := predictions.of(CLEAN, classifier=classifier, head=head)):
        clean = Proportion(hits=int((plain["top_1"] != plain["label"]).sum()), images=len(plain))
    present = {name.rpartition("/")[0] for name in found}
    order = [*(name for name in ALEXNET if name in present), *sorted(present - set(ALEXNET))]
    expected = {condition(name, severity) for name in order for severity in SEVERITIES}
    _check(classifier, found=set(found), expected=expected)
    errors = {name: tuple(found[condition(name, severity)] for severity in SEVERITIES) for name in order}
    return CorruptionErrors(classifier=classifier, head=head, errors=errors, clean=clean)


def _check(classifier: str, *, found: set[str], expected: set[str]) -> None:
    if unknown := sorted(found - expected):
        raise ArtifactError(f"decisions of {classifier} under {', '.join(unknown)}: severities are 1 to 5")
    if missing := sorted(expected - found):
        raise ArtifactError(
            f"decisions of {classifier} lack {', '.join(missing)}: a corruption counts with all five severities; "
            "run evaluate again"
        )


def _mean(values: list[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return fmean(known) if len(known) == len(values) else None


@dataclass(frozen=True, kw_only=True)
class CorruptionEstimates:
    """The numbers of one head; a number that cannot be computed is None or has no key."""

    errors: Mapping[str, Estimate]
    """Corruption -> mean error over the severities, in [0,1]."""
    ce: Mapping[str, Estimate]
    """As a share of AlexNet's, for corruptions of the fifteen."""
    relative_ce: Mapping[str, Estimate]
    mean_error: Estimate | None
    mce: Estimate | None
    relative_mce: Estimate | None


def corruption_estimates(predictions: Predictions, one: CorruptionErrors) -> CorruptionEstimates:
    """Intervals for what `corruption_errors` found for one head of the same predictions."""
    outcomes = _outcomes(predictions, one)
    errors = {name: mean_error(outcomes, _spread({name: 1.0})) for name in one.errors}
    relative = {name: 1 / (error - ALEXNET_CLEAN) for name, error in ALEXNET.items()}
    whole = all(name in one.errors for name in ALEXNET)
    fifteenth = 1 / len(ALEXNET)
    return CorruptionEstimates(
        errors=errors,
        ce={name: error.times(1 / ALEXNET[name]) for name, error in errors.items() if name in ALEXNET},
        relative_ce={
            name: weighted(outcomes, _above_clean({name: relative[name]}))
            for name in one.errors
            if name in ALEXNET and one.clean
        },
        mean_error=mean_error(outcomes, _spread(dict.fromkeys(ALEXNET, fifteenth))) if whole else None,
        mce=weighted(outcomes, _spread({n: fifteenth / error for n, error in ALEXNET.items()})) if whole else None,
        relative_mce=weighted(outcomes, _above_clean({name: fifteenth * factor for name, factor in relative.items()}))
        if whole and one.clean
        else None,
    )


def _outcomes(predictions: Predictions, one: CorruptionErrors) -> pd.DataFrame:
    """Picture x condition: 1 where `top_1` is not the label; clean decisions under CLEAN."""
    rows = predictions.of(IMAGENET_C, classifier=one.classifier, head=one.head)
    if not (rows["condition"] == CLEAN).any():
        plain = predictions.of(CLEAN, classifier=one.classifier, head=one.head)
        rows = pd.concat([rows, plain.assign(condition=CLEAN)])
    marked = rows.assign(wrong=(rows["top_1"] != rows["label"]).astype(float))
    return marked.pivot_table(index="image", columns="condition", values="wrong")


def _spread(factors: Mapping[str, float]) -> dict[str, float]:
    """A corruption's factor, evenly over its severities."""
    return {
        condition(name, severity): factor / len(SEVERITIES)
        for name, factor in factors.items()
        for severity in SEVERITIES
    }


def _above_clean(factors: Mapping[str, float]) -> dict[str, float]:
    """The same for what an error has above the clean one."""
    return _spread(factors) | {CLEAN: -sum(factors.values())}

"""Corruption errors: how often a classifier is wrong under each corruption, alone and against AlexNet.

Hendrycks & Dietterich, "Benchmarking neural network robustness to common corruptions and perturbations", ICLR 2019:
CE_c = sum over the severities of the error / the same of AlexNet; mCE is the mean of CE over fifteen corruptions; the
relative CE subtracts the clean error from every error, of the classifier as of AlexNet.
Decided here: a condition of the suite is "<corruption>/<severity>", or "clean": the same pictures before they were
corrupted; where it is missing, as with ImageNet-C's own files, the clean error is that of the suite `clean`. A
corruption counts with all its severities or is refused; mCE is given where all fifteen are there. On other images than
ImageNet's 50,000 (Mini-ImageNet-C's are 3,923) the AlexNet of the paper is a mere yardstick: such a CE is not
comparable with a published one, and the plain error belongs beside it.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from statistics import fmean

import pandas as pd

from cgn.core.errors import ArtifactError
from cgn.evaluation.accuracy import Proportion
from cgn.evaluation.examination import Examination

SUITE = "imagenet_c"
SEVERITIES = (1, 2, 3, 4, 5)
CLEAN = "clean"
"""The condition, and the suite, of pictures that nothing was done to."""
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


def corruption_errors(examination: Examination) -> list[CorruptionErrors]:
    """The errors of every head of every classifier; corruptions in the paper's order, others after them.

    Raises ArtifactError where a head lacks a severity or has one that does not exist.
    """
    rows = examination.of(SUITE)
    return [
        _of(rows[(rows["classifier"] == name) & (rows["head"] == head)], examination, classifier=name, head=head)
        for name in examination.classifiers
        for head in examination.heads(name)
        if ((rows["classifier"] == name) & (rows["head"] == head)).any()
    ]


def wrong(rows: pd.DataFrame) -> dict[str, Proportion]:
    """Condition -> how often `top_1` is not the label."""
    counts = (rows["top_1"] != rows["label"]).groupby(rows["condition"]).agg(["sum", "size"])
    return {
        str(name): Proportion(hits=int(hits), images=int(images))
        for name, hits, images in zip(counts.index, counts["sum"], counts["size"], strict=True)
    }


def _of(rows: pd.DataFrame, examination: Examination, *, classifier: str, head: str) -> CorruptionErrors:
    found = wrong(rows)
    clean = found.pop(CLEAN, None)
    if clean is None and len(plain := examination.of(CLEAN, classifier=classifier, head=head)):
        clean = Proportion(hits=int((plain["top_1"] != plain["label"]).sum()), images=len(plain))
    present = {name.rpartition("/")[0] for name in found}
    order = [*(name for name in ALEXNET if name in present), *sorted(present - set(ALEXNET))]
    expected = {condition(name, severity) for name in order for severity in SEVERITIES}
    _check(classifier, made=set(found), expected=expected)
    errors = {name: tuple(found[condition(name, severity)] for severity in SEVERITIES) for name in order}
    return CorruptionErrors(classifier=classifier, head=head, errors=errors, clean=clean)


def _check(classifier: str, *, made: set[str], expected: set[str]) -> None:
    if unknown := sorted(made - expected):
        raise ArtifactError(f"decisions of {classifier} under {', '.join(unknown)}: severities are 1 to 5")
    if missing := sorted(expected - made):
        raise ArtifactError(
            f"decisions of {classifier} lack {', '.join(missing)}: a corruption counts with all five severities; "
            "run evaluate again"
        )


def _mean(values: list[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return fmean(known) if len(known) == len(values) else None

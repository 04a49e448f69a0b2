"""What was published for the MNIST variants: accuracies, each with its source.

Only numbers that a source prints. `digits` is this project's own small benchmark and has none.
"""

from dataclasses import dataclass

from cgn.report.page import PAPER, REPLICATION

VARIANTS = ("colored", "double_colored", "wildlife")
_GAN = "published: original + GAN samples"

_TABLE: tuple[tuple[str, str, str | None, tuple[tuple[float, float], ...]], ...] = (
    (PAPER, "original", None, ((99.5, 35.9), (100.0, 10.3), (100.0, 10.1))),
    (PAPER, "gan", _GAN, ((99.8, 40.7), (100.0, 10.8), (100.0, 10.4))),
    (PAPER, "original_counterfactual", None, ((99.7, 95.1), (97.4, 89.0), (99.2, 85.7))),
    (REPLICATION, "counterfactual", None, ((99.4, 92.3), (94.8, 86.5), (95.5, 81.4))),
    (REPLICATION, "original_counterfactual", None, ((99.2, 95.9), (96.9, 85.5), (96.8, 62.8))),
)
"""Source, arm, remark, and (train, test) accuracy in percent for each of VARIANTS."""


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


def published_accuracies(variant: str) -> tuple[Published, ...]:
    """The published accuracies of a variant or of the paper's that it cuts short (`_cpu`); none for `digits`."""
    return tuple(
        Published(variant=name, arm=arm, source=source, train=train, test=test, remark=remark)
        for source, arm, remark, accuracies in _TABLE
        for name, (train, test) in zip(VARIANTS, accuracies, strict=True)
        if name == variant.removesuffix("_cpu")
    )

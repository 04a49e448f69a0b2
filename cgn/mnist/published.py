"""What was published for the MNIST variants: accuracies, and the settings they were reached with, each with its source.

Only numbers that a source prints. `digits` is this project's own small benchmark and has none.
"""

from collections.abc import Mapping
from typing import Any

from cgn.evaluation.results import Published
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

_COMMON: Mapping[str, Any] = {
    "prepare.digits": "mnist",
    "prepare.image_size": 32,
    "prepare.train_images": 50_000,
    "train_cgn.mechanisms.shape_width": 32,
    "train_cgn.mechanisms.tile_width": 32,
    "train_cgn.mechanisms.noise_size": 32,
    "train_cgn.mechanisms.tile_contrast": 1.0,
    "train_cgn.discriminator.projection": 0,
    "train_cgn.losses.adversarial": 1.0,
    "train_cgn.losses.mismatched": 0.0,
    "train_cgn.losses.mask_size.weight": 0.0,
    "train_cgn.losses.border.weight": 0.0,
    "train_cgn.losses.energy": 0.0,
    "train_cgn.losses.perceptual.features": "vgg16",
    "train_cgn.optimizer.generator_rate": 2.0e-4,
    "train_cgn.optimizer.discriminator_rate": 2.0e-4,
    "train_cgn.optimizer.beta1": 0.5,
    "train_cgn.optimizer.beta2": 0.999,
    "train_cgn.optimizer.decay_fraction": 0.0,
    "train_cgn.batch_size": 16,
    "train_cgn.images_per_class": 1,
    "train_cgn.updates": 46_875,
    "train_cgn.ema_decay": 0.0,
    "train_cgn.precision": "32-true",
    "generate.counterfactual_images": 100_000,
    "generate.images_per_mask": 10,
    "train_classifier.learning_rate": 1.0,
    "train_classifier.decay_per_epoch": 0.7,
    "train_classifier.batch_size": 64,
    "train_classifier.epochs": 10,
    "train_classifier.precision": "32-true",
}

_LINEAR = {"train_cgn.discriminator.linear": 512, "train_cgn.discriminator.conv": 0}
_CONV = {"train_cgn.discriminator.linear": 0, "train_cgn.discriminator.conv": 32}

_OWN: Mapping[str, Mapping[str, Any]] = {
    "colored": {
        "train_cgn.mechanisms.initialization": "orthogonal",
        "train_cgn.mechanisms.gain": 0.1,
        **_LINEAR,
        "train_cgn.losses.binary": 0.1,
        "train_cgn.losses.perceptual.weights": [0.05, 0.1, 0.01, 0.0],
    },
    "double_colored": {
        "prepare.color_deviation": 0.01,
        "train_cgn.mechanisms.initialization": "orthogonal",
        "train_cgn.mechanisms.gain": 0.2,
        **_LINEAR,
        "train_cgn.losses.binary": 0.3,
        "train_cgn.losses.perceptual.weights": [0.0, 0.05, 0.0, 0.05],
    },
    "wildlife": {
        "train_cgn.mechanisms.initialization": "normal",
        "train_cgn.mechanisms.gain": 0.03,
        **_CONV,
        "train_cgn.losses.binary": 0.3,
        "train_cgn.losses.perceptual.weights": [0.01, 0.05, 0.0, 0.01],
    },
}


def published(variant: str) -> tuple[Published, ...]:
    """The published accuracies of a variant or of the paper's that it cuts short (`_cpu`); none for `digits`."""
    return tuple(
        Published(variant=name, arm=arm, source=source, train=train, test=test, remark=remark)
        for source, arm, remark, accuracies in _TABLE
        for name, (train, test) in zip(VARIANTS, accuracies, strict=True)
        if name == variant.removesuffix("_cpu")
    )


def settings(variant: str) -> Mapping[str, Any]:
    """Dotted parameter -> the published value, for what decides the numbers; none for `digits`."""
    look = variant.removesuffix("_cpu")
    return {**_COMMON, **_OWN[look]} if look in _OWN else {}

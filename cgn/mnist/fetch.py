"""Fetch the files that a variant of the MNIST track reads: its digits, its textures and its pretrained features."""

from pathlib import Path

from cgn.config.mnist import Fetch
from cgn.core.arguments import Output, Parameter
from cgn.core.metrics import MetricSink
from cgn.download.assets import fetch_all, list_all
from cgn.download.sources import (
    BACKGROUND_TEXTURES,
    MNIST_IMAGES,
    MNIST_LABELS,
    OBJECT_TEXTURES,
    SCIKIT_LEARN_DIGITS,
    SQUEEZENET,
    VGG16,
    Asset,
    Embedded,
)

DIGITS: dict[str, tuple[Asset, ...]] = {"mnist": (MNIST_IMAGES, MNIST_LABELS), "scikit-learn": ()}
EMBEDDED: dict[str, tuple[Embedded, ...]] = {"mnist": (), "scikit-learn": (SCIKIT_LEARN_DIGITS,)}
LOOKS: dict[str, tuple[Asset, ...]] = {
    "colored": (),
    "double_colored": (),
    "wildlife": OBJECT_TEXTURES + BACKGROUND_TEXTURES,
}
FEATURES: dict[str, tuple[Asset, ...]] = {"none": (), "squeezenet": (SQUEEZENET,), "vgg16": (VGG16,)}


def fetch(
    _: Fetch, *, digits: Parameter, look: Parameter, features: Parameter, assets: Output, sink: MetricSink
) -> None:
    """Put into `assets` what prepare (`digits`, `look`) and train_cgn (`features`) read, and sources.json."""
    wanted = wanted_assets(digits=digits, look=look, features=features)
    sink.summary(fetch_all(wanted, assets, embedded=EMBEDDED[digits]))


def listing(_: Fetch, *, digits: str, look: str, features: str, assets: Path) -> list[str]:
    """What fetch would do, a line for each file. Writes nothing."""
    wanted = wanted_assets(digits=digits, look=look, features=features)
    return list_all(wanted, assets, embedded=EMBEDDED[digits])


def wanted_assets(*, digits: str, look: str, features: str) -> tuple[Asset, ...]:
    """The files to download."""
    return DIGITS[digits] + LOOKS[look] + FEATURES[features]

"""mnist fetch: the assets that a variant's digits, look and perceptual features call for."""

from cgn.config.mnist import Fetch
from cgn.data.sources import (
    BACKGROUND_TEXTURES,
    MNIST_IMAGES,
    MNIST_LABELS,
    OBJECT_TEXTURES,
    SCIKIT_LEARN_DIGITS,
    SQUEEZENET,
    VGG16,
    Asset,
)
from cgn.stages.fetch import Parts

DIGITS: dict[str, tuple[Asset, ...]] = {"mnist": (MNIST_IMAGES, MNIST_LABELS), "scikit-learn": ()}
LOOKS: dict[str, tuple[Asset, ...]] = {
    "colored": (),
    "double_colored": (),
    "wildlife": OBJECT_TEXTURES + BACKGROUND_TEXTURES,
}
FEATURES: dict[str, tuple[Asset, ...]] = {"none": (), "squeezenet": (SQUEEZENET,), "vgg16": (VGG16,)}


def parts(params: Fetch, *, digits: str, look: str, features: str, **_: object) -> Parts:
    """What prepare (digits, look) and train_cgn (features) will read; the seed and the variant decide nothing."""
    del params  # it has no parameter
    embedded = (SCIKIT_LEARN_DIGITS,) if digits == "scikit-learn" else ()
    return Parts(assets=DIGITS[digits] + LOOKS[look] + FEATURES[features], embedded=embedded)

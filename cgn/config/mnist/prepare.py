"""mnist prepare: which digits, which look, how many."""

from dataclasses import dataclass
from typing import Literal

from cgn.config.record import require


@dataclass(frozen=True, kw_only=True)
class Jitter:
    """Random similarity transforms of the training digits; each is drawn uniformly from +- its range."""

    copies: int
    rotation_degrees: float
    scale: float
    shift: float
    """Fraction of the image size."""

    def __post_init__(self) -> None:
        require(self.copies >= 1, "copies", self.copies, "1 or more")
        require(0 <= self.rotation_degrees <= 180, "rotation_degrees", self.rotation_degrees, "0 to 180")
        require(0 <= self.scale < 1, "scale", self.scale, "0 up to 1")
        require(0 <= self.shift < 0.5, "shift", self.shift, "0 up to 0.5")


@dataclass(frozen=True, kw_only=True)
class Prepare:
    """The data set of a variant. Labels decide the look in training; in the randomised test set chance does."""

    digits: Literal["mnist", "scikit-learn"]
    look: Literal["colored", "double_colored", "wildlife"]
    image_size: int
    train_images: int
    """Of the training digits, the first so many (MNIST: up to 50,000; scikit-learn: up to 1,297)."""
    color_deviation: float
    """Standard deviation of the colour's jitter, colours in [0,1]; no meaning for wildlife."""
    jitter: Jitter | None
    images_per_shard: int

    def __post_init__(self) -> None:
        require(self.image_size >= 16 and self.image_size % 4 == 0, "image_size", self.image_size, "16, 20, 24, ...")
        most = 50_000 if self.digits == "mnist" else 1_297
        require(1 <= self.train_images <= most, "train_images", self.train_images, f"1 to {most:,} for {self.digits}")
        require(0 <= self.color_deviation < 1, "color_deviation", self.color_deviation, "0 up to 1")
        require(self.images_per_shard >= 1, "images_per_shard", self.images_per_shard, "1 or more")

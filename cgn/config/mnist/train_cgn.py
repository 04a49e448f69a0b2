"""mnist train_cgn: nets, losses, optimizers and intervals of the adversarial training."""

from dataclasses import dataclass
from typing import Literal

from cgn.config.record import require
from cgn.config.training import Intervals, MaskSize


@dataclass(frozen=True, kw_only=True)
class Mechanisms:
    """The three conv generators; 32 wide as published."""

    shape_width: int
    tile_width: int
    """Of the nets that make texture and background tiles; narrower ones do for plain colours."""
    tile_contrast: float
    """Of untrained tiles, relative to the published start (1)."""
    noise_size: int
    initialization: Literal["orthogonal", "normal"]
    gain: float

    def __post_init__(self) -> None:
        require(self.shape_width >= 1, "shape_width", self.shape_width, "1 or more")
        require(self.tile_width >= 1, "tile_width", self.tile_width, "1 or more")
        require(self.tile_contrast > 0, "tile_contrast", self.tile_contrast, "above 0")
        require(self.noise_size >= 1, "noise_size", self.noise_size, "1 or more")
        require(self.gain > 0, "gain", self.gain, "above 0")


@dataclass(frozen=True, kw_only=True)
class Discriminator:
    """Widths of the label-conditioned critics, 0 for none; of several, the losses are averaged.

    Published: linear for the colour variants, conv for wildlife.
    """

    linear: int
    conv: int
    projection: int

    def __post_init__(self) -> None:
        for name in ("linear", "conv", "projection"):
            require(getattr(self, name) >= 0, name, getattr(self, name), "0 or more")
        require(
            self.linear + self.conv + self.projection > 0,
            "linear",
            self.linear,
            "above 0 where conv and projection are 0",
        )


@dataclass(frozen=True, kw_only=True)
class Border:
    """Hinge on the mean of each mask's outermost `width` pixels above `largest`: it forbids inverted masks."""

    weight: float
    width: int
    largest: float

    def __post_init__(self) -> None:
        require(self.weight >= 0, "weight", self.weight, "0 or more")
        require(self.width >= 1, "width", self.width, "1 or more")
        require(0 <= self.largest <= 1, "largest", self.largest, "0 to 1")


@dataclass(frozen=True, kw_only=True)
class Perceptual:
    """Gram style between the generated and the real batch, at four layers of a pretrained net."""

    features: Literal["none", "squeezenet", "vgg16"]
    weights: tuple[float, float, float, float]

    def __post_init__(self) -> None:
        require(min(self.weights) >= 0, "weights", self.weights, "four weights of 0 or more")


@dataclass(frozen=True, kw_only=True)
class Losses:
    """Weights of the losses; 0 leaves a loss out."""

    adversarial: float
    mismatched: float
    """Of the discriminator's loss on real images under a wrong label (Reed et al., ICML 2016); published: 0."""
    binary: float
    mask_size: MaskSize
    border: Border
    energy: float
    """Of the energy distance between generated and real images of one class; published: 0."""
    perceptual: Perceptual

    def __post_init__(self) -> None:
        for name in ("adversarial", "mismatched", "binary", "energy"):
            require(getattr(self, name) >= 0, name, getattr(self, name), "0 or more")


@dataclass(frozen=True, kw_only=True)
class Optimizer:
    """Adam; the rate falls linearly to zero over the last `decay_fraction` of the updates."""

    generator_rate: float
    discriminator_rate: float
    beta1: float
    beta2: float
    decay_fraction: float

    def __post_init__(self) -> None:
        require(self.generator_rate > 0, "generator_rate", self.generator_rate, "above 0")
        require(self.discriminator_rate > 0, "discriminator_rate", self.discriminator_rate, "above 0")
        require(0 <= self.beta1 < 1, "beta1", self.beta1, "0 up to 1")
        require(0 <= self.beta2 < 1, "beta2", self.beta2, "0 up to 1")
        require(0 <= self.decay_fraction <= 1, "decay_fraction", self.decay_fraction, "0 to 1")


@dataclass(frozen=True, kw_only=True)
class TrainCgn:
    """Everything the training of a variant depends on, besides its data and the seed."""

    mechanisms: Mechanisms
    discriminator: Discriminator
    losses: Losses
    optimizer: Optimizer
    batch_size: int
    images_per_class: int
    """How many images of one class a batch has side by side, classes equally often; 1: epochs, as published."""
    updates: int
    ema_decay: float
    """Decay of the running average of the weights that is saved; 0 saves the last weights, as published."""
    intervals: Intervals
    accelerator: Literal["auto", "cpu", "cuda"]
    precision: Literal["32-true", "bf16-mixed"]

    def __post_init__(self) -> None:
        require(self.batch_size >= 2, "batch_size", self.batch_size, "2 or more")
        group, least = self.images_per_class, 2 if self.losses.energy else 1
        require(group >= least, "images_per_class", group, "1 or more, 2 or more with losses.energy")
        whole = self.batch_size % group == 0
        require(whole, "batch_size", self.batch_size, f"a multiple of images_per_class, which is {group}")
        require(self.updates >= 1, "updates", self.updates, "1 or more")
        require(0 <= self.ema_decay < 1, "ema_decay", self.ema_decay, "0 up to 1")

"""imagenet train_cgn: pretrained nets, losses, rates and batches of the mechanisms' training."""

from dataclasses import dataclass
from typing import Literal

from cgn.config.record import require
from cgn.config.training import Intervals, MaskSize

GRID = "0.02, 0.04, ..., 1 (BigGAN has statistics for these)"
Four = tuple[float, float, float, float]


@dataclass(frozen=True, kw_only=True)
class Patches:
    """What the foreground is to look like: a grid of patches from inside the object; published: 128, 15, 100, 6."""

    resolution: int
    """Images are resized to this before patches are cut, in pixels."""
    size: int
    best: int
    """So many places with the highest mean mask are drawn from."""
    grid: int
    """Patches along a side."""

    def __post_init__(self) -> None:
        require(self.resolution >= 1, "resolution", self.resolution, "1 or more")
        require(1 <= self.size <= self.resolution, "size", self.size, "1 to resolution")
        places = (self.resolution - self.size + 1) ** 2
        require(1 <= self.best <= places, "best", self.best, f"1 to {places:,}, as many places as there are")
        require(self.grid >= 1, "grid", self.grid, "1 or more")


@dataclass(frozen=True, kw_only=True)
class Losses:
    """Weights; 0 leaves a loss out. Published: 100, (4, 4, 4, 4), 300, 500, (0, 5, 5, 0), 2000."""

    l1: float
    perceptual: Four
    """Gram style of the composite against the cGAN's image, by layer of the features."""
    binary: float
    mask_size: MaskSize
    texture: Four
    """Gram style of the foreground against patches from inside the object."""
    background: float

    def __post_init__(self) -> None:
        for name in ("l1", "binary", "background"):
            require(getattr(self, name) >= 0, name, getattr(self, name), "0 or more")
        for name in ("perceptual", "texture"):
            require(min(getattr(self, name)) >= 0, name, getattr(self, name), "four weights of 0 or more")
        weights = (self.l1, *self.perceptual, self.binary, self.mask_size.weight, *self.texture, self.background)
        require(max(weights) > 0, "l1", self.l1, "above 0 where every other weight is 0")


@dataclass(frozen=True, kw_only=True)
class Rates:
    """Adam's learning rates; published code: 8e-6, 3e-5, 1e-5."""

    shape: float
    texture: float
    background: float
    beta1: float
    beta2: float
    decay_fraction: float
    """The rates fall linearly to zero over this last part of the updates; published: 0."""

    def __post_init__(self) -> None:
        for name in ("shape", "texture", "background"):
            require(getattr(self, name) > 0, name, getattr(self, name), "above 0")
        for name in ("beta1", "beta2"):
            require(0 <= getattr(self, name) < 1, name, getattr(self, name), "0 up to 1")
        require(0 <= self.decay_fraction <= 1, "decay_fraction", self.decay_fraction, "0 to 1")


@dataclass(frozen=True, kw_only=True)
class TrainCgn:
    """Everything the training of a variant depends on, besides its assets and the seed."""

    nets: Literal["miniature", "published"]
    """Which pretrained BigGAN, U2-Net and perceptual features."""
    truncation: float
    losses: Losses
    patches: Patches
    rates: Rates
    batch_size: int
    """Images in one forward pass, each of a class of its own; published: 1."""
    batches_per_update: int
    """Their gradients are summed, not averaged (published: 4,000)."""
    updates: int
    ema_decay: float
    checkpointing: Literal["none", "blocks"]
    """`blocks` keeps no maps inside BigGAN's blocks for the way back but computes them again."""
    intervals: Intervals
    accelerator: Literal["auto", "cpu", "cuda"]
    devices: int
    precision: Literal["32-true", "bf16-mixed"]

    def __post_init__(self) -> None:
        for name in ("batch_size", "batches_per_update", "updates", "devices"):
            require(getattr(self, name) >= 1, name, getattr(self, name), "1 or more")
        steps = self.truncation * 50
        require(1 <= steps <= 50 and abs(steps - round(steps)) < 1e-6, "truncation", self.truncation, GRID)
        most = self.batches_per_update
        require(self.devices <= most, "devices", self.devices, f"1 to {most}: a batch of each update for every device")
        require(0 <= self.ema_decay < 1, "ema_decay", self.ema_decay, "0 up to 1")

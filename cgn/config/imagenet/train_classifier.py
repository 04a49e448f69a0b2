"""imagenet train_classifier: the ensemble of invariant classifiers and its baseline."""

from dataclasses import dataclass
from typing import Literal

from cgn.config.record import require


@dataclass(frozen=True, kw_only=True)
class TrainClassifier:
    """Published: ResNet-50 from V1 weights, SGD 1e-3, momentum 0.9, weight decay 1e-4, x 0.1 every 15 of 45 epochs."""

    backbone: str
    """A classification network of torchvision, by its name there."""
    pretrained: Literal["none", "resnet50-0676ba61"]
    batch_norm: Literal["frozen", "trained"]
    image_size: int
    """Crop in training; in tests the shorter side becomes `image_size` * 256 / 224 before the central crop."""
    smallest_crop: float
    """Least share of a picture's area that a random resized crop shows; torchvision's default: 0.08."""
    learning_rate: float
    momentum: float
    weight_decay: float
    decay_factor: float
    decay_epochs: int
    """The rate is multiplied by the factor each so many epochs."""
    epochs: int
    batch_size: int
    """Real images in a batch, of all devices together; an epoch is one pass through them."""
    counterfactuals_per_real: float
    """Published: 1."""
    workers: int
    """Processes that decode, for each device; 0: the training's own, which keeps small pictures in memory."""
    log_updates: int
    checkpoint_updates: int
    accelerator: Literal["auto", "cpu", "cuda"]
    devices: int
    precision: Literal["32-true", "bf16-mixed"]

    @property
    def counterfactuals_per_update(self) -> int:
        """Counterfactual images in a batch, of all devices together; at least one for each."""
        return max(1, round(self.batch_size * self.counterfactuals_per_real / self.devices)) * self.devices

    def __post_init__(self) -> None:
        for name in ("learning_rate", "decay_factor", "counterfactuals_per_real"):
            require(getattr(self, name) > 0, name, getattr(self, name), "above 0")
        require(0 <= self.momentum < 1, "momentum", self.momentum, "0 up to 1")
        require(self.weight_decay >= 0, "weight_decay", self.weight_decay, "0 or more")
        require(0 < self.smallest_crop <= 1, "smallest_crop", self.smallest_crop, "above 0, up to 1")
        require(self.workers >= 0, "workers", self.workers, "0 or more")
        at_least_one = ("image_size", "decay_epochs", "epochs", "batch_size", "log_updates", "checkpoint_updates")
        for name in (*at_least_one, "devices"):
            require(getattr(self, name) >= 1, name, getattr(self, name), "1 or more")
        shared = self.batch_size % self.devices == 0
        require(shared, "batch_size", self.batch_size, f"a multiple of devices, which is {self.devices}")
        fits = self.pretrained == "none" or self.pretrained.startswith(f"{self.backbone}-")
        require(fits, "pretrained", self.pretrained, f"none, or a file of the backbone, which is {self.backbone}")

"""mnist train_classifier: the small CNN and its Adadelta."""

from dataclasses import dataclass
from typing import Literal

from cgn.config.record import require


@dataclass(frozen=True, kw_only=True)
class TrainClassifier:
    """Published: Adadelta at 1.0, x 0.7 an epoch, batch 64, 10 epochs."""

    learning_rate: float
    decay_per_epoch: float
    batch_size: int
    epochs: int
    log_updates: int
    checkpoint_updates: int
    accelerator: Literal["auto", "cpu", "cuda"]
    precision: Literal["32-true", "bf16-mixed"]

    def __post_init__(self) -> None:
        require(self.learning_rate > 0, "learning_rate", self.learning_rate, "above 0")
        require(0 < self.decay_per_epoch <= 1, "decay_per_epoch", self.decay_per_epoch, "above 0, up to 1")
        for name in ("batch_size", "epochs", "log_updates", "checkpoint_updates"):
            require(getattr(self, name) >= 1, name, getattr(self, name), "1 or more")

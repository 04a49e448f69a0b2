"""What the invariant training is given, and what it gives back.

Legend: R real pictures and C counterfactuals in a batch, S image size.
Decided here: a batch is known by what it holds, not by its class, so whoever reads the pictures need not know of the
training. An epoch is a pass through the real pictures, and batches are all full.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch


class Batch(Protocol):
    """`pixels`: (R+C,3,S,S) uint8, the real ones first. `label`: (R,) int64. `labels`: (C,) of each head, or none."""

    @property
    def pixels(self) -> torch.Tensor: ...
    @property
    def label(self) -> torch.Tensor: ...
    @property
    def labels(self) -> Mapping[str, torch.Tensor]: ...
    @property
    def unreadable(self) -> Sequence[str]: ...


@dataclass(frozen=True, kw_only=True)
class Schedule:
    """SGD's rate, multiplied by `decay_factor` each `decay_epochs`, and how often what happens."""

    learning_rate: float
    momentum: float
    weight_decay: float
    decay_factor: float
    decay_epochs: int
    epochs: int
    batch_size: int
    """Real pictures in the batch of all ranks together."""
    log_updates: int
    checkpoint_updates: int

    def updates(self, pictures: int) -> int:
        """So many batches hold `epochs` passes through the real pictures; the last may go a little further."""
        return -(-self.epochs * pictures // self.batch_size)

    def rate(self, epoch: int) -> float:
        """The learning rate in epoch 0, 1, ..."""
        return self.learning_rate * self.decay_factor ** (epoch // self.decay_epochs)


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What the last epoch measured of itself while it trained, and what the whole training took."""

    measured: Mapping[str, float]
    unreadable: tuple[str, ...]
    images: int
    """Real and counterfactual, of all updates."""
    updates: int
    seconds: float

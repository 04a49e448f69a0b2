"""Supervised training of a classifier on images in memory, for the loop in `classifying`.

Legend: N images, B batch, H height, W width, K classes.
Decided here: an epoch is a permutation that is a pure function of (seed, epoch), its incomplete last batch included.
Images stay uint8 until their batch; floats made once instead of a batch at a time would gain nothing.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch.nn import functional

from cgn.core.seeding import torch_stream
from cgn.training.classifying import Classifying, Judged, Plan, share

if TYPE_CHECKING:
    from lightning_fabric import Fabric


@dataclass(frozen=True, kw_only=True)
class Schedule:
    """Adadelta's rate, multiplied by `decay_per_epoch`, and how often what happens."""

    learning_rate: float
    decay_per_epoch: float
    batch_size: int
    epochs: int
    log_updates: int
    checkpoint_updates: int

    def plan(self, images: int) -> Plan:
        """The plan for so many images."""
        per_epoch = -(-images // self.batch_size)
        return Plan(
            updates=per_epoch * self.epochs,
            epochs=self.epochs,
            epoch=lambda update: update // per_epoch,
            rate=lambda epoch: self.learning_rate * self.decay_per_epoch**epoch,
            batch_size=self.batch_size,
            log_updates=self.log_updates,
            checkpoint_updates=self.checkpoint_updates,
        )


@dataclass(frozen=True, kw_only=True)
class Examples:
    """`pixels`: (N,H,W,3) uint8. `labels`: (N,) int64. A batch of them is the same thing."""

    pixels: torch.Tensor
    labels: torch.Tensor

    def of(self, chosen: torch.Tensor) -> "Examples":
        """Some of them."""
        return Examples(pixels=self.pixels.index_select(0, chosen), labels=self.labels.index_select(0, chosen))

    def to(self, device: torch.device) -> "Examples":
        """The same on another device."""
        return Examples(pixels=self.pixels.to(device), labels=self.labels.to(device))


def supervised(
    classifier: torch.nn.Module, *, examples: Examples, schedule: Schedule, seed: int, fabric: "Fabric"
) -> Classifying[Examples]:
    """The training, in one process, of a classifier: (B,3,H,W) in [-1,1] -> log-probabilities (B,K)."""
    assert fabric.world_size == 1, "every rank would be given the same batches"
    near, count = _near(examples, device=fabric.device), len(examples.labels)
    plan = schedule.plan(count)

    def batches(start: int) -> Iterator[Examples]:
        per_epoch = plan.updates // plan.epochs
        for epoch in range(start // per_epoch, plan.epochs):
            order = torch.randperm(count, generator=torch_stream(seed, "epoch", epoch)).to(near.labels.device)
            for chosen in torch.split(order, schedule.batch_size)[max(start - epoch * per_epoch, 0) :]:
                yield near.of(chosen)

    def judge(module: torch.nn.Module, batch: Examples) -> Judged:
        held = batch.to(fabric.device)
        answers = module(held.pixels.permute(0, 3, 1, 2).to(torch.float32).div_(127.5).sub_(1))
        loss = functional.nll_loss(answers, held.labels)
        return Judged(
            loss=loss, told={"loss": loss, "running_accuracy": share(answers, held.labels)}, images=len(held.labels)
        )

    optimizer = torch.optim.Adadelta(classifier.parameters(), lr=schedule.learning_rate, foreach=True)
    return Classifying(
        classifier, optimizer=optimizer, plan=plan, batches=batches, judge=judge, seed=seed, fabric=fabric
    )


def _near(examples: Examples, *, device: torch.device) -> Examples:
    """On a GPU when they take at most half of its free memory; else batches are gathered on the CPU."""
    if device.type != "cuda" or examples.pixels.nbytes > torch.cuda.mem_get_info(device)[0] // 2:
        return examples
    return examples.to(device)

"""Training of the invariant classifiers and their baseline (Sauer & Geiger, ICLR 2021), for the loop in `classifying`.

Legend: R real pictures and C counterfactuals in a batch, S image size.
Decided here: one forward pass takes both kinds, so their gradients meet in one SGD step and a trained BatchNorm sees
the mixture that it will keep the statistics of. The baseline is the same training of one head without counterfactuals.
A batch is known by what it holds, not by its class, so whoever reads the pictures need not know of the training. An
epoch is a pass through the real pictures, and batches are all full.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import torch

from cgn.losses import head_cross_entropies, mean_logits_cross_entropy
from cgn.training.classifying import Classifying, Judged, Plan, share

if TYPE_CHECKING:
    from lightning_fabric import Fabric


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

    def plan(self, pictures: int) -> Plan:
        """The plan for an epoch of so many real pictures."""
        return Plan(
            updates=self.updates(pictures),
            epochs=self.epochs,
            epoch=lambda update: update * self.batch_size // pictures,
            rate=lambda epoch: self.learning_rate * self.decay_factor ** (epoch // self.decay_epochs),
            batch_size=self.batch_size,
            log_updates=self.log_updates,
            checkpoint_updates=self.checkpoint_updates,
        )


def invariant(
    classifier: torch.nn.Module,
    *,
    pictures: int,
    batches: Callable[[int], Iterator[Batch]],
    prepare: Callable[[torch.Tensor], torch.Tensor],
    schedule: Schedule,
    seed: int,
    fabric: "Fabric",
) -> Classifying[Batch]:
    """The training of an ensemble of heads: images -> a head's name -> (R+C,K) logits.

    `pictures`: real ones in an epoch. `prepare`: (R+C,3,S,S) uint8 -> what the classifier wants.
    """

    def judge(module: torch.nn.Module, batch: Batch) -> Judged:
        pixels, label = (held.to(fabric.device, non_blocking=True) for held in (batch.pixels, batch.label))
        labels = {head: values.to(fabric.device, non_blocking=True) for head, values in batch.labels.items()}
        answers = module(prepare(pixels).contiguous(memory_format=torch.channels_last))
        first = {head: answer[: len(label)] for head, answer in answers.items()}
        rest = {head: answer[len(label) :] for head, answer in answers.items()} if labels else {}
        losses = {"real": mean_logits_cross_entropy(first, label), **head_cross_entropies(rest, labels)}
        hits = {"real": share(_mean(first), label), **{head: share(rest[head], labels[head]) for head in rest}}
        return Judged(
            loss=torch.stack(list(losses.values())).sum(),
            told={
                **{f"loss/{name}": loss for name, loss in losses.items()},
                **{f"accuracy/{name}": hit for name, hit in hits.items()},
            },
            images=len(pixels),
            unreadable=batch.unreadable,
        )

    optimizer = torch.optim.SGD(
        classifier.parameters(),
        lr=schedule.learning_rate,
        momentum=schedule.momentum,
        weight_decay=schedule.weight_decay,
        foreach=True,
    )
    plan = schedule.plan(pictures)
    return Classifying(
        classifier, optimizer=optimizer, plan=plan, batches=batches, judge=judge, seed=seed, fabric=fabric
    )


def _mean(answers: Mapping[str, torch.Tensor]) -> torch.Tensor:
    return torch.stack(list(answers.values())).mean(0)

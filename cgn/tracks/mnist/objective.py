"""The MNIST track's objective: least-squares adversarial training of the composite, and what makes a mask a mask.

Phases: `generator` (adversarial, binary entropy, mask size, mask border, energy distance, style of the real batch) and
`discriminator`.
Legend: B batch, S image size.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import nn

from cgn.config.mnist.train_cgn import Losses
from cgn.core.images import from_bytes
from cgn.core.seeding import torch_stream
from cgn.losses import (
    binary_entropy,
    border_hinge,
    discriminator_loss,
    energy_distance,
    generator_loss,
    mismatch_loss,
    size_hinge,
    style,
)
from cgn.mechanisms import Generator, Picture, Prior, counterfactual, factual
from cgn.training.loop import batch_indices
from cgn.training.phase import Rows


@dataclass(frozen=True, kw_only=True)
class Drawn:
    """A real batch (B,3,S,S) in [-1,1] with its labels, and a generated one with labels of its own."""

    real: torch.Tensor
    real_label: torch.Tensor
    wrong_label: torch.Tensor
    picture: Picture
    image: torch.Tensor
    label: torch.Tensor


@dataclass(frozen=True, kw_only=True)
class Adversarial:
    """The losses, and how an update's batch is drawn."""

    generator: Generator
    discriminator: nn.Module
    features: nn.Module | None
    losses: Losses
    pixels: torch.Tensor
    """All training images, (N,S,S,3) uint8."""
    labels: torch.Tensor
    batch_size: int
    images_per_class: int
    prior: Prior
    classes: int
    seed: int
    device: torch.device

    def draw(self, update: int, batch: int = 0) -> Drawn:
        """The update's real batch (it has one), and as many factual images: of the same labels, where it has groups."""
        assert batch == 0
        stream = torch_stream(self.seed, "update", update)
        grouped = self.images_per_class > 1
        if grouped:
            order, sizes = self._sorted
            per_class = self.images_per_class
            indices = order[by_class(sizes, self.batch_size, images_per_class=per_class, stream=stream)]
        else:
            indices = batch_indices(update, count=len(self.pixels), batch_size=self.batch_size, seed=self.seed)
        real_label = self.labels[indices]
        label = real_label if grouped else torch.randint(self.classes, (self.batch_size,), generator=stream)
        wrong = (real_label + torch.randint(1, self.classes, (self.batch_size,), generator=stream)) % self.classes
        causes = factual(label, prior=self.prior, stream=stream).to(self.device)
        picture = self.generator(causes)
        return Drawn(
            real=from_bytes(self.pixels[indices]).to(self.device),
            real_label=real_label.to(self.device),
            wrong_label=wrong.to(self.device),
            picture=picture,
            image=picture.image,
            label=causes.shape.label,
        )

    @cached_property
    def _sorted(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Indices of all training images by class, and how many there are of each."""
        return self.labels.argsort(stable=True), self.labels.bincount(minlength=self.classes)

    def generator_losses(self, drawn: Drawn) -> dict[str, torch.Tensor]:
        """Weighted losses of the mechanisms; a weight of 0 leaves a loss out."""
        weights = self.losses
        mask, size, border = drawn.picture.mask, weights.mask_size, weights.border
        made: dict[str, torch.Tensor] = {}
        if weights.adversarial:
            made["adversarial"] = weights.adversarial * generator_loss(self.discriminator(drawn.image, drawn.label))
        if weights.binary:
            made["binary"] = weights.binary * binary_entropy(mask)
        if size.weight:
            hinge = size_hinge(mask, smallest=size.smallest, largest=size.largest)
            made["mask_size"] = size.weight * hinge.mean()
        if border.weight:
            made["border"] = border.weight * border_hinge(mask, width=border.width, largest=border.largest).mean()
        if weights.energy:
            distance = energy_distance(drawn.image, drawn.real, images_per_class=self.images_per_class)
            made["energy"] = weights.energy * distance
        if self.features is not None:
            with torch.no_grad():
                target = self.features(drawn.real)
            made["perceptual"] = style(self.features(drawn.image), target, weights=weights.perceptual.weights)
        return made

    def discriminator_losses(self, drawn: Drawn) -> dict[str, torch.Tensor]:
        """Real towards 1, generated and mislabelled towards 0; passes apart, because batch statistics must not mix."""
        real = self.discriminator(drawn.real, drawn.real_label)
        generated = self.discriminator(drawn.image.detach(), drawn.label)
        made = {"discriminator": discriminator_loss(real, generated)}
        if weight := self.losses.mismatched:
            made["mismatched"] = weight * mismatch_loss(self.discriminator(drawn.real, drawn.wrong_label))
        return made


def by_class(sizes: torch.Tensor, count: int, *, images_per_class: int, stream: torch.Generator) -> torch.Tensor:
    """(count,) places in images sorted by class, of which there are `sizes` (K,), none 0.

    `images_per_class` of a class come side by side; classes take turns, each turn in an order of its own.
    """
    groups = count // images_per_class
    turns = torch.rand(-(-groups // len(sizes)), len(sizes), generator=stream).argsort(1)
    label = turns.flatten()[:groups].repeat_interleave(images_per_class)
    drawn = torch.rand(count, generator=stream, dtype=torch.float64)
    return (sizes.cumsum(0) - sizes)[label] + (drawn * sizes[label]).long()


def example_rows(generator: nn.Module, *, classes: int, prior: Prior, seed: int) -> Rows:
    """One column a class: the factual image and its parts, then counterfactuals with the same shapes in order."""
    device = next(generator.parameters()).device
    label = torch.arange(classes)
    stream = torch_stream(seed, "sheet")
    pictures: Sequence[tuple[str, Picture]] = [
        ("factual", generator(factual(label, prior=prior, stream=stream).to(device))),
        (
            "counterfactual",
            generator(
                counterfactual(
                    shape=label,
                    texture=label.roll(-3),
                    background=label.roll(4),
                    prior=prior,
                    stream=stream,
                ).to(device)
            ),
        ),
    ]
    rows = []
    for name, picture in pictures:
        parts = (("mask", picture.mask * 2 - 1), ("foreground", picture.foreground), ("background", picture.background))
        rows += [(name, picture.image), *parts]
    return rows

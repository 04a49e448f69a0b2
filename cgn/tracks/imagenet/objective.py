"""The ImageNet track's objective: mechanisms that start as one pretrained cGAN are driven apart (ICLR 2021, sec. 3.2).

One phase, three optimizers. Legend: B batch, S image size.
Decided here: the nets stay in eval mode, so their batch norms rest on the precomputed statistics (published), and each
spectral norm makes its power iteration once an update rather than once a batch: between two steps the weights stand
still, and so the outcome hangs neither on the number of processes nor on what is computed again on the way back.
A weight of 0 leaves out its loss, and every net that only this loss would have called. Styles are compared in float32.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import nn

from cgn.config.imagenet.train_cgn import Losses
from cgn.core.seeding import torch_stream
from cgn.losses import Patches, binary_entropy, l1, patch_grid, saliency, size_hinge, style
from cgn.mechanisms import Causes, Generator, Picture, Prior, Shape, counterfactual, factual
from cgn.nets.spectral import Spectral
from cgn.training.phase import Rows

COLUMNS = 10
"""Of a sheet, where there are that many classes."""


@dataclass(frozen=True, kw_only=True)
class Drawn:
    """Factual pictures, what the frozen cGAN draws from the same causes, and patches from inside its objects.

    `target` and `grid` (B,3,S,S) are None where no loss compares with them.
    """

    picture: Picture
    target: torch.Tensor | None
    grid: torch.Tensor | None


@dataclass(frozen=True, kw_only=True)
class Distilling:
    """The losses, and how a batch is drawn. `cgan(noise, label)` is frozen; `segment` is the shape mechanism's."""

    generator: Generator
    cgan: nn.Module
    segment: Callable[[torch.Tensor], torch.Tensor]
    features: nn.Module
    losses: Losses
    patches: Patches
    batch_size: int
    prior: Prior
    classes: int
    seed: int
    device: torch.device

    def begin(self, update: int) -> None:
        """Let the spectral norms follow the last step."""
        del update
        for module in self.generator.modules():
            if isinstance(module, Spectral):
                module.settle(1)

    def draw(self, update: int, batch: int) -> Drawn:
        """Factual pictures, each of a class of its own draw."""
        stream = torch_stream(self.seed, "batch", update, batch)
        label = torch.randint(self.classes, (self.batch_size,), generator=stream)
        causes = factual(label, prior=self.prior, stream=stream).to(self.device)
        picture = self.generator(causes)
        weights = self.losses
        target = grid = None
        if weights.l1 or any(weights.perceptual) or any(weights.texture):
            with torch.no_grad():
                target = self.cgan(causes.shape.noise, causes.shape.label).float()
        if any(weights.texture):
            assert target is not None
            grid = patch_grid(target, picture.mask.detach(), stream=stream, patches=self.patches)
        return Drawn(picture=picture, target=target, grid=grid)

    def weighted(self, drawn: Drawn) -> dict[str, torch.Tensor]:
        """Weighted losses of a batch, each a mean over its pictures."""
        weights, picture = self.losses, drawn.picture
        made: dict[str, torch.Tensor] = {}
        if weights.l1:
            assert drawn.target is not None
            made["l1"] = weights.l1 * l1(picture.image, drawn.target)
        if any(weights.perceptual):
            assert drawn.target is not None
            made["perceptual"] = self._style(picture.image, drawn.target, weights=weights.perceptual)
        if weights.binary:
            made["binary"] = weights.binary * binary_entropy(picture.mask)
        if (size := weights.mask_size).weight:
            hinge = size_hinge(picture.mask, smallest=size.smallest, largest=size.largest)
            made["mask_size"] = size.weight * hinge.mean()
        if any(weights.texture):
            assert drawn.grid is not None
            made["texture"] = self._style(picture.foreground, drawn.grid, weights=weights.texture)
        if weights.background:
            made["background"] = weights.background * saliency(self.segment(picture.background)).mean()
        return made

    def _style(self, image: torch.Tensor, target: torch.Tensor, *, weights: Sequence[float]) -> torch.Tensor:
        with torch.no_grad():
            wanted = self.features(target)
        found = self.features(image)
        with torch.autocast(self.device.type, enabled=False):  # half precision loses small differences of grams
            return style([m.float() for m in found], [m.float() for m in wanted], weights=weights)


def example_rows(generator: nn.Module, *, cgan: nn.Module, classes: int, prior: Prior, seed: int) -> Rows:
    """One column a class (ten of them at most): a factual picture and its parts, then a counterfactual and its own."""
    assert isinstance(generator, Generator)
    assert isinstance(generator.shape, Shape)
    device = next(generator.parameters()).device
    label = torch.linspace(0, classes - 1, min(classes, COLUMNS)).round().long()
    stream = torch_stream(seed, "sheet")
    causes = factual(label, prior=prior, stream=stream).to(device)
    premask = generator.shape.net(causes.shape.noise, causes.shape.label)
    rows = [("cGAN", cgan(causes.shape.noise, causes.shape.label)), *_parts("factual", generator, causes)]
    rows.insert(2, ("pre-mask", premask))
    mixed = counterfactual(
        shape=label, texture=label.roll(-3), background=label.roll(4), prior=prior, stream=stream
    ).to(device)
    return [*rows, *_parts("counterfactual", generator, mixed)]


def _parts(name: str, generator: Generator, causes: Causes) -> Rows:
    picture = generator(causes)
    parts = (("mask", picture.mask * 2 - 1), ("foreground", picture.foreground), ("background", picture.background))
    return [(name, picture.image), *parts]

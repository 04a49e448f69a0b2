"""One training step of the CGN as the published code takes it, written plainly: what ours is measured against.

Batch 1: four BigGANs, three of them trained, spectral norms anew each time; U2-Net on the pre-mask and on the
background; VGG features of the composite, its target, the foreground and the grid of patches; all 12,996 patches of the
image cut out before 36 are taken; all losses, backward. Gradients add up; the optimizers' steps, one in thousands of
batches, are not part of it.
"""

from dataclasses import dataclass

import torch
from torch import nn
from torch.nn import functional

from cgn.core.seeding import torch_stream
from cgn.losses import binary_entropy, l1, saliency, size_hinge, style
from cgn.mechanisms import Prior
from cgn.nets.biggan import BigGanConfig
from tests.benchmarks.published_biggan import PublishedBigGan

RESOLUTION, PATCH, BEST, GRID = 128, 15, 100, 6


@dataclass(frozen=True, kw_only=True)
class PublishedStep:
    """Nets on a device."""

    shape: PublishedBigGan
    texture: PublishedBigGan
    background: PublishedBigGan
    cgan: PublishedBigGan
    u2net: nn.Module
    vgg: nn.Module
    table: BigGanConfig
    device: torch.device

    def __call__(self, number: int) -> float:
        """Forward and backward of one image; the loss."""
        stream = torch_stream(0, "published", number)
        noise = Prior(noise_size=self.table.noise_size, truncation=1.0).noise(1, stream).to(self.device)
        label = torch.randint(self.table.classes, (1,), generator=stream)
        one_hot = torch.eye(self.table.classes)[label].to(self.device)
        mask = self.u2net(self.shape(noise, one_hot, 1.0)).clamp(1e-4, 1 - 1e-4)
        foreground = self.texture(noise, one_hot, 1.0)
        background = self.background(noise, one_hot, 1.0)
        image = mask * foreground + (1 - mask) * background
        with torch.no_grad():
            target = self.cgan(noise, one_hot, 1.0)
            grid = unfolded_grid(target, mask, stream=stream)
        losses = [
            100 * l1(image, target),
            style(self.vgg(image), self.vgg(target), weights=(4, 4, 4, 4)),
            300 * binary_entropy(mask),
            500 * size_hinge(mask).mean(),
            style(self.vgg(foreground), self.vgg(grid), weights=(0, 5, 5, 0)),
            2000 * saliency(self.u2net(background)).mean(),
        ]
        total = torch.stack(losses).sum()
        total.backward()  # type: ignore[no-untyped-call]
        return float(total.detach())


def unfolded_grid(image: torch.Tensor, mask: torch.Tensor, *, stream: torch.Generator) -> torch.Tensor:
    """(1,3,S,S) and (1,1,S,S) -> (1,3,S,S): every patch is cut, the best are found, 36 are laid out."""
    size = (RESOLUTION, RESOLUTION)
    cut = [
        functional.interpolate(part, size, mode="bicubic").unfold(2, PATCH, 1).unfold(3, PATCH, 1)
        for part in (image, mask)
    ]
    patches, masks = (part[0].permute(1, 2, 0, 3, 4).reshape(-1, part.shape[1], PATCH, PATCH) for part in cut)
    best = masks.mean((1, 2, 3)).topk(BEST).indices
    chosen = patches[best[torch.randint(BEST, (GRID * GRID,), generator=stream).to(best.device)]]
    rows = [torch.cat(list(chosen[row * GRID : (row + 1) * GRID]), 2) for row in range(GRID)]
    return functional.interpolate(torch.cat(rows, 1)[None], image.shape[2:], mode="bicubic")

"""A small projection discriminator (Miyato & Koyama, ICLR 2018) of spectrally normalised convolutions.

Legend: B batch, S image size, a multiple of 8.
Decided here: a label is projected on the same features that the unconditional answer reads. The last of them is how much
the others deviate within a group of images of one label (Karras et al., ICLR 2018), as one number: without it the
generator draws one image a class, and with a number for each feature the discriminator always wins. No norm looks at
the batch, so real and generated images may go through together.
Used to pretrain the miniature's BigGAN only.
"""

from typing import cast

import torch
from torch import nn
from torch.nn import functional

from cgn.nets.biggan_blocks import SpectralConv2d, SpectralLinear

SLOPE = 0.1
EPSILON = 1e-4


class ProjectionDiscriminator(nn.Module):
    """Image and label -> how real: three halvings, then features summed over the places.

    Images come in groups of `group` with one label, side by side.
    """

    def __init__(self, *, classes: int, width: int, group: int) -> None:
        super().__init__()
        self.group = group
        plan = (
            (3, width, 4, 2), (width, width, 3, 1), (width, 2 * width, 4, 2),
            (2 * width, 2 * width, 3, 1), (2 * width, 4 * width, 4, 2), (4 * width, 4 * width, 3, 1),
        )  # fmt: skip
        self.layers = nn.ModuleList(
            SpectralConv2d(channels, out, kernel, epsilon=EPSILON, stride=stride)
            for channels, out, kernel, stride in plan
        )
        self.answer = SpectralLinear(4 * width + 1, 1, epsilon=EPSILON)
        self.embeddings = SpectralLinear(classes, 4 * width + 1, epsilon=EPSILON, bias=False)

    def forward(self, image: torch.Tensor, label: torch.Tensor) -> torch.Tensor:
        """(B,3,S,S) in [-1,1] and (B,) labels -> (B,) unbounded; positive is real."""
        x = image
        for layer in cast(list[SpectralConv2d], list(self.layers)):
            x = functional.leaky_relu(layer(x), SLOPE)
        deviation = (x.float().unflatten(0, (-1, self.group)).var(1, correction=0) + EPSILON).sqrt()
        spread = deviation.mean((1, 2, 3)).repeat_interleave(self.group)[:, None]
        features = torch.cat([x.sum((2, 3)), spread * x[0, 0].numel()], 1)
        validity: torch.Tensor = self.answer(features)[:, 0]
        return validity + (self.embeddings.weight.T[label] * features).sum(1)

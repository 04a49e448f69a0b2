"""A small projection discriminator (Miyato & Koyama, ICLR 2018) of spectrally normalised convolutions.

Legend: B batch, S image size, a multiple of 8.
Decided here: a label is projected on the same features that the unconditional answer reads; no norm looks at the batch,
so real and generated images may go through in one batch.
"""

from typing import cast

import torch
from torch import nn
from torch.nn import functional

from cgn.nets.spectral import SpectralConv2d, SpectralLinear

SLOPE = 0.1
EPSILON = 1e-4


class ProjectionDiscriminator(nn.Module):
    """Image and label -> how real: three halvings, then features summed over the places."""

    def __init__(self, *, classes: int, width: int) -> None:
        super().__init__()
        plan = (
            (3, width, 4, 2), (width, width, 3, 1), (width, 2 * width, 4, 2),
            (2 * width, 2 * width, 3, 1), (2 * width, 4 * width, 4, 2), (4 * width, 4 * width, 3, 1),
        )  # fmt: skip
        self.layers = nn.ModuleList(
            SpectralConv2d(channels, out, kernel, epsilon=EPSILON, stride=stride)
            for channels, out, kernel, stride in plan
        )
        self.answer = SpectralLinear(4 * width, 1, epsilon=EPSILON)
        self.embeddings = SpectralLinear(classes, 4 * width, epsilon=EPSILON, bias=False)

    def forward(self, image: torch.Tensor, label: torch.Tensor) -> torch.Tensor:
        """(B,3,S,S) in [-1,1] and (B,) labels -> (B,) unbounded; positive is real."""
        x = image
        for layer in cast(list[SpectralConv2d], list(self.layers)):
            x = functional.leaky_relu(layer(x), SLOPE)
        features = x.sum((2, 3))
        validity: torch.Tensor = self.answer(features)[:, 0]
        return validity + (self.embeddings.weight.T[label] * features).sum(1)

"""Label-conditioned discriminators of small images.

LinearDiscriminator (colours) and ConvDiscriminator (textures) are the published code's for MNIST; the projection one is
ours. All return validities for least-squares targets: 1 is real, 0 is generated.

Shapes: B batch, S image size; the convolutional ones need a multiple of 8.
"""

from collections.abc import Iterable
from typing import cast

import torch
from torch import nn
from torch.nn import functional

from cgn.nets.spectral import SpectralConv2d, SpectralLinear

SLOPE = 0.1
EPSILON = 1e-4


class MultiDiscriminator(nn.Module):
    """Several discriminators of the same images, each with a loss of its own."""

    def __init__(self, members: Iterable[nn.Module]) -> None:
        super().__init__()
        self.members = nn.ModuleList(members)

    def forward(self, image: torch.Tensor, label: torch.Tensor) -> torch.Tensor:
        """(B,3,S,S) in [-1,1] and (B,) labels -> (members*B,), the validities of one member after another."""
        return torch.cat([member(image, label) for member in self.members])


class LinearDiscriminator(nn.Module):
    """Flattened image and embedded label through four linear layers. State-dict keys are the published ones."""

    def __init__(self, *, classes: int, width: int, image_size: int) -> None:
        super().__init__()
        self.label_embedding = nn.Embedding(classes, classes)
        self.model = nn.Sequential(
            nn.Linear(classes + 3 * image_size**2, width),
            nn.LeakyReLU(0.2, inplace=True),
            nn.Linear(width, width),
            nn.Dropout(0.4),
            nn.LeakyReLU(0.2, inplace=True),
            nn.Linear(width, width),
            nn.Dropout(0.4),
            nn.LeakyReLU(0.2, inplace=True),
            nn.Linear(width, 1),
        )

    def forward(self, image: torch.Tensor, label: torch.Tensor) -> torch.Tensor:
        """(B,3,S,S) in [-1,1] and (B,) labels -> (B,)."""
        validity: torch.Tensor = self.model(torch.cat([image.flatten(1), self.label_embedding(label)], 1))
        return validity.squeeze(1)


class ConvDiscriminator(nn.Module):
    """Image and an embedded-label channel through four convolutions. State-dict keys are the published ones."""

    def __init__(self, *, classes: int, width: int) -> None:
        super().__init__()
        self.label_embedding = nn.Embedding(classes, 1)
        self.model = nn.Sequential(
            *_block(4, width, kernel=3, stride=1),
            *_block(width, 2 * width, kernel=3, stride=1),
            *_block(2 * width, 4 * width, kernel=4, stride=2),
            *_block(4 * width, 4 * width, kernel=4, stride=2),
            # The published average over 3x3 of the 5x5 map at 32 px, floor: the last two rows and columns are unused.
            nn.AvgPool2d(3),
            nn.Conv2d(4 * width, 1, 1, bias=False),
        )

    def forward(self, image: torch.Tensor, label: torch.Tensor) -> torch.Tensor:
        """(B,3,32,32) in [-1,1] and (B,) labels -> (B,)."""
        channel = self.label_embedding(label)[:, :, None, None].expand(-1, -1, *image.shape[-2:])
        validity: torch.Tensor = self.model(torch.cat([image, channel], 1))
        return validity.flatten()


class ProjectionDiscriminator(nn.Module):
    """Three halvings by spectrally normalized convolutions, then features summed over the places.

    The label's embedding is projected on the features of the unconditional output (Miyato & Koyama, ICLR 2018). No norm
    uses batch statistics, so one batch may have real and generated images.
    """

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


def _block(channels: int, out_channels: int, *, kernel: int, stride: int) -> list[nn.Module]:
    return [
        nn.Conv2d(channels, out_channels, kernel, stride=stride, bias=False),
        nn.BatchNorm2d(out_channels),
        nn.LeakyReLU(0.2, inplace=True),
    ]

"""The small CNN that judges the MNIST variants (Sauer & Geiger 2021, as published in their code).

Legend: B batch, H height, W width, K classes.
Decided here: state-dict keys and shapes are the published ones, so a published file loads strictly; the function is the
published one too, but what it costs is not. Batch norm's scale and shift are moved into the first convolution, so the
gradient stops at the images instead of being computed for each of their pixels, and pooling comes before the ReLU,
which commutes with it. At the published 32x32 the last maps are 8x8 and the published 7x7 average pool sees all but
their last row and column: kept, as the published accuracies come from it. At any other image size the whole map is
averaged.
"""

from typing import cast

import torch
from torch import nn
from torch.nn import functional

PUBLISHED_SIDE, PUBLISHED_POOL = 8, 7
"""Side of the last maps at 32x32, and of the part of them that is averaged."""


class Cnn(nn.Module):
    """Images (B,3,H,W) in [-1,1] -> log-probabilities (B,K)."""

    def __init__(self, *, classes: int = 10) -> None:
        super().__init__()
        self.model = nn.Sequential(
            nn.BatchNorm2d(3),
            nn.Conv2d(3, 32, 5, padding=2),
            nn.MaxPool2d(3, stride=2, padding=1),
            nn.ReLU(inplace=True),
            nn.Conv2d(32, 32, 3, padding=1),
            nn.ReLU(inplace=True),
            nn.Conv2d(32, 64, 3, stride=2, padding=1),
            nn.ReLU(inplace=True),
            nn.Conv2d(64, 64, 3, padding=1),
            nn.ReLU(inplace=True),
        )
        self.cls = nn.Sequential(nn.Linear(64, classes), nn.LogSoftmax(dim=1))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Images (B,3,H,W) in [-1,1] -> log-probabilities (B,K)."""
        maps: torch.Tensor = self.model[2:](self._first_maps(images))
        if maps.shape[-2:] == (PUBLISHED_SIDE, PUBLISHED_SIDE):
            maps = maps[..., :PUBLISHED_POOL, :PUBLISHED_POOL]
        answers: torch.Tensor = self.cls(maps.mean(dim=(2, 3)))
        return answers

    def _first_maps(self, images: torch.Tensor) -> torch.Tensor:
        """What `model[:2]` gives, (B,32,H,W): scaled weights on normalised images, plus the shift's own maps.

        The shift goes through the convolution as one image, because at the border the zero padding replaces it too.
        """
        norm, convolve = cast(nn.BatchNorm2d, self.model[0]), cast(nn.Conv2d, self.model[1])
        if self.training and norm.num_batches_tracked is not None:
            norm.num_batches_tracked.add_(1)
        scaled = convolve.weight * norm.weight.view(1, 3, 1, 1)
        shift = norm.bias.view(1, 3, 1, 1).expand(1, 3, *images.shape[-2:])
        offset = functional.conv2d(shift, convolve.weight, convolve.bias, padding=2)
        normal = functional.batch_norm(
            images, norm.running_mean, norm.running_var, training=self.training, momentum=0.1, eps=norm.eps
        )
        return functional.conv2d(normal, scaled, padding=2) + offset

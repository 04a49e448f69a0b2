"""VGG-16 features for the perceptual losses (Simonyan & Zisserman, 2015): the last ReLU before pools 1 to 4.

Decided here: images go in as they are, in [-1,1] without ImageNet normalisation, because the published weights of the
losses were set so. State-dict keys are torchvision's (`features.0.weight` ...), so its file loads strictly once the
classifier and the fifth block are left out. Narrower blocks make a net of the same form for small images.
"""

import re

import torch
from torch import nn
from torch.nn import functional

LAYER = re.compile(r"features\.([0-9]{1,3})\.", re.ASCII)
Blocks = tuple[tuple[int, ...], ...]
"""The channels of each convolution of each block."""

BLOCKS: Blocks = ((64, 64), (128, 128), (256, 256, 256), (512, 512, 512))


class VggFeatures(nn.Module):
    """The first four of five conv blocks, or others; frozen by who uses it."""

    def __init__(self, blocks: Blocks = BLOCKS) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        channels = 3
        for block in blocks:
            for out_channels in block:
                layers += [nn.Conv2d(channels, out_channels, 3, padding=1), nn.ReLU()]
                channels = out_channels
            layers.append(nn.MaxPool2d(2))
        self.features = nn.Sequential(*layers[:-1])

    def forward(self, image: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """(B,3,H,W) in [-1,1] -> a map of each block, halved from one to the next.

        Published: (B,64,H,W), (B,128,H/2,W/2), (B,256,H/4,W/4), (B,512,H/8,W/8).
        """
        maps = []
        x = image
        for layer in self.features:
            if isinstance(layer, nn.MaxPool2d):
                maps.append(x)
                x = functional.max_pool2d(x, 2)
            else:
                x = layer(x)
        return (*maps, x)


def published(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The part of torchvision's vgg16 state dict that VggFeatures has: conv blocks 1 to 4."""
    return {name: tensor for name, tensor in state.items() if (found := LAYER.match(name)) and int(found[1]) < 22}

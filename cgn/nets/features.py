"""Perceptual features for the style losses: VGG-16 (Simonyan & Zisserman, 2015), SqueezeNet 1.0 (Iandola et al., 2016).

Images are in [-1,1]. VGG takes them without ImageNet normalization, because the published loss weights were chosen
that way. SqueezeNet, with the weights of the Caffe release, converts them to RGB 0..255 minus its mean colour and
scales its activations by 1/255, so that the loss weights have the same order of magnitude as for VGG; it is for
machines where VGG-16's 528 MB are not available. State-dict keys are torchvision's.
"""

import re

import torch
from torch import nn
from torch.nn import functional

Blocks = tuple[tuple[int, ...], ...]
"""The channels of each convolution of each block."""

BLOCKS: Blocks = ((64, 64), (128, 128), (256, 256, 256), (512, 512, 512))
LAYER = re.compile(r"features\.([0-9]{1,3})\.", re.ASCII)
MEAN_COLOR = (123.0, 117.0, 104.0)
TAPS = (1, 5, 10, 12)
"""The layers of SqueezeNet whose maps are returned: before each pooling, and the last fire module."""


class VggFeatures(nn.Module):
    """The first four of VGG-16's five conv blocks, or other `blocks`. The caller freezes it."""

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


def vgg_weights(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The part of torchvision's vgg16 state dict that VggFeatures has: conv blocks 1 to 4."""
    return {name: tensor for name, tensor in state.items() if (found := LAYER.match(name)) and int(found[1]) < 22}


class SqueezeFeatures(nn.Module):
    """torchvision's squeezenet1_0 without its classifier; state-dict keys `features.*` are its own."""

    mean: torch.Tensor

    def __init__(self) -> None:
        super().__init__()
        from torchvision.models import squeezenet1_0  # slow to import, and only runs that use it need it

        self.features: nn.Sequential = squeezenet1_0(weights=None).features
        self.register_buffer("mean", torch.tensor(MEAN_COLOR).view(1, 3, 1, 1), persistent=False)

    def forward(self, image: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """(B,3,H,W) in [-1,1] -> four maps of 96, 256, 512 and 512 channels; H and W of 32 or more."""
        x = image.add(1).mul(127.5).sub(self.mean)
        maps = []
        for index, layer in enumerate(self.features):
            x = layer(x)
            if index in TAPS:
                maps.append(x / 255)
        return tuple(maps)


def squeezenet_weights(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The part of torchvision's squeezenet1_0 state dict that SqueezeFeatures has."""
    return {name: tensor for name, tensor in state.items() if name.startswith("features.")}

"""SqueezeNet 1.0 features (Iandola et al., 2016): perceptual features where VGG-16's 528 MB cannot be had.

Decided here: the weights are the Caffe release's, so images in [-1,1] become RGB 0..255 minus its mean colour; the four
maps are taken like VGG's, before each pooling and at the end of the last fire module. Activations of that range are
scaled by 1/255 so that the losses' weights keep VGG's order of magnitude.
"""

import torch
from torch import nn

MEAN_COLOR = (123.0, 117.0, 104.0)
TAPS = (1, 5, 10, 12)


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


def published(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The part of torchvision's squeezenet1_0 state dict that SqueezeFeatures has."""
    return {name: tensor for name, tensor in state.items() if name.startswith("features.")}

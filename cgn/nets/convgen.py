"""The small up-sampling conv generators of the MNIST track (Sauer & Geiger, ICLR 2021, appendix; published widths).

A net is called with (noise, label) like any other generator. The label embedding is passed in, because the three
published mechanisms share one.

Shapes: B batch, Z noise size, E label embedding size, S image size.
"""

import torch
from torch import nn
from torch.nn import functional


class UpsampledConv(nn.Conv2d):
    """A 3x3 convolution of an image that is doubled by repeating its pixels; in training without the doubled image.

    Weights on copies of the same pixel are summed: this gives a transposed 4x4 kernel of stride 2, with 16 products
    instead of 36. The result differs by rounding, so eval mode keeps the published order of operations.
    """

    spread: torch.Tensor

    def __init__(self, channels: int, out_channels: int) -> None:
        super().__init__(channels, out_channels, 3, padding=1, bias=False)
        spread = torch.tensor([[0.0, 0.0, 1.0], [0.0, 1.0, 1.0], [1.0, 1.0, 0.0], [1.0, 0.0, 0.0]])
        self.register_buffer("spread", spread, persistent=False)

    def forward(self, input: torch.Tensor) -> torch.Tensor:  # torch's name for it
        """(B,C,H,W) -> (B,out,2H,2W)."""
        if not self.training:
            return super().forward(functional.interpolate(input, scale_factor=2))
        kernel = (self.spread @ self.weight @ self.spread.T).transpose(0, 1)
        return functional.conv_transpose2d(input, kernel, stride=2, padding=1)


def _upsampling(channels: int, out_channels: int) -> list[nn.Module]:
    return [
        UpsampledConv(channels, out_channels),
        nn.BatchNorm2d(out_channels),
        nn.LeakyReLU(0.2, inplace=True),
    ]


class _Conditioned(nn.Module):
    """Noise and embedded label -> a linear map to (B, 2*width, S/4, S/4) -> the layers of a subclass."""

    def __init__(self, embedding: nn.Embedding, *, noise_size: int, width: int, image_size: int) -> None:
        super().__init__()
        self.embedding = embedding
        self.start = nn.Linear(noise_size + embedding.embedding_dim, 2 * width * (image_size // 4) ** 2)
        self.start_shape = (2 * width, image_size // 4, image_size // 4)
        self.layers = nn.Sequential()

    def forward(self, noise: torch.Tensor, label: torch.Tensor) -> torch.Tensor:
        """(B,Z) standard normal noise and (B,) labels -> (B,C,S,S)."""
        start = self.start(torch.cat([noise, self.embedding(label)], 1)).unflatten(1, self.start_shape)
        image: torch.Tensor = self.layers(start)
        return image


class MaskNet(_Conditioned):
    """(B,1,S,S), one channel of no fixed range: f_shape clamps it to a mask."""

    def __init__(self, embedding: nn.Embedding, *, noise_size: int, width: int, image_size: int) -> None:
        super().__init__(embedding, noise_size=noise_size, width=width, image_size=image_size)
        # The published net. Its last layer gives every mask mean 0 and deviation 1 before f_shape clamps it. So no mask
        # is empty or full, and its part above 0 is about as large as a digit.
        self.layers = nn.Sequential(
            nn.InstanceNorm2d(2 * width),
            *_upsampling(2 * width, width),
            nn.InstanceNorm2d(width),
            *_upsampling(width, 1),
            nn.InstanceNorm2d(1),
        )


class TileNet(_Conditioned):
    """(B,3,S,S) in [-1,1]: a tile of texture or background."""

    def __init__(self, embedding: nn.Embedding, *, noise_size: int, width: int, image_size: int) -> None:
        super().__init__(embedding, noise_size=noise_size, width=width, image_size=image_size)
        self.layers = nn.Sequential(
            *_upsampling(2 * width, 2 * width),
            *_upsampling(2 * width, width),
            nn.Conv2d(width, 3, 3, padding=1),
            nn.BatchNorm2d(3),
            nn.Tanh(),
        )

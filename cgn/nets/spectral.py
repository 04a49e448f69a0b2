"""Spectral norm (Miyato et al., ICLR 2018): weights divided by their largest singular value.

Attributes have the names of the public BigGAN-deep weight file, so its keys load as they are. Only torch's old
implementation has these keys, but its modules cannot be copied, and under autocast it computes the norm in half
precision.
"""

import torch
from torch import nn
from torch.nn import functional

FIRST_ITERATIONS = 15  # of the power method on a new weight, so that its norm is near 1 before any training


class Spectral(nn.Module):
    """A weight, `weight_orig`; `weight` is that divided by its largest singular value (Miyato et al., ICLR 2018).

    u and v approach the singular vectors by one power iteration each time `weight` is read in training mode; in eval
    mode they do not change. They are constants in the gradient.
    """

    weight_u: torch.Tensor
    weight_v: torch.Tensor

    def __init__(self, weight: torch.Tensor, *, epsilon: float, bias: torch.Tensor | None) -> None:
        super().__init__()
        self.epsilon = epsilon
        self.weight_orig = nn.Parameter(weight)
        self.bias = None if bias is None else nn.Parameter(bias)
        self.register_buffer("weight_u", functional.normalize(torch.randn(len(weight)), dim=0))
        self.register_buffer("weight_v", functional.normalize(torch.randn(weight[0].numel()), dim=0))
        self.settle(FIRST_ITERATIONS)

    @property
    def weight(self) -> torch.Tensor:
        """The weight divided by its spectral norm; in training mode after one more power iteration."""
        with torch.autocast(self.weight_orig.device.type, enabled=False):  # half precision would rescale whole layers
            if self.training:
                self._iterate()
            return self.normalized()

    def normalized(self) -> torch.Tensor:
        """The weight divided by its spectral norm, from u and v as they are."""
        # Copies: the next forward may iterate before this one's backward.
        norm = self.weight_u.clone() @ (self.weight_orig.flatten(1) @ self.weight_v.clone())
        return self.weight_orig / norm

    def settle(self, iterations: int) -> None:
        """Power iterations, for a weight that was changed otherwise than by training."""
        for _ in range(iterations):
            self._iterate()

    @torch.no_grad()
    def _iterate(self) -> None:
        if self.weight_orig.is_meta:  # no values yet: they are loaded afterwards, the singular vectors with them
            return
        matrix = self.weight_orig.flatten(1)
        self.weight_v.copy_(functional.normalize(matrix.T @ self.weight_u, dim=0, eps=self.epsilon))
        self.weight_u.copy_(functional.normalize(matrix @ self.weight_v, dim=0, eps=self.epsilon))


class SpectralLinear(Spectral):
    """A linear map of spectral norm 1; with a bias, or without as the maps to scale and offset."""

    def __init__(self, features: int, out_features: int, *, epsilon: float, bias: bool = True) -> None:
        start = nn.Linear(features, out_features, bias=bias)
        super().__init__(start.weight.detach(), epsilon=epsilon, bias=start.bias.detach() if bias else None)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(B,features) -> (B,out_features)."""
        return functional.linear(x, self.weight, self.bias)


class SpectralConv2d(Spectral):
    """A convolution whose kernel, as a matrix with one row for each output channel, has norm 1.

    Height and width are divided by `stride`; the kernel's size must be odd for stride 1 and even for stride 2.
    """

    def __init__(
        self, channels: int, out_channels: int, kernel: int, *, epsilon: float, bias: bool = True, stride: int = 1
    ) -> None:
        start = nn.Conv2d(channels, out_channels, kernel, bias=bias)
        first_bias = None if start.bias is None else start.bias.detach()
        super().__init__(start.weight.detach(), epsilon=epsilon, bias=first_bias)
        self.stride = stride

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(B,channels,H,W) -> (B,out_channels,H/stride,W/stride)."""
        padding = (self.weight_orig.shape[-1] - self.stride + 1) // 2
        return functional.conv2d(x, self.weight, self.bias, stride=self.stride, padding=padding)

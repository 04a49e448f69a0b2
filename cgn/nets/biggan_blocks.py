"""What BigGAN-deep is built of (Brock et al., ICLR 2019): batch norm on statistics, attention, blocks.

Legend: B batch, C channels, E size of the condition (noise and label embedding), S rows of statistics.
Decided here: attributes bear the names of the public weight file, so its keys load as they are. Batch norm never looks
at the batch: a row of the precomputed statistics stands for one truncation, in training as well.
"""

import torch
from torch import nn
from torch.nn import functional

from cgn.nets.spectral import SpectralConv2d, SpectralLinear


class StatisticsNorm(nn.Module):
    """Batch norm by precomputed statistics, (S,C) means and variances, one row a truncation."""

    running_means: torch.Tensor
    running_vars: torch.Tensor

    def __init__(self, channels: int, *, statistics: int, epsilon: float) -> None:
        super().__init__()
        self.epsilon = epsilon
        self.register_buffer("running_means", torch.zeros(statistics, channels))
        self.register_buffer("running_vars", torch.ones(statistics, channels))

    def inverse_deviation(self, row: int) -> torch.Tensor:
        """(C,) of one row."""
        return (self.running_vars[row] + self.epsilon).rsqrt()


class PlainNorm(StatisticsNorm):
    """The same scale and offset for every image."""

    def __init__(self, channels: int, *, statistics: int, epsilon: float) -> None:
        super().__init__(channels, statistics=statistics, epsilon=epsilon)
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))

    def forward(self, x: torch.Tensor, row: int) -> torch.Tensor:
        """(B,C,H,W) and the truncation's row -> (B,C,H,W)."""
        return affine(x, *self.affine_parts(row))

    def affine_parts(self, row: int) -> tuple[torch.Tensor, torch.Tensor]:
        """(1,C) scale and offset of one row."""
        scale = self.weight * self.inverse_deviation(row)
        return scale[None], (self.bias - self.running_means[row] * scale)[None]


class ConditionalNorm(StatisticsNorm):
    """Scale and offset are linear in the condition."""

    def __init__(self, channels: int, *, condition: int, statistics: int, epsilon: float) -> None:
        super().__init__(channels, statistics=statistics, epsilon=epsilon)
        self.scale = SpectralLinear(condition, channels, epsilon=epsilon, bias=False)
        self.offset = SpectralLinear(condition, channels, epsilon=epsilon, bias=False)

    def forward(self, x: torch.Tensor, condition: torch.Tensor, row: int) -> torch.Tensor:
        """(B,C,H,W), (B,E) and the truncation's row -> (B,C,H,W)."""
        scale = (1 + self.scale(condition)) * self.inverse_deviation(row)
        return affine(x, scale, self.offset(condition) - self.running_means[row] * scale)


def affine(x: torch.Tensor, scale: torch.Tensor, offset: torch.Tensor) -> torch.Tensor:
    """(B,C,H,W) times (B or 1,C) plus (B or 1,C)."""
    return torch.addcmul(offset[..., None, None], x, scale[..., None, None])


class Block(nn.Module):
    """A bottleneck with a skip; `doubling` repeats pixels, and fewer output channels drop the skip's last ones."""

    def __init__(
        self, channels: int, out_channels: int, *, doubling: bool, condition: int, statistics: int, epsilon: float
    ) -> None:
        super().__init__()
        middle = channels // 4
        self.doubling = doubling
        self.out_channels = out_channels
        known = {"condition": condition, "statistics": statistics}
        self.bn_0 = ConditionalNorm(channels, **known, epsilon=epsilon)
        self.bn_1 = ConditionalNorm(middle, **known, epsilon=epsilon)
        self.bn_2 = ConditionalNorm(middle, **known, epsilon=epsilon)
        self.bn_3 = ConditionalNorm(middle, **known, epsilon=epsilon)
        self.conv_0 = SpectralConv2d(channels, middle, 1, epsilon=epsilon)
        self.conv_1 = SpectralConv2d(middle, middle, 3, epsilon=epsilon)
        self.conv_2 = SpectralConv2d(middle, middle, 3, epsilon=epsilon)
        self.conv_3 = SpectralConv2d(middle, out_channels, 1, epsilon=epsilon)

    def forward(self, x: torch.Tensor, condition: torch.Tensor, row: int) -> torch.Tensor:
        """(B,channels,H,W), (B,E) and the truncation's row -> (B,out_channels,H,W), or 2H, 2W when doubling."""
        made = self.conv_0(self.bn_0(x, condition, row).relu())
        made = self.bn_1(made, condition, row).relu()
        made = self.conv_1(doubled(made) if self.doubling else made)
        made = self.conv_2(self.bn_2(made, condition, row).relu())
        made = self.conv_3(self.bn_3(made, condition, row).relu())
        skip = x[:, : self.out_channels]
        total: torch.Tensor = made + (doubled(skip) if self.doubling else skip)
        return total


def doubled(x: torch.Tensor) -> torch.Tensor:
    """(B,C,H,W) -> (B,C,2H,2W), every pixel repeated."""
    return functional.interpolate(x, scale_factor=2)


class SelfAttention(nn.Module):
    """Every place looks at every fourth (Zhang et al., ICML 2019), added to the input times a learned gamma."""

    def __init__(self, channels: int, *, epsilon: float) -> None:
        super().__init__()
        narrow, half = channels // 8, channels // 2
        self.snconv1x1_theta = SpectralConv2d(channels, narrow, 1, epsilon=epsilon, bias=False)
        self.snconv1x1_phi = SpectralConv2d(channels, narrow, 1, epsilon=epsilon, bias=False)
        self.snconv1x1_g = SpectralConv2d(channels, half, 1, epsilon=epsilon, bias=False)
        self.snconv1x1_o_conv = SpectralConv2d(half, channels, 1, epsilon=epsilon, bias=False)
        self.gamma = nn.Parameter(torch.zeros(1))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(B,C,H,W) -> (B,C,H,W); H and W even."""
        seen = attended(
            self.snconv1x1_theta(x),
            functional.max_pool2d(self.snconv1x1_phi(x), 2),
            functional.max_pool2d(self.snconv1x1_g(x), 2),
        )
        total: torch.Tensor = x + self.gamma * self.snconv1x1_o_conv(seen)
        return total


def attended(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor) -> torch.Tensor:
    """(B,D,H,W) queries, (B,D,h,w) keys and (B,V,h,w) values -> (B,V,H,W): softmax over the keys, unscaled."""

    def rows(part: torch.Tensor) -> torch.Tensor:
        return part.flatten(2).transpose(1, 2)[:, None]  # one head

    seen = functional.scaled_dot_product_attention(rows(query), rows(key), rows(value), scale=1.0)
    return seen[:, 0].transpose(1, 2).reshape(len(value), -1, *query.shape[2:])

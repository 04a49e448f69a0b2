"""BigGAN-deep's generator (Brock et al., ICLR 2019), of any resolution.

State-dict keys are those of the public PyTorch weights. The batch norms hold 51 precomputed statistics, for the
truncations 0, 0.02, ..., 1; any other truncation is refused. The public code interpolates between neighbouring rows
with their weights exchanged, and takes the row below where a division rounds (0.58, 0.94); here each truncation has the
row that was computed for it. A net is called with (noise, label) like any other generator; the noise is already
multiplied by the truncation.
"""

import math
from dataclasses import dataclass
from typing import Literal, cast

import torch
from torch import nn
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

from cgn.core.errors import ConfigError
from cgn.nets.spectral import SpectralConv2d, SpectralLinear

START = 4
"""Height and width of the first map."""
COLORS = 3


@dataclass(frozen=True, kw_only=True)
class BigGanConfig:
    """The layers of one resolution. Widths are multiples of `width`; `blocks` are (doubling, channels in, out)."""

    noise_size: int
    embedding_size: int
    classes: int
    width: int
    blocks: tuple[tuple[bool, int, int], ...]
    attention_at: int
    """How many blocks come before the self-attention."""
    statistics: int = 51
    epsilon: float = 1e-4

    def __post_init__(self) -> None:
        object.__setattr__(self, "blocks", tuple(map(tuple, self.blocks)))  # JSON has lists
        ends = [out for _, _, out in self.blocks]
        starts = [channels for _, channels, _ in self.blocks]
        if not self.blocks or starts[1:] != ends[:-1]:
            raise ConfigError(f"blocks {self.blocks}: each must take the channels that the one before it returns")
        if any(out > channels for _, channels, out in self.blocks):
            raise ConfigError(f"blocks {self.blocks}: a skip can drop channels, not add them")
        if not 0 <= self.attention_at < len(self.blocks):
            raise ConfigError(f"attention_at is {self.attention_at}, allowed: 0 to {len(self.blocks) - 1}")
        if self.statistics < 2:
            raise ConfigError(f"statistics is {self.statistics}, allowed: 2 or more (the ends 0 and 1 at least)")

    @property
    def image_size(self) -> int:
        """Height and width of the images, in pixels."""
        return START << sum(doubling for doubling, _, _ in self.blocks)

    def row(self, truncation: float) -> int:
        """The row of statistics for a truncation. Raises ConfigError off the grid, naming its neighbours."""
        steps = self.statistics - 1
        place = min(max(0.0, truncation), 1.0) * steps
        if not abs(round(place) - truncation * steps) < 1e-6 * steps:  # so that a NaN is refused too
            near = sorted({math.floor(place) / steps, math.ceil(place) / steps})
            raise ConfigError(
                f"truncation is {truncation}: the batch norms have statistics for 0, {1 / steps:g}, "
                f"{2 / steps:g}, ..., 1 only; nearest: {' or '.join(f'{value:g}' for value in near)}"
            )
        return round(place)


BIGGAN_DEEP_256 = BigGanConfig(
    noise_size=128,
    embedding_size=128,
    classes=1000,
    width=128,
    blocks=(
        (False, 16, 16), (True, 16, 16), (False, 16, 16), (True, 16, 8), (False, 8, 8), (True, 8, 8),
        (False, 8, 8), (True, 8, 4), (False, 4, 4), (True, 4, 2), (False, 2, 2), (True, 2, 1),
    ),
    attention_at=8,
)  # fmt: skip
"""The public ImageNet net of 256 px: 602 keys."""


Recompute = Literal["none", "blocks"]
"""`blocks`: compute each block again in the backward pass instead of keeping its maps. Only in eval mode, where the
spectral norms do not change between the two passes."""


class BigGan(nn.Module):
    """Noise and a label -> an image; a call that names no truncation is at `truncation`."""

    def __init__(self, config: BigGanConfig, *, truncation: float = 1.0, recompute: Recompute = "none") -> None:
        super().__init__()
        self.config = config
        self.row = config.row(truncation)
        self.embeddings = nn.Linear(config.classes, config.embedding_size, bias=False)
        self.generator = _Layers(config, recompute=recompute)

    def forward(self, noise: torch.Tensor, label: torch.Tensor, *, truncation: float | None = None) -> torch.Tensor:
        """(B,Z) truncated noise, already times `truncation`, and (B,) labels -> (B,3,S,S) in [-1,1].

        Training draws at truncation 1 (published code). Raises ConfigError for a truncation off the grid.
        """
        row = self.row if truncation is None else self.config.row(truncation)
        image: torch.Tensor = self.generator(self.condition(noise, label), row)
        return image

    def condition(self, noise: torch.Tensor, label: torch.Tensor) -> torch.Tensor:
        """The condition, an input of every layer; see `conditioned`."""
        return conditioned(noise, label, embeddings=self.embeddings.weight.T)


class _Layers(nn.Module):
    def __init__(self, config: BigGanConfig, *, recompute: Recompute) -> None:
        super().__init__()
        self.recompute = recompute
        condition = config.noise_size + config.embedding_size
        first, last = config.blocks[0][1] * config.width, config.blocks[-1][2] * config.width
        self.gen_z = SpectralLinear(condition, START * START * first, epsilon=config.epsilon)
        layers: list[nn.Module] = [
            Block(
                channels * config.width,
                out * config.width,
                doubling=doubling,
                condition=condition,
                statistics=config.statistics,
                epsilon=config.epsilon,
            )
            for doubling, channels, out in config.blocks
        ]
        attended = config.blocks[config.attention_at][1] * config.width
        layers.insert(config.attention_at, SelfAttention(attended, epsilon=config.epsilon))
        self.layers = nn.ModuleList(layers)
        self.bn = PlainNorm(last, statistics=config.statistics, epsilon=config.epsilon)
        # The public weights have as many output channels as input channels; all but three are not used.
        self.conv_to_rgb = SpectralConv2d(last, last, 3, epsilon=config.epsilon)

    def forward(self, condition: torch.Tensor, row: int) -> torch.Tensor:
        x = start_map(self.gen_z(condition))
        for layer in self.blocks_and_attention():
            inputs = (x,) if isinstance(layer, SelfAttention) else (x, condition, row)
            if self.recompute == "blocks" and torch.is_grad_enabled():
                assert not self.training, "the second pass through a block would change its spectral norms again"
                x = checkpoint(layer, *inputs, use_reentrant=False, preserve_rng_state=False)  # nothing in it is random
            else:
                x = layer(*inputs)
        image: torch.Tensor = self.conv_to_rgb(self.bn(x, row).relu_())
        return image[:, :COLORS].tanh()

    def blocks_and_attention(self) -> "list[Block | SelfAttention]":
        """The layers between the first map and the last norm."""
        return cast(list[Block | SelfAttention], list(self.layers))


def start_map(flat: torch.Tensor) -> torch.Tensor:
    """(B,4*4*C), channels last as in the public weights -> (B,C,4,4), a view: the maps stay channels last."""
    return flat.reshape(flat.shape[0], START, START, -1).permute(0, 3, 1, 2)


def conditioned(noise: torch.Tensor, label: torch.Tensor, *, embeddings: torch.Tensor) -> torch.Tensor:
    """(B,Z) noise, labels and the (K,F) embeddings of the classes -> (B,Z+F): noise and embedding concatenated.

    Labels are (B,) numbers of classes, or (B,K) shares of each class: then the embeddings are mixed.
    """
    embedded = label.to(embeddings) @ embeddings if label.is_floating_point() else embeddings[label]
    return torch.cat([noise, embedded], 1)


class StatisticsNorm(nn.Module):
    """Batch norm by precomputed statistics: (S,C) means and variances, one row for each truncation."""

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
        y = self.conv_0(self.bn_0(x, condition, row).relu_())
        y = self.bn_1(y, condition, row).relu_()
        y = self.conv_1(doubled(y) if self.doubling else y)
        y = self.conv_2(self.bn_2(y, condition, row).relu_())
        y = self.conv_3(self.bn_3(y, condition, row).relu_())
        skip = x[:, : self.out_channels]
        total: torch.Tensor = y + (doubled(skip) if self.doubling else skip)
        return total


def doubled(x: torch.Tensor) -> torch.Tensor:
    """(B,C,H,W) -> (B,C,2H,2W), every pixel repeated."""
    return functional.interpolate(x, scale_factor=2)


class SelfAttention(nn.Module):
    """Attention of each place to 2x2 pooled places, times a learned gamma, plus the input (Zhang et al., ICML 2019)."""

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

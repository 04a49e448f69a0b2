"""BigGAN-deep's generator as the public PyTorch code computes it, written plainly: what the benchmarks measure against.

Spectral norms by torch's own hook, a power iteration and a division each time a layer is called in training mode; batch
norms as a subtraction, a division, a product and a sum; attention by two products; every channel of the last
convolution. It has the keys of `cgn.nets.biggan`, so the same weights load into both and give the same images.
"""

import math

import torch
from torch import nn
from torch.nn import functional

from cgn.nets.biggan import START, BigGanConfig


def spectral(layer: nn.Module) -> nn.Module:
    """torch's older spectral norm, which the public code uses."""
    return nn.utils.spectral_norm(layer, eps=1e-4)


class PublishedNorm(nn.Module):
    """Batch norm by the statistics of one truncation; scale and offset from the condition, or none."""

    def __init__(self, channels: int, *, table: BigGanConfig, conditional: bool) -> None:
        super().__init__()
        self.epsilon, self.steps = table.epsilon, table.statistics - 1
        self.register_buffer("running_means", torch.zeros(table.statistics, channels))
        self.register_buffer("running_vars", torch.ones(table.statistics, channels))
        if conditional:
            condition = table.noise_size + table.embedding_size
            self.scale = spectral(nn.Linear(condition, channels, bias=False))
            self.offset = spectral(nn.Linear(condition, channels, bias=False))
        else:
            self.weight = nn.Parameter(torch.ones(channels))
            self.bias = nn.Parameter(torch.zeros(channels))

    def forward(self, x: torch.Tensor, truncation: float, condition: torch.Tensor | None = None) -> torch.Tensor:
        """(B,C,H,W) -> (B,C,H,W)."""
        row = round(truncation * self.steps)
        mean, variance = self.get_buffer("running_means")[row], self.get_buffer("running_vars")[row]
        if condition is None:
            return functional.batch_norm(
                x, mean, variance, self.weight, self.bias, training=False, momentum=0.0, eps=self.epsilon
            )
        weight = 1 + self.scale(condition)[..., None, None]
        bias = self.offset(condition)[..., None, None]
        mean, variance = mean[None, :, None, None], variance[None, :, None, None]
        normalized: torch.Tensor = (x - mean) / torch.sqrt(variance + self.epsilon) * weight + bias
        return normalized


class PublishedBlock(nn.Module):
    """A bottleneck of four normed convolutions with a skip."""

    def __init__(self, channels: int, out_channels: int, *, doubling: bool, table: BigGanConfig) -> None:
        super().__init__()
        middle = channels // 4
        self.doubling, self.out_channels = doubling, out_channels
        for number in range(4):
            norm = PublishedNorm(middle if number else channels, table=table, conditional=True)
            self.add_module(f"bn_{number}", norm)
        self.conv_0 = spectral(nn.Conv2d(channels, middle, 1))
        self.conv_1 = spectral(nn.Conv2d(middle, middle, 3, padding=1))
        self.conv_2 = spectral(nn.Conv2d(middle, middle, 3, padding=1))
        self.conv_3 = spectral(nn.Conv2d(middle, out_channels, 1))

    def forward(self, x: torch.Tensor, condition: torch.Tensor, truncation: float) -> torch.Tensor:
        """(B,channels,H,W) -> (B,out_channels,H,W), or 2H, 2W."""
        hidden = x
        for number in range(4):
            hidden = self.get_submodule(f"bn_{number}")(hidden, truncation, condition).relu()
            if number == 1 and self.doubling:
                hidden = functional.interpolate(hidden, scale_factor=2, mode="nearest")
            hidden = self.get_submodule(f"conv_{number}")(hidden)
        skip = x[:, : self.out_channels]
        if self.doubling:
            skip = functional.interpolate(skip, scale_factor=2, mode="nearest")
        return hidden + skip


class PublishedAttention(nn.Module):
    """Self-attention over all places."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.snconv1x1_theta = spectral(nn.Conv2d(channels, channels // 8, 1, bias=False))
        self.snconv1x1_phi = spectral(nn.Conv2d(channels, channels // 8, 1, bias=False))
        self.snconv1x1_g = spectral(nn.Conv2d(channels, channels // 2, 1, bias=False))
        self.snconv1x1_o_conv = spectral(nn.Conv2d(channels // 2, channels, 1, bias=False))
        self.gamma = nn.Parameter(torch.zeros(1))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(B,C,H,W) -> (B,C,H,W)."""
        batch, _, height, width = x.shape
        query = self.snconv1x1_theta(x).flatten(2)
        key = functional.max_pool2d(self.snconv1x1_phi(x), 2).flatten(2)
        value = functional.max_pool2d(self.snconv1x1_g(x), 2).flatten(2)
        attention = torch.bmm(query.permute(0, 2, 1), key).softmax(-1)
        seen = torch.bmm(value, attention.permute(0, 2, 1)).view(batch, -1, height, width)
        total: torch.Tensor = x + self.gamma * self.snconv1x1_o_conv(seen)
        return total


class PublishedBigGan(nn.Module):
    """Noise and a one-hot label -> an image."""

    def __init__(self, table: BigGanConfig) -> None:
        super().__init__()
        self.embeddings = nn.Linear(table.classes, table.embedding_size, bias=False)
        self.generator = _PublishedLayers(table)

    def forward(self, noise: torch.Tensor, one_hot: torch.Tensor, truncation: float) -> torch.Tensor:
        """(B,Z), (B,K) -> (B,3,S,S) in [-1,1]."""
        condition = torch.cat([noise, self.embeddings(one_hot)], 1)
        image: torch.Tensor = self.generator(condition, truncation)
        return image


class _PublishedLayers(nn.Module):
    def __init__(self, table: BigGanConfig) -> None:
        super().__init__()
        first, last = table.blocks[0][1] * table.width, table.blocks[-1][2] * table.width
        self.gen_z = spectral(nn.Linear(table.noise_size + table.embedding_size, START * START * first))
        layers: list[nn.Module] = [
            PublishedBlock(channels * table.width, out * table.width, doubling=doubling, table=table)
            for doubling, channels, out in table.blocks
        ]
        layers.insert(table.attention_at, PublishedAttention(table.blocks[table.attention_at][1] * table.width))
        self.layers = nn.ModuleList(layers)
        self.bn = PublishedNorm(last, table=table, conditional=False)
        self.conv_to_rgb = spectral(nn.Conv2d(last, last, 3, padding=1))

    def forward(self, condition: torch.Tensor, truncation: float) -> torch.Tensor:
        flat = self.gen_z(condition)
        channels = flat.shape[1] // (START * START)
        x = flat.view(-1, START, START, channels).permute(0, 3, 1, 2).contiguous()
        for layer in self.layers:
            x = layer(x) if isinstance(layer, PublishedAttention) else layer(x, condition, truncation)
        image: torch.Tensor = self.conv_to_rgb(self.bn(x, truncation).relu())
        return image[:, :3].tanh()


def noisy_state(net: nn.Module, *, stream: torch.Generator) -> dict[str, torch.Tensor]:
    """Random weights for a net of these keys, small enough for images that are not all black and white."""
    state: dict[str, torch.Tensor] = {}
    for name, tensor in net.state_dict().items():
        drawn = torch.randn(tensor.shape, generator=stream)
        fan_in = math.prod(tensor.shape[1:]) or 1
        if name.endswith(("weight_u", "weight_v")):
            state[name] = functional.normalize(drawn, dim=0)
        elif name.endswith("running_vars") or name.endswith(("bn.weight", "gamma")):
            state[name] = torch.ones(tensor.shape)
        elif name.endswith("running_means"):
            state[name] = torch.zeros(tensor.shape)
        else:
            state[name] = drawn / math.sqrt(fan_in)
    for name in [name for name in state if name.endswith("weight_orig")]:
        matrix, u = state[name].flatten(1), name.replace("_orig", "_u")
        for _ in range(3):
            state[name.replace("_orig", "_v")] = functional.normalize(matrix.T @ state[u], dim=0)
            state[u] = functional.normalize(matrix @ state[name.replace("_orig", "_v")], dim=0)
    return state

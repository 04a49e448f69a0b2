"""BigGAN-deep for inference: everything that is constant for one truncation is computed once, as plain weights.

A conditional batch norm, its statistics and the bias of the convolution before it become one scale and one offset for
each channel, affine in the condition; one matrix product gives those of the whole net. Doubling before a 3x3
convolution becomes a transposed 4x4 convolution (16 products instead of 36). In half precision the maps are half, and
the two matrix products of the condition, which are cheap, stay in single precision. Few operations are in place: in
half precision they take twice as long on a CPU (where freed memory is kept, `cgn.core.devices`).
"""

from collections.abc import Iterator
from typing import TypeVar

import torch
from torch import nn
from torch.nn import functional

from cgn.nets.biggan import COLORS, BigGan, Block, ConditionalNorm, SelfAttention, affine, conditioned, start_map

Map = tuple[torch.Tensor, torch.Tensor]
"""Weight and bias of an affine map."""


@torch.no_grad()
def fold(net: BigGan, *, truncation: float, dtype: torch.dtype | None = None) -> "FoldedBigGan":
    """A net for drawing at one truncation, equal to `net` in eval mode but for rounding; `net` stays as it is.

    It is called with (noise, label), noise already times the truncation, and its parameters require no gradients.
    `dtype` is that of the maps inside; None: the net's. Raises ConfigError for a truncation off the grid of statistics.
    """
    folded = FoldedBigGan(net, row=net.config.row(truncation))
    for part in (folded.layers, folded.colors):
        part.to(dtype or folded.last_norm.dtype)
    return folded.eval().requires_grad_(False)


class FoldedBigGan(nn.Module):
    """What `fold` returns."""

    embeddings: torch.Tensor
    last_norm: torch.Tensor

    def __init__(self, net: BigGan, *, row: int) -> None:
        super().__init__()
        layers = net.generator
        self.register_buffer("embeddings", net.embeddings.weight.T.clone(memory_format=torch.contiguous_format))
        self.start = _linear(layers.gen_z.normalized(), layers.gen_z.bias)
        blocks = [layer for layer in layers.blocks_and_attention() if isinstance(layer, Block)]
        baked = [part for block in blocks for part in _norm_maps(block, row=row)]
        self.widths = [len(bias) for _, bias in baked]
        self.modulation = _linear(torch.cat([weight for weight, _ in baked]), torch.cat([bias for _, bias in baked]))
        self.layers = nn.ModuleList(
            FoldedAttention(layer) if isinstance(layer, SelfAttention) else FoldedBlock(layer)
            for layer in layers.blocks_and_attention()
        )
        self.register_buffer("last_norm", torch.stack(layers.bn.affine_parts(row)))
        colors = layers.conv_to_rgb
        self.colors = _conv(colors.normalized()[:COLORS], None if colors.bias is None else colors.bias[:COLORS])

    def forward(self, noise: torch.Tensor, label: torch.Tensor) -> torch.Tensor:
        """(B,Z) noise, already times the truncation, and labels (see `conditioned`) -> (B,3,S,S) in [-1,1]."""
        condition = conditioned(noise, label, embeddings=self.embeddings)
        dtype = next(self.colors.parameters()).dtype
        norms = iter(self.modulation(condition).to(dtype).split(self.widths, 1))
        x = start_map(self.start(condition)).to(dtype)
        for layer in self.layers:
            x = layer(x) if isinstance(layer, FoldedAttention) else layer(x, norms)
        scale, offset = self.last_norm.to(dtype)
        image: torch.Tensor = self.colors(affine(x, scale, offset).relu())
        return image.to(self.last_norm.dtype).tanh_()


class FoldedBlock(nn.Module):
    """A block that takes its norms as scales and offsets."""

    def __init__(self, block: Block) -> None:
        super().__init__()
        self.doubling = block.doubling
        self.out_channels = block.out_channels
        self.conv_0 = _conv(block.conv_0.normalized(), None)
        self.conv_1 = (_doubling_conv if block.doubling else _conv)(block.conv_1.normalized(), None)
        self.conv_2 = _conv(block.conv_2.normalized(), None)
        bias = block.conv_3.bias
        self.conv_3 = _conv(block.conv_3.normalized(), None if block.doubling else bias)
        # Added before the doubling, where there are fewer pixels.
        self.bias = nn.Parameter(bias.clone()[:, None, None]) if block.doubling and bias is not None else None

    def forward(self, x: torch.Tensor, norms: Iterator[torch.Tensor]) -> torch.Tensor:
        """(B,C,H,W) and its four norms, (B,2C) scale and offset concatenated -> the block's output."""
        y = x
        for conv in (self.conv_0, self.conv_1, self.conv_2, self.conv_3):
            scale, offset = next(norms).chunk(2, 1)
            y = conv(affine(y, scale, offset).relu())
        skip = x[:, : self.out_channels]
        skip = skip if self.bias is None else skip + self.bias
        return added_doubled(y, skip) if self.doubling else y + skip


def added_doubled(y: torch.Tensor, skip: torch.Tensor) -> torch.Tensor:
    """(B,C,2H,2W) + (B,C,H,W), every pixel of the second repeated; without storing the enlarged map."""
    count, channels, height, width = skip.shape
    cells = y.permute(0, 2, 3, 1).reshape(count, height, 2, width, 2, channels)
    total = cells + skip.permute(0, 2, 3, 1)[:, :, None, :, None]
    return total.reshape(count, 2 * height, 2 * width, channels).permute(0, 3, 1, 2)


class FoldedAttention(nn.Module):
    """Queries, keys and values from one convolution; gamma is part of the last one.

    Written out, because torch's own attention takes six times as long if keys and values differ in size.
    """

    def __init__(self, layer: SelfAttention) -> None:
        super().__init__()
        parts = [part.normalized() for part in (layer.snconv1x1_theta, layer.snconv1x1_phi, layer.snconv1x1_g)]
        self.widths = [len(part) for part in parts]
        self.parts = _conv(torch.cat(parts), None)
        self.out = _conv(layer.snconv1x1_o_conv.normalized() * layer.gamma, None)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(B,C,H,W) -> (B,C,H,W)."""
        query, key, value = self.parts(x).split(self.widths, 1)
        keys, values = (functional.max_pool2d(part, 2).flatten(2) for part in (key, value))
        scores = (query.flatten(2).transpose(1, 2) @ keys).softmax(-1)
        seen = (scores @ values.transpose(1, 2)).transpose(1, 2).reshape(x.shape[0], -1, *x.shape[2:])
        total: torch.Tensor = self.out(seen) + x
        return total


class Pointwise(nn.Linear):
    """A 1x1 convolution as one matrix product: maps are channels last, so nothing is copied."""

    def forward(self, input: torch.Tensor) -> torch.Tensor:  # torch's name for it
        """(B,C,H,W) -> (B,out,H,W)."""
        # Two dimensions: with more, torch may repeat the weight for each row.
        rows = input.permute(0, 2, 3, 1).flatten(0, 2)
        return super().forward(rows).view(input.shape[0], *input.shape[2:], -1).permute(0, 3, 1, 2)


def _norm_maps(block: Block, *, row: int) -> list[Map]:
    """For each norm of the block: the map, (2C,E) and (2C,), from the condition to its scale and offset."""
    before = (None, block.conv_0.bias, block.conv_1.bias, block.conv_2.bias)
    norms = (block.bn_0, block.bn_1, block.bn_2, block.bn_3)
    return [_affine_map(norm, row=row, bias=bias) for norm, bias in zip(norms, before, strict=True)]


def _affine_map(norm: ConditionalNorm, *, row: int, bias: torch.Tensor | None) -> Map:
    inverse = norm.inverse_deviation(row)
    mean = norm.running_means[row] - (0 if bias is None else bias)
    scale = norm.scale.normalized() * inverse[:, None]
    offset = norm.offset.normalized() - scale * mean[:, None]
    return torch.cat([scale, offset]), torch.cat([inverse, -inverse * mean])


def _linear(weight: torch.Tensor, bias: torch.Tensor | None) -> nn.Linear:
    return _with_weights(nn.Linear(weight.shape[1], weight.shape[0], device="meta"), weight, bias)


def _conv(weight: torch.Tensor, bias: torch.Tensor | None) -> nn.Module:
    out, channels, kernel, _ = weight.shape
    if kernel == 1:
        return _with_weights(Pointwise(channels, out, device="meta"), weight.flatten(1), bias)
    conv = nn.Conv2d(channels, out, kernel, padding=kernel // 2, device="meta")
    return _with_weights(conv, weight.contiguous(memory_format=torch.channels_last), bias)


def _doubling_conv(weight: torch.Tensor, bias: torch.Tensor | None) -> nn.Module:
    """A layer that doubles its input and convolves it with a 3x3 `weight`."""
    spread = weight.new_tensor(
        [[0, 0, 1], [0, 1, 1], [1, 1, 0], [1, 0, 0]]
    )  # as in `cgn.mnist.generator.UpsampledConv`
    kernel = (spread @ weight @ spread.T).transpose(0, 1)
    conv = nn.ConvTranspose2d(len(kernel), kernel.shape[1], 4, stride=2, padding=1, device="meta")
    return _with_weights(conv, kernel.contiguous(memory_format=torch.channels_last), bias)


Layer = TypeVar("Layer", nn.Linear, nn.Conv2d, nn.ConvTranspose2d)


def _with_weights(layer: Layer, weight: torch.Tensor, bias: torch.Tensor | None) -> Layer:
    layer.weight = nn.Parameter(weight)
    layer.register_parameter("bias", None if bias is None else nn.Parameter(bias.clone()))
    return layer

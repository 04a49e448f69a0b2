"""U2-Net and the smaller U2-NetP (Qin et al., Pattern Recognition 2020): an image -> the saliency of each pixel.

A U-Net in which each stage is a small U-Net. State-dict keys are the 798 of the public files; weights with the batch
norms folded in load, too, with identity norms. The published net returns seven maps, this one only the first, which
fuses the others: nothing here is trained on them.
"""

import copy
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import nn
from torch.nn import functional
from torch.nn.utils.fusion import fuse_conv_bn_eval

HEIGHTS = (7, 6, 5, 4, 4, 4)
"""Convolutions on the way down in stages 1 to 6. The last two stages dilate where the others halve."""
DILATED = (5, 6)


@dataclass(frozen=True, kw_only=True)
class Widths:
    """(middle, out) channels of the stages: `down` for the encoder's 1 to 6, `up` for the decoder's 5 to 1."""

    down: tuple[tuple[int, int], ...]
    up: tuple[tuple[int, int], ...]

    def __post_init__(self) -> None:
        for name in ("down", "up"):  # JSON has lists
            object.__setattr__(self, name, tuple(map(tuple, getattr(self, name))))


U2NET = Widths(
    down=((32, 64), (32, 128), (64, 256), (128, 512), (256, 512), (256, 512)),
    up=((256, 512), (128, 256), (64, 128), (32, 64), (16, 64)),
)
"""The public u2net.pth, 176 MB."""
U2NETP = Widths(down=((16, 64),) * 6, up=((16, 64),) * 5)
"""The public u2netp.pth, 4.7 MB."""


MapResize = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
"""(B,C,h,w) and maps of (.,.,H,W) -> (B,C,H,W)."""


def sized(x: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
    """(B,C,h,w) -> (B,C,H,W), bilinearly, where `like` is (.,.,H,W)."""
    size = like.shape[2:]
    return x if x.shape[2:] == size else functional.interpolate(x, size, mode="bilinear")


def sized_to_corners(x: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
    """The same with corners aligned to corners: the published CGN's copy of the net does it so, U2-Net does not."""
    size = like.shape[2:]
    return x if x.shape[2:] == size else functional.interpolate(x, size, mode="bilinear", align_corners=True)


class U2Net(nn.Module):
    """Six stages down, five up, a map from each of the last six, and their fusion."""

    def __init__(self, widths: Widths, *, resize: MapResize = sized) -> None:
        super().__init__()
        self.widths, self.resize = widths, resize
        channels = 3
        for number, (middle, out) in enumerate(widths.down, start=1):
            self.add_module(f"stage{number}", _stage(number, channels, middle, out, resize=resize))
            channels = out
        for number, (middle, out) in zip(range(5, 0, -1), widths.up, strict=True):
            skipped = widths.down[number - 1][1]
            self.add_module(f"stage{number}d", _stage(number, channels + skipped, middle, out, resize=resize))
            self.add_module(f"side{number}", nn.Conv2d(out, 1, 3, padding=1))
            channels = out
        self.side6 = nn.Conv2d(widths.down[-1][1], 1, 3, padding=1)
        self.outconv = nn.Conv2d(len(HEIGHTS), 1, 1)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """(B,3,H,W) -> (B,1,H,W) in [0,1].

        The net was trained on images normalized by ImageNet's mean and deviation; see `segmenter` for its input here.
        """
        x = image
        kept: list[torch.Tensor] = []
        for number in range(1, 7):
            x = _apply_layer(self, f"stage{number}", halved(x) if kept else x)
            kept.append(x)
        sides = [self.side6(kept.pop())]
        for number in range(5, 0, -1):
            skipped = kept.pop()
            x = _apply_layer(self, f"stage{number}d", torch.cat([self.resize(x, skipped), skipped], 1))
            sides.insert(0, _apply_layer(self, f"side{number}", x))
        fused: torch.Tensor = self.outconv(torch.cat([self.resize(side, sides[0]) for side in sides], 1))
        if fused.dtype in (torch.bfloat16, torch.float16):  # too coarse near 1
            fused = fused.float()
        return fused.sigmoid()


class ConvNormRelu(nn.Module):
    """A dilated 3x3 convolution, batch norm, ReLU."""

    def __init__(self, channels: int, out_channels: int, *, dilation: int) -> None:
        super().__init__()
        self.conv_s1 = nn.Conv2d(channels, out_channels, 3, padding=dilation, dilation=dilation)
        self.bn_s1: nn.Module = nn.BatchNorm2d(out_channels)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(B,channels,H,W) -> (B,out_channels,H,W)."""
        y: torch.Tensor = self.bn_s1(self.conv_s1(x))
        return y.relu_()


class ResidualU(nn.Module):
    """A small U-Net plus its input: one convolution for each of `dilations` on the way down, and back up.

    `halvings`: how many of those down are followed by a pooling.
    """

    def __init__(
        self,
        channels: int,
        middle: int,
        out_channels: int,
        *,
        dilations: tuple[int, ...],
        halvings: int,
        resize: MapResize = sized,
    ) -> None:
        super().__init__()
        self.resize = resize
        self.halvings = halvings
        self.height = len(dilations)
        self.rebnconvin = ConvNormRelu(channels, out_channels, dilation=1)
        for number, dilation in enumerate(dilations, start=1):
            into = out_channels if number == 1 else middle
            self.add_module(f"rebnconv{number}", ConvNormRelu(into, middle, dilation=dilation))
        for number in range(self.height - 1, 0, -1):
            out = out_channels if number == 1 else middle
            up = ConvNormRelu(2 * middle, out, dilation=dilations[number - 1])
            self.add_module(f"rebnconv{number}d", up)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(B,channels,H,W) -> (B,out_channels,H,W)."""
        start = x = self.rebnconvin(x)
        kept = []
        for number in range(1, self.height + 1):
            x = _apply_layer(self, f"rebnconv{number}", halved(x) if 1 < number <= self.halvings + 1 else x)
            kept.append(x)
        kept.pop()
        for number in range(self.height - 1, 0, -1):
            skipped = kept.pop()
            x = _apply_layer(self, f"rebnconv{number}d", torch.cat([self.resize(x, skipped), skipped], 1))
        total: torch.Tensor = x + start
        return total


def segmenter(net: nn.Module) -> Callable[[torch.Tensor], torch.Tensor]:
    """`segment` for f_shape, and the saliency of backgrounds: (B,3,H,W) in [-1,1] -> (B,1,H,W) in [0,1].

    `net` is frozen: eval mode and no gradients for its weights; gradients pass through it to the image. The result is a
    function and not a module, so that the mechanism with this function neither trains nor saves the net. The caller
    moves the net to the images' device. As in the published code, images are in [-1,1] and not normalized as in the
    net's training; the loss weights depend on it.
    """
    frozen = net.eval().requires_grad_(False)

    def segment(image: torch.Tensor) -> torch.Tensor:
        mask: torch.Tensor = frozen(image)
        return mask

    return segment


def fold(net: U2Net) -> U2Net:
    """A net for inference, equal to `net` in eval mode but for rounding: batch norms are folded into convolutions.

    `net` does not change. The result's kernels are channels last, as its images should be.
    """
    folded = copy.deepcopy(net).eval().requires_grad_(False)
    for layer in folded.modules():
        if isinstance(layer, ConvNormRelu) and isinstance(layer.bn_s1, nn.BatchNorm2d):
            layer.conv_s1 = fuse_conv_bn_eval(layer.conv_s1, layer.bn_s1)
            layer.bn_s1 = nn.Identity()
    for layer in folded.modules():
        if isinstance(layer, nn.Conv2d):
            layer.weight = nn.Parameter(layer.weight.contiguous(memory_format=torch.channels_last))
    return folded.requires_grad_(False)


def halved(x: torch.Tensor) -> torch.Tensor:
    """(B,C,H,W) -> (B,C,H/2,W/2), rounded up: the largest of each 2x2."""
    return functional.max_pool2d(x, 2, ceil_mode=True)


def _stage(number: int, channels: int, middle: int, out: int, *, resize: MapResize) -> ResidualU:
    height = HEIGHTS[number - 1]
    if number in DILATED:
        dilations, halvings = tuple(2**place for place in range(height)), 0
    else:
        dilations, halvings = (1,) * (height - 1) + (2,), height - 2
    return ResidualU(channels, middle, out, dilations=dilations, halvings=halvings, resize=resize)


def _apply_layer(net: nn.Module, layer: str, x: torch.Tensor) -> torch.Tensor:
    y: torch.Tensor = net.get_submodule(layer)(x)
    return y

"""Independent mechanisms, the fixed composer, and interventions on the mechanisms' inputs (Sauer & Geiger, ICLR 2021).

    Cause, Causes, Prior        noise and a label for each mechanism, and the distribution of the noise
    factual, counterfactual     one label for all mechanisms, or do(label) for each
    Shape, Whole, Tiled         the mechanisms; their nets are passed in
    compose, Picture, Generator x = m*f + (1-m)*b

Shapes: B images, M masks, Z noise size, H and W image size.
"""

from collections.abc import Callable
from dataclasses import dataclass, fields

import torch
from torch import nn

REACH = 2.0
"""Truncated noise is in [-2,2] times the truncation."""
MARGIN = 1e-4
"""Masks stay this far from 0 and 1, so that the logarithms of the binary entropy are finite."""


@dataclass(frozen=True, kw_only=True)
class Cause:
    """The input of one mechanism: (B,Z) noise, (B,) labels, and (B,2) offsets if the mechanism draws tiles."""

    noise: torch.Tensor
    label: torch.Tensor
    offsets: torch.Tensor | None = None

    def of(self, chosen: torch.Tensor | slice) -> "Cause":
        """The causes of some images."""
        offsets = None if self.offsets is None else self.offsets[chosen]
        return Cause(noise=self.noise[chosen], label=self.label[chosen], offsets=offsets)

    def to(self, device: torch.device) -> "Cause":
        """The same on another device."""
        offsets = None if self.offsets is None else self.offsets.to(device)
        return Cause(noise=self.noise.to(device), label=self.label.to(device), offsets=offsets)


@dataclass(frozen=True, kw_only=True)
class Causes:
    """One cause for each mechanism. Equal labels give a factual image, different ones a counterfactual image."""

    shape: Cause
    texture: Cause
    background: Cause

    def of(self, chosen: torch.Tensor | slice) -> "Causes":
        """The causes of some images."""
        return Causes(**{role.name: getattr(self, role.name).of(chosen) for role in fields(self)})

    def to(self, device: torch.device) -> "Causes":
        """The same causes on another device."""
        return Causes(**{role.name: getattr(self, role.name).to(device) for role in fields(self)})


@dataclass(frozen=True, kw_only=True)
class Prior:
    """The distribution of noise: standard normal or, with a `truncation` t, t times a normal cut to [-2,2].

    `tile_size`: if mechanisms draw tiles, offsets are uniform from 0 to `tile_size`, both included.
    """

    noise_size: int
    tile_size: int | None = None
    truncation: float | None = None

    def noise(self, count: int, stream: torch.Generator) -> torch.Tensor:
        """(count,Z)."""
        size = (count, self.noise_size)
        if self.truncation is None:
            return torch.randn(size, generator=stream)
        drawn = torch.empty(size)
        return torch.nn.init.trunc_normal_(drawn, a=-REACH, b=REACH, generator=stream).mul_(self.truncation)

    def cause(self, label: torch.Tensor, stream: torch.Generator, *, noise: torch.Tensor | None = None) -> Cause:
        """A cause with these (B,) labels, and this noise or noise of its own."""
        drawn = self.noise(len(label), stream) if noise is None else noise
        if self.tile_size is None:
            return Cause(noise=drawn, label=label)
        offsets = torch.randint(self.tile_size + 1, (len(label), 2), generator=stream)
        return Cause(noise=drawn, label=label, offsets=offsets)


def factual(label: torch.Tensor, *, prior: Prior, stream: torch.Generator) -> Causes:
    """(B,) labels -> causes whose three mechanisms share label and noise; tile offsets are their own."""
    noise = prior.noise(len(label), stream)
    shape, texture, background = (prior.cause(label, stream, noise=noise) for _ in range(3))
    return Causes(shape=shape, texture=texture, background=background)


def counterfactual(
    *,
    shape: torch.Tensor,
    texture: torch.Tensor,
    background: torch.Tensor,
    images_per_mask: int = 1,
    prior: Prior,
    stream: torch.Generator,
) -> Causes:
    """Causes with labels and noise of their own for each mechanism.

    `shape` holds (M,) labels, one for each mask; `texture` and `background` hold (M*images_per_mask,) labels; the
    images of a mask are consecutive.
    """
    mask, foreground, behind = (prior.cause(label, stream) for label in (shape, texture, background))
    repeated = torch.arange(len(shape)).repeat_interleave(images_per_mask)
    return Causes(shape=mask.of(repeated), texture=foreground, background=behind)


class Shape(nn.Module):
    """f_shape: a net that draws masks, or one that draws images and a `segment` for them (ImageNet: U2-Net, frozen)."""

    def __init__(self, net: nn.Module, *, segment: Callable[[torch.Tensor], torch.Tensor] | None = None) -> None:
        super().__init__()
        self.net = net
        self.segment = segment

    def forward(self, cause: Cause) -> torch.Tensor:
        """A cause of B images -> masks (B,1,H,W) in [1e-4, 1-1e-4]."""
        return self.mask(self.net(cause.noise, cause.label))

    def mask(self, output: torch.Tensor) -> torch.Tensor:
        """The net's output (ImageNet: the pre-mask, an image (B,3,H,W) in [-1,1]) -> the masks."""
        mask = output if self.segment is None else self.segment(output)
        if mask.dtype in (torch.bfloat16, torch.float16):  # too coarse for 1 - 1e-4
            mask = mask.float()
        return mask.clamp(MARGIN, 1 - MARGIN)


class WholeImage(nn.Module):
    """f_texture or f_background by a net that draws whole images (ImageNet)."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, cause: Cause) -> torch.Tensor:
        """A cause of B images -> (B,3,H,W) in [-1,1]."""
        picture: torch.Tensor = self.net(cause.noise, cause.label)
        return picture


class Tiled(nn.Module):
    """f_texture or f_background by a net that draws tiles (MNIST).

    A tile repeated 2x2 and cropped at random cannot draw a digit. That is the same as rolling it around its borders.
    """

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, cause: Cause) -> torch.Tensor:
        """A cause of B images, with offsets in pixels -> (B,3,H,W) in [-1,1]."""
        assert cause.offsets is not None, "a prior without tile_size drew the cause of a mechanism that draws tiles"
        return rolled(self.net(cause.noise, cause.label), cause.offsets)


def rolled(tiles: torch.Tensor, offsets: torch.Tensor) -> torch.Tensor:
    """(B,C,S,S) tiles -> the crop at (B,2) offsets (down, right; 0..S) of each tile repeated 2x2."""
    size = tiles.shape[-1]
    places = torch.arange(size, device=tiles.device)
    rows = (places + offsets[:, :1]) % size
    columns = (places + offsets[:, 1:]) % size
    batch = torch.arange(tiles.shape[0], device=tiles.device)
    return tiles.permute(0, 2, 3, 1)[batch[:, None, None], rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2)


def compose(mask: torch.Tensor, foreground: torch.Tensor, background: torch.Tensor) -> torch.Tensor:
    """x = m*f + (1-m)*b (equation 4): (B,1,H,W) mask, (B,3,H,W) foreground and background -> (B,3,H,W) in [-1,1]."""
    return mask * foreground + (1 - mask) * background


@dataclass(frozen=True, kw_only=True)
class Picture:
    """The outputs of the three mechanisms, (B,C,H,W): mask in [1e-4, 1-1e-4], foreground and background in [-1,1]."""

    mask: torch.Tensor
    foreground: torch.Tensor
    background: torch.Tensor

    @property
    def image(self) -> torch.Tensor:
        """The composite, (B,3,H,W) in [-1,1]."""
        return compose(self.mask, self.foreground, self.background)

    def cut_off(self) -> "Picture":
        """The same values without what computed them; gradients end in their `grad`."""
        return Picture(**{part.name: getattr(self, part.name).detach().requires_grad_() for part in fields(self)})


class Generator(nn.Module):
    """f_shape, f_texture and f_background, each called with its own cause, and the composer."""

    def __init__(self, *, shape: nn.Module, texture: nn.Module, background: nn.Module) -> None:
        super().__init__()
        self.shape = shape
        self.texture = texture
        self.background = background

    def forward(self, causes: Causes) -> Picture:
        """Causes of B images -> mask (B,1,H,W), foreground and background (B,3,H,W)."""
        return Picture(
            mask=self.shape(causes.shape),
            foreground=self.texture(causes.texture),
            background=self.background(causes.background),
        )

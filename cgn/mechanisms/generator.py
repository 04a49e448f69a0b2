"""The counterfactual generator: independent mechanisms under one roof, each with its own noise and label.

Legend: B batch, Z noise size, H and W image size.
"""

from dataclasses import dataclass

import torch
from torch import nn

from cgn.mechanisms.composer import Picture


@dataclass(frozen=True, kw_only=True)
class Cause:
    """What goes into one mechanism: (B,Z) standard normal noise, (B,) labels, (B,2) tile offsets."""

    noise: torch.Tensor
    label: torch.Tensor
    offsets: torch.Tensor


@dataclass(frozen=True, kw_only=True)
class Causes:
    """One cause for each mechanism. Equal labels make a factual image, other ones a counterfactual."""

    shape: Cause
    texture: Cause
    background: Cause

    def to(self, device: torch.device) -> "Causes":
        """The same causes on another device."""
        return Causes(
            **{
                role: Cause(noise=c.noise.to(device), label=c.label.to(device), offsets=c.offsets.to(device))
                for role, c in (("shape", self.shape), ("texture", self.texture), ("background", self.background))
            }
        )


class Generator(nn.Module):
    """f_shape, f_texture, f_background and the composer."""

    def __init__(self, *, shape: nn.Module, texture: nn.Module, background: nn.Module) -> None:
        super().__init__()
        self.shape = shape
        self.texture = texture
        self.background = background

    def forward(self, causes: Causes) -> Picture:
        """Causes of B images -> mask (B,1,H,W), foreground and background (B,3,H,W)."""
        texture, background = causes.texture, causes.background
        return Picture(
            mask=self.shape(causes.shape.noise, causes.shape.label),
            foreground=self.texture(texture.noise, texture.label, texture.offsets),
            background=self.background(background.noise, background.label, background.offsets),
        )

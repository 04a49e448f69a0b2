"""f_shape: noise and a shape label -> a mask (Sauer & Geiger, ICLR 2021, section 3.2)."""

from collections.abc import Callable

import torch
from torch import nn

from cgn.mechanisms.causes import Cause

MARGIN = 1e-4  # keeps the binary entropy's logarithms finite


class Shape(nn.Module):
    """The role; the net is injected. `segment` turns a net's picture into a mask (ImageNet: a frozen U2-Net)."""

    def __init__(self, net: nn.Module, *, segment: Callable[[torch.Tensor], torch.Tensor] | None = None) -> None:
        super().__init__()
        self.net = net
        self.segment = segment

    def forward(self, cause: Cause) -> torch.Tensor:
        """A cause of B images -> masks (B,1,H,W) in [1e-4, 1-1e-4]."""
        return self.mask(self.net(cause.noise, cause.label))

    def mask(self, made: torch.Tensor) -> torch.Tensor:
        """What the net made (ImageNet: the pre-mask, a picture (B,3,H,W) in [-1,1]) -> the masks."""
        mask = made if self.segment is None else self.segment(made)
        if mask.dtype in (torch.bfloat16, torch.float16):  # too coarse for 1 - 1e-4
            mask = mask.float()
        return mask.clamp(MARGIN, 1 - MARGIN)

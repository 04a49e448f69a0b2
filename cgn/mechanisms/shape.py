"""f_shape: noise and a shape label -> a mask (Sauer & Geiger, ICLR 2021, section 3.2)."""

from collections.abc import Callable

import torch
from torch import nn

MARGIN = 1e-4  # keeps the binary entropy's logarithms finite


class Shape(nn.Module):
    """The role; the net is injected. `segment` turns a net's picture into a mask (ImageNet: a frozen U2-Net)."""

    def __init__(self, net: nn.Module, *, segment: Callable[[torch.Tensor], torch.Tensor] | None = None) -> None:
        super().__init__()
        self.net = net
        self.segment = segment

    def forward(self, noise: torch.Tensor, label: torch.Tensor) -> torch.Tensor:
        """(B,Z) noise and (B,) labels -> (B,1,H,W) in [1e-4, 1-1e-4]."""
        made = self.net(noise, label)
        mask: torch.Tensor = made if self.segment is None else self.segment(made)
        if mask.dtype in (torch.bfloat16, torch.float16):  # too coarse for 1 - 1e-4
            mask = mask.float()
        return mask.clamp(MARGIN, 1 - MARGIN)

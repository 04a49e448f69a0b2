"""The composer: x = m*f + (1-m)*b (Sauer & Geiger, ICLR 2021, eq. 4). Fixed, without parameters, written once."""

from dataclasses import dataclass

import torch


def compose(mask: torch.Tensor, foreground: torch.Tensor, background: torch.Tensor) -> torch.Tensor:
    """(B,1,H,W) mask in [0,1], (B,3,H,W) foreground and background in [-1,1] -> (B,3,H,W) in [-1,1]."""
    return mask * foreground + (1 - mask) * background


@dataclass(frozen=True, kw_only=True)
class Picture:
    """What the three mechanisms made, (B,C,H,W): mask in [1e-4, 1-1e-4], foreground and background in [-1,1]."""

    mask: torch.Tensor
    foreground: torch.Tensor
    background: torch.Tensor

    @property
    def image(self) -> torch.Tensor:
        """The composite, (B,3,H,W) in [-1,1]."""
        return compose(self.mask, self.foreground, self.background)

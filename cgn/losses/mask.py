"""What makes a mask: binary, neither empty nor everything (Sauer & Geiger, ICLR 2021), inside the frame (ours)."""

import torch


def binary_entropy(mask: torch.Tensor) -> torch.Tensor:
    """(B,1,H,W) in (0,1) -> mean of -m log2 m - (1-m) log2(1-m); 0 at 0 and 1, 1 bit at one half."""
    return -(mask * mask.log2() + (1 - mask) * (1 - mask).log2()).mean()


def size_hinge(mask: torch.Tensor, *, smallest: float = 0.1, largest: float = 0.9) -> torch.Tensor:
    """(B,1,H,W) in [0,1] -> (B,): how far each mask's mean lies outside [smallest, largest]."""
    size = mask.mean((1, 2, 3))
    return (smallest - size).clamp_min(0) + (size - largest).clamp_min(0)


def border_hinge(mask: torch.Tensor, *, width: int, largest: float) -> torch.Tensor:
    """(B,1,H,W) in [0,1] -> (B,): how far the mean of each mask's outermost `width` pixels lies above `largest`.

    Where nothing tells object from ground, an inverted mask draws the same images; the frame's edge is ground.
    """
    height, breadth = mask.shape[-2:]
    inner = mask[..., width : height - width, width : breadth - width]
    pixels = mask[0].numel() - inner[0].numel()
    return ((mask.sum((1, 2, 3)) - inner.sum((1, 2, 3))) / pixels - largest).clamp_min(0)

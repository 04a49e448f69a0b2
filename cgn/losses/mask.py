"""What makes a mask a mask (Sauer & Geiger, ICLR 2021, shape losses): binary, and neither empty nor everything."""

import torch


def binary_entropy(mask: torch.Tensor) -> torch.Tensor:
    """(B,1,H,W) in (0,1) -> mean of -m log2 m - (1-m) log2(1-m); 0 at 0 and 1, 1 bit at one half."""
    return -(mask * mask.log2() + (1 - mask) * (1 - mask).log2()).mean()


def size_hinge(mask: torch.Tensor, *, smallest: float = 0.1, largest: float = 0.9) -> torch.Tensor:
    """(B,1,H,W) in [0,1] -> (B,): how far each mask's mean lies outside [smallest, largest]."""
    size = mask.mean((1, 2, 3))
    return (smallest - size).clamp_min(0) + (size - largest).clamp_min(0)

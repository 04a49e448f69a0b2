"""The composite reproduces what the unconstrained cGAN draws from the same noise and label (Sauer & Geiger, 2021)."""

import torch


def l1(image: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """(B,3,H,W) composite and target in [-1,1] -> mean absolute difference."""
    return (image - target).abs().mean()

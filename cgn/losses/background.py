"""No object left in the background (Sauer & Geiger, ICLR 2021): the saliency of f_background's picture."""

import torch


def saliency(mask: torch.Tensor) -> torch.Tensor:
    """(B,1,H,W) saliency of backgrounds in [0,1] -> (B,): its mean over each picture."""
    return mask.flatten(1).mean(1)

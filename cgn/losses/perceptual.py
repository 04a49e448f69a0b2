"""Gram-matrix style (Gatys et al., CVPR 2016) with the weighting of the published code: L1 of grams x w^2 x 5e3."""

from collections.abc import Sequence

import torch

STYLE_SCALE = 5e3


def gram(features: torch.Tensor) -> torch.Tensor:
    """(B,C,H,W) features -> (B,C,C): F F^T / (C H W)."""
    flat = features.flatten(2)
    return flat @ flat.transpose(1, 2) / (flat.shape[1] * flat.shape[2])


def style(
    features: Sequence[torch.Tensor], target_features: Sequence[torch.Tensor], *, weights: Sequence[float]
) -> torch.Tensor:
    """Maps (B,C,H,W) of both batches, layer by layer -> sum over layers of mean abs(gram - gram') w^2 5e3.

    Image i of one batch is compared with image i of the other. A layer of weight 0 costs nothing.
    """
    terms = [
        (gram(made) - gram(target)).abs().mean() * (weight**2 * STYLE_SCALE)
        for made, target, weight in zip(features, target_features, weights, strict=True)
        if weight
    ]
    return torch.stack(terms).sum() if terms else features[0].new_zeros(())

"""Least-squares adversarial losses (Mao et al., ICCV 2017) against a label-conditioned discriminator."""

import torch


def generator_loss(generated: torch.Tensor) -> torch.Tensor:
    """(B,) validities of generated images -> mean (D - 1)^2."""
    return (generated - 1).square().mean()


def discriminator_loss(real: torch.Tensor, generated: torch.Tensor) -> torch.Tensor:
    """(B,) validities of real and of generated images -> half of mean (D(real) - 1)^2 + mean D(generated)^2."""
    return ((real - 1).square().mean() + generated.square().mean()) / 2

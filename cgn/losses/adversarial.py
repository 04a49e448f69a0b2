"""Adversarial losses against a label-conditioned discriminator: least squares, and the hinge.

Least squares: Mao et al., ICCV 2017. Hinge: Lim & Ye, 2017, as BigGAN takes it (Brock et al., ICLR 2019, section 3).
"""

import torch


def generator_loss(generated: torch.Tensor) -> torch.Tensor:
    """(N,) validities of generated images -> mean (D - 1)^2."""
    return (generated - 1).square().mean()


def discriminator_loss(real: torch.Tensor, generated: torch.Tensor) -> torch.Tensor:
    """(N,) validities of real and of generated images -> half of mean (D(real) - 1)^2 + mean D(generated)^2."""
    return ((real - 1).square().mean() + generated.square().mean()) / 2


def mismatch_loss(mismatched: torch.Tensor) -> torch.Tensor:
    """(N,) validities of real images under wrong labels -> mean D^2 (matching-aware, Reed et al., ICML 2016)."""
    return mismatched.square().mean()


def hinge_generator_loss(generated: torch.Tensor) -> torch.Tensor:
    """(N,) validities of generated images -> mean -D."""
    return -generated.mean()


def hinge_discriminator_loss(real: torch.Tensor, generated: torch.Tensor) -> torch.Tensor:
    """(N,) validities of real and of generated images -> mean max(0, 1 - D(real)) + mean max(0, 1 + D(generated))."""
    return (1 - real).relu().mean() + (1 + generated).relu().mean()

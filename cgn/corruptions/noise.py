"""The four noises of ImageNet-C: Gaussian, shot, impulse and, extra, speckle.

Every function takes (B,3,H,W) grey levels in [0,255] and returns them noisy, unclipped. Constants: severities 1 to 5.
"""

from collections.abc import Sequence

import torch

from cgn.corruptions.draws import Draws

GAUSSIAN_DEVIATIONS = (0.08, 0.12, 0.18, 0.26, 0.38)
"""Of 255, as all here."""
PHOTONS = (60, 25, 12, 5, 3)
"""How many a white pixel receives on average."""
IMPULSES = (0.03, 0.06, 0.09, 0.17, 0.27)
"""Share of the values struck; one half becomes black, the other white."""
SPECKLE_DEVIATIONS = (0.15, 0.2, 0.35, 0.45, 0.6)


def gaussian_noise(images: torch.Tensor, severity: int, draws: Draws, _: Sequence[torch.Tensor]) -> torch.Tensor:
    """Normal noise on every value: the electronics in little light."""
    return images + 255 * GAUSSIAN_DEVIATIONS[severity - 1] * draws.normal(*images.shape[1:])


def shot_noise(images: torch.Tensor, severity: int, draws: Draws, _: Sequence[torch.Tensor]) -> torch.Tensor:
    """Poisson noise: light comes in photons."""
    level = 255 / PHOTONS[severity - 1]
    return draws.poisson(images / level) * level


def impulse_noise(images: torch.Tensor, severity: int, draws: Draws, _: Sequence[torch.Tensor]) -> torch.Tensor:
    """Salt and pepper on single values: broken bits. One number decides whether and how a value is struck."""
    half = IMPULSES[severity - 1] / 2
    drawn = draws.uniform(*images.shape[1:])
    return torch.where(drawn < half, 0.0, torch.where(drawn >= 1 - half, 255.0, images))


def speckle_noise(images: torch.Tensor, severity: int, draws: Draws, _: Sequence[torch.Tensor]) -> torch.Tensor:
    """Normal noise in proportion to the value."""
    return images * (1 + SPECKLE_DEVIATIONS[severity - 1] * draws.normal(*images.shape[1:]))

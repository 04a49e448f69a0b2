"""The noises and the digital corruptions of ImageNet-C.

    noise      Gaussian, shot, impulse and, extra, speckle
    digital    brightness, contrast, elastic, pixelate, JPEG and, extra, saturate

Every function takes (B,3,H,W) grey levels in [0,255] and does not clip its result; constants are for severities 1 to 5.
Brightness and saturation are defined in hue, saturation and value. They keep the hue, so only each channel's distance
to the largest channel changes, and no hue is computed. Pixelate and JPEG use Pillow, image by image, as published.
"""

import io
from collections.abc import Callable, Sequence

import numpy as np
import torch
from PIL import Image
from torch.nn import functional

from cgn.corruptions.filters import gaussian, separable
from cgn.corruptions.random_numbers import RandomNumbers

GAUSSIAN_DEVIATIONS = (0.08, 0.12, 0.18, 0.26, 0.38)
"""Fractions of 255, as all constants here."""
PHOTONS = (60, 25, 12, 5, 3)
"""How many a white pixel receives on average."""
IMPULSES = (0.03, 0.06, 0.09, 0.17, 0.27)
"""Share of the values that are replaced: one half by black, the other by white."""
SPECKLE_DEVIATIONS = (0.15, 0.2, 0.35, 0.45, 0.6)


def gaussian_noise(
    images: torch.Tensor, severity: int, draws: RandomNumbers, _: Sequence[torch.Tensor]
) -> torch.Tensor:
    """Normal noise on every value, as from electronics in low light."""
    return images + 255 * GAUSSIAN_DEVIATIONS[severity - 1] * draws.normal(*images.shape[1:])


def shot_noise(images: torch.Tensor, severity: int, draws: RandomNumbers, _: Sequence[torch.Tensor]) -> torch.Tensor:
    """Poisson noise, from the discrete photons of light."""
    level = 255 / PHOTONS[severity - 1]
    return draws.poisson(images / level) * level


def impulse_noise(images: torch.Tensor, severity: int, draws: RandomNumbers, _: Sequence[torch.Tensor]) -> torch.Tensor:
    """Salt and pepper on single values, like broken bits. One random number decides whether and how a value changes."""
    half = IMPULSES[severity - 1] / 2
    drawn = draws.uniform(*images.shape[1:])
    return torch.where(drawn < half, 0.0, torch.where(drawn >= 1 - half, 255.0, images))


def speckle_noise(images: torch.Tensor, severity: int, draws: RandomNumbers, _: Sequence[torch.Tensor]) -> torch.Tensor:
    """Normal noise in proportion to the value."""
    return images * (1 + SPECKLE_DEVIATIONS[severity - 1] * draws.normal(*images.shape[1:]))


BRIGHTER = (0.1, 0.2, 0.3, 0.4, 0.5)
"""Of 255."""
SATURATION = ((0.3, 0), (0.1, 0), (2, 0), (5, 0.1), (20, 0.2))
"""Factor, offset."""
CONTRASTS = (0.4, 0.3, 0.2, 0.1, 0.05)
ELASTIC = (12.5, 16.25, 21.25, 25, 30)
"""Strength of the displacement."""
SHARES = (0.6, 0.5, 0.4, 0.3, 0.25)
"""Pixelated side / side."""
QUALITIES = (25, 18, 15, 10, 7)


def brightness(images: torch.Tensor, severity: int, _: RandomNumbers, __: Sequence[torch.Tensor]) -> torch.Tensor:
    """The value raised, hue and saturation kept; black, which has neither, turns grey."""
    value = images.amax(1, keepdim=True)
    raised = (value + 255 * BRIGHTER[severity - 1]).clamp(max=255)
    return torch.where(value > 0, images / value.clamp_min(1), 1.0) * raised


def saturate(images: torch.Tensor, severity: int, _: RandomNumbers, __: Sequence[torch.Tensor]) -> torch.Tensor:
    """The saturation changed, hue and value kept; the hue of grey is taken as red, so an offset turns grey reddish."""
    factor, offset = SATURATION[severity - 1]
    value, spread = images.amax(1, keepdim=True), images.amax(1, keepdim=True) - images.amin(1, keepdim=True)
    changed = (factor * spread / value.clamp_min(1) + offset).clamp(0, 1)
    cyan = torch.tensor([0.0, 1.0, 1.0], device=images.device)[:, None, None]
    below = torch.where(spread > 0, (value - images) / spread.clamp_min(1), cyan)
    return value * (1 - changed * below)


def contrast(images: torch.Tensor, severity: int, _: RandomNumbers, __: Sequence[torch.Tensor]) -> torch.Tensor:
    """Every channel drawn towards its mean over the image."""
    means = images.double().mean((2, 3), keepdim=True).float()
    return (images - means) * CONTRASTS[severity - 1] + means


def elastic_transform(
    images: torch.Tensor, severity: int, draws: RandomNumbers, _: Sequence[torch.Tensor]
) -> torch.Tensor:
    """Every pixel taken from a place near it, by a smooth random field; bilinear, mirrored at the border."""
    height, width = images.shape[-2:]
    field = (2 * draws.uniform(2, height, width) - 1) * (0.005 * height * ELASTIC[severity - 1])
    rows, columns = (
        gaussian(side, sigma=0.01 * side, widths=3, border="mirrored", device=images.device) for side in (height, width)
    )
    dx, dy = separable(field, rows=rows, columns=columns).unbind(1)
    x = torch.arange(width, device=images.device) + dx
    y = torch.arange(height, device=images.device)[:, None] + dy
    grid = torch.stack([(2 * x + 1) / width - 1, (2 * y + 1) / height - 1], dim=-1)
    return functional.grid_sample(images, grid, mode="bilinear", padding_mode="reflection", align_corners=False)


def pixelate(images: torch.Tensor, severity: int, _: RandomNumbers, __: Sequence[torch.Tensor]) -> torch.Tensor:
    """Every pixel the mean of its block."""
    share = SHARES[severity - 1]

    def coarse(image: Image.Image) -> Image.Image:
        small = image.resize((int(image.width * share), int(image.height * share)), Image.Resampling.BOX)
        return small.resize(image.size, Image.Resampling.NEAREST)

    return _by_pillow(images, coarse)


def jpeg_compression(images: torch.Tensor, severity: int, _: RandomNumbers, __: Sequence[torch.Tensor]) -> torch.Tensor:
    """Written as JPEG and read again."""

    def again(image: Image.Image) -> Image.Image:
        file = io.BytesIO()
        image.save(file, format="JPEG", quality=QUALITIES[severity - 1])
        return Image.open(file)

    return _by_pillow(images, again)


def _by_pillow(images: torch.Tensor, change: Callable[[Image.Image], Image.Image]) -> torch.Tensor:
    pixels = images.to("cpu", torch.uint8).permute(0, 2, 3, 1).contiguous().numpy()
    changed = np.stack([np.asarray(change(Image.fromarray(image))) for image in pixels])
    return torch.from_numpy(changed).permute(0, 3, 1, 2).to(images).contiguous()

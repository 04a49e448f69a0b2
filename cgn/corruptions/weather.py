"""The weather of ImageNet-C: snow, frost and fog.

Every function takes (B,3,H,W) grey levels in [0,255]. Constants: severities 1 to 5. `ice` are the photographs of
frozen panes from `ice.read_ice`.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from cgn.corruptions.draws import Draws
from cgn.corruptions.filters import correlated, magnified, streaks
from cgn.corruptions.ice import DRAWN

LUMA = (0.299, 0.587, 0.114)
FROST = ((1, 0.4), (0.8, 0.6), (0.7, 0.7), (0.65, 0.7), (0.6, 0.75))
"""Weight of the image, weight of the ice."""
FOG = ((1.5, 2), (2, 2), (2.5, 1.7), (2.5, 1.5), (3, 1.4))
"""Thickness, decay of the height map's noise from one scale to the next."""


@dataclass(frozen=True, kw_only=True)
class Snowfall:
    """Flakes: normal noise of `mean` and `deviation`, magnified, kept above `threshold`, then streaked downwards."""

    mean: float
    deviation: float = 0.3
    factor: float
    threshold: float
    radius: int
    sigma: float
    kept: float
    """Share of the image that is not whitened."""


SNOW = (
    Snowfall(mean=0.1, factor=3, threshold=0.5, radius=10, sigma=4, kept=0.8),
    Snowfall(mean=0.2, factor=2, threshold=0.5, radius=12, sigma=4, kept=0.7),
    Snowfall(mean=0.55, factor=4, threshold=0.9, radius=12, sigma=8, kept=0.7),
    Snowfall(mean=0.55, factor=4.5, threshold=0.85, radius=12, sigma=8, kept=0.65),
    Snowfall(mean=0.55, factor=2.5, threshold=0.85, radius=12, sigma=12, kept=0.55),
)


def snow(images: torch.Tensor, severity: int, draws: Draws, _: Sequence[torch.Tensor]) -> torch.Tensor:
    """A whitened image with two layers of flakes, the second the first one turned by 180 degrees."""
    fall, (height, width) = SNOW[severity - 1], images.shape[-2:]
    flakes = magnified(fall.mean + fall.deviation * draws.normal(1, height, width), fall.factor)
    flakes = torch.where(flakes < fall.threshold, 0.0, flakes).clamp(0, 1)
    kernels = streaks(90 * draws.uniform() - 135, radius=fall.radius, sigma=fall.sigma)
    flakes = correlated(flakes, kernels, border="replicate").mul(255).round()[..., :height, :width]
    luma = torch.tensor(LUMA, device=images.device)[:, None, None]
    grey = (images * luma).sum(1, keepdim=True)
    whitened = fall.kept * images + (1 - fall.kept) * torch.maximum(images, 1.5 * grey + 127.5)
    return whitened + flakes + flakes.flip(-1, -2)


def frost(images: torch.Tensor, severity: int, draws: Draws, ice: Sequence[torch.Tensor]) -> torch.Tensor:
    """The image behind a random crop of one of the photographs."""
    weight, thickness = FROST[severity - 1]
    height, width = images.shape[-2:]
    chosen = [ice[number] for number in draws.below([DRAWN] * len(images)).tolist()]
    tops = draws.below([layer.shape[1] - height for layer in chosen]).tolist()
    lefts = draws.below([layer.shape[2] - width for layer in chosen]).tolist()
    crops = [
        layer[:, top : top + height, left : left + width] for layer, top, left in zip(chosen, tops, lefts, strict=True)
    ]
    return weight * images + thickness * torch.stack(crops).to(images.device, torch.float32)


def fog(images: torch.Tensor, severity: int, draws: Draws, _: Sequence[torch.Tensor]) -> torch.Tensor:
    """The image under a fractal cloud, darkened so that the brightest value could stay what it was."""
    thickness, decay = FOG[severity - 1]
    height, width = images.shape[-2:]
    cloud = plasma(2 ** (max(height, width) - 1).bit_length(), decay=decay, draws=draws)[:, None, :height, :width]
    brightest = images.amax((1, 2, 3), keepdim=True) / 255
    return (images + 255 * thickness * cloud) * (brightest / (brightest + thickness))


def plasma(size: int, *, decay: float, draws: Draws) -> torch.Tensor:
    """(B,size,size) height maps in [0,1] by diamonds and squares on a torus; `size` is a power of two.

    Fournier, Fussell & Carpenter, "Computer rendering of stochastic models", CACM 1982.
    """
    drawn = 2 * draws.uniform(size * size - 1) - 1
    heights = drawn.new_zeros(len(drawn), size, size)
    step, noise, used = size, 100.0, 0
    while step >= 2:
        half, count = step // 2, (size // step) ** 2
        jitter = noise**2 * drawn[:, used : used + 3 * count].reshape(-1, 3, size // step, size // step)
        corners = heights[:, ::step, ::step].clone()
        right, below = corners.roll(-1, 2), corners.roll(-1, 1)
        centres = (corners + right + below + right.roll(-1, 1)) / 4 + jitter[:, 0]
        heights[:, half::step, half::step] = centres
        heights[:, ::step, half::step] = (centres + centres.roll(1, 1) + corners + right) / 4 + jitter[:, 1]
        heights[:, half::step, ::step] = (centres + centres.roll(1, 2) + corners + below) / 4 + jitter[:, 2]
        step, noise, used = half, noise / decay, used + 3 * count
    lowest, highest = heights.amin((1, 2), keepdim=True), heights.amax((1, 2), keepdim=True)
    return (heights - lowest) / (highest - lowest)

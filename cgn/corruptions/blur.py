"""The five blurs of ImageNet-C: defocus, glass, motion, zoom and, extra, Gaussian.

Every function takes (B,3,H,W) grey levels in [0,255]; constants are for severities 1 to 5. Glass blur is published as a
loop over pixels, in which each pixel takes the current value of a random neighbour. The random steps alone decide where
each original pixel ends, so all pixels are computed at once.
"""

from collections.abc import Sequence

import numpy as np
import torch
from torch.nn import functional

from cgn.corruptions.filters import blurred, correlated, magnified, streaks, whole
from cgn.corruptions.random_numbers import RandomNumbers

GAUSSIAN_SIGMAS = (1, 2, 3, 4, 6)
DEFOCUS = ((3, 0.1), (4, 0.5), (6, 0.5), (8, 0.5), (10, 0.5))
"""Radius of the disk, sigma of its own soft edge."""
GLASS = ((0.7, 1, 2), (0.9, 2, 1), (1, 2, 3), (1.1, 3, 2), (1.5, 4, 2))
"""Sigma of the blur before and after, reach of a step, rounds."""
MOTION = ((10, 3), (15, 5), (15, 8), (15, 12), (20, 15))
"""Radius, sigma."""
ZOOM = ((1.11, 0.01), (1.16, 0.01), (1.21, 0.02), (1.26, 0.02), (1.31, 0.03))
"""End and step of the factors, from 1."""


def gaussian_blur(images: torch.Tensor, severity: int, _: RandomNumbers, __: Sequence[torch.Tensor]) -> torch.Tensor:
    """A Gaussian, the border repeated."""
    return blurred(images, GAUSSIAN_SIGMAS[severity - 1])


def defocus_blur(images: torch.Tensor, severity: int, _: RandomNumbers, __: Sequence[torch.Tensor]) -> torch.Tensor:
    """A soft disk, the border mirrored."""
    radius, sigma = DEFOCUS[severity - 1]
    return correlated(images, soft_disk(radius, sigma=sigma).to(images.device)[None], border="reflect")


def motion_blur(images: torch.Tensor, severity: int, draws: RandomNumbers, _: Sequence[torch.Tensor]) -> torch.Tensor:
    """A streak within 45 degrees of the horizontal, one direction for each image."""
    radius, sigma = MOTION[severity - 1]
    kernels = streaks(90 * draws.uniform() - 45, radius=radius, sigma=sigma)
    return correlated(images, kernels, border="replicate")


def zoom_blur(images: torch.Tensor, severity: int, _: RandomNumbers, __: Sequence[torch.Tensor]) -> torch.Tensor:
    """The mean of the image and its magnifications, the first of which is by 1."""
    end, step = ZOOM[severity - 1]
    factors = np.arange(1, end, step)  # rounding decides whether `end` belongs to it, here as published
    total, (height, width) = images.clone(), images.shape[-2:]
    for factor in factors:
        total += magnified(images, float(factor))[..., :height, :width]
    return total / (len(factors) + 1)


def glass_blur(images: torch.Tensor, severity: int, draws: RandomNumbers, _: Sequence[torch.Tensor]) -> torch.Tensor:
    """Blurred, pixels scattered, blurred."""
    sigma, reach, rounds = GLASS[severity - 1]
    height, width = images.shape[-2:]
    drawn = draws.below([2 * reach] * len(images), rounds, height - 2 * reach, width - 2 * reach, 2) - reach
    pixels = whole(blurred(images, sigma)).flatten(2)
    for steps in drawn.unbind(1):
        taken = origins(steps, height=height, width=width, reach=reach)
        pixels = pixels.gather(2, taken.unsqueeze(1).expand_as(pixels))
    return blurred(pixels.view_as(images), sigma)


def origins(steps: torch.Tensor, *, height: int, width: int, reach: int) -> torch.Tensor:
    """(B,height-2r,width-2r,2) steps (right, down) -> (B,height*width): the original pixel at each place in the end.

    Published: from the lower right corner to the upper left, each place takes the pixel that is `step` away from it at
    that moment (it should have been an exchange, but the code copies one way only). Places later in reading order have
    changed before, so a place's source may itself have a source; all such chains are followed at once, by doubling.
    """
    places = torch.arange(height * width, device=steps.device).expand(len(steps), -1)
    inside = slice(reach + 1, height - reach + 1), slice(reach + 1, width - reach + 1)
    source = places.reshape(-1, height, width).clone()
    backwards = steps.flip(1, 2)  # they were drawn in the order of the loop
    source[:, *inside] += backwards[..., 1] * width + backwards[..., 0]
    source = source.flatten(1)
    last = torch.maximum(source, places)
    while not torch.equal(further := last.gather(1, last), last):
        last = further
    return source.gather(1, last)


def soft_disk(radius: int, *, sigma: float) -> torch.Tensor:
    """(k,k) weights of a disk blurred by a Gaussian of 3x3 taps (5x5 for radii above 8).

    Published: the Gaussian is mirrored at a border that the disks of radius 8 and 10 touch, so these two add up to
    1.013 and 1.011 and brighten; the others add up to 1.
    """
    reach, taps = (8, 3) if radius <= 8 else (radius, 5)
    line = torch.arange(-reach, reach + 1, dtype=torch.float64)
    disk = (line[:, None].square() + line.square() <= radius**2).double()
    weights = torch.exp(-(torch.arange(taps, dtype=torch.float64) - taps // 2).square() / (2 * sigma**2))
    kernel = torch.outer(weights, weights) / weights.sum().square()
    padded = functional.pad((disk / disk.sum())[None, None], (taps // 2,) * 4, mode="reflect")
    soft: torch.Tensor = functional.conv2d(padded, kernel[None, None])
    return soft[0, 0].float()

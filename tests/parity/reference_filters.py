"""What several of the published corruptions share, written out in NumPy and SciPy; values in [0,1]."""

import math
from typing import Any

import numpy as np
from scipy import ndimage

Array = np.ndarray[Any, Any]


def finished(x: Array) -> Array:
    """[0,1] -> uint8."""
    return (np.clip(x, 0, 1) * 255).astype(np.uint8)


def smoothed(x: Array, sigma: float) -> Array:
    """A Gaussian over rows and columns, cut at four standard deviations; the border pixel is repeated."""
    return np.asarray(ndimage.gaussian_filter(x, (sigma, sigma, 0)[: x.ndim], mode="nearest", truncate=4))


def zoomed(x: Array, factor: float) -> Array:
    """The middle of x, `factor` times as large: about x's size, never less."""
    height, width = math.ceil(x.shape[0] / factor), math.ceil(x.shape[1] / factor)
    top, left = (x.shape[0] - height) // 2, (x.shape[1] - width) // 2
    middle = x[top : top + height, left : left + width]
    return np.asarray(ndimage.zoom(middle, (factor, factor, 1)[: x.ndim], order=1))


def moved(x: Array, *, radius: int, sigma: float, degrees: float) -> Array:
    """The mean of x moved along a line by 0, 1, ... 2 * radius pixels, with half a Gaussian for weights."""
    steps = np.arange(2 * radius + 1)
    weights = np.exp(-(steps**2) / (2 * sigma**2))
    total = np.zeros_like(x)
    for step, weight in zip(steps, weights / weights.sum(), strict=True):
        dy = -math.ceil(step * math.sin(math.radians(degrees)) - 0.5)
        dx = -math.ceil(step * math.cos(math.radians(degrees)) - 0.5)
        rows = np.clip(np.arange(x.shape[0]) - dy, 0, x.shape[0] - 1)
        columns = np.clip(np.arange(x.shape[1]) - dx, 0, x.shape[1] - 1)
        total += weight * x[rows[:, None], columns[None, :]]
    return total


def plasma(size: int, decay: float, random: np.random.RandomState) -> Array:
    """A diamond-square height map, (size,size) in [0,1]; its noise shrinks by `decay` with every halving."""
    heights = np.zeros((size, size))
    step, noise = size, 100.0
    while step >= 2:
        half = step // 2

        def jittered(total: Array, noise: float = noise) -> Array:
            return total / 4 + noise * random.uniform(-noise, noise, total.shape)

        corners = heights[::step, ::step]
        below = corners + np.roll(corners, -1, axis=0)
        heights[half::step, half::step] = jittered(below + np.roll(below, -1, axis=1))
        centres = heights[half::step, half::step]
        across = corners + np.roll(corners, -1, axis=1)
        heights[::step, half::step] = jittered(centres + np.roll(centres, 1, axis=0) + across)
        down = corners + np.roll(corners, -1, axis=0)
        heights[half::step, ::step] = jittered(centres + np.roll(centres, 1, axis=1) + down)
        step, noise = half, noise / decay
    heights -= heights.min()
    return np.asarray(heights / heights.max())


def to_hsv(x: Array) -> tuple[Array, Array, Array]:
    """Hue in sixths of the circle, saturation and value in [0,1]; a grey pixel's hue is red's."""
    red, green, blue = np.moveaxis(x, -1, 0)
    value, spread = x.max(axis=-1), np.ptp(x, axis=-1)
    divisor = np.where(spread > 0, spread, 1)
    hue = np.select(
        [spread == 0, blue == value, green == value],
        [np.zeros_like(value), 4 + (red - green) / divisor, 2 + (blue - red) / divisor],
        default=((green - blue) / divisor) % 6,
    )
    return hue, spread / np.where(value > 0, value, 1), value


def from_hsv(hue: Array, saturation: Array, value: Array) -> Array:
    """The inverse of `to_hsv`."""
    sector = np.floor(hue)
    part = hue - sector
    low, falling = value * (1 - saturation), value * (1 - part * saturation)
    rising = value * (1 - (1 - part) * saturation)
    choices = [
        (value, rising, low),
        (falling, value, low),
        (low, value, rising),
        (low, falling, value),
        (rising, low, value),
        (value, low, falling),
    ]
    stacked = [np.stack(choice, axis=-1) for choice in choices]
    return np.choose((sector % 6).astype(int)[..., None], stacked)

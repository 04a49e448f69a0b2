"""The corruptions as they are defined, one image at a time, in NumPy and SciPy: slow, and meant to be read.

Hendrycks & Dietterich, "Benchmarking neural network robustness to common corruptions and perturbations", ICLR 2019,
as the package `imagecorruptions` computes them. It draws from NumPy's global generator; here a `RandomState` is passed
in, and every function draws from it in that package's order, so the same seed gives the same picture. What comes from
scikit-image and OpenCV there is written out in `reference_filters` and `reference_opencv`.

Images are (H,W,3) uint8 in RGB; a result is cut to whole grey levels, not rounded, as published.
"""

import io
import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from PIL import Image
from scipy import ndimage

from tests.parity.reference_filters import finished, from_hsv, moved, plasma, smoothed, to_hsv, zoomed
from tests.parity.reference_opencv import cubic_weights, disk_blurred, enlarged, splashes

Array = np.ndarray[Any, Any]
Reference = Callable[[Array, int, np.random.RandomState], Array]


def gaussian_noise(image: Array, severity: int, random: np.random.RandomState) -> Array:
    deviation = (0.08, 0.12, 0.18, 0.26, 0.38)[severity - 1]
    return finished(image / 255 + random.normal(size=image.shape, scale=deviation))


def shot_noise(image: Array, severity: int, random: np.random.RandomState) -> Array:
    photons = (60, 25, 12, 5, 3)[severity - 1]
    return finished(random.poisson(image / 255 * photons) / photons)


def impulse_noise(image: Array, severity: int, random: np.random.RandomState) -> Array:
    amount = (0.03, 0.06, 0.09, 0.17, 0.27)[severity - 1]
    struck = random.uniform(size=image.shape) <= amount
    white = random.uniform(size=image.shape) <= 0.5
    return finished(np.where(struck, white, image / 255))


def speckle_noise(image: Array, severity: int, random: np.random.RandomState) -> Array:
    deviation = (0.15, 0.2, 0.35, 0.45, 0.6)[severity - 1]
    x = image / 255
    return finished(x + x * random.normal(size=image.shape, scale=deviation))


def gaussian_blur(image: Array, severity: int, _: np.random.RandomState) -> Array:
    return finished(smoothed(image / 255, (1, 2, 3, 4, 6)[severity - 1]))


def glass_blur(image: Array, severity: int, random: np.random.RandomState) -> Array:
    """The published exchange of two pixels is none: `a, b = b, a` of two views writes b over a and leaves b."""
    sigma, reach, rounds = ((0.7, 1, 2), (0.9, 2, 1), (1, 2, 3), (1.1, 3, 2), (1.5, 4, 2))[severity - 1]
    x = finished(smoothed(image / 255, sigma))
    height, width = x.shape[:2]
    for _ in range(rounds):
        for row in range(height - reach, reach, -1):
            for column in range(width - reach, reach, -1):
                dx, dy = random.randint(-reach, reach, size=(2,))
                x[row, column] = x[row + dy, column + dx]
    return finished(smoothed(x / 255, sigma))


def defocus_blur(image: Array, severity: int, _: np.random.RandomState) -> Array:
    radius, sigma = ((3, 0.1), (4, 0.5), (6, 0.5), (8, 0.5), (10, 0.5))[severity - 1]
    return finished(disk_blurred(image / 255, radius=radius, sigma=sigma))


def motion_blur(image: Array, severity: int, random: np.random.RandomState) -> Array:
    radius, sigma = ((10, 3), (15, 5), (15, 8), (15, 12), (20, 15))[severity - 1]
    return finished(moved(image / 255, radius=radius, sigma=sigma, degrees=random.uniform(-45, 45)))


def zoom_blur(image: Array, severity: int, _: np.random.RandomState) -> Array:
    end, step = ((1.11, 0.01), (1.16, 0.01), (1.21, 0.02), (1.26, 0.02), (1.31, 0.03))[severity - 1]
    factors = np.arange(1, end, step)
    x = (image / 255).astype(np.float32)
    total = x.copy()
    for factor in factors:
        total += zoomed(x, factor)[: x.shape[0], : x.shape[1]]
    return finished(total / (len(factors) + 1))


def snow(image: Array, severity: int, random: np.random.RandomState) -> Array:
    mean, deviation, factor, threshold, radius, sigma, kept = (
        (0.1, 0.3, 3, 0.5, 10, 4, 0.8),
        (0.2, 0.3, 2, 0.5, 12, 4, 0.7),
        (0.55, 0.3, 4, 0.9, 12, 8, 0.7),
        (0.55, 0.3, 4.5, 0.85, 12, 8, 0.65),
        (0.55, 0.3, 2.5, 0.85, 12, 12, 0.55),
    )[severity - 1]
    x = image / 255
    flakes = zoomed(random.normal(size=x.shape[:2], loc=mean, scale=deviation), factor)
    flakes = np.clip(np.where(flakes < threshold, 0, flakes), 0, 1)
    flakes = moved(flakes, radius=radius, sigma=sigma, degrees=random.uniform(-135, -45))
    flakes = (np.round(flakes * 255) / 255)[: x.shape[0], : x.shape[1], None]
    grey = (x @ (0.299, 0.587, 0.114))[..., None]
    x = kept * x + (1 - kept) * np.maximum(x, grey * 1.5 + 0.5)
    return finished(x + flakes + flakes[::-1, ::-1])


def frost(image: Array, severity: int, random: np.random.RandomState, photographs: Sequence[Array]) -> Array:
    """Six photographs, of which the published code draws one of the first five; each is enlarged by 1.1."""
    weight, ice = ((1, 0.4), (0.8, 0.6), (0.7, 0.7), (0.65, 0.7), (0.6, 0.75))[severity - 1]
    layer = photographs[random.randint(5)]
    height, width = image.shape[:2]
    scale = 1.1 * max(1, height / layer.shape[0], width / layer.shape[1])
    large_height, large_width = math.ceil(layer.shape[0] * scale), math.ceil(layer.shape[1] * scale)
    top, left = random.randint(0, large_height - height), random.randint(0, large_width - width)
    rows = cubic_weights(layer.shape[0], large_height)[top : top + height]
    columns = cubic_weights(layer.shape[1], large_width)[left : left + width]
    return finished((weight * image + ice * enlarged(layer, rows, columns)) / 255)


def fog(image: Array, severity: int, random: np.random.RandomState) -> Array:
    thickness, decay = ((1.5, 2), (2, 2), (2.5, 1.7), (2.5, 1.5), (3, 1.4))[severity - 1]
    height, width = image.shape[:2]
    x = image / 255
    brightest = x.max()
    x = x + thickness * plasma(2 ** (max(height, width) - 1).bit_length(), decay, random)[:height, :width, None]
    return finished(x * brightest / (brightest + thickness))


def brightness(image: Array, severity: int, _: np.random.RandomState) -> Array:
    hue, saturation, value = to_hsv(image / 255)
    return finished(from_hsv(hue, saturation, np.clip(value + severity / 10, 0, 1)))


def saturate(image: Array, severity: int, _: np.random.RandomState) -> Array:
    factor, offset = ((0.3, 0), (0.1, 0), (2, 0), (5, 0.1), (20, 0.2))[severity - 1]
    hue, saturation, value = to_hsv(image / 255)
    return finished(from_hsv(hue, np.clip(saturation * factor + offset, 0, 1), value))


def contrast(image: Array, severity: int, _: np.random.RandomState) -> Array:
    factor = (0.4, 0.3, 0.2, 0.1, 0.05)[severity - 1]
    x = image / 255
    means = x.mean(axis=(0, 1), keepdims=True)
    return finished((x - means) * factor + means)


def elastic_transform(image: Array, severity: int, random: np.random.RandomState) -> Array:
    strength = 250 * (0.05, 0.065, 0.085, 0.1, 0.12)[severity - 1]
    height, width = image.shape[:2]
    largest = 0.005 * height

    def field() -> Array:
        drawn = random.uniform(-largest, largest, size=(height, width))
        smooth = ndimage.gaussian_filter(drawn, (0.01 * height, 0.01 * width), mode="reflect", truncate=3)
        return np.asarray(strength * smooth)

    dx, dy = field(), field()
    rows, columns = np.mgrid[:height, :width]
    places = np.stack([rows + dy, columns + dx])
    x = (image / 255).astype(np.float32)
    channels = [ndimage.map_coordinates(x[..., channel], places, order=1, mode="reflect") for channel in range(3)]
    return finished(np.stack(channels, axis=-1))


def pixelate(image: Array, severity: int, _: np.random.RandomState) -> Array:
    share = (0.6, 0.5, 0.4, 0.3, 0.25)[severity - 1]
    height, width = image.shape[:2]
    small = Image.fromarray(image).resize((int(width * share), int(height * share)), Image.Resampling.BOX)
    return np.asarray(small.resize((width, height), Image.Resampling.NEAREST))


def jpeg_compression(image: Array, severity: int, _: np.random.RandomState) -> Array:
    file = io.BytesIO()
    Image.fromarray(image).save(file, format="JPEG", quality=(25, 18, 15, 10, 7)[severity - 1])
    return np.asarray(Image.open(file))


def spatter(image: Array, severity: int, random: np.random.RandomState) -> Array:
    mean, deviation, sigma, threshold, strength = (
        (0.65, 0.3, 4, 0.69, 0.6),
        (0.65, 0.3, 3, 0.68, 0.6),
        (0.65, 0.3, 2, 0.68, 0.5),
        (0.65, 0.3, 1, 0.65, 1.5),
        (0.67, 0.4, 1, 0.65, 1.5),
    )[severity - 1]
    x = image / 255
    liquid = smoothed(random.normal(size=x.shape[:2], loc=mean, scale=deviation), sigma)
    liquid[liquid < threshold] = 0
    if severity <= 3:
        water = np.array([175, 238, 238]) / 255
        return finished(x + strength * splashes(liquid)[..., None] * water)
    mud = np.array([63, 42, 20]) / 255
    cover = smoothed((liquid > threshold).astype(np.float64), strength)
    cover[cover < 0.8] = 0
    return finished(x * (1 - cover[..., None]) + mud * cover[..., None])


REFERENCES: dict[str, Reference] = {
    function.__name__: function
    for function in (
        gaussian_noise, shot_noise, impulse_noise, defocus_blur, glass_blur, motion_blur, zoom_blur, snow, fog,
        brightness, contrast, elastic_transform, pixelate, jpeg_compression, speckle_noise, gaussian_blur, spatter,
        saturate,
    )
}  # fmt: skip
"""All but frost, which needs its photographs."""


def references(photographs: Sequence[Array]) -> dict[str, Reference]:
    """All nineteen."""
    return {**REFERENCES, "frost": lambda image, severity, random: frost(image, severity, random, photographs)}

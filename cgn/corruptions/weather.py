"""The weather of ImageNet-C: snow, frost, fog and, extra, spatter.

Every function takes (B,3,H,W) grey levels in [0,255]; constants are for severities 1 to 5. `ice`, for frost, are the
photographs of frozen panes from `read_ice`. The water of spatter is defined by OpenCV's Canny edges, distance transform
(steps of 1, 1.4 and 2.1969) and histogram equalization; all three are written here for batches.

Shapes: B batch, H height, W width.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image, UnidentifiedImageError
from torch.nn import functional

from cgn.core.errors import ArtifactError, ConfigError
from cgn.corruptions.filters import blurred, correlated, magnified, streaks, whole
from cgn.corruptions.random_numbers import RandomNumbers

LUMA = (0.299, 0.587, 0.114)
FROST_WEIGHTS = ((1, 0.4), (0.8, 0.6), (0.7, 0.7), (0.65, 0.7), (0.6, 0.75))
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


def snow(images: torch.Tensor, severity: int, draws: RandomNumbers, _: Sequence[torch.Tensor]) -> torch.Tensor:
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


def frost(images: torch.Tensor, severity: int, draws: RandomNumbers, ice: Sequence[torch.Tensor]) -> torch.Tensor:
    """The image behind a random crop of one of the photographs."""
    weight, thickness = FROST_WEIGHTS[severity - 1]
    height, width = images.shape[-2:]
    chosen = [ice[number] for number in draws.below([FROST_PHOTOGRAPHS] * len(images)).tolist()]
    tops = draws.below([layer.shape[1] - height for layer in chosen]).tolist()
    lefts = draws.below([layer.shape[2] - width for layer in chosen]).tolist()
    crops = [
        layer[:, top : top + height, left : left + width] for layer, top, left in zip(chosen, tops, lefts, strict=True)
    ]
    return weight * images + thickness * torch.stack(crops).to(images.device, torch.float32)


def fog(images: torch.Tensor, severity: int, draws: RandomNumbers, _: Sequence[torch.Tensor]) -> torch.Tensor:
    """The image under a fractal cloud, darkened so that the brightest value could stay what it was."""
    thickness, decay = FOG[severity - 1]
    height, width = images.shape[-2:]
    cloud = plasma(2 ** (max(height, width) - 1).bit_length(), decay=decay, draws=draws)[:, None, :height, :width]
    brightest = images.amax((1, 2, 3), keepdim=True) / 255
    return (images + 255 * thickness * cloud) * (brightest / (brightest + thickness))


def plasma(size: int, *, decay: float, draws: RandomNumbers) -> torch.Tensor:
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


FROST_PHOTOGRAPHS = 5
"""The published code draws among the first five of the six photographs only."""
ENLARGED = 1.1


def read_ice(paths: Sequence[Path], *, height: int, width: int) -> tuple[torch.Tensor, ...]:
    """(3,h,w) uint8 RGB of each photograph, h and w larger than `height` and `width`; in the order of the paths.

    Photographs are enlarged (cubic) by 1.1, as published, and further if they would not cover the image. Raises
    ArtifactError when one is missing or not an image.
    """
    return tuple(_enlarged(_read_photograph(path), height=height, width=width) for path in paths)


def check_ice(ice: Sequence[torch.Tensor], *, height: int, width: int) -> None:
    """Raise ConfigError unless there are photographs that cover images of this size."""
    if len(ice) < FROST_PHOTOGRAPHS:
        raise ConfigError(
            f"frost was given {len(ice)} photographs: it needs at least {FROST_PHOTOGRAPHS}, frost1.png to frost5.jpg; "
            "read them with cgn.corruptions.weather.read_ice"
        )
    for number, layer in enumerate(ice, start=1):
        if layer.shape[1] <= height or layer.shape[2] <= width:
            raise ConfigError(
                f"photograph {number} of frost is {layer.shape[1]}x{layer.shape[2]}, images are {height}x{width}: "
                "read the photographs with this height and width"
            )


def _read_photograph(path: Path) -> torch.Tensor:
    try:
        with Image.open(path) as image:
            pixels = np.array(image.convert("RGB"))  # three of them have an alpha channel, which is not used
    except FileNotFoundError:
        raise ArtifactError(f"{path} is missing: run fetch again") from None
    except (UnidentifiedImageError, OSError) as error:
        raise ArtifactError(f"{path} is not a complete image ({error}): remove it and run fetch again") from None
    return torch.from_numpy(pixels).permute(2, 0, 1)


def _enlarged(photograph: torch.Tensor, *, height: int, width: int) -> torch.Tensor:
    scale = ENLARGED * max(1.0, height / photograph.shape[1], width / photograph.shape[2])
    size = [math.ceil(side * scale) for side in photograph.shape[1:]]
    larger = functional.interpolate(photograph[None].float(), size=size, mode="bicubic", align_corners=False)
    return larger[0].round().clamp(0, 255).to(torch.uint8)


WATER = (175.0, 238.0, 238.0)
MUD = (63.0, 42.0, 20.0)
WEAK, STRONG = 50, 150
FURTHEST = 20.0
STEPS = {
    **dict.fromkeys([(0, 1), (1, 0)], 1.0),
    **dict.fromkeys([(1, 1), (1, -1)], 1.4),
    **dict.fromkeys([(1, 2), (1, -2), (2, 1), (2, -1)], 2.1969),
}
"""(rows, columns) -> cost; each also backwards."""
RELIEF = ((-2.0, -1.0, 0.0), (-1.0, 1.0, 1.0), (0.0, 1.0, 2.0))


@dataclass(frozen=True, kw_only=True)
class Splash:
    """Liquid: normal noise of `mean` and `deviation`, blurred by `sigma`, kept above `threshold`."""

    mean: float = 0.65
    deviation: float = 0.3
    sigma: float
    threshold: float
    strength: float
    """Of water: what it adds. Of mud: sigma of its edge."""


SPLASHES = (
    Splash(sigma=4, threshold=0.69, strength=0.6),
    Splash(sigma=3, threshold=0.68, strength=0.6),
    Splash(sigma=2, threshold=0.68, strength=0.5),
    Splash(sigma=1, threshold=0.65, strength=1.5),
    Splash(mean=0.67, deviation=0.4, sigma=1, threshold=0.65, strength=1.5),
)


def spatter(images: torch.Tensor, severity: int, draws: RandomNumbers, _: Sequence[torch.Tensor]) -> torch.Tensor:
    """Drops of water (severities 1 to 3) or mud (4 and 5) on the lens."""
    splash = SPLASHES[severity - 1]
    liquid = splash.mean + splash.deviation * blurred(draws.normal(1, *images.shape[2:]), splash.sigma)
    liquid = torch.where(liquid < splash.threshold, 0.0, liquid)
    if severity <= 3:
        return images + splash.strength * water((255 * liquid).clamp(max=255).floor()) * _color_tensor(WATER, images)
    cover = blurred((liquid > splash.threshold).float(), splash.strength)
    cover = torch.where(cover < 0.8, 0.0, cover)
    return images * (1 - cover) + _color_tensor(MUD, images) * cover


def water(liquid: torch.Tensor) -> torch.Tensor:
    """Whole grey levels of the liquid -> how much light it adds, in [0,1]: brighter towards one side of each drop."""
    away = whole(_mean_of_nine(distance(edges(liquid))))
    relief = functional.conv2d(_mirror_padded(equalized(away)), torch.tensor([[RELIEF]], device=liquid.device))
    shine = liquid * _mean_of_nine(relief.clamp(0, 255)).round()
    return shine / shine.amax((2, 3), keepdim=True).clamp_min(1)


def edges(grey: torch.Tensor) -> torch.Tensor:
    """Whole grey levels -> bool: Canny's edges (PAMI 1986) with |dx| + |dy| for the gradient's size."""
    framed = functional.pad(grey, (1, 1, 1, 1), mode="replicate")
    across = framed[..., :-2, :] + 2 * framed[..., 1:-1, :] + framed[..., 2:, :]
    down = framed[..., :-2] + 2 * framed[..., 1:-1] + framed[..., 2:]
    dx, dy = across[..., 2:] - across[..., :-2], down[..., 2:, :] - down[..., :-2, :]
    size = dx.abs() + dy.abs()

    def higher(rows: int, columns: int) -> torch.Tensor:
        return size > _moved(size, rows, columns, filled=0)

    flat = dy.abs() < dx.abs() * math.tan(math.pi / 8)
    steep = dy.abs() > dx.abs() * math.tan(3 * math.pi / 8)
    level = higher(0, 1) & (size >= _moved(size, 0, -1, filled=0))
    upright = higher(1, 0) & (size >= _moved(size, -1, 0, filled=0))
    diagonal = torch.where((dx < 0) != (dy < 0), higher(1, -1) & higher(-1, 1), higher(1, 1) & higher(-1, -1))
    peaks = torch.where(flat, level, torch.where(steep, upright, diagonal)) & (size > WEAK)
    return _connected(peaks & (size > STRONG), within=peaks)


def distance(marked: torch.Tensor) -> torch.Tensor:
    """Bool -> the cost of the cheapest path to a marked pixel, at most FURTHEST (Borgefors, CVGIP 1986).

    Each kind of step is repeated 1, 2, 4, ... times, as far as FURTHEST, instead of step by step.
    """
    cheapest = torch.where(marked, 0.0, FURTHEST)
    for (rows, columns), cost in STEPS.items():
        for sign in (1, -1):
            times = 1
            while times * cost < FURTHEST:
                path = _moved(cheapest, sign * times * rows, sign * times * columns, filled=FURTHEST) + times * cost
                cheapest = torch.minimum(cheapest, path)
                times *= 2
    return cheapest


def equalized(levels: torch.Tensor) -> torch.Tensor:
    """Whole numbers from 0 to FURTHEST -> grey levels with an even histogram, from 0; one level alone stays itself."""
    flat = levels.long().flatten(1)
    counts = torch.zeros(len(flat), int(FURTHEST) + 1, device=levels.device)
    counts.scatter_add_(1, flat, torch.ones(flat.shape, device=levels.device))
    darkest = counts.gather(1, (counts > 0).int().argmax(1, keepdim=True))
    others = flat.shape[1] - darkest
    table = ((counts.cumsum(1) - darkest) * (255 / others.clamp_min(1))).clamp_min(0).round()
    return torch.where(others > 0, table.gather(1, flat), flat.float()).view_as(levels)


def _connected(seeds: torch.Tensor, *, within: torch.Tensor) -> torch.Tensor:
    """The pixels of `within` that are connected to a seed, over sides and corners."""
    reached, before = seeds, torch.zeros_like(seeds)
    while not torch.equal(reached, before):
        before = reached
        for _ in range(4):  # a comparison waits for the device
            reached = functional.max_pool2d(reached.float(), 3, stride=1, padding=1).bool() & within
    return reached


def _moved(maps: torch.Tensor, rows: int, columns: int, *, filled: float) -> torch.Tensor:
    """Maps moved down and to the right; the new border has the value `filled`."""
    return functional.pad(maps, (columns, -columns, rows, -rows), value=filled)


def _mean_of_nine(maps: torch.Tensor) -> torch.Tensor:
    return functional.avg_pool2d(_mirror_padded(maps), 3, stride=1)


def _mirror_padded(maps: torch.Tensor) -> torch.Tensor:
    return functional.pad(maps, (1, 1, 1, 1), mode="reflect")


def _color_tensor(rgb: tuple[float, float, float], images: torch.Tensor) -> torch.Tensor:
    return torch.tensor(rgb, device=images.device)[:, None, None]

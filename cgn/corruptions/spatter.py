"""Spatter, an extra corruption of ImageNet-C: drops of water (severities 1 to 3) or mud (4 and 5) on the lens.

Legend: B batch, H height, W width; maps are (B,1,H,W) float32.
Decided here: water is defined through OpenCV's Canny edges, its distance transform (steps of 1, 1.4 and 2.1969) and
its even histogram; all three are written here for batches. Distances count up to 20 only, so each kind of step is
closed by doubling: repeated k times, then 2k times. An edge spreads along weak ones until nothing changes.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch.nn import functional

from cgn.corruptions.draws import Draws
from cgn.corruptions.filters import blurred, whole

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


def spatter(images: torch.Tensor, severity: int, draws: Draws, _: Sequence[torch.Tensor]) -> torch.Tensor:
    """(B,3,H,W) grey levels in [0,255] -> the same with drops on them."""
    splash = SPLASHES[severity - 1]
    liquid = splash.mean + splash.deviation * blurred(draws.normal(1, *images.shape[2:]), splash.sigma)
    liquid = torch.where(liquid < splash.threshold, 0.0, liquid)
    if severity <= 3:
        return images + splash.strength * water((255 * liquid).clamp(max=255).floor()) * _colour(WATER, images)
    cover = blurred((liquid > splash.threshold).float(), splash.strength)
    cover = torch.where(cover < 0.8, 0.0, cover)
    return images * (1 - cover) + _colour(MUD, images) * cover


def water(liquid: torch.Tensor) -> torch.Tensor:
    """Whole grey levels of the liquid -> how much light it adds, in [0,1]: brighter towards one side of each drop."""
    away = whole(_mean_of_nine(distance(edges(liquid))))
    relief = functional.conv2d(_mirrored(equalized(away)), torch.tensor([[RELIEF]], device=liquid.device))
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
    return _spread(peaks & (size > STRONG), within=peaks)


def distance(marked: torch.Tensor) -> torch.Tensor:
    """Bool -> the cost of the cheapest path to a marked pixel, at most FURTHEST (Borgefors, CVGIP 1986)."""
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


def _spread(seeds: torch.Tensor, *, within: torch.Tensor) -> torch.Tensor:
    """All of `within` that touches a seed, or one that does, over sides and corners."""
    reached, before = seeds, torch.zeros_like(seeds)
    while not torch.equal(reached, before):
        before = reached
        for _ in range(4):  # a comparison waits for the device
            reached = functional.max_pool2d(reached.float(), 3, stride=1, padding=1).bool() & within
    return reached


def _moved(maps: torch.Tensor, rows: int, columns: int, *, filled: float) -> torch.Tensor:
    """Moved down and to the right; `filled` comes in."""
    return functional.pad(maps, (columns, -columns, rows, -rows), value=filled)


def _mean_of_nine(maps: torch.Tensor) -> torch.Tensor:
    return functional.avg_pool2d(_mirrored(maps), 3, stride=1)


def _mirrored(maps: torch.Tensor) -> torch.Tensor:
    return functional.pad(maps, (1, 1, 1, 1), mode="reflect")


def _colour(rgb: tuple[float, float, float], images: torch.Tensor) -> torch.Tensor:
    return torch.tensor(rgb, device=images.device)[:, None, None]

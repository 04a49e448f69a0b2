"""Frozen panes for the corruption frost, drawn: the miniature needs ImageNet-C's six photographs, and has no network.

Legend: B panes, H height, W width.
Decided here: a pane is made of facets (the cells of scattered seeds), each with needles of its own direction, brighter
where the ice is thick. Files bear the photographs' names and formats, so whoever reads those reads these.
"""

from pathlib import Path

import numpy as np
import torch
from PIL import Image

from cgn.core.files import replacing
from cgn.core.images import to_bytes
from cgn.data.sources import FROST
from cgn.miniature.draws import Draws, Floats, Keys, blend, clouds, edge, hashed, noise, paint

PANE_SIZE = 192
JPEG_QUALITY = 95


def write_frost(folder: Path, *, seed: int) -> int:
    """Write `frost1.png` to `frost6.jpg` into `folder`; how many."""
    for asset, pane in zip(FROST, to_bytes(torch.from_numpy(2 * panes(len(FROST), seed=seed) - 1)), strict=True):
        kind = "PNG" if asset.name.endswith(".png") else "JPEG"
        with replacing(folder / asset.name) as temporary:
            Image.fromarray(pane).save(temporary, format=kind, quality=JPEG_QUALITY)
    return len(FROST)


def panes(count: int, *, seed: int) -> Floats:
    """(count,3,S,S) in [0,1], S = 192: a function of the seed and each pane's number."""
    draws = Draws(np.arange(count), seed=seed, stream="frost")
    places = ((np.arange(PANE_SIZE, dtype=np.float32) + 0.5) * (2 / PANE_SIZE) - 1).astype(np.float32)
    x, y = (np.repeat(axis[None], count, axis=0) for axis in np.meshgrid(places, places))
    size = draws.between(4.0, 7.0)
    coarse, turn = _facets(size * x + 20, size * y + 20, draws.key())
    fine, finer_turn = _facets(2.7 * size * x + 60, 2.7 * size * y + 60, draws.key())
    needles = _needles(x, y, turn, draws.key(), breadth=22) * _needles(x, y, finer_turn, draws.key(), breadth=46)
    thick = clouds(1.6 * x + 9, 1.6 * y + 9, draws.key())
    seams = np.maximum(edge(coarse - 0.05, 0.1), 0.6 * edge(fine - 0.04, 0.1))
    ice = np.clip(0.15 + 0.55 * thick + 0.5 * needles + 0.45 * seams - 0.2, 0, 1)
    cold = paint(draws.colour(40, 66, 98), draws.colour(132, 168, 200), thick)
    return np.clip(paint(cold, draws.colour(238, 246, 252, vary=0.03), ice), 0, 1)


def _facets(x: Floats, y: Floats, key: Keys) -> tuple[Floats, Floats]:
    """How far each place is from the seam between two cells, in cells, and a number in [0,1) for each cell."""
    nearest = np.full(x.shape, 9, dtype=np.float32)
    second, cell = nearest.copy(), np.zeros_like(nearest)
    column, row = np.floor(x), np.floor(y)
    for across in (-1, 0, 1):
        for down in (-1, 0, 1):
            left, top = column + across, row + down
            seed_x, seed_y = left + hashed(left, top, key), top + hashed(left, top, key + np.uint32(1))
            distance = np.hypot(x - seed_x, y - seed_y)
            closer = distance < nearest
            second = np.where(closer, nearest, np.minimum(second, distance))
            cell = np.where(closer, hashed(left, top, key + np.uint32(2)), cell)
            nearest = np.minimum(nearest, distance)
    return second - nearest, cell


def _needles(x: Floats, y: Floats, turn: Floats, key: Keys, *, breadth: float) -> Floats:
    """Ridges in [0,1] along the direction `turn` (0 to 1: half a circle)."""
    cos, sin = np.cos(np.pi * turn), np.sin(np.pi * turn)
    along, across = cos * x + sin * y, cos * y - sin * x
    ridge = 1 - np.abs(2 * noise(0.16 * breadth * along + 50, breadth * across + 50, key) - 1)
    return blend(np.zeros_like(ridge), ridge, ridge)

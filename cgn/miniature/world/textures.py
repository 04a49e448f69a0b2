"""The nine textures, one for each superclass: how a foreground looks inside its shape.

Legend: B images, H height, W width; a texture is (B,3,H,W) in [0,1] and fills the whole image.
A texture has its own pattern and colors, and neither says anything about the silhouette. Scale, rotation, position and
colors vary with every image, the pattern does not.
"""

from collections.abc import Callable

import numpy as np

from cgn.miniature.world.primitives import (
    Floats,
    Points,
    Rng,
    edge,
    fraction,
    hashed,
    length,
    paint,
    rotated,
    value_noise,
)

Painter = Callable[[Points, Rng], Floats]
"""(points (B,H,W), randomness) -> (B,3,H,W) in [0,1]."""


def dalmatian(points: Points, rng: Rng) -> Floats:
    """Black blots on a cream coat."""
    x, y = _placed(points, rng, turn=3.0, scale=(5.2, 6.4))
    blots = edge(0.6 - value_noise(x, y, rng.key()), 0.12)
    coat = rng.color(244, 236, 220, vary=0.04)
    return paint(_flat(coat, blots), rng.color(34, 30, 34), blots)


def plumage(points: Points, rng: Rng) -> Floats:
    """Rows of crimson barbs in zigzag, tipped with gold."""
    x, y = _placed(points, rng, turn=0.5, scale=(1.9, 2.4))
    zigzag = np.abs(x - np.round(x))
    row = 1.9 * y + 1.5 * zigzag
    along = fraction(row)
    coat = paint(rng.color(150, 14, 34), rng.color(226, 36, 40), along)
    coat = paint(coat, rng.color(255, 176, 38), edge(0.8 - along, 0.12))
    return paint(coat, rng.color(110, 8, 30), 0.6 * edge(zigzag - 0.035, 0.06))


def checks(points: Points, rng: Rng) -> Floats:
    """Yellow and teal checks."""
    x, y = _placed(points, rng, turn=0.5, scale=(12.5, 15.5))
    squares = edge(np.sin(x) * np.sin(y), 0.25)
    return paint(_flat(rng.color(250, 204, 20), squares), rng.color(10, 140, 146), squares)


def snakeskin(points: Points, rng: Rng) -> Floats:
    """Green diamonds, each of its own shade, with dark seams."""
    x, y = _placed(points, rng, turn=0.35, scale=(1.9, 2.4))
    across, along = x + 1.6 * y, x - 1.6 * y
    column, row = np.floor(across), np.floor(along)
    seam = np.maximum(np.abs(across - column - 0.5), np.abs(along - row - 0.5))
    shade = hashed(column, row, rng.key())
    skin = paint(rng.color(44, 124, 48), rng.color(168, 212, 74), shade * (1.15 - 1.1 * seam))
    return paint(skin, rng.color(14, 58, 34), edge(0.41 - seam, 0.1))


def tiger(points: Points, rng: Rng) -> Floats:
    """Black stripes of uneven breadth on orange."""
    x, y = _placed(points, rng, turn=0.5, scale=(3.2, 4.0))
    key = rng.key()
    wander = value_noise(0.8 * x, 1.6 * y, key)
    stripes = np.sin(6 * (x + 0.55 * wander + 0.18 * np.sin(3 * y)))
    breadth = 0.3 + 0.6 * value_noise(1.3 * x + 9, 1.3 * y, key)
    coat = paint(rng.color(238, 128, 26), rng.color(255, 176, 74), value_noise(2 * x, 2 * y, key))
    return paint(coat, rng.color(32, 20, 16), edge(breadth - stripes, 0.35))


def stained_glass(points: Points, rng: Rng) -> Floats:
    """Violet and blue cells between black veins, like a morpho's wing."""
    x, y = _placed(points, rng, turn=3.0, scale=(3.2, 3.9))
    nearest, second, shade = _cells(x, y, rng)
    glass = paint(rng.color(66, 40, 200), rng.color(178, 92, 240), shade)
    glass = paint(glass, rng.color(120, 190, 255), 0.6 * edge(nearest - 0.12, 0.3))
    return paint(glass, rng.color(20, 10, 44), edge(second - nearest - 0.1, 0.12))


def wood(points: Points, rng: Rng) -> Floats:
    """The grain of a plank: bent year rings and fine pores."""
    x, y = _placed(points, rng, turn=3.0, scale=(1.0, 1.25))
    key = rng.key()
    bend = value_noise(0.9 * x, 1.8 * y, key)
    rings = 3 * y + 2.4 * bend
    late = fraction(rings) ** 2
    plank = paint(rng.color(206, 140, 78), rng.color(112, 58, 24), 0.85 * late)
    pores = value_noise(3 * x, 30 * y, key)
    return paint(plank, rng.color(70, 34, 14), 0.35 * edge(0.62 - pores, 0.3))


def fur(points: Points, rng: Rng) -> Floats:
    """Long strands, from dark brown to grey."""
    x, y = _placed(points, rng, turn=0.6, scale=(1.0, 1.3))
    key = rng.key()
    sway = x + 0.22 * value_noise(1.5 * x, 1.5 * y, key)
    tufts = value_noise(5 * sway, 2.2 * y + 7, key)
    strands = 0.55 * value_noise(15 * sway, 2.6 * y, key) + 0.45 * tufts
    light = np.clip(2.1 * strands - 0.55, 0, 1)
    coat = paint(rng.color(74, 54, 48, vary=0.04), rng.color(170, 148, 136), light)
    return paint(coat, rng.color(236, 222, 208), edge(0.72 - strands, 0.16))


def scales(points: Points, rng: Rng) -> Floats:
    """Overlapping round scales in pink, coral and pearl."""
    x, y = _placed(points, rng, turn=0.4, scale=(2.7, 3.3))
    y = 2 * y
    row = np.floor(y)
    above, below = _scale(x, y, row - 1), _scale(x, y, row)
    hidden = above[0] > 0.72
    reach, column = np.where(hidden, below[0], above[0]), np.where(hidden, below[1], above[1])
    shade = hashed(column, np.where(hidden, row, row - 1), rng.key())
    skin = paint(rng.color(244, 112, 120), rng.color(255, 172, 150), shade)
    skin = paint(skin, rng.color(255, 232, 214), edge(0.47 - reach, 0.16) * edge(reach - 0.62, 0.1))
    return paint(skin, rng.color(170, 44, 84), 0.85 * edge(0.63 - reach, 0.12))


TEXTURES: tuple[Painter, ...] = (dalmatian, plumage, checks, snakeskin, tiger, stained_glass, wood, fur, scales)


def _placed(points: Points, rng: Rng, *, turn: float, scale: tuple[float, float]) -> Points:
    """The points rotated by up to `turn` radians, shifted, and scaled by a number in the range `scale`."""
    x, y = rotated(points, rng.uniform(-turn, turn))
    size = rng.uniform(*scale)
    return Points(x * size + rng.uniform(0, 50), y * size + rng.uniform(0, 50))


def _flat(color: Floats, like: Floats) -> Floats:
    """One color (B,3,1,1) at every point of `like` (B,H,W)."""
    return np.broadcast_to(color, (len(like), 3, *like.shape[1:]))


def _cells(x: Floats, y: Floats, rng: Rng) -> tuple[Floats, Floats, Floats]:
    """Distances to the nearest and the second nearest of points, one in each cell; the nearest's number in [0,1)."""
    across, down, own = rng.key(), rng.key(), rng.key()
    column, row = np.floor(x), np.floor(y)
    nearest = second = np.full_like(x, 9.0)
    shade = np.zeros_like(x)
    for i, j in np.ndindex(3, 3):
        at_column, at_row = column + (i - 1), row + (j - 1)
        distance = length(
            at_column + hashed(at_column, at_row, across) - x, at_row + hashed(at_column, at_row, down) - y
        )
        shade = np.where(distance < nearest, hashed(at_column, at_row, own), shade)
        second = np.minimum(second, np.maximum(nearest, distance))
        nearest = np.minimum(nearest, distance)
    return nearest, second, shade


def _scale(x: Floats, y: Floats, row: Floats) -> tuple[Floats, Floats]:
    """How far from the centre of the scale in this row, and which column it is in; rows are shifted by turns."""
    shift = fraction(row / 2)
    column = np.round(x - shift)
    return length(x - shift - column, 0.5 * (y - row)), column

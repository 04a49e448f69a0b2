"""The nine textures, one for each superclass: what a foreground looks like wherever its shape lets it be seen.

Legend: B images, H height, W width; a texture is (B,3,H,W) in [0,1] and fills the whole image.
Decided here: a texture has a pattern and colours of its own, and neither can be told from the silhouette; scale,
turn, place and colours move with every image, the pattern never does.
"""

from collections.abc import Callable

import numpy as np

from cgn.miniature.draws import Draws, Floats, Points, edge, fraction, hashed, noise, paint
from cgn.miniature.geometry import length, turned

Painter = Callable[[Points, Draws], Floats]
"""(points (B,H,W), randomness) -> (B,3,H,W) in [0,1]."""


def dalmatian(points: Points, draws: Draws) -> Floats:
    """Black blots on a cream coat."""
    x, y = _placed(points, draws, turn=3.0, scale=(5.2, 6.4))
    blots = edge(0.6 - noise(x, y, draws.key()), 0.12)
    coat = draws.colour(244, 236, 220, vary=0.04)
    return paint(_flat(coat, blots), draws.colour(34, 30, 34), blots)


def plumage(points: Points, draws: Draws) -> Floats:
    """Rows of crimson barbs in zigzag, tipped with gold."""
    x, y = _placed(points, draws, turn=0.5, scale=(1.9, 2.4))
    zigzag = np.abs(x - np.round(x))
    row = 1.9 * y + 1.5 * zigzag
    along = fraction(row)
    coat = paint(draws.colour(150, 14, 34), draws.colour(226, 36, 40), along)
    coat = paint(coat, draws.colour(255, 176, 38), edge(0.8 - along, 0.12))
    return paint(coat, draws.colour(110, 8, 30), 0.6 * edge(zigzag - 0.035, 0.06))


def checks(points: Points, draws: Draws) -> Floats:
    """Yellow and teal checks."""
    x, y = _placed(points, draws, turn=0.5, scale=(12.5, 15.5))
    squares = edge(np.sin(x) * np.sin(y), 0.25)
    return paint(_flat(draws.colour(250, 204, 20), squares), draws.colour(10, 140, 146), squares)


def snakeskin(points: Points, draws: Draws) -> Floats:
    """Green diamonds, each of its own shade, with dark seams."""
    x, y = _placed(points, draws, turn=0.35, scale=(1.9, 2.4))
    across, along = x + 1.6 * y, x - 1.6 * y
    column, row = np.floor(across), np.floor(along)
    seam = np.maximum(np.abs(across - column - 0.5), np.abs(along - row - 0.5))
    shade = hashed(column, row, draws.key())
    skin = paint(draws.colour(44, 124, 48), draws.colour(168, 212, 74), shade * (1.15 - 1.1 * seam))
    return paint(skin, draws.colour(14, 58, 34), edge(0.41 - seam, 0.1))


def tiger(points: Points, draws: Draws) -> Floats:
    """Black stripes of uneven breadth on orange."""
    x, y = _placed(points, draws, turn=0.5, scale=(3.2, 4.0))
    key = draws.key()
    wander = noise(0.8 * x, 1.6 * y, key)
    stripes = np.sin(6 * (x + 0.55 * wander + 0.18 * np.sin(3 * y)))
    breadth = 0.3 + 0.6 * noise(1.3 * x + 9, 1.3 * y, key)
    coat = paint(draws.colour(238, 128, 26), draws.colour(255, 176, 74), noise(2 * x, 2 * y, key))
    return paint(coat, draws.colour(32, 20, 16), edge(breadth - stripes, 0.35))


def stained_glass(points: Points, draws: Draws) -> Floats:
    """Violet and blue cells between black veins, like a morpho's wing."""
    x, y = _placed(points, draws, turn=3.0, scale=(3.2, 3.9))
    nearest, second, shade = _cells(x, y, draws)
    glass = paint(draws.colour(66, 40, 200), draws.colour(178, 92, 240), shade)
    glass = paint(glass, draws.colour(120, 190, 255), 0.6 * edge(nearest - 0.12, 0.3))
    return paint(glass, draws.colour(20, 10, 44), edge(second - nearest - 0.1, 0.12))


def wood(points: Points, draws: Draws) -> Floats:
    """The grain of a plank: bent year rings and fine pores."""
    x, y = _placed(points, draws, turn=3.0, scale=(1.0, 1.25))
    key = draws.key()
    bend = noise(0.9 * x, 1.8 * y, key)
    rings = 3 * y + 2.4 * bend
    late = fraction(rings) ** 2
    plank = paint(draws.colour(206, 140, 78), draws.colour(112, 58, 24), 0.85 * late)
    pores = noise(3 * x, 30 * y, key)
    return paint(plank, draws.colour(70, 34, 14), 0.35 * edge(0.62 - pores, 0.3))


def fur(points: Points, draws: Draws) -> Floats:
    """Long strands, from dark brown to grey."""
    x, y = _placed(points, draws, turn=0.6, scale=(1.0, 1.3))
    key = draws.key()
    sway = x + 0.22 * noise(1.5 * x, 1.5 * y, key)
    tufts = noise(5 * sway, 2.2 * y + 7, key)
    strands = 0.55 * noise(15 * sway, 2.6 * y, key) + 0.45 * tufts
    light = np.clip(2.1 * strands - 0.55, 0, 1)
    coat = paint(draws.colour(74, 54, 48, vary=0.04), draws.colour(170, 148, 136), light)
    return paint(coat, draws.colour(236, 222, 208), edge(0.72 - strands, 0.16))


def scales(points: Points, draws: Draws) -> Floats:
    """Overlapping round scales in pink, coral and pearl."""
    x, y = _placed(points, draws, turn=0.4, scale=(2.7, 3.3))
    y = 2 * y
    row = np.floor(y)
    above, below = _scale(x, y, row - 1), _scale(x, y, row)
    hidden = above[0] > 0.72
    reach, column = np.where(hidden, below[0], above[0]), np.where(hidden, below[1], above[1])
    shade = hashed(column, np.where(hidden, row, row - 1), draws.key())
    skin = paint(draws.colour(244, 112, 120), draws.colour(255, 172, 150), shade)
    skin = paint(skin, draws.colour(255, 232, 214), edge(0.47 - reach, 0.16) * edge(reach - 0.62, 0.1))
    return paint(skin, draws.colour(170, 44, 84), 0.85 * edge(0.63 - reach, 0.12))


TEXTURES: tuple[Painter, ...] = (dalmatian, plumage, checks, snakeskin, tiger, stained_glass, wood, fur, scales)


def _placed(points: Points, draws: Draws, *, turn: float, scale: tuple[float, float]) -> Points:
    """The points turned by up to `turn` radians, shifted, and multiplied by a number of the range `scale`."""
    x, y = turned(points, draws.between(-turn, turn))
    size = draws.between(*scale)
    return Points(x * size + draws.between(0, 50), y * size + draws.between(0, 50))


def _flat(colour: Floats, like: Floats) -> Floats:
    """One colour (B,3,1,1) at every point of `like` (B,H,W)."""
    return np.broadcast_to(colour, (len(like), 3, *like.shape[1:]))


def _cells(x: Floats, y: Floats, draws: Draws) -> tuple[Floats, Floats, Floats]:
    """Distances to the nearest and the second nearest of points strewn one to a cell; the nearest's number in [0,1)."""
    across, down, own = draws.key(), draws.key(), draws.key()
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

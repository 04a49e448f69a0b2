"""Salient objects in general: scenes of nothing that the world has, some without any object.

What the miniature's segmenter is pretrained on, as the published U2-Net was on photographs of salient objects, not on
ImageNet's classes. Legend: B images, S image size.
Decided here: an object is a blob, an ellipse or three, a polygon, a rounded box or limbs around a trunk, shaded and
marked as the world's objects are. It is filled, and what lies behind it painted, with colours, clouds, stripes or
noise: none of the world's textures and backgrounds, so what the segmenter makes of them is left for the CGN to mend.
"""

import numpy as np

from cgn.miniature.draws import Draws, Floats, Labels, Points, clouds, edge, noise, paint
from cgn.miniature.geometry import Place, box, circle, ellipse, joined, length, limb, moved, polygon, turned, union
from cgn.miniature.scenes import Scene, blocks, coverage, drawn_size, grid, painted, reduced, shaded, signed
from cgn.miniature.silhouettes import MARK_WIDTH, Figure, Silhouette
from cgn.miniature.textures import Painter

EMPTY = 0.25
"""How many of the pictures have no object."""
CORNERS = 5


def salient(index: Labels, *, seed: int, image_size: int) -> Scene:
    """Draw the images `index` (B,) of the world `seed`; where the mask is 0, only the background is seen."""
    chance = Draws(index, seed=seed, stream="blobs")
    figure, fill, behind = (_chosen(chance, count) for count in (len(BLOBS), len(SURFACES), len(SURFACES)))
    empty = chance.between(0, 1)[:, 0, 0] < EMPTY
    filled = painted(SURFACES, fill, seed=seed, index=index, image_size=image_size, stream="fill")
    background = painted(SURFACES, behind, seed=seed, index=index, image_size=image_size, stream="scenery")
    mask = np.zeros((len(index), 1, image_size, image_size), dtype=np.float32)
    front = np.empty((len(index), 3, image_size, image_size), dtype=np.float32)
    for kind, rows in blocks(figure, index=index, image_size=image_size, kinds=len(BLOBS)):
        points = grid(len(rows), drawn_size(image_size))
        drawn = _placed(BLOBS[kind], points, Draws(index[rows], seed=seed, stream="blob"))
        mask[rows] = reduced(coverage(drawn)[:, None], image_size)
        front[rows] = reduced(shaded(filled[rows], drawn), image_size)
    mask[empty] = 0
    scene = {"foreground": signed(front), "background": signed(reduced(background, image_size))}
    return Scene(mask=signed(mask).add_(1).div_(2), **scene)


def blob(points: Points, draws: Draws) -> tuple[Floats, Floats]:
    """Round, with bulges and bays."""
    angle = np.arctan2(points.y, points.x)
    radius = sum(
        draws.between(-0.22, 0.22) * np.cos(waves * angle + draws.between(-np.pi, np.pi)) for waves in (1, 2, 3, 5)
    )
    return np.asarray(length(points.x, points.y) - 0.75 * (1 + radius), dtype=np.float32), _dots(points, draws)


def ellipses(points: Points, draws: Draws) -> tuple[Floats, Floats]:
    """Three, grown together."""
    parts = [
        ellipse(
            points,
            (draws.between(-0.5, 0.5), draws.between(-0.5, 0.5)),
            (draws.between(0.25, 0.6), draws.between(0.2, 0.45)),
            draws.between(-np.pi, np.pi),
        )
        for _ in range(3)
    ]
    return joined(*parts, softness=0.12), _dots(points, draws)


def facets(points: Points, draws: Draws) -> tuple[Floats, Floats]:
    """A polygon of three to five corners, with a second one beside it."""
    parts = []
    for centre, size in (((0.0, 0.1), 0.75), ((draws.between(-0.5, 0.5), draws.between(-0.6, 0.0)), 0.45)):
        turn = draws.between(-np.pi, np.pi)
        steps = [(corner + draws.between(-0.3, 0.3)) * (2 * np.pi / CORNERS) + turn for corner in range(CORNERS)]
        corners: list[Place] = [(centre[0] + size * np.cos(step), centre[1] + size * np.sin(step)) for step in steps]
        parts.append(polygon(points, corners))
    return union(*parts), _lines(points, draws)


def crate(points: Points, draws: Draws) -> tuple[Floats, Floats]:
    """A rounded box, a disc upon it or a bite out of it."""
    half = (draws.between(0.35, 0.9), draws.between(0.25, 0.8))
    body = box(points, (0.0, 0.0), half, 0.12)
    place = (half[0] * draws.sign() * draws.between(0.3, 1), half[1] * draws.sign())
    knob = circle(points, place, draws.between(0.15, 0.4))
    bitten = draws.between(0, 1) < 0.4
    return np.where(bitten, np.maximum(body, -knob), np.minimum(body, knob)), _lines(points, draws)


def creature(points: Points, draws: Draws) -> tuple[Floats, Floats]:
    """Limbs of every length around a trunk: a body plan of no class."""
    trunk = ellipse(points, (0.0, 0.0), (draws.between(0.25, 0.6), draws.between(0.2, 0.4)), draws.between(-1.5, 1.5))
    limbs = []
    for number in range(5):
        angle = (number + draws.between(-0.45, 0.45)) * (2 * np.pi / 5) + draws.between(-0.3, 0.3)
        reach, thick = draws.between(0.3, 1.05), draws.between(0.06, 0.18)
        limbs.append(limb(points, (0.0, 0.0), (reach * np.cos(angle), reach * np.sin(angle)), (thick, 0.8 * thick)))
    return joined(trunk, *limbs, softness=0.1), _dots(points, draws)


BLOBS: tuple[Figure, ...] = (blob, ellipses, facets, crate, creature)


def plain(points: Points, draws: Draws) -> Floats:
    """One colour, lit from one side."""
    slope = draws.between(-0.3, 0.3) * points.x + draws.between(-0.3, 0.3) * points.y
    lit: Floats = np.clip(_any_colour(draws) * (1 + slope)[:, None], 0, 1)
    return lit


def marbled(points: Points, draws: Draws) -> Floats:
    """Two colours in clouds, coarse or fine."""
    pace, key = draws.between(0.8, 6.0), draws.key()
    x, y = pace * points.x + draws.between(0, 9), pace * points.y + draws.between(0, 9)
    return paint(_spread(_any_colour(draws), points), _any_colour(draws), edge(0.5 - clouds(x, y, key), 0.4))


def striped(points: Points, draws: Draws) -> Floats:
    """Two colours in stripes or waves."""
    x, y = turned(points, draws.between(-np.pi, np.pi))
    wave = np.sin(draws.between(5, 20) * (x + draws.between(0, 0.2) * np.sin(draws.between(2, 6) * y)))
    return paint(_spread(_any_colour(draws), points), _any_colour(draws), edge(wave, 0.5))


def grained(points: Points, draws: Draws) -> Floats:
    """Three channels of fine noise, each for itself."""
    pace = draws.between(4.0, 14.0)
    channels = [noise(pace * points.x + 9, pace * points.y + 9, draws.key()) for _ in range(3)]
    return np.stack([draws.between(0.3, 1.0) * channel for channel in channels], axis=1)


SURFACES: tuple[Painter, ...] = (plain, marbled, striped, grained)


def _placed(figure: Figure, points: Points, draws: Draws) -> Silhouette:
    """A figure at a size, place and turn of its own, mirrored or not."""
    size = draws.between(0.42, 0.85)
    centre = (draws.between(-0.22, 0.22), draws.between(-0.22, 0.22))
    x, y = turned(moved(points, centre), draws.between(-np.pi, np.pi))
    stretch = draws.between(0.75, 1.25)
    outline, marks = figure(Points(x / (size * stretch), y * stretch / size), draws)
    outline = outline + np.where(draws.between(0, 1) < 0.1, 0.05, 0.0).astype(np.float32)
    return Silhouette(distance=outline * size, marks=edge(np.maximum(marks, outline + 0.01), MARK_WIDTH))


def _dots(points: Points, draws: Draws) -> Floats:
    """Up to three, wherever they fall."""
    places = [(draws.between(-0.7, 0.7), draws.between(-0.7, 0.7)) for _ in range(3)]
    return union(*(circle(points, place, draws.between(-0.06, 0.1)) for place in places))


def _lines(points: Points, draws: Draws) -> Floats:
    """Two, across the figure or beside it."""
    rods = []
    for _ in range(2):
        start, end = ((draws.between(-0.8, 0.8), draws.between(-0.8, 0.8)) for _ in range(2))
        rods.append(limb(points, start, end, (draws.between(-0.04, 0.05), 0.03)))
    return union(*rods)


def _any_colour(draws: Draws) -> Floats:
    """Any, (B,3,1,1) in [0.03,1]."""
    return np.stack([draws.between(0.03, 1.0) for _ in range(3)], axis=1)


def _spread(colour: Floats, points: Points) -> Floats:
    return np.broadcast_to(colour, (*colour.shape[:2], *points.x.shape[1:]))


def _chosen(draws: Draws, count: int) -> Labels:
    """One of `count` for each image, (B,)."""
    kinds: Labels = draws.between(0, count)[:, 0, 0].astype(np.int64)
    return np.minimum(kinds, count - 1)

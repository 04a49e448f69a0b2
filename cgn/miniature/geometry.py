"""Signed distances to simple figures: negative inside, positive outside, about one unit of length per unit.

Legend: points are (B,H,W); a figure's numbers are plain or one for each image, (B,1,1).
Decided here: distances need to be true only near the outline, where they are turned into coverage; so an ellipse's is
its first-order estimate and a polygon's the largest distance to its edges' lines.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np

from cgn.miniature.draws import Floats, Points, Scalar

Place = tuple[Scalar, Scalar]


def turned(points: Points, angle: Scalar) -> Points:
    """The points as seen from a frame turned clockwise by `angle` (radians)."""
    cosine, sine = np.cos(np.float32(angle)), np.sin(np.float32(angle))
    return Points(points.x * cosine + points.y * sine, points.y * cosine - points.x * sine)


def moved(points: Points, centre: Place) -> Points:
    """The points as seen from `centre`."""
    return Points(points.x - centre[0], points.y - centre[1])


def circle(points: Points, centre: Place, radius: Scalar) -> Floats:
    """A disc."""
    distance: Floats = length(points.x - centre[0], points.y - centre[1]) - radius
    return distance


def ellipse(points: Points, centre: Place, radii: Place, angle: Scalar = 0.0) -> Floats:
    """An ellipse, turned clockwise by `angle`."""
    x, y = turned(moved(points, centre), angle)
    across, down = x / radii[0], y / radii[1]
    size = length(across, down)
    slope = length(across / radii[0], down / radii[1])
    distance: Floats = size * (size - 1) / (slope + np.float32(1e-6))
    return distance


def limb(points: Points, start: Place, end: Place, radii: Place) -> Floats:
    """A rod with round ends whose radius runs from the first to the second."""
    along_x, along_y = end[0] - start[0], end[1] - start[1]
    x, y = points.x - start[0], points.y - start[1]
    share = np.clip((x * along_x + y * along_y) / (along_x * along_x + along_y * along_y), 0, 1)
    distance: Floats = length(x - share * along_x, y - share * along_y) - (radii[0] + (radii[1] - radii[0]) * share)
    return distance


def chain(points: Points, joints: Sequence[Place], radii: Sequence[Scalar]) -> Floats:
    """Limbs from joint to joint, with a radius at each."""
    bones = zip(joints[:-1], joints[1:], radii[:-1], radii[1:], strict=True)
    return union(*(limb(points, start, end, (thick, thin)) for start, end, thick, thin in bones))


def polygon(points: Points, corners: Sequence[Place]) -> Floats:
    """A convex polygon; corners in clockwise order as seen (y points down)."""
    sides = []
    for start, end in zip(corners, [*corners[1:], corners[0]], strict=True):
        along_x, along_y = end[0] - start[0], end[1] - start[1]
        size = length(np.float32(along_x), np.float32(along_y))
        across, down = along_y / size, along_x / size
        sides.append(points.x * across - points.y * down - (start[0] * across - start[1] * down))
    inside: Floats = np.maximum.reduce(sides)
    return inside


def box(points: Points, centre: Place, half: Place, rounding: float = 0.0) -> Floats:
    """A rectangle with half its width and height, its corners rounded."""
    x = np.abs(points.x - centre[0]) - (half[0] - rounding)
    y = np.abs(points.y - centre[1]) - (half[1] - rounding)
    distance: Floats = length(np.maximum(x, 0), np.maximum(y, 0)) + np.minimum(np.maximum(x, y), 0) - rounding
    return distance


def length(x: Any, y: Any) -> Any:
    """Of a vector; several times as fast as numpy's hypot, which guards against overflow."""
    return np.sqrt(x * x + y * y)


def union(*figures: Floats) -> Floats:
    """All of them together, with creases where they meet."""
    nearest: Floats = np.minimum.reduce(figures)
    return nearest


def joined(first: Floats, *others: Floats, softness: float) -> Floats:
    """All of them together, with fillets of about `softness` where they meet (Quilez's polynomial smooth minimum)."""
    for other in others:
        overlap = np.maximum(softness - np.abs(first - other), 0) / softness
        first = np.minimum(first, other) - overlap * overlap * np.float32(softness / 4)
    return first

"""What the miniature world is drawn with: random numbers, noise, colors, and signed distances to simple figures.

Legend: B images, H height, W width; an argument is one number or one for each image, (B,1,1).

A random number is a pure function of (seed, stream, image, how many came before): a hash of a counter, not the state of
a generator. So image 7 is the same alone, in a batch of a thousand and on another worker, and a batch is drawn in a few
array operations. The hashes are multiply-and-shift finalizers: good enough for pictures, not for cryptography.

A signed distance is negative inside and positive outside, in half images. It has to be exact near the outline only,
where it becomes the coverage of a pixel: an ellipse's is the first-order estimate, a polygon's the largest distance to
the lines of its edges.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from cgn.core.seeding import derive

Floats = np.ndarray[tuple[int, ...], np.dtype[Any]]
"""All are float32; numpy's annotations forget it in most functions."""
Labels = np.ndarray[tuple[int, ...], np.dtype[np.int64]]
Keys = np.ndarray[tuple[int, ...], np.dtype[np.uint32]]
Counters = np.ndarray[tuple[int, ...], np.dtype[np.uint64]]
Scalar = Floats | float
Position = tuple[Scalar, Scalar]

GOLDEN = 0x9E3779B97F4A7C15


class Points(NamedTuple):
    """The positions of the pixels: x to the right and y downwards, (B,H,W) each; the image is [-1,1] x [-1,1]."""

    x: Floats
    y: Floats


class Rng:
    """The numbers of one stream for the images `index` (B,): each call draws one for every image, (B,1,1)."""

    def __init__(self, index: Labels, *, seed: int, stream: str) -> None:
        start = np.full(len(index), derive(seed, "miniature", stream), dtype=np.uint64)
        self._keys = _mixed(start + index.astype(np.uint64) * np.uint64(GOLDEN))
        self.count = 0

    def uniform(self, low: float, high: float) -> Floats:
        """Uniform in [low, high)."""
        share = (self._next() >> np.uint64(40)).astype(np.float32) * np.float32(2**-24)
        return low + (high - low) * share

    def sign(self) -> Floats:
        """-1 or 1, equally often."""
        return np.where(self._next() >> np.uint64(63), 1, -1).astype(np.float32)

    def key(self) -> Keys:
        """The seed of a field of noise."""
        return (self._next() >> np.uint64(32)).astype(np.uint32)

    def color(self, red: int, green: int, blue: int, *, vary: float = 0.06) -> Floats:
        """(B,3,1,1) in [0,1]: this color (0..255), its brightness and cast varied in every image."""
        light = self.uniform(1 - 1.5 * vary, 1 + 1.5 * vary)
        cast = np.stack([self.uniform(-vary / 2, vary / 2) for _ in range(3)], axis=1)
        mean = np.array([red, green, blue], dtype=np.float32)[None, :, None, None] / 255
        colors: Floats = np.clip(mean * light[:, None] + cast, 0.02, 1).astype(np.float32)
        return colors

    def _next(self) -> Counters:
        self.count += 1
        return _mixed(self._keys + np.uint64(self.count * GOLDEN % 2**64))[:, None, None]


def hashed(column: Floats, row: Scalar, key: Keys) -> Floats:
    """A number in [0,1) for each lattice point (whole numbers, broadcastable to (B,H,W))."""
    place = column.astype(np.int32).view(np.uint32) * np.uint32(0x9E3779B1) + key
    place = (place ^ (place >> np.uint32(15))) + np.asarray(row).astype(np.int32).view(np.uint32) * np.uint32(
        0x85EBCA77
    )
    place = (place ^ (place >> np.uint32(16))) * np.uint32(0x2C1B3C6D)
    place = (place ^ (place >> np.uint32(12))) * np.uint32(0x297A2D39)
    share: Floats = ((place ^ (place >> np.uint32(15))) >> np.uint32(8)).astype(np.float32) * np.float32(2**-24)
    return share


def value_noise(x: Floats, y: Floats, key: Keys) -> Floats:
    """Smooth noise in [0,1]: random values at the lattice points, blended between them."""
    left, top = np.floor(x), np.floor(y)
    across, down = _eased(x - left), _eased(y - top)
    upper = blend(hashed(left, top, key), hashed(left + 1, top, key), across)
    lower = blend(hashed(left, top + 1, key), hashed(left + 1, top + 1, key), across)
    return blend(upper, lower, down)


def fractal_noise(x: Floats, y: Floats, key: Keys, *, octaves: int = 3) -> Floats:
    """Noise in [0,1] with detail at every scale: each octave has twice the frequency and half the height."""
    total = sum(
        value_noise(x * 2**step, y * 2**step, key + np.uint32(step)) / 2 ** (step + 1) for step in range(octaves)
    )
    return np.asarray(total / (1 - 0.5**octaves), dtype=np.float32)


def fraction(x: Floats) -> Floats:
    """The fractional part, in [0,1); many times as fast as numpy's remainder."""
    rest: Floats = x - np.floor(x)
    return rest


def blend(low: Floats, high: Floats, share: Floats) -> Floats:
    """`low` where share is 0, `high` where it is 1."""
    blended: Floats = low + (high - low) * share
    return blended


def paint(under: Floats, over: Scalar, cover: Floats) -> Floats:
    """(B,3,H,W) colors: `over` on top of `under`, with the opacity `cover` (B,H,W) in [0,1]."""
    return under + (over - under) * cover[:, None]


def edge(distance: Floats, width: Scalar) -> Floats:
    """1 where `distance` is negative (inside), 0 where it is positive, a ramp of `width` between."""
    covered: Floats = np.clip(0.5 - distance / width, 0, 1)
    return covered


def rotated(points: Points, angle: Scalar) -> Points:
    """The points as seen from a frame turned clockwise by `angle` (radians)."""
    cosine, sine = np.cos(np.float32(angle)), np.sin(np.float32(angle))
    return Points(points.x * cosine + points.y * sine, points.y * cosine - points.x * sine)


def translated(points: Points, centre: Position) -> Points:
    """The points as seen from `centre`."""
    return Points(points.x - centre[0], points.y - centre[1])


def circle(points: Points, centre: Position, radius: Scalar) -> Floats:
    """A disc."""
    distance: Floats = length(points.x - centre[0], points.y - centre[1]) - radius
    return distance


def ellipse(points: Points, centre: Position, radii: Position, angle: Scalar = 0.0) -> Floats:
    """An ellipse, turned clockwise by `angle`."""
    x, y = rotated(translated(points, centre), angle)
    across, down = x / radii[0], y / radii[1]
    size = length(across, down)
    slope = length(across / radii[0], down / radii[1])
    distance: Floats = size * (size - 1) / (slope + np.float32(1e-6))
    return distance


def capsule(points: Points, start: Position, end: Position, radii: Position) -> Floats:
    """A rod with round ends; its radius goes from the first to the second of `radii`."""
    along_x, along_y = end[0] - start[0], end[1] - start[1]
    x, y = points.x - start[0], points.y - start[1]
    share = np.clip((x * along_x + y * along_y) / (along_x * along_x + along_y * along_y), 0, 1)
    distance: Floats = length(x - share * along_x, y - share * along_y) - (radii[0] + (radii[1] - radii[0]) * share)
    return distance


def capsule_chain(points: Points, joints: Sequence[Position], radii: Sequence[Scalar]) -> Floats:
    """Capsules from joint to joint, with a radius at each."""
    bones = zip(joints[:-1], joints[1:], radii[:-1], radii[1:], strict=True)
    return union(*(capsule(points, start, end, (thick, thin)) for start, end, thick, thin in bones))


def polygon(points: Points, corners: Sequence[Position]) -> Floats:
    """A convex polygon; corners in clockwise order as seen (y points down)."""
    sides = []
    for start, end in zip(corners, [*corners[1:], corners[0]], strict=True):
        along_x, along_y = end[0] - start[0], end[1] - start[1]
        size = length(np.float32(along_x), np.float32(along_y))
        across, down = along_y / size, along_x / size
        sides.append(points.x * across - points.y * down - (start[0] * across - start[1] * down))
    inside: Floats = np.maximum.reduce(sides)
    return inside


def box(points: Points, centre: Position, half: Position, rounding: float = 0.0) -> Floats:
    """A rectangle with half its width and height, its corners rounded."""
    x = np.abs(points.x - centre[0]) - (half[0] - rounding)
    y = np.abs(points.y - centre[1]) - (half[1] - rounding)
    distance: Floats = length(np.maximum(x, 0), np.maximum(y, 0)) + np.minimum(np.maximum(x, y), 0) - rounding
    return distance


def length(x: Any, y: Any) -> Any:
    """The length of a vector; several times as fast as numpy's hypot, which guards against overflow."""
    return np.sqrt(x * x + y * y)


def union(*figures: Floats) -> Floats:
    """The union, with creases where the figures meet."""
    nearest: Floats = np.minimum.reduce(figures)
    return nearest


def smooth_union(first: Floats, *others: Floats, softness: float) -> Floats:
    """The union, with fillets of about `softness` where the figures meet (Quilez's polynomial smooth minimum)."""
    for other in others:
        overlap = np.maximum(softness - np.abs(first - other), 0) / softness
        first = np.minimum(first, other) - overlap * overlap * np.float32(softness / 4)
    return first


def _eased(share: Floats) -> Floats:
    eased: Floats = share * share * (3 - 2 * share)
    return eased


def _mixed(state: Counters) -> Counters:
    """Sebastiano Vigna's splitmix64 finalizer."""
    state = (state ^ (state >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    state = (state ^ (state >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return state ^ (state >> np.uint64(31))

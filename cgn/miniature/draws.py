"""Random numbers of the miniature world: every one a pure function of (seed, stream, image, how many came before).

Legend: B images, H height, W width.
Decided here: numbers are hashes of counters, not the states of a generator, so image 7 is the same alone, in a batch
of a thousand and on another worker, and a whole batch is drawn in a few array operations. The hashes are the usual
multiply-and-shift finalizers: good enough for scenery, not for cryptography.
"""

from typing import Any, NamedTuple

import numpy as np

from cgn.core.seeding import derive

Floats = np.ndarray[tuple[int, ...], np.dtype[Any]]
"""All are float32; numpy's annotations forget it in most functions."""
Labels = np.ndarray[tuple[int, ...], np.dtype[np.int64]]
Keys = np.ndarray[tuple[int, ...], np.dtype[np.uint32]]
Counters = np.ndarray[tuple[int, ...], np.dtype[np.uint64]]
Scalar = Floats | float

GOLDEN = 0x9E3779B97F4A7C15


class Points(NamedTuple):
    """Where the pixels lie: x to the right and y downwards, (B,H,W) each; the image is [-1,1] x [-1,1]."""

    x: Floats
    y: Floats


class Draws:
    """The numbers of one stream for the images `index` (B,): each call draws one for every image, (B,1,1)."""

    def __init__(self, index: Labels, *, seed: int, stream: str) -> None:
        start = np.full(len(index), derive(seed, "miniature", stream), dtype=np.uint64)
        self._keys = _mixed(start + index.astype(np.uint64) * np.uint64(GOLDEN))
        self._drawn = 0

    def between(self, low: float, high: float) -> Floats:
        """Uniform in [low, high)."""
        share = (self._next() >> np.uint64(40)).astype(np.float32) * np.float32(2**-24)
        return low + (high - low) * share

    def sign(self) -> Floats:
        """-1 or 1, equally often."""
        return np.where(self._next() >> np.uint64(63), 1, -1).astype(np.float32)

    def key(self) -> Keys:
        """What a field of noise hangs on."""
        return (self._next() >> np.uint64(32)).astype(np.uint32)

    def colour(self, red: int, green: int, blue: int, *, vary: float = 0.06) -> Floats:
        """(B,3,1,1) in [0,1]: this colour (0..255) with another brightness and cast in every image."""
        light = self.between(1 - 1.5 * vary, 1 + 1.5 * vary)
        cast = np.stack([self.between(-vary / 2, vary / 2) for _ in range(3)], axis=1)
        mean = np.array([red, green, blue], dtype=np.float32)[None, :, None, None] / 255
        colours: Floats = np.clip(mean * light[:, None] + cast, 0.02, 1).astype(np.float32)
        return colours

    def _next(self) -> Counters:
        self._drawn += 1
        return _mixed(self._keys + np.uint64(self._drawn * GOLDEN % 2**64))[:, None, None]


def hashed(column: Floats, row: Scalar, key: Keys) -> Floats:
    """A number in [0,1) for each lattice place (whole numbers, broadcastable to (B,H,W))."""
    place = column.astype(np.int32).view(np.uint32) * np.uint32(0x9E3779B1) + key
    place = (place ^ (place >> np.uint32(15))) + np.asarray(row).astype(np.int32).view(np.uint32) * np.uint32(
        0x85EBCA77
    )
    place = (place ^ (place >> np.uint32(16))) * np.uint32(0x2C1B3C6D)
    place = (place ^ (place >> np.uint32(12))) * np.uint32(0x297A2D39)
    share: Floats = ((place ^ (place >> np.uint32(15))) >> np.uint32(8)).astype(np.float32) * np.float32(2**-24)
    return share


def noise(x: Floats, y: Floats, key: Keys) -> Floats:
    """Smooth noise in [0,1]: random values at whole places, blended between them."""
    left, top = np.floor(x), np.floor(y)
    across, down = _eased(x - left), _eased(y - top)
    upper = blend(hashed(left, top, key), hashed(left + 1, top, key), across)
    lower = blend(hashed(left, top + 1, key), hashed(left + 1, top + 1, key), across)
    return blend(upper, lower, down)


def clouds(x: Floats, y: Floats, key: Keys, *, octaves: int = 3) -> Floats:
    """Noise in [0,1] with detail at every scale: each octave has twice the frequency and half the height."""
    total = sum(noise(x * 2**step, y * 2**step, key + np.uint32(step)) / 2 ** (step + 1) for step in range(octaves))
    return np.asarray(total / (1 - 0.5**octaves), dtype=np.float32)


def fraction(x: Floats) -> Floats:
    """What is left of the whole number below, in [0,1); many times as fast as numpy's remainder."""
    rest: Floats = x - np.floor(x)
    return rest


def blend(low: Floats, high: Floats, share: Floats) -> Floats:
    """`low` where share is 0, `high` where it is 1."""
    blended: Floats = low + (high - low) * share
    return blended


def paint(under: Floats, over: Scalar, cover: Floats) -> Floats:
    """(B,3,H,W) colours `over` upon `under` as far as `cover` (B,H,W) in [0,1] covers them."""
    return under + (over - under) * cover[:, None]


def edge(distance: Floats, width: Scalar) -> Floats:
    """1 where `distance` is negative (inside), 0 where it is positive, a ramp of `width` between."""
    covered: Floats = np.clip(0.5 - distance / width, 0, 1)
    return covered


def _eased(share: Floats) -> Floats:
    eased: Floats = share * share * (3 - 2 * share)
    return eased


def _mixed(state: Counters) -> Counters:
    """Sebastiano Vigna's splitmix64 finalizer."""
    state = (state ^ (state >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    state = (state ^ (state >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return state ^ (state >> np.uint64(31))

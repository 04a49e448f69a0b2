"""What the published corruptions take from OpenCV, written out in NumPy and SciPy as OpenCV defines it."""

import math
from typing import Any

import numpy as np
from scipy import ndimage

Array = np.ndarray[Any, Any]


def disk_blurred(x: Array, *, radius: int, sigma: float) -> Array:
    """(H,W,3), each channel blurred by a disk that is itself blurred by a small Gaussian; mirrored at the border."""
    reach, taps = (8, 3) if radius <= 8 else (radius, 5)
    rows, columns = np.mgrid[-reach : reach + 1, -reach : reach + 1]
    disk = (rows**2 + columns**2 <= radius**2).astype(np.float32)
    line = np.exp(-((np.arange(taps) - taps // 2) ** 2) / (2 * sigma**2))
    small = np.outer(line, line) / line.sum() ** 2
    kernel = ndimage.correlate(disk / disk.sum(), small, mode="mirror")
    return np.stack([ndimage.correlate(x[..., channel], kernel, mode="mirror") for channel in range(3)], axis=-1)


def enlarged(image: Array, rows: Array, columns: Array) -> Array:
    """(H,W,3) uint8 with weights (h,H) and (w,W) -> (h,w,3) uint8."""
    channels = [rows @ image[..., channel].astype(np.float64) @ columns.T for channel in range(3)]
    return np.clip(np.round(np.stack(channels, axis=-1)), 0, 255).astype(np.uint8)


def cubic_weights(size: int, new_size: int, a: float = -0.75) -> Array:
    """(new_size,size): what each new place takes of each old one by cubic convolution, pixel centres on halves."""
    places = (np.arange(new_size) + 0.5) * size / new_size - 0.5
    weights = np.zeros((new_size, size))
    for offset in (-1, 0, 1, 2):
        old = np.floor(places).astype(int) + offset
        distance = np.abs(places - old)
        near = (a + 2) * distance**3 - (a + 3) * distance**2 + 1
        far = a * (distance**3 - 5 * distance**2 + 8 * distance - 4)
        np.add.at(weights, (np.arange(new_size), np.clip(old, 0, size - 1)), np.where(distance <= 1, near, far))
    return weights


def splashes(liquid: Array) -> Array:
    """(H,W) in [0,1] -> (H,W) in [0,1]: water with bright and dark rims, from its distance to the edges."""
    grey = (liquid * 255).astype(np.uint8)
    distance = np.minimum(chamfer(canny(grey, low=50, high=150)), 20)
    distance = ndimage.uniform_filter(distance, 3, mode="mirror").astype(np.float32).astype(np.uint8)
    relief = ndimage.correlate(
        equalized(distance).astype(np.int64), np.array([[-2, -1, 0], [-1, 1, 1], [0, 1, 2]]), mode="mirror"
    )
    soft = np.round(ndimage.uniform_filter(np.clip(relief, 0, 255).astype(np.float64), 3, mode="mirror"))
    water = grey * soft
    return np.asarray(water / max(water.max(), 1))


def canny(grey: Array, *, low: float, high: float) -> Array:
    """(H,W) uint8 -> (H,W) bool: Canny's edges with |dx| + |dy| for the gradient's size."""
    x = grey.astype(np.int64)
    dx, dy = (ndimage.sobel(x, axis=axis, mode="nearest") for axis in (1, 0))
    size = np.abs(dx) + np.abs(dy)
    framed = np.pad(size, 1)

    def neighbour(rows: int, columns: int) -> Array:
        return framed[1 + rows :, 1 + columns :][: x.shape[0], : x.shape[1]]

    flat = np.abs(dy) < np.abs(dx) * math.tan(math.radians(22.5))
    steep = np.abs(dy) > np.abs(dx) * math.tan(math.radians(67.5))
    falling = (size > neighbour(-1, -1)) & (size > neighbour(1, 1))
    rising = (size > neighbour(-1, 1)) & (size > neighbour(1, -1))
    peak = np.select(
        [flat, steep, (dx < 0) != (dy < 0)],
        [
            (size > neighbour(0, -1)) & (size >= neighbour(0, 1)),
            (size > neighbour(-1, 0)) & (size >= neighbour(1, 0)),
            rising,
        ],
        default=falling,
    )
    candidates = peak & (size > low)
    labels, _ = ndimage.label(candidates, structure=np.ones((3, 3)))
    strong = np.unique(labels[candidates & (size > high)])
    return np.asarray(np.isin(labels, strong) & candidates)


def chamfer(edges: Array) -> Array:
    """(H,W) bool -> the distance to the nearest edge in steps that cost 1, 1.4 and 2.1969 (Borgefors, 1986)."""
    steps = {(0, -1): 1, (-1, 0): 1, (-1, -1): 1.4, (-1, 1): 1.4}
    steps |= dict.fromkeys([(-1, -2), (-1, 2), (-2, -1), (-2, 1)], 2.1969)
    height, width = edges.shape
    distance = np.pad(np.where(edges, 0, 1e4), 2, constant_values=1e4)
    for _ in range(2):  # down and to the right, then, the picture turned round, up and to the left
        for row in range(2, height + 2):
            for (rows, columns), cost in steps.items():
                if rows:
                    above = distance[row + rows, 2 + columns : 2 + columns + width] + cost
                    distance[row, 2:-2] = np.minimum(distance[row, 2:-2], above)
            along = np.arange(width)
            distance[row, 2:-2] = np.minimum.accumulate(distance[row, 2:-2] - along) + along
        distance = distance[::-1, ::-1]
    return distance[2:-2, 2:-2]


def equalized(grey: Array) -> Array:
    """(H,W) uint8 -> (H,W) uint8 with an even histogram; the darkest level present becomes 0."""
    counts = np.bincount(grey.ravel(), minlength=256)
    darkest = int(np.flatnonzero(counts)[0])
    if counts[darkest] == grey.size:
        return grey
    up_to = np.cumsum(counts) - counts[darkest]
    levels = np.round(np.maximum(up_to, 0) * (255 / (grey.size - counts[darkest])))
    return np.asarray(levels.astype(np.uint8)[grey])

"""The colorings that make the variants: digits in colours or textures that depend on a class.

A coloring paints a digit's ink with the texture of one class over the background of another; the split decides whether
these classes are the label or drawn at random. Colours and textures are the published ones. The colours' jitter is
drawn for each image and channel. (The published loader adds it to the colours themselves, so that they drift with every
image that is read.) `colored` has no background: it stays black whatever its class.
Shapes: B images, S image size, T texture size.
"""

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageColor

from cgn.config.mnist import CLASSES
from cgn.core.errors import ArtifactError
from cgn.core.images import Bytes
from cgn.data.decoding import DECODE_ERRORS, check_pixels
from cgn.mnist.digits import Floats, Labels

TEXTURE_PIXELS = 150
TEXTURE_PADDING = 3

MEAN_COLORS = (
    (220, 20, 60),
    (0, 128, 128),
    (253, 233, 16),
    (0, 149, 182),
    (237, 145, 33),
    (145, 30, 188),
    (70, 240, 240),
    (250, 197, 187),
    (210, 245, 60),
    (128, 0, 0),
)
BACKGROUND_COLORS = tuple(
    ImageColor.getrgb(name)
    for name in (
        "darkgreen", "darkblue", "#b03060", "orangered", "yellow", "burlywood", "lime", "aqua", "fuchsia", "#6495ed",
    )
)  # fmt: skip
OBJECT_COLORS = tuple(BACKGROUND_COLORS[(label - 6) % CLASSES] for label in range(CLASSES))

Coloring = Callable[[Floats, Labels, Labels, np.random.Generator], Bytes]
"""(ink (B,S,S) in [0,1], texture classes (B,), background classes (B,), randomness) -> (B,S,S,3) uint8."""


def colored(*, deviation: float) -> Coloring:
    """Grey ink times the class's colour, on black. `deviation`: of the jitter of colours in [0,1]."""

    def paint(ink: Floats, texture: Labels, _: Labels, random: np.random.Generator) -> Bytes:
        colors = _jittered(MEAN_COLORS, texture, deviation=deviation, random=random)
        return _bytes(ink[..., None] * colors)

    return paint


def double_colored(*, deviation: float, threshold: float) -> Coloring:
    """Ink above `threshold` in one colour, the rest in another."""

    def paint(ink: Floats, texture: Labels, background: Labels, random: np.random.Generator) -> Bytes:
        strokes = _jittered(OBJECT_COLORS, texture, deviation=deviation, random=random)
        ground = _jittered(BACKGROUND_COLORS, background, deviation=deviation, random=random)
        return _bytes(np.where((ink > threshold)[..., None], strokes, ground))

    return paint


def wildlife(objects: Bytes, backgrounds: Bytes, *, threshold: float) -> Coloring:
    """Ink above `threshold` shows a crop of the object's texture, the rest one of the background's.

    Both (10,T,T,3) uint8, from `textures`; every image has crops of its own.
    """

    def paint(ink: Floats, texture: Labels, background: Labels, random: np.random.Generator) -> Bytes:
        strokes = _crops(objects, texture, size=ink.shape[1], random=random)
        ground = _crops(backgrounds, background, size=ink.shape[1], random=random)
        return np.where((ink > threshold)[..., None], strokes, ground)

    return paint


def textures(paths: Sequence[Path]) -> Bytes:
    """(10,156,156,3) uint8: one image a class, resized to 150 and mirrored over the border by 3, as published.

    Nearest neighbour, as published: its grain is part of the images, and a smoother filter would make another data set.
    """
    found = []
    for path in paths:
        try:
            with Image.open(path) as picture:
                check_pixels(picture)
                small = picture.convert("RGB").resize((TEXTURE_PIXELS, TEXTURE_PIXELS), Image.Resampling.NEAREST)
        except FileNotFoundError:
            raise ArtifactError(f"{path} is missing: run fetch again") from None
        except DECODE_ERRORS as error:
            raise ArtifactError(f"{path} is no whole picture ({error}): remove it and run fetch again") from None
        found.append(np.asarray(small))
    margin = (TEXTURE_PADDING, TEXTURE_PADDING)
    return np.pad(np.stack(found), ((0, 0), margin, margin, (0, 0)), mode="reflect")


def _jittered(
    means: Sequence[tuple[int, ...]], classes: Labels, *, deviation: float, random: np.random.Generator
) -> Floats:
    """(B,1,1,3) colours in [0,1]."""
    noise = random.normal(0, deviation, (len(classes), 3))
    return np.clip(np.array(means)[classes] / 255 + noise, 0, 1)[:, None, None].astype(np.float32)


def _crops(pictures: Bytes, classes: Labels, *, size: int, random: np.random.Generator) -> Bytes:
    """(B,size,size,3): a random window of each class's picture."""
    top, left = random.integers(0, pictures.shape[1] - size + 1, (2, len(classes), 1, 1))
    rows, columns = np.arange(size)[:, None], np.arange(size)[None, :]
    cut: Bytes = pictures[classes[:, None, None], top + rows, left + columns]
    return cut


def _bytes(image: Floats) -> Bytes:
    return np.round(image * 255).astype(np.uint8)

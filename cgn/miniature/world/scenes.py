"""Scenes: a silhouette, a texture and a background, each with a class of its own, composed as a CGN composes them.

Legend: B images, S image size; labels are (B,) classes 0..8, in ImageNet-9's order.
What is drawn for a part depends on (seed, part, class, index) only, so changing one label changes one part. A texture
is shaded by the shape that it covers and has the shape's marks; away from the outline it fills the whole image. Images
under 64 pixels are averages of a drawing of 64 or more, so every size shows the same scene.
"""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import torch

from cgn.core.seeding import derive
from cgn.mechanisms import compose
from cgn.miniature.world.backgrounds import BACKGROUNDS
from cgn.miniature.world.primitives import Floats, Labels, Points, Rng, edge, paint
from cgn.miniature.world.silhouettes import Silhouette, silhouette
from cgn.miniature.world.textures import TEXTURES

CLASSES = ("dog", "bird", "vehicle", "reptile", "carnivore", "insect", "instrument", "primate", "fish")
DRAWN_SIZE = 64
IMAGES_PER_BATCH = 288
IMAGES_PER_BLOCK = 32
"""Enough that numpy's overhead is shared, few enough for the CPU's cache."""
MARK = 0.09
RIM_LIGHT, RIM = 0.42, 0.08
"""How bright a texture is at the outline, and how far from it (in half images) it is in full light."""
CAUSES = {"shape": 15, "texture": 6, "background": 11}
"""How many numbers of each random stream are causes. A silhouette draws 15 at most."""
NOISE_SIZE = sum(CAUSES.values())
LIMIT = 2.0
"""Where the normal distribution of the causes is truncated, in standard deviations."""


@dataclass(frozen=True, kw_only=True)
class Scene:
    """What is in the images: mask (B,1,S,S) in [0,1], foreground and background (B,3,S,S) in [-1,1]."""

    mask: torch.Tensor
    foreground: torch.Tensor
    background: torch.Tensor

    @property
    def image(self) -> torch.Tensor:
        """The composite, (B,3,S,S) in [-1,1]."""
        return compose(self.mask, self.foreground, self.background)


def scene(shape: Labels, texture: Labels, background: Labels, *, seed: int, index: Labels, image_size: int) -> Scene:
    """Draw the images `index` (B,) of the world `seed`, with these labels (B,) for their parts.

    `image_size`: 16, 32, or 64 and more. Raises ValueError for other sizes, labels outside 0..8, unequal lengths.
    """
    mask, foreground = foregrounds(shape, texture, seed=seed, index=index, image_size=image_size)
    behind = backgrounds(background, seed=seed, index=index, image_size=image_size)
    return Scene(mask=mask, foreground=foreground, background=behind)


def foregrounds(
    shape: Labels, texture: Labels, *, seed: int, index: Labels, image_size: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """Masks (B,1,S,S) in [0,1] and foregrounds (B,3,S,S) in [-1,1], as in `scene`."""
    filled = painted(TEXTURES, texture, seed=seed, index=index, image_size=image_size, stream="texture")
    mask = np.empty((len(shape), 1, image_size, image_size), dtype=np.float32)
    out = np.empty((len(shape), 3, image_size, image_size), dtype=np.float32)
    for rows, drawn in _drawn_shapes(shape, seed=seed, index=index, image_size=image_size):
        mask[rows] = reduced(coverage(drawn)[:, None], image_size)
        out[rows] = reduced(shaded(filled[rows], drawn), image_size)
    return torch.from_numpy(mask), signed(out)


def backgrounds(labels: Labels, *, seed: int, index: Labels, image_size: int) -> torch.Tensor:
    """Backgrounds (B,3,S,S) in [-1,1], as in `scene`."""
    filled = painted(BACKGROUNDS, labels, seed=seed, index=index, image_size=image_size, stream="background")
    return signed(reduced(filled, image_size))


def silhouettes(labels: Labels, *, seed: int, index: Labels, image_size: int) -> torch.Tensor:
    """The masks alone, (B,1,S,S) in [0,1]: those of every scene with these shapes, seed and index."""
    mask = np.empty((len(labels), 1, image_size, image_size), dtype=np.float32)
    for rows, drawn in _drawn_shapes(labels, seed=seed, index=index, image_size=image_size):
        mask[rows] = reduced(coverage(drawn)[:, None], image_size)
    return torch.from_numpy(mask)


def silhouette_bank(*, seed: int, per_class: int, image_size: int) -> torch.Tensor:
    """(9, per_class, S, S) in [0,1]: silhouettes of every class; none is in a scene of this seed."""
    labels = np.repeat(np.arange(len(CLASSES)), per_class)
    index = np.arange(len(labels))
    masks = silhouettes(labels, seed=derive(seed, "bank"), index=index, image_size=image_size)
    return masks.view(len(CLASSES), per_class, image_size, image_size)


def _drawn_shapes(labels: Labels, *, seed: int, index: Labels, image_size: int) -> Iterator[tuple[Labels, Silhouette]]:
    for figure, rows in blocks(labels, index=index, image_size=image_size):
        points = grid(len(rows), drawn_size(image_size))
        yield rows, silhouette(figure, points, Rng(index[rows], seed=seed, stream="shape"))


def painted(
    painters: tuple[Callable[[Points, Rng], Floats], ...],
    labels: Labels,
    *,
    seed: int,
    index: Labels,
    image_size: int,
    stream: str,
) -> Floats:
    """(B,3,D,D) in [0,1], D the size at which images of `image_size` are drawn."""
    size = drawn_size(image_size)
    out = np.empty((len(labels), 3, size, size), dtype=np.float32)
    for label, rows in blocks(labels, index=index, image_size=image_size, kinds=len(painters)):
        out[rows] = painters[label](grid(len(rows), size), Rng(index[rows], seed=seed, stream=stream))
    return out


def blocks(
    labels: Labels, *, index: Labels, image_size: int, kinds: int = len(CLASSES)
) -> Iterator[tuple[int, Labels]]:
    """Split images by class: yields a class and the rows of some images of it."""
    if len(labels) != len(index):
        raise ValueError(f"{len(labels)} labels for {len(index)} images: expected one label for each image")
    if image_size < DRAWN_SIZE and image_size not in (16, 32):
        raise ValueError(f"image_size {image_size}: the miniature world is drawn at 16, 32, or 64 and more pixels")
    if len(labels) and not (labels.min() >= 0 and labels.max() < kinds):
        raise ValueError(f"labels from {labels.min()} to {labels.max()}: allowed are 0 to {kinds - 1}")
    for label in np.unique(labels):
        rows = np.flatnonzero(labels == label)
        for start in range(0, len(rows), IMAGES_PER_BLOCK):
            yield int(label), rows[start : start + IMAGES_PER_BLOCK]


def index_batches(count: int) -> Iterator[Labels]:
    """0 to `count` - 1 in order, so many at a time as are drawn in one call."""
    for start in range(0, count, IMAGES_PER_BATCH):
        yield np.arange(start, min(start + IMAGES_PER_BATCH, count))


def grid(count: int, size: int) -> Points:
    """The pixels' centres, for `count` images of `size` pixels."""
    centres = ((np.arange(size, dtype=np.float32) + 0.5) * (2 / size) - 1).astype(np.float32)
    y, x = np.meshgrid(centres, centres, indexing="ij")
    return Points(*(np.repeat(axis[None], count, axis=0) for axis in (x, y)))


def drawn_size(image_size: int) -> int:
    """The size at which images of `image_size` are drawn."""
    return max(image_size, DRAWN_SIZE)


def shaded(filled: Floats, drawn: Silhouette) -> Floats:
    """(B,3,D,D) in [0,1] that fill the image, darkened towards the outline and with the shape's marks."""
    light = RIM_LIGHT + (1 - RIM_LIGHT) * np.minimum(np.abs(drawn.distance) / RIM, 1)
    return paint(filled * light[:, None], MARK, drawn.marks)


def coverage(drawn: Silhouette) -> Floats:
    """How much of each pixel is inside, (B,D,D) in [0,1]."""
    return edge(drawn.distance, 2 / drawn.distance.shape[-1])


def reduced(images: Floats, image_size: int) -> Floats:
    """(B,C,D,D) averaged to (B,C,S,S)."""
    factor = images.shape[-1] // image_size
    if factor == 1:
        return images
    boxes = images.reshape(*images.shape[:2], image_size, factor, image_size, factor)
    return np.asarray(boxes.mean((3, 5)), dtype=np.float32)


def signed(images: Floats) -> torch.Tensor:
    """[0,1] -> [-1,1]; values that painting has pushed out of the range are clipped."""
    return torch.from_numpy(images).mul_(2).sub_(1).clamp_(-1, 1)


def as_images(pixels: torch.Tensor) -> torch.Tensor:
    """(B,S,S,3) uint8 -> (B,3,S,S) in [-1,1], channels last."""
    return pixels.permute(0, 3, 1, 2).to(torch.float32).div_(127.5).sub_(1)


def causes(index: Labels, *, seed: int) -> torch.Tensor:
    """The causes of the images `index` (B,) of the world `seed` as a BigGAN's noise, (B,32) in [-2,2].

    They are the first numbers that an image's shape, texture and background are drawn from (position, size, rotation,
    mirroring and pose; scale and rotation; horizon and colors). These are uniform and independent; each is mapped to a
    normal distribution truncated to [-2,2].
    """
    numbers = []
    for stream, count in CAUSES.items():
        rng = Rng(index, seed=seed, stream=stream)
        numbers += [rng.uniform(0.0, 1.0)[:, 0, 0] for _ in range(count)]
    below = 0.5 * (1 + math.erf(-LIMIT / math.sqrt(2)))
    share = torch.from_numpy(np.stack(numbers, axis=1)).double()
    normal: torch.Tensor = torch.special.ndtri(below + (1 - 2 * below) * share)
    return normal.clamp(-LIMIT, LIMIT).float()

"""Handwritten digits as grey images: MNIST's own files, and those in the package scikit-learn.

MNIST is split as published, its training file's first 50,000 for training and the other 10,000 for test.
scikit-learn's 1,797 have one fixed split (stratified, independent of the run's seed), 500 for test, and get an empty
frame of one pixel, so that no stroke touches the border once they are enlarged. MNIST is enlarged by repeating pixels,
as published; 8x8 digits, and all that are turned or shifted, by bicubic interpolation.
"""

import gzip
import math
import zlib
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from cgn.core.errors import ArtifactError
from cgn.core.images import Bytes
from cgn.core.seeding import numpy_stream

if TYPE_CHECKING:
    import torch

MNIST_TRAIN = 50_000
SCIKIT_LEARN_TEST = 500
UBYTE = 0x08

Floats = np.ndarray[tuple[int, ...], np.dtype[np.float32]]
Labels = np.ndarray[tuple[int, ...], np.dtype[np.int64]]


@dataclass(frozen=True, kw_only=True)
class Digits:
    """`images`: (N,h,h) uint8, ink is 255. `labels`: (N,) in 0..9. Ink above `threshold` (in [0,1]) is a stroke."""

    images: Bytes
    labels: Labels
    resampling: Literal["nearest", "smooth"]
    threshold: float

    def __len__(self) -> int:
        return len(self.labels)


@dataclass(frozen=True, kw_only=True)
class DigitSplits:
    """The training and the test digits."""

    train: Digits
    test: Digits


def mnist(images: Path, labels: Path) -> DigitSplits:
    """MNIST's training files (idx, gzipped). Raises ArtifactError when they are broken or do not belong together."""
    pixels, classes = read_idx(images, dimensions=3), read_idx(labels, dimensions=1)
    if len(pixels) != len(classes) or len(pixels) <= MNIST_TRAIN:
        raise ArtifactError(
            f"{images} has {len(pixels):,} images and {labels} {len(classes):,} labels: "
            f"expected as many, and more than {MNIST_TRAIN:,}; run fetch again"
        )
    if classes.max() > 9:
        raise ArtifactError(f"{labels} has the label {classes.max()}, allowed: 0 to 9; run fetch again")
    return _splits(pixels, classes, np.arange(MNIST_TRAIN), np.arange(MNIST_TRAIN, len(classes)))


def scikit_learn() -> DigitSplits:
    """scikit-learn's 8x8 digits, 0..16, with their frame: (N,10,10)."""
    found = find_spec("sklearn")  # its file alone: importing the package takes a second
    assert found is not None
    assert found.origin is not None
    table: Any = np.loadtxt(Path(found.origin).parent / "datasets/data/digits.csv.gz", delimiter=",")
    pixels, labels = table[:, :-1], table[:, -1].astype(int)
    small = np.round(pixels.reshape(-1, 8, 8) * (255 / 16)).astype(np.uint8)
    framed = np.pad(small, ((0, 0), (1, 1), (1, 1)))
    train, test = _stratified(labels, test=SCIKIT_LEARN_TEST)
    return _splits(framed, labels, train, test, smooth=True)


def read_idx(path: Path, *, dimensions: int) -> Bytes:
    """An array of bytes from a gzipped idx file. Raises ArtifactError for anything but a whole one."""
    try:
        with gzip.open(path, "rb") as file:
            content = file.read()
    except FileNotFoundError:
        raise ArtifactError(f"{path} is missing: run fetch again") from None
    except (OSError, EOFError, zlib.error) as error:
        raise ArtifactError(f"{path} is broken or cut short ({error}): remove it and run fetch again") from None
    head = 4 + 4 * dimensions
    expected = bytes([0, 0, UBYTE, dimensions])
    if len(content) < head or content[:4] != expected:
        raise ArtifactError(
            f"{path} starts with {content[:4].hex()}, expected {expected.hex()}: it is not an idx file of "
            f"{dimensions} dimension{'s' * (dimensions > 1)}; remove it and run fetch again"
        )
    shape = tuple(int(size) for size in np.frombuffer(content[4:head], dtype=">u4"))
    if len(content) - head != math.prod(shape):
        raise ArtifactError(
            f"{path} has {len(content) - head:,} bytes for the shape {shape}, expected {math.prod(shape):,}: "
            "it is cut short or padded; remove it and run fetch again"
        )
    return np.frombuffer(content, dtype=np.uint8, offset=head).reshape(shape)


def render_digits(digits: Digits, chosen: Labels, *, image_size: int, motions: "torch.Tensor | None" = None) -> Floats:
    """The digits with the indices `chosen` (B,) as images (B,image_size,image_size) in [0,1].

    `motions` (B,2,3), from `random_motions`, rotates, scales and shifts each.
    """
    import torch
    from torch.nn import functional

    source = torch.from_numpy(digits.images[chosen].astype(np.float32) / 255).unsqueeze(1)
    if digits.resampling == "nearest" and motions is None:
        return functional.interpolate(source, size=(image_size, image_size), mode="nearest")[:, 0].numpy()
    still = torch.eye(2, 3).expand(len(chosen), 2, 3)
    grid = functional.affine_grid(
        still if motions is None else motions, [len(chosen), 1, image_size, image_size], align_corners=False
    )
    drawn = functional.grid_sample(source, grid, mode="bicubic", padding_mode="zeros", align_corners=False)
    return drawn.clamp(0, 1)[:, 0].numpy()


def random_motions(
    random: np.random.Generator, count: int, *, rotation_degrees: float, scale: float, shift: float
) -> "torch.Tensor":
    """(count,2,3) float32 affine maps from an image's coordinates to the source's, in [-1,1].

    Angle, scale (1 +- `scale`) and shifts (in fractions of the image) are drawn uniformly from +- their range.
    """
    import torch

    angle = np.deg2rad(random.uniform(-rotation_degrees, rotation_degrees, count))
    zoom = 1 + random.uniform(-scale, scale, count)
    offset = 2 * random.uniform(-shift, shift, (count, 2, 1))
    turn = np.stack([np.cos(angle), np.sin(angle), -np.sin(angle), np.cos(angle)], axis=1).reshape(count, 2, 2)
    backwards = turn / zoom[:, None, None]
    return torch.from_numpy(np.concatenate([backwards, -backwards @ offset], axis=2).astype(np.float32))


def _stratified(labels: Labels, *, test: int) -> tuple[Labels, Labels]:
    """Indices of the training and of the test digits, in an order that has each class's share in every stretch."""
    random = numpy_stream(0, "digits", "split")
    order = random.permutation(len(labels))
    share = np.empty(len(labels))
    for label in np.unique(labels):
        mine = labels[order] == label
        share[mine] = (np.arange(mine.sum()) + random.random(mine.sum())) / mine.sum()
    even = order[np.argsort(share, kind="stable")]
    return even[test:], even[:test]


def _splits(images: Bytes, labels: Bytes, train: Labels, test: Labels, *, smooth: bool = False) -> DigitSplits:
    # Published: 0.1 for MNIST. The 8x8 digits count 16 dots of ink; at half of them thin strokes begin to break.
    def half(places: Labels) -> Digits:
        return Digits(
            images=images[places],
            labels=labels[places].astype(np.int64),
            resampling="smooth" if smooth else "nearest",
            threshold=0.45 if smooth else 0.1,
        )

    return DigitSplits(train=half(train), test=half(test))

"""Prepare coloured digits: in training the label decides the colours or textures, in the randomised test chance does.

    train          the training digits, and jittered copies of them where asked for; the label decides
    test_iid       the test digits; still the label decides
    test_random    the same digits; texture and background are each drawn at random, as published

In `double_colored` one image in ten of test_random has object and background of one colour, so no classifier gets much
above 91 % there. The black background of `colored` has the digit's label in all splits. A shard draws its randomness
from its own number; all shards are made anew each time, which takes seconds, so none of an older version is kept.
Shapes: B digits of a shard, S image size.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tqdm import tqdm

from cgn.config.mnist import CLASSES, Prepare
from cgn.core.arguments import Input, Output
from cgn.core.errors import ArtifactError
from cgn.core.images import Bytes, from_bytes, save_image, sheet
from cgn.core.metrics import MetricSink
from cgn.core.seeding import numpy_stream
from cgn.data.shards import Sample, Shard, samples, write_manifest, write_shard
from cgn.download.sources import BACKGROUND_TEXTURES, MNIST_IMAGES, MNIST_LABELS, OBJECT_TEXTURES
from cgn.mnist.colorings import Coloring, colored, double_colored, textures, wildlife
from cgn.mnist.digits import DigitSplits, Labels, mnist, random_motions, render_digits, scikit_learn

FAINT = 24
"""Grey levels between the darkest and the brightest pixel of an image that shows next to nothing."""


def prepare(config: Prepare, *, seed: int, variant: str, assets: Input, data: Output, sink: MetricSink) -> None:
    """Write shards of the three splits, manifest.json and examples.png into `data`."""
    digits = load_digits(config, assets)
    coloring = load_coloring(config, assets, threshold=digits.test.threshold)
    images = split_sizes(config, digits)
    shards: list[Shard] = []
    for split, count in images.items():
        starts = range(0, count, config.images_per_shard)
        for number, first in enumerate(tqdm(starts, desc=split, unit="shard", disable=None)):
            indices = np.arange(first, min(first + config.images_per_shard, count))
            random = numpy_stream(seed, "prepare", split, number)
            drawn = render(split, indices, config=config, digits=digits, coloring=coloring, random=random)
            shards.append(write_shard(data, drawn, split=split, number=number, first_index=first))
    facts: dict[str, Any] = {"track": "mnist", "variant": variant, "digits": config.digits, "look": config.look}
    facts |= {"image_size": config.image_size, "classes": CLASSES, "seed": seed}
    write_manifest(data, shards, facts=facts)
    save_image(sheet([(split, examples(data, split=split)) for split in images]), data / "examples.png")
    sink.picture(data / "examples.png")
    sink.summary({f"images/{split}": count for split, count in images.items()})


def load_digits(config: Prepare, assets: Path) -> DigitSplits:
    """The training and the test digits, grey. Raises ArtifactError for a file that is missing or broken."""
    if config.digits == "scikit-learn":
        return scikit_learn()
    return mnist(assets / MNIST_IMAGES.name, assets / MNIST_LABELS.name)


def load_coloring(config: Prepare, assets: Path, *, threshold: float) -> Coloring:
    """The coloring that `look` names; `threshold`: of the ink, between a digit and its background."""
    if config.look == "colored":
        return colored(deviation=config.color_deviation)
    if config.look == "double_colored":
        return double_colored(deviation=config.color_deviation, threshold=threshold)
    objects, backgrounds = (
        textures([assets / asset.name for asset in kind]) for kind in (OBJECT_TEXTURES, BACKGROUND_TEXTURES)
    )
    return wildlife(objects, backgrounds, threshold=threshold)


def split_sizes(config: Prepare, digits: DigitSplits) -> dict[str, int]:
    """Images by split."""
    copies = 1 if config.jitter is None else config.jitter.copies
    return {"train": config.train_images * copies, "test_iid": len(digits.test), "test_random": len(digits.test)}


def render(
    split: str,
    indices: Labels,
    *,
    config: Prepare,
    digits: DigitSplits,
    coloring: Coloring,
    random: np.random.Generator,
) -> Iterator[Sample]:
    """The images of a split at (B,) indices. In training, copy k of all digits comes after copy k - 1 of all.

    A sample's `digit` is the source's place in its half, by which copies of one digit can be recognised.
    """
    half, chosen, motions = digits.test, indices, None
    if split == "train":
        half, chosen = digits.train, indices % config.train_images
        if (jitter := config.jitter) is not None:
            ranges = {"rotation_degrees": jitter.rotation_degrees, "scale": jitter.scale, "shift": jitter.shift}
            motions = random_motions(random, len(chosen), **ranges)
    ink = render_digits(half, chosen, image_size=config.image_size, motions=motions)  # (B,S,S) in [0,1]
    shape = texture = background = half.labels[chosen]
    if split == "test_random":
        texture, background = random.integers(0, CLASSES, (2, len(chosen)))
        if config.look == "colored":
            background = shape
    images = coloring(ink, texture, background, random)
    return _samples(images, shape=shape, texture=texture, background=background, digit=chosen)


def examples(folder: Path, *, split: str) -> torch.Tensor:
    """(10,3,S,S) in [-1,1]: the split's first image of each shape; white where a shape is absent.

    Where chance drew the same colour for object and background there is nothing to see; such images are passed over.
    Raises ArtifactError where no image shows anything.
    """
    found: dict[int, torch.Tensor] = {}
    for sample in samples(folder, split=split):
        if np.ptp(sample.image, axis=(0, 1)).max() < FAINT:
            continue
        found.setdefault(int(sample.facts["shape"]), from_bytes(sample.image[None])[0])
        if len(found) == CLASSES:
            break
    if not found:
        raise ArtifactError(f"no image of split {split!r} shows anything: check the parameters of prepare")
    white = torch.ones_like(next(iter(found.values())))
    return torch.stack([found.get(label, white) for label in range(CLASSES)])


def _samples(images: Bytes, **columns: Labels) -> Iterator[Sample]:
    """(B,S,S,3) uint8 images, each with its place in every column as a fact."""
    rows = zip(*(column.tolist() for column in columns.values()), strict=True)
    for image, row in zip(images, rows, strict=True):
        yield Sample(image=image, facts=dict(zip(columns, row, strict=True)))

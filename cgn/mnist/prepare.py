"""mnist prepare: digits in the variant's look, with the label deciding in training and chance in the randomised test.

Decided here: three splits. `train`: the training digits, jittered copies of them where asked for, the label decides
texture and background. `test_iid`: the test digits, still the label. `test_random`: the same digits, texture and
background each drawn at random, as published: in `double_colored` one image in ten has object and background of one
colour, so no classifier gets much above 91 % there. The black background of `colored` has the digit's label in all.
"""

from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path

import numpy as np

from cgn.config.mnist.prepare import Prepare
from cgn.core.seeding import numpy_stream
from cgn.data.digits import Digits, DigitSplits, Labels, mnist, random_motions, render_digits, scikit_learn
from cgn.data.shards import Sample, Split, examples, write_splits
from cgn.data.sources import BACKGROUND_TEXTURES, MNIST_IMAGES, MNIST_LABELS, OBJECT_TEXTURES
from cgn.mnist.colorings import Look, colored, double_colored, textures, wildlife
from cgn.mnist.constants import CLASSES
from cgn.stages.prepare import Parts, Prepared


def parts(params: Prepare, *, seed: int, variant: str) -> Parts:
    """Parameters of a variant -> what the stage needs."""
    return Parts(write=partial(_write, params, seed=seed, variant=variant))


def _write(params: Prepare, *, seed: int, variant: str, assets: Path, data: Path, survey: Path | None) -> Prepared:
    del survey  # nothing of the user's is read
    facts = {
        "track": "mnist",
        "variant": variant,
        "digits": params.digits,
        "look": params.look,
        "image_size": params.image_size,
        "classes": CLASSES,
        "seed": seed,
    }
    splits = made_splits(params, assets, seed=seed)
    write_splits(data, splits, images_per_shard=params.images_per_shard, facts=facts)
    return Prepared(
        images={split.name: split.images for split in splits},
        examples=[(split.name, examples(data, split=split.name, classes=CLASSES)) for split in splits],
    )


def made_splits(params: Prepare, assets: Path, *, seed: int) -> Sequence[Split]:
    """The three splits, of digits and textures that lie in `assets`."""
    halves = _digits(params, assets)
    look = _look(params, assets, threshold=halves.test.threshold)
    copies = 1 if params.jitter is None else params.jitter.copies
    test = len(halves.test)
    train = partial(_train, halves.train, params=params, look=look, seed=seed)
    iid = partial(_test, halves.test, params=params, look=look, seed=seed, split="test_iid")
    randomised = partial(_test, halves.test, params=params, look=look, seed=seed, split="test_random")
    return (
        Split(name="train", images=params.train_images * copies, render=train),
        Split(name="test_iid", images=test, render=iid),
        Split(name="test_random", images=test, render=randomised),
    )


def _digits(params: Prepare, assets: Path) -> DigitSplits:
    if params.digits == "scikit-learn":
        return scikit_learn()
    return mnist(assets / MNIST_IMAGES.name, assets / MNIST_LABELS.name)


def _look(params: Prepare, assets: Path, *, threshold: float) -> Look:
    if params.look == "colored":
        return colored(deviation=params.color_deviation)
    if params.look == "double_colored":
        return double_colored(deviation=params.color_deviation, threshold=threshold)
    objects, backgrounds = (
        textures([assets / asset.name for asset in kind]) for kind in (OBJECT_TEXTURES, BACKGROUND_TEXTURES)
    )
    return wildlife(objects, backgrounds, threshold=threshold)


def _train(digits: Digits, number: int, indices: range, *, params: Prepare, look: Look, seed: int) -> Iterator[Sample]:
    """Copy k of all training digits comes after copy k - 1 of all."""
    random = numpy_stream(seed, "prepare", "train", number)
    chosen = np.array(indices) % params.train_images
    motions = None
    if (jitter := params.jitter) is not None:
        motions = random_motions(
            random,
            len(chosen),
            rotation_degrees=jitter.rotation_degrees,
            scale=jitter.scale,
            shift=jitter.shift,
        )
    ink = render_digits(digits, chosen, image_size=params.image_size, motions=motions)
    labels = digits.labels[chosen]
    return _samples(look(ink, labels, labels, random), chosen, labels, labels, labels)


def _test(
    digits: Digits, number: int, indices: range, *, params: Prepare, look: Look, seed: int, split: str
) -> Iterator[Sample]:
    random = numpy_stream(seed, "prepare", split, number)
    chosen = np.array(indices)
    ink = render_digits(digits, chosen, image_size=params.image_size)
    labels = digits.labels[chosen]
    texture = background = labels
    if split == "test_random":
        texture, background = random.integers(0, CLASSES, (2, len(chosen)))
        if params.look == "colored":
            background = labels
    return _samples(look(ink, texture, background, random), chosen, labels, texture, background)


def _samples(
    images: np.ndarray[tuple[int, ...], np.dtype[np.uint8]],
    chosen: Labels,
    shape: Labels,
    texture: Labels,
    background: Labels,
) -> Iterator[Sample]:
    """`digit` is the source's place in its half, so that copies of one digit can be told."""
    columns = (column.tolist() for column in (chosen, shape, texture, background))
    for image, digit, s, t, b in zip(images, *columns, strict=True):
        yield Sample(image=image, facts={"shape": s, "texture": t, "background": b, "digit": digit})

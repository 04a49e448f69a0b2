"""Counterfactual images from Python: load a trained generator, draw, intervene, write shards; classify and evaluate.

    generator = load_generator("runs/mnist/digits/train_cgn")
    sample = generator.draw(shape=[3, 3], texture=[3, 7], background=[3, 0], seed=0)
    other = sample.intervene(background=8)          # the same noise, another background
    save_sheet({"before": sample.images, "after": other.images}, "threes.png")
    classifier = load_classifier("runs/imagenet/miniature/train_classifier/ensemble")
    classifier.classify(["dog.png"])[0].name

Images are float tensors (B,3,H,W) in [-1,1]; B images of H x W pixels. Labels are class numbers.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch

from cgn.classify import Prediction, TrainedClassifier, load_classifier
from cgn.config import imagenet as imagenet_config
from cgn.config import mnist as mnist_config
from cgn.core.errors import ArtifactError, CgnError, ConfigError
from cgn.core.facts import read_facts
from cgn.core.files import folder_digest
from cgn.core.images import Bytes, from_bytes, png, save_image, sheet, to_bytes
from cgn.core.metrics import Silent
from cgn.core.outputs import building
from cgn.core.parameters import LARGEST
from cgn.core.run_record import code_digest
from cgn.core.seeding import torch_stream
from cgn.core.validation import build
from cgn.data import shards
from cgn.imagenet import generate as imagenet_verb
from cgn.imagenet import generator as imagenet
from cgn.imagenet.evaluate_network import evaluate_models
from cgn.mechanisms import Cause, Causes, Generator, Picture, Prior, counterfactual, factual
from cgn.mnist import generate as mnist_verb
from cgn.mnist import generator as mnist

Labels = int | Sequence[int] | torch.Tensor
MODEL = "model.safetensors"
WHOLE = (torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8, torch.uint16, torch.uint32, torch.uint64)

__all__ = [
    "ArtifactError",
    "CgnError",
    "ConfigError",
    "CounterfactualGenerator",
    "Prediction",
    "Sample",
    "TrainedClassifier",
    "evaluate_models",
    "load_classifier",
    "load_generator",
    "read_shards",
    "save_sheet",
    "write_shards",
]


@dataclass(frozen=True, kw_only=True)
class Sample:
    """B images that a generator drew, and what they were drawn from."""

    generator: "CounterfactualGenerator"
    causes: Causes
    picture: Picture

    @property
    def images(self) -> torch.Tensor:
        """`x = m*f + (1-m)*b`, (B,3,H,W) in [-1,1]."""
        return self.picture.image

    @property
    def mask(self) -> torch.Tensor:
        """(B,1,H,W) in (0,1)."""
        return self.picture.mask

    @property
    def foreground(self) -> torch.Tensor:
        """(B,3,H,W) in [-1,1]."""
        return self.picture.foreground

    @property
    def background(self) -> torch.Tensor:
        """(B,3,H,W) in [-1,1]."""
        return self.picture.background

    @property
    def labels(self) -> dict[str, torch.Tensor]:
        """Mechanism -> (B,) class numbers."""
        return {name: getattr(self.causes, name).label for name in shards.LABELS}

    def intervene(
        self, *, shape: Labels | None = None, texture: Labels | None = None, background: Labels | None = None
    ) -> "Sample":
        """The same images with other labels for some mechanisms: do(label), with all noise kept."""
        changes = {"shape": shape, "texture": texture, "background": background}
        count = len(self.causes.shape.label)
        causes = {}
        for name, label in changes.items():
            cause: Cause = getattr(self.causes, name)
            causes[name] = cause if label is None else replace(cause, label=self.generator.labels(label, count=count))
        return self.generator.render(Causes(**causes))

    def pngs(self) -> list[bytes]:
        """Each image as a PNG file. Equal images give equal bytes for one version of Pillow."""
        return [png(image) for image in to_bytes(self.images)]

    def save(self, path: Path | str) -> None:
        """Save a sheet as PNG: the images, and below them their masks, foregrounds and backgrounds."""
        rows = {"image": self.images, "mask": self.mask * 2 - 1}
        save_sheet(rows | {"foreground": self.foreground, "background": self.background}, path)


@dataclass(frozen=True, kw_only=True)
class CounterfactualGenerator:
    """A trained generator of either track, on the CPU. Made by `load_generator`."""

    generator: Generator
    prior: Prior
    folder: Path
    track: str
    variant: str
    classes: int
    image_size: int
    """Pixels."""

    def draw(
        self, *, shape: Labels, texture: Labels | None = None, background: Labels | None = None, seed: int = 0
    ) -> Sample:
        """Draw images with a label for each mechanism; a single label stands for all images.

        With `shape` only, all mechanisms have its label and the same noise, as in training (factual images). Otherwise
        each mechanism has noise of its own, and a label that is left out is the shape's. Equal arguments draw equal
        images. Raises ConfigError for a class that the generator does not have, and for a seed that is no whole number.
        """
        given = [_whole_numbers(label) for label in (shape, texture, background) if label is not None]
        count = next((len(labels) for labels in given if labels.ndim), 1)
        chosen = self.labels(shape, count=count)
        stream = torch_stream(_seed(seed), "draw")
        if texture is None and background is None:
            return self.render(factual(chosen, prior=self.prior, stream=stream))
        others = [chosen if label is None else self.labels(label, count=count) for label in (texture, background)]
        return self.render(
            counterfactual(shape=chosen, texture=others[0], background=others[1], prior=self.prior, stream=stream)
        )

    @torch.inference_mode()
    def render(self, causes: Causes) -> Sample:
        """Draw these causes (labels and noise for each mechanism)."""
        return Sample(generator=self, causes=causes, picture=self.generator(causes))

    def labels(self, label: Labels, *, count: int) -> torch.Tensor:
        """(count,) labels; a single one is repeated. Raises ConfigError for other counts and unknown classes."""
        found = _whole_numbers(label)
        found = found.expand(count) if found.ndim == 0 else found
        if found.shape != (count,):
            raise ConfigError(f"{list(found.shape)} labels for {count} images: give one label, or one for each image")
        if bool(((found < 0) | (found >= self.classes)).any()):
            raise ConfigError(f"labels are {found.tolist()}; the generator's classes are 0 to {self.classes - 1}")
        return found


def _whole_numbers(label: Labels) -> torch.Tensor:
    """The labels as int64. Raises ConfigError for numbers with a fraction, truth values and anything else."""
    try:
        found = torch.as_tensor(label)
    except (OverflowError, RuntimeError, TypeError, ValueError):
        found = None
    if found is None or not found.numel() or found.dtype not in WHOLE:
        raise ConfigError(f"labels are {label!r}; allowed: a class number, or a list or tensor of class numbers")
    return found.to(torch.int64)


def _seed(seed: int) -> int:
    """The seed. Raises ConfigError for anything but a whole number from 0."""
    if type(seed) is not int or not 0 <= seed <= LARGEST:
        raise ConfigError(f"seed is {seed!r}, allowed: a whole number from 0 up to 2**53")
    return seed


def load_generator(folder: Path | str) -> CounterfactualGenerator:
    """Load the generator in the folder that `train_cgn` wrote, of either track.

    Raises ArtifactError for a missing, broken or foreign file.
    """
    folder = Path(folder)
    facts = read_facts(folder / MODEL)
    track, variant = facts.get("track"), str(facts.get("variant"))
    loaded: mnist.Model | imagenet.Model
    if "net" not in facts:
        raise ArtifactError(f"{folder / MODEL} is not a generator: give the folder that train_cgn wrote")
    if track == "mnist":
        loaded = mnist.load_generator(folder, variant=variant)
    else:
        loaded = imagenet.load_generator(folder, variant=variant)
    return CounterfactualGenerator(
        generator=loaded.generator,
        prior=loaded.prior,
        folder=folder,
        track=str(track),
        variant=variant,
        classes=int(facts["classes"]),
        image_size=loaded.image_size,
    )


def write_shards(
    generator: CounterfactualGenerator,
    folder: Path | str,
    *,
    counterfactual_images: int = 1000,
    factual_images: int = 1000,
    images_per_shard: int = 1000,
    seed: int = 0,
    workers: int = 0,
) -> None:
    """Write WebDataset shards (PNG and JSON) of images with random labels, and manifest.json, into `folder`.

    The same as `python -m cgn generate`: labels of a counterfactual's mechanisms are independent and uniform; the same
    arguments give the same bytes; what another call with the same arguments began is continued, and its finished folder
    checked. Images of other arguments are replaced. `workers`: processes, one a core by default. Raises ConfigError for
    numbers that do not fit, and ArtifactError for a folder that holds anything else.
    """
    counts: dict[str, Any] = {"counterfactual_images": counterfactual_images, "factual_images": factual_images}
    counts |= {"images_per_shard": images_per_shard}
    verb = mnist_verb if generator.track == "mnist" else imagenet_verb
    kind = mnist_config.Generate if generator.track == "mnist" else imagenet_config.Generate
    config: Any = build(kind, counts, key="write_shards")
    definition = {"verb": "generate", "track": generator.track, "variant": generator.variant, "seed": _seed(seed)}
    definition |= {"params": config.model_dump(mode="json"), "model": folder_digest(generator.folder)}
    given: dict[str, Any] = {"seed": seed, "variant": generator.variant, "model": generator.folder}
    with building(Path(folder), definition=definition, code=code_digest()) as partial:
        verb.generate(config, images=partial, workers=workers, sink=Silent(), **given)


def read_shards(folder: Path | str, *, split: str = "counterfactual") -> Iterator[tuple[Bytes, dict[str, Any]]]:
    """The images of a split, (H,W,3) uint8, each with its labels and how it was drawn, in order."""
    for sample in shards.samples(Path(folder), split=split):
        yield sample.image, dict(sample.facts)


def save_sheet(rows: Mapping[str, torch.Tensor | np.ndarray[Any, Any]], path: Path | str) -> None:
    """Save labelled rows of images as one PNG: (B,3,H,W) or (B,1,H,W) tensors in [-1,1], or (B,H,W,3) uint8 arrays."""
    shown = [
        (name, images if isinstance(images, torch.Tensor) else from_bytes(cast(Bytes, images)))
        for name, images in rows.items()
    ]
    save_image(sheet(shown), Path(path))

"""A trained classifier of either track, opened to classify image files one by one: the same answers as evaluate's."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from cgn.core.errors import ArtifactError
from cgn.core.facts import read_facts
from cgn.core.images import from_bytes
from cgn.data.decoding import decode
from cgn.imagenet import classifiers as imagenet
from cgn.imagenet.data.preprocessing import imagenet_size
from cgn.mnist import evaluate as mnist
from cgn.nets.classifiers import AVERAGE, with_mean_heads

MODEL = "model.safetensors"
BATCH_SIZE = 64
"""Images of one forward pass."""


@dataclass(frozen=True, kw_only=True)
class Prediction:
    """What a classifier says of one image."""

    heads: Mapping[str, Mapping[str, float]]
    """Head -> its classes by name, the most probable first, with their probabilities. The first head decides."""

    @property
    def name(self) -> str:
        """The class."""
        return next(iter(next(iter(self.heads.values()))))

    @property
    def probability(self) -> float:
        """Of the class, in [0,1]."""
        return next(iter(next(iter(self.heads.values())).values()))


@dataclass(frozen=True, kw_only=True)
class TrainedClassifier:
    """A trained classifier of either track, on the CPU. Made by `load_classifier`."""

    folder: Path
    track: str
    variant: str
    arm: str
    class_names: tuple[str, ...]
    image_size: int
    """Pixels."""
    transform: Callable[[Image.Image], torch.Tensor]
    """RGB image -> (3,S,S), `image_size` S, as evaluate prepares it."""
    probabilities: Callable[[torch.Tensor], Mapping[str, torch.Tensor]]
    """(B,3,S,S) -> for each head (B,K) in float64, the head that decides first."""

    def classify(self, images: Sequence[Path | str | bytes]) -> list[Prediction]:
        """Classify image files, given by their paths or bytes, as evaluate would.

        Raises ArtifactError for one that cannot be read, is too large, or does not fit the network, with its place.
        """
        found: list[Prediction] = []
        for first in range(0, len(images), BATCH_SIZE):
            prepared = [self._prepared(image, first + place) for place, image in enumerate(images[first:][:BATCH_SIZE])]
            with torch.inference_mode():
                answers = self.probabilities(torch.stack(prepared).contiguous(memory_format=torch.channels_last))
            if not all(bool(torch.isfinite(answer).all()) for answer in answers.values()):
                raise ArtifactError(f"{self.folder} answers with numbers that are not finite: train it again")
            found += [
                Prediction(heads={head: self._ranked(answer[place]) for head, answer in answers.items()})
                for place in range(len(prepared))
            ]
        return found

    def _prepared(self, image: Path | str | bytes, place: int) -> torch.Tensor:
        name = f"image {place}" if isinstance(image, bytes) else str(image)
        decoded = decode(image if isinstance(image, bytes) else Path(image), name=name)
        if self.track == "mnist" and decoded.size != (self.image_size, self.image_size):
            size = f"{decoded.size[0]}x{decoded.size[1]}"
            raise ArtifactError(f"{name} has {size} pixels, the classifier takes {self.image_size}x{self.image_size}")
        return self.transform(decoded)

    def _ranked(self, probabilities: torch.Tensor) -> dict[str, float]:
        ranked = probabilities.sort(descending=True, stable=True)
        return {
            self.class_names[at]: value
            for at, value in zip(ranked.indices.tolist(), ranked.values.tolist(), strict=True)
        }


def load_classifier(folder: Path | str) -> TrainedClassifier:
    """Load the classifier in a folder that `train_classifier` wrote, of either track.

    Raises ArtifactError for a missing, broken or foreign file.
    """
    folder = Path(folder)
    facts: Mapping[str, Any] = read_facts(folder / MODEL)
    track, variant = facts.get("track"), str(facts.get("variant"))
    if "arm" not in facts:
        raise ArtifactError(f"{folder / MODEL} is not a classifier: give a folder that train_classifier wrote")
    network: torch.nn.Module
    probabilities: Callable[[torch.Tensor], Mapping[str, torch.Tensor]]
    if track == "mnist":
        network, facts = mnist.load_trained(folder, variant=variant)
        names = tuple(map(str, range(int(facts["classes"]))))
        probabilities = partial(_digit_probabilities, network)
        transform: Callable[[Image.Image], torch.Tensor] = _digit
    else:
        network, facts = imagenet.load_trained(folder, variant=variant)
        names = tuple(map(str, facts["class_names"]))
        probabilities = partial(_head_probabilities, network)
        transform = imagenet_size(int(facts["image_size"])).transform("clean")
    network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    return TrainedClassifier(
        folder=folder,
        track=str(track),
        variant=variant,
        arm=str(facts["arm"]),
        class_names=names,
        image_size=int(facts["image_size"]),
        transform=transform,
        probabilities=probabilities,
    )


def _digit(image: Image.Image) -> torch.Tensor:
    return from_bytes(np.array(image)[None])[0]


def _digit_probabilities(network: torch.nn.Module, images: torch.Tensor) -> dict[str, torch.Tensor]:
    return {mnist.HEAD: network(images).double().exp()}


def _head_probabilities(network: torch.nn.Module, images: torch.Tensor) -> dict[str, torch.Tensor]:
    heads = with_mean_heads(network(images))
    order = [AVERAGE, *heads] if AVERAGE in heads else list(heads)
    return {head: heads[head].double().softmax(dim=1) for head in order}

"""mnist train_classifier: the cell that fills in what train_classifier needs.

Decided here: an arm is a list of sources, joined in that order and shuffled anew each epoch; what it learns is the
label of the shape.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import torch

from cgn.classifiers.cnn import Cnn
from cgn.config.mnist.train_classifier import TrainClassifier
from cgn.config.record import picked
from cgn.core.checkpoints import refuse_foreign
from cgn.core.errors import ArtifactError
from cgn.core.metrics import MetricSink
from cgn.core.seeding import derive
from cgn.data.shards import load, read_manifest
from cgn.stages.train_classifier import Course, Folders, Parts, Role, Trained
from cgn.tracks.mnist.constants import CLASSES
from cgn.training.supervised import Examples, Schedule, supervised

if TYPE_CHECKING:
    from lightning_fabric import Fabric


@dataclass(frozen=True, kw_only=True)
class Source:
    """Where an arm's images come from: the role of a folder and a split in it."""

    role: Literal["data", "images"]
    split: str


ORIGINAL = Source(role="data", split="train")
FACTUAL = Source(role="images", split="factual")
COUNTERFACTUAL = Source(role="images", split="counterfactual")

SOURCES = {
    "original": (ORIGINAL,),
    "gan": (FACTUAL,),
    "counterfactual": (COUNTERFACTUAL,),
    "original_counterfactual": (ORIGINAL, COUNTERFACTUAL),
}
"""Arm -> its training images."""


def parts(params: TrainClassifier, *, seed: int, variant: str) -> Parts:
    """Parameters of a variant -> what the stage needs."""
    return Parts(
        track="mnist",
        variant=variant,
        arms={arm: [source.role for source in sources] for arm, sources in SOURCES.items()},
        make=partial(_make, params, seed=seed, variant=variant),
        accelerator=params.accelerator,
        devices=1,
        precision=params.precision,
        cpu_threads=None,
    )


def _make(params: TrainClassifier, *, seed: int, variant: str, arm: str, folders: Folders, fabric: "Fabric") -> Course:
    _refuse_mixture(folders, variant=variant)
    examples = _examples(SOURCES[arm], folders)
    module = _initial(seed, arm=arm)
    training = supervised(
        module,
        examples=examples,
        schedule=picked(Schedule, params),
        seed=derive(seed, "train_classifier", arm, "order"),
        fabric=fabric,
    )

    def train(folder: Path, sink: MetricSink) -> Trained:
        outcome = training.run(folder, sink=sink)
        return Trained(
            measured=outcome.measured,
            told={"images": len(examples.labels), "updates": outcome.updates},
            images_per_second=outcome.images_per_second,
            seconds=outcome.seconds,
        )

    return Course(module=module, facts={"classes": CLASSES, "image_size": int(examples.pixels.shape[1])}, train=train)


def _initial(seed: int, *, arm: str) -> torch.nn.Module:
    """A classifier with initial weights from the arm's own stream; the global stream is left as it was."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(derive(seed, "train_classifier", arm, "weights"))
        return Cnn(classes=CLASSES)


def _refuse_mixture(folders: Mapping[Role, Path], *, variant: str) -> None:
    """All folders must be of this variant and hold images of one size, also where the arm reads only one of them."""
    facts = {role: read_manifest(folder).facts for role, folder in folders.items()}
    for role, folder in folders.items():
        refuse_foreign(facts[role], source=folder, track="mnist", variant=variant)
    sizes = {role: told["image_size"] for role, told in facts.items() if "image_size" in told}
    if len(set(sizes.values())) > 1:
        told = " and ".join(f"--{role} {folders[role]} has images of {size} pixels" for role, size in sizes.items())
        raise ArtifactError(f"{told}: make the images again from a network that was trained on this data")


def _examples(sources: Sequence[Source], folders: Folders) -> Examples:
    """The arm's images and shape labels, source after source, in memory."""
    loaded = [load(folders[source.role], split=source.split) for source in sources]
    for source, images in zip(sources, loaded, strict=True):
        where = f"{folders[source.role]}, split {source.split}"
        if images.pixels.shape[1:] != loaded[0].pixels.shape[1:]:
            first = f"{folders[sources[0].role]}, split {sources[0].split}"
            sizes = (tuple(part.pixels.shape[1:3]) for part in (images, loaded[0]))
            raise ArtifactError(f"{where} and {first} hold images of different sizes, {' and '.join(map(str, sizes))}")
        low, high = int(images.labels["shape"].min()), int(images.labels["shape"].max())
        if low < 0 or high >= CLASSES:
            raise ArtifactError(f"{where} has shape labels {low} to {high}, allowed: 0 to {CLASSES - 1}")
    if len(loaded) == 1:
        return Examples(pixels=loaded[0].pixels, labels=loaded[0].labels["shape"])
    return Examples(
        pixels=torch.cat([images.pixels for images in loaded]),
        labels=torch.cat([images.labels["shape"] for images in loaded]),
    )

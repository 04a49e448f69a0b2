"""train_classifier: original images, generated ones or both -> one classifier, an arm of the comparison.

Decided here: an arm is a list of sources, joined in that order and shuffled anew each epoch; what it learns is the
label of the shape. All of an arm's randomness (initial weights, order of the images) comes from streams that bear its
name: arms are independent draws of one experiment, whichever of them run, in whatever order. model.safetensors is
written last and marks a finished arm; the training state is dropped then.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch

from cgn.core.checkpoints import load_model, refuse_foreign, save_model
from cgn.core.devices import fabric
from cgn.core.errors import ArtifactError, ConfigError
from cgn.core.files import read_json, write_json
from cgn.core.metrics import MetricSink
from cgn.core.roles import Input, Output
from cgn.core.seeding import derive
from cgn.data.shards import load, read_manifest
from cgn.training.supervised import STATE, Examples, Schedule, Supervised

MODEL = "model.safetensors"
TRAINING = "training.json"


@dataclass(frozen=True, kw_only=True)
class Source:
    """Where an arm's images come from: the role of a folder and a split in it."""

    role: Literal["data", "images"]
    split: str


@dataclass(frozen=True, kw_only=True)
class Parts:
    """What train_classifier needs from a track."""

    track: str
    variant: str
    seed: int
    classes: int
    arms: Mapping[str, Sequence[Source]]
    schedule: Schedule
    accelerator: str
    cpu_threads: int | None
    build: Callable[[], torch.nn.Module]
    """A fresh classifier: images (B,3,H,W) in [-1,1] -> log-probabilities (B,classes)."""


def train_classifier(
    parts: Parts, *, data: Input, images: Input, classifier: Output, arm: str, sink: MetricSink
) -> None:
    """Train `arm` from the checkpoint in `classifier` (or the start) to the end; write the model and training.json."""
    if arm not in parts.arms:
        raise ConfigError(f"--arm is {arm!r}, allowed: {', '.join(parts.arms)}")
    folders = {"data": data, "images": images}
    _refuse_mixture(folders, parts)
    if (classifier / MODEL).is_file():
        # Finished by an earlier run of the same definition: only check it.
        load_model(classifier / MODEL, track=parts.track, variant=parts.variant, arm=arm)
        told = read_json(classifier / TRAINING)
        sink.summary({name: told[name] for name in ("train_accuracy", "loss")})
        (classifier / STATE).unlink(missing_ok=True)
        return
    device = fabric(accelerator=parts.accelerator, cpu_threads=parts.cpu_threads)
    examples = _examples(parts.arms[arm], folders, parts)
    module = _initial(parts, arm=arm)
    seed = derive(parts.seed, "train_classifier", arm, "order")
    training = Supervised(module, examples=examples, schedule=parts.schedule, seed=seed, fabric=device)
    outcome = training.run(classifier, sink=sink)
    measured = {"train_accuracy": outcome.train_accuracy, "loss": outcome.loss}
    sink.summary({**measured, "images_per_second": outcome.images_per_second, "seconds": outcome.seconds})
    write_json(classifier / TRAINING, {**measured, "images": len(examples.labels), "updates": outcome.updates})
    facts = {"track": parts.track, "variant": parts.variant, "arm": arm, "classes": parts.classes}
    save_model(classifier / MODEL, module.state_dict(), facts={**facts, "image_size": int(examples.pixels.shape[1])})
    (classifier / STATE).unlink(missing_ok=True)


def _initial(parts: Parts, *, arm: str) -> torch.nn.Module:
    """A classifier with initial weights from the arm's own stream; the global stream is left as it was."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(derive(parts.seed, "train_classifier", arm, "weights"))
        return parts.build()


def _refuse_mixture(folders: Mapping[str, Path], parts: Parts) -> None:
    """Both folders must be of this variant and hold images of one size, also where the arm reads only one of them."""
    facts = {role: read_manifest(folder).facts for role, folder in folders.items()}
    for role, folder in folders.items():
        refuse_foreign(facts[role], source=folder, track=parts.track, variant=parts.variant)
    sizes = {role: told["image_size"] for role, told in facts.items() if "image_size" in told}
    if len(set(sizes.values())) > 1:
        told = " and ".join(f"--{role} {folders[role]} has images of {size} pixels" for role, size in sizes.items())
        raise ArtifactError(f"{told}: make the images again from a network that was trained on this data")


def _examples(sources: Sequence[Source], folders: Mapping[str, Path], parts: Parts) -> Examples:
    """The arm's images and shape labels, source after source, in memory."""
    loaded = [load(folders[source.role], split=source.split) for source in sources]
    for source, images in zip(sources, loaded, strict=True):
        where = f"{folders[source.role]}, split {source.split}"
        if images.pixels.shape[1:] != loaded[0].pixels.shape[1:]:
            first = f"{folders[sources[0].role]}, split {sources[0].split}"
            sizes = (tuple(part.pixels.shape[1:3]) for part in (images, loaded[0]))
            raise ArtifactError(f"{where} and {first} hold images of different sizes, {' and '.join(map(str, sizes))}")
        low, high = int(images.labels["shape"].min()), int(images.labels["shape"].max())
        if low < 0 or high >= parts.classes:
            raise ArtifactError(f"{where} has shape labels {low} to {high}, allowed: 0 to {parts.classes - 1}")
    if len(loaded) == 1:
        return Examples(pixels=loaded[0].pixels, labels=loaded[0].labels["shape"])
    return Examples(
        pixels=torch.cat([images.pixels for images in loaded]),
        labels=torch.cat([images.labels["shape"] for images in loaded]),
    )

"""The ImageNet track's classifiers: how a trained one is opened, and how any network is shown prepared pictures.

model.safetensors says in its facts what is needed to build the network (backbone, heads, classes, batch_norm) and to
show it pictures (image_size), so evaluating it needs nothing of params.yaml. The baseline is an ensemble of the one
head "label". A classifier of ours is called after its arm.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import nn

from cgn.core.checkpoints import WRONG_FACTS, load_model, load_strictly
from cgn.core.errors import ArtifactError
from cgn.core.files import read_object
from cgn.core.outputs import DEFINITION
from cgn.imagenet.data.prepared_sets import PreparedSets
from cgn.imagenet.data.preprocessing import Preparation, imagenet_size
from cgn.nets.classifiers import BASELINE, MECHANISMS, Ensemble, network, with_mean_heads

MODEL = "model.safetensors"
TRACK = "imagenet"
LARGEST = 8192
"""Pixels of a picture's side that a classifier may have been trained at."""
HEADS = {"baseline": BASELINE, "ensemble": MECHANISMS}
"""Arm -> the heads that it trains, in the order tables list the arms."""


@dataclass(frozen=True, kw_only=True)
class Classifier:
    """A network in eval mode, and how its pictures are prepared."""

    name: str
    module: nn.Module
    """Prepared images (B,3,crop,crop) -> logits (B,K), or those of each head by its name."""
    preparation: Preparation
    metadata: Mapping[str, Any] = field(default_factory=dict)
    """What the report says of it: network and preparation, with parameters and seed, or recipe, file and digest."""
    folder: Path | None = None
    """The folder that train_classifier wrote; None for a network from elsewhere."""

    def __call__(self, images: torch.Tensor) -> dict[str, torch.Tensor]:
        """(B,3,crop,crop) float32 -> {head: (B,K)}, means of heads included."""
        answers = self.module(images.contiguous(memory_format=torch.channels_last))
        return with_mean_heads(answers if isinstance(answers, Mapping) else {BASELINE[0]: answers})

    def to(self, device: torch.device) -> "Classifier":
        """Moves its network to a device, channels last, which CPUs and GPUs compute faster."""
        self.module.to(device=device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        return self


def open_classifiers(
    folders: Sequence[Path], *, collection: PreparedSets, variant: str, device: torch.device
) -> dict[str, Classifier]:
    """Name -> classifier that train_classifier left in a folder.

    Raises ArtifactError for two of a name, a broken or foreign one, or one of other classes than the collection's.
    """
    return by_name([(path, open_trained(path, collection, variant=variant).to(device)) for path in folders])


def by_name(found: Sequence[tuple[Path, Classifier]]) -> dict[str, Classifier]:
    """Classifiers by their names. Raises ArtifactError for two of a name."""
    paths: dict[str, Path] = {}
    for path, classifier in found:
        if classifier.name in paths:
            raise ArtifactError(
                f"{path} and {paths[classifier.name]} are both called {classifier.name!r}: give one classifier of each "
                "name"
            )
        paths[classifier.name] = path
    return {classifier.name: classifier for _, classifier in found}


def by_preparation(classifiers: Mapping[str, Classifier]) -> dict[Preparation, dict[str, Classifier]]:
    """Those that see the same pictures, together."""
    groups: dict[Preparation, dict[str, Classifier]] = {}
    for name, classifier in classifiers.items():
        groups.setdefault(classifier.preparation, {})[name] = classifier
    return groups


def open_trained(folder: Path, collection: PreparedSets, *, variant: str) -> Classifier:
    """The classifier that train_classifier left in `folder`, on the CPU.

    Raises ArtifactError as `load_trained`, and for one of other classes than the collection's.
    """
    if not folder.is_dir():
        raise ArtifactError(
            f"{folder} is a file: evaluate takes the folders that train_classifier made; for the weights of a "
            "published network or your own run evaluate_network with --network NAME, such as resnet50"
        )
    module, facts = load_trained(folder, variant=variant)
    if tuple(facts["class_names"]) != collection.class_names:
        raise ArtifactError(
            f"{folder} knows {len(facts['class_names'])} classes, {collection.root} has {collection.classes}, not the "
            "same: evaluate a classifier on the classes that it was trained on"
        )
    definition = read_object(folder / DEFINITION) if (folder / DEFINITION).is_file() else {}
    training = read_object(folder / "training.json") if (folder / "training.json").is_file() else {}
    preparation = imagenet_size(facts["image_size"])
    return Classifier(
        name=facts["arm"],
        module=module,
        preparation=preparation,
        metadata={
            **{key: definition[key] for key in ("params", "seed") if key in definition},
            "training": training,
            "network": facts["backbone"],
            "preparation": preparation.facts,
        },
        folder=folder,
    )


def load_trained(folder: Path, *, variant: str) -> tuple[Ensemble, Mapping[str, Any]]:
    """The network that train_classifier left in `folder`, and its facts.

    The network is on the CPU, in eval mode and without gradients: images (B,3,S,S), `image_size` S, minus ImageNet's
    mean over its deviation -> logits of heads. Facts: track, variant, arm, classes, class_names, backbone, heads,
    image_size, batch_norm. Raises ArtifactError when the file is missing or broken, is of another track or variant, or
    does not fit its facts.
    """
    path = folder / MODEL
    tensors, facts = load_model(path, track=TRACK, variant=variant)
    try:
        classes, heads = facts["classes"], [str(head) for head in facts["heads"]]
        if any(len(tensors[f"heads.{head}.weight"]) != classes for head in heads):
            raise ValueError(f"classes are {classes!r}, its heads answer with another number")
        if len(facts["class_names"]) != classes or not 0 < int(facts["image_size"]) <= LARGEST:
            raise ValueError(f"class_names or image_size {facts['image_size']!r} do not fit")
        net = network(facts["backbone"], classes=1)
        module = Ensemble(net, classes=classes, heads=heads, batch_norm=facts["batch_norm"])
    except WRONG_FACTS as error:
        raise ArtifactError(
            f"{path} does not say what it is ({error}): remove {folder} and run train_classifier again"
        ) from None
    load_strictly(module, tensors, source=str(path))
    return module.eval().requires_grad_(False), facts

"""The ImageNet track's classifiers: how the parts of one are put together, and how a trained one is opened again.

Decided here: model.safetensors says in its facts what is needed to build the network (backbone, heads, classes,
batch_norm) and to show it pictures (image_size), so whoever examines it asks params.yaml for nothing. The baseline is
an ensemble of the one head "label".
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cgn.core.checkpoints import WRONG_FACTS, load_model
from cgn.core.errors import ArtifactError
from cgn.core.weights import load_strictly
from cgn.nets.classifiers import BASELINE, MECHANISMS, Ensemble, network

MODEL = "model.safetensors"
TRACK = "imagenet"
LARGEST = 8192
"""Pixels of a picture's side that a classifier may have been trained at."""
HEADS = {"baseline": BASELINE, "ensemble": MECHANISMS}
"""Arm -> the heads that it trains, in the order tables list the arms."""


@dataclass(frozen=True, kw_only=True)
class Classifier:
    """A trained arm: images (B,3,S,S), `image_size` S, minus ImageNet's mean over its deviation -> logits of heads."""

    network: Ensemble
    """On the CPU, in eval mode, without gradients."""
    facts: Mapping[str, Any]
    """track, variant, arm, classes, class_names, backbone, heads, image_size, batch_norm."""


def open_classifier(folder: Path, *, variant: str) -> Classifier:
    """The classifier that train_classifier left in `folder`.

    Raises ArtifactError when the file is missing or broken, is of another track or variant, or does not fit its facts.
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
    return Classifier(network=module.eval().requires_grad_(False), facts=facts)

"""Who is examined: classifiers that train_classifier left in folders, or files of published networks.

A published network is named NAME or NAME@RECIPE: one of torchvision's classification networks, and how pictures are
prepared for it (`cgn.data.preprocessing`), which may be left out for files that torchvision publishes. The file holds a
state dict, torchvision's own or one with the same keys, as timm's ResNets have: .pth, .pt, .bin of plain tensors, or
.safetensors.
Decided here: a published network is called after its file, ours after its arm.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from cgn.core.errors import ArtifactError, ConfigError
from cgn.core.files import read_object, sha256
from cgn.core.outputs import DEFINITION
from cgn.data.prepared_sets import PreparedSets
from cgn.data.preprocessing import Preparation, imagenet_size, weights_preparation
from cgn.imagenet.classifiers import open_classifier
from cgn.nets.classifiers import BASELINE, SingleHead, load_network, refuse_unknown, with_mean_heads
from cgn.report.records import read_record

SUFFIXES = (".pth", ".pt", ".bin", ".safetensors")


@dataclass(frozen=True, kw_only=True)
class Judge:
    """A classifier on its device: images (B,3,crop,crop), prepared -> logits (B,K) by head, means of heads included."""

    name: str
    module: nn.Module
    preparation: Preparation
    told: Mapping[str, Any]
    """What the report says of it: network and preparation, with parameters and seed, or recipe, file and digest."""
    took: Mapping[str, float]
    """Its training's `seconds` and `images_per_second`, as far as they are told."""

    def __call__(self, images: torch.Tensor) -> dict[str, torch.Tensor]:
        """(B,3,crop,crop) float32 -> {head: (B,K)}."""
        answers: Mapping[str, torch.Tensor] = self.module(images.contiguous(memory_format=torch.channels_last))
        return with_mean_heads(answers)


def opened(
    paths: Sequence[Path], *, network: str, collection: PreparedSets, variant: str, device: torch.device
) -> dict[str, Judge]:
    """Name -> classifier. Raises ArtifactError for two of a name, a broken file, or another number of classes."""
    found: dict[str, tuple[Path, Judge]] = {}
    for path in paths:
        judge = _published(path, network, collection) if network else _ours(path, collection, variant=variant)
        if judge.name in found:
            raise ArtifactError(
                f"{path} and {found[judge.name][0]} are both called {judge.name!r}: give one classifier of each name"
            )
        judge.module.to(device=device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        found[judge.name] = (path, judge)
    return {name: judge for name, (_, judge) in found.items()}


def _published(path: Path, network: str, collection: PreparedSets) -> Judge:
    file = _weights_in(path)
    if not file.is_file():
        raise ArtifactError(f"{file} is missing: give the file of weights, or the folder that holds it alone")
    digest, (name, _, asked) = sha256(file), network.partition("@")
    refuse_unknown(name)
    chosen = weights_preparation(name, asked=asked, digest=digest, file=file.name)
    net = load_network(name, file, classes=collection.classes, image_size=chosen.preparation.crop)
    if chosen.transform_input:
        net.transform_input = True  # type: ignore[assignment]
    if asked:
        _refuse_size(net, chosen.preparation.crop, network=network)
    told = {
        "network": name,
        "recipe": chosen.name,
        "recipe_from": chosen.source,
        "preparation": chosen.preparation.facts | {"transform_input": chosen.transform_input},
        "file": file.name,
        "sha256": digest,
    }
    module = SingleHead(net, head=BASELINE[0]).eval()
    return Judge(name=file.stem, module=module, preparation=chosen.preparation, told=told, took={})


def _refuse_size(net: nn.Module, crop: int, *, network: str) -> None:
    """Raises ConfigError where the network cannot take pictures of the size that is asked for."""
    try:
        with torch.inference_mode():
            net(torch.zeros(1, 3, crop, crop))
    except (AssertionError, RuntimeError, ValueError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise ConfigError(f"--network {network}: it takes no pictures of {crop} pixels ({reason})") from None


def _weights_in(path: Path) -> Path:
    """The file itself, or the only file of weights in a folder."""
    if not path.is_dir():
        return path
    files = sorted(file for file in path.iterdir() if file.suffix in SUFFIXES)
    if len(files) != 1:
        raise ArtifactError(
            f"{path} holds {len(files)} files of weights ({', '.join(SUFFIXES)}): give one file, not the folder"
        )
    return files[0]


def _ours(folder: Path, collection: PreparedSets, *, variant: str) -> Judge:
    if not folder.is_dir():
        raise ArtifactError(
            f"{folder} is a file: say of which published network by --network NAME, such as resnet50, or give the "
            "folder that train_classifier made"
        )
    classifier = open_classifier(folder, variant=variant)
    facts = classifier.facts
    if tuple(facts["class_names"]) != collection.class_names:
        raise ArtifactError(
            f"{folder} knows {len(facts['class_names'])} classes, {collection.root} has {collection.classes}, not the "
            "same: examine a classifier on the classes that it was trained on"
        )
    defined = read_object(folder / DEFINITION) if (folder / DEFINITION).is_file() else {}
    record = read_record(folder)
    training = read_object(folder / "training.json") if (folder / "training.json").is_file() else {}
    preparation = imagenet_size(facts["image_size"])
    shown = {"network": facts["backbone"], "preparation": preparation.facts}
    return Judge(
        name=facts["arm"],
        module=classifier.network,
        preparation=preparation,
        told={**{key: defined[key] for key in ("params", "seed") if key in defined}, "training": training, **shown},
        took={key: value for key in ("seconds", "images_per_second") if (value := record.metric(key)) is not None},
    )

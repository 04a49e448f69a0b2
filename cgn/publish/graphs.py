"""What is exported: a classifier or a generator of either track as one module of plain tensors, and examples of inputs.

A classifier takes RGB images in [0,1] and normalises them itself; the means of heads are outputs too. A generator takes
noise and labels of each mechanism. B images of S pixels, K classes, Z noise size.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import nn

from cgn.core.errors import ArtifactError
from cgn.core.facts import refuse_foreign
from cgn.core.files import sha256
from cgn.core.seeding import torch_stream
from cgn.data.decoding import decode
from cgn.data.shards import LABELS, load_split, read_manifest
from cgn.imagenet import generator as imagenet
from cgn.imagenet.classifiers import MODEL
from cgn.imagenet.classifiers import load_trained as load_imagenet
from cgn.imagenet.data.image_folders import class_folders
from cgn.imagenet.data.prepared_sets import read_prepared_sets
from cgn.imagenet.data.preprocessing import Preparation, imagenet_size
from cgn.mechanisms import Cause, Causes, Generator, Shape
from cgn.mnist import generator as mnist
from cgn.mnist.evaluate import HEAD
from cgn.mnist.evaluate import load_trained as load_mnist
from cgn.nets import u2net
from cgn.nets.biggan_folded import fold
from cgn.nets.classifiers import AVERAGE, with_mean_heads

Tensors = dict[str, torch.Tensor]
PARTS = ("image", "mask", "foreground", "background")
COLORS = ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
"""Mean and deviation by which RGB in [0,1] becomes [-1,1], as MNIST's classifiers take it."""


@dataclass(frozen=True, kw_only=True)
class Graph:
    """A module whose inputs and outputs are tensors with the batch as first dimension."""

    module: nn.Module
    """Takes `inputs` in their order, and returns a tuple of `outputs`."""
    inputs: Tensors
    """Examples of real inputs, by name."""
    expected: Tensors
    """What the library itself computes from them, by the outputs' names."""
    metadata: Mapping[str, str]

    @property
    def outputs(self) -> list[str]:
        """The outputs' names, the one that decides first."""
        return list(self.expected)


class _Classifier(nn.Module):
    """(B,3,S,S) RGB in [0,1] -> logits (B,K) of each head, in the order of `heads`."""

    mean: torch.Tensor
    deviation: torch.Tensor

    def __init__(self, net: nn.Module, *, heads: Sequence[str], colors: Sequence[Sequence[float]]) -> None:
        super().__init__()
        self.net, self.heads = net, tuple(heads)
        mean, deviation = (torch.tensor(values)[:, None, None] for values in colors)
        self.register_buffer("mean", mean)
        self.register_buffer("deviation", deviation)

    def forward(self, images: torch.Tensor) -> tuple[torch.Tensor, ...]:
        found = _answers(self.net((images - self.mean) / self.deviation))
        return tuple(found[head] for head in self.heads)


class _Generator(nn.Module):
    """The causes of three mechanisms, tensor by tensor -> image, mask, foreground and background."""

    def __init__(self, generator: Generator, *, inputs: Sequence[str], saliency: nn.Module | None) -> None:
        super().__init__()
        self.generator, self.inputs = generator, tuple(inputs)
        self.saliency = saliency  # f_shape segments with it; its weights are the graph's only if they are the module's

    def forward(self, *given: torch.Tensor) -> tuple[torch.Tensor, ...]:
        parts = dict(zip(self.inputs, given, strict=True))
        causes = {
            name: Cause(
                noise=parts[f"{name}_noise"], label=parts[f"{name}_label"], offsets=parts.get(f"{name}_offsets")
            )
            for name in LABELS
        }
        picture = self.generator(Causes(**causes))
        return tuple(getattr(picture, part) for part in PARTS)


def classifier_graph(folder: Path, *, track: str, variant: str, data: Path, count: int) -> Graph:
    """The classifier in a folder that train_classifier wrote, with up to `count` test images of `data` (of prepare).

    Raises ArtifactError for folders that are missing, broken, foreign or do not fit each other.
    """
    net: nn.Module
    if track == "mnist":
        net, facts = load_mnist(folder, variant=variant)
        names, preparation = [str(number) for number in range(int(facts["classes"]))], None
        pixels, colors = _digits(data, variant=variant, size=int(facts["image_size"]), count=count), COLORS
    else:
        net, facts = load_imagenet(folder, variant=variant)
        names, preparation = list(facts["class_names"]), imagenet_size(int(facts["image_size"]))
        pixels = _photographs(data, preparation, variant=variant, names=names, count=count)
        colors = (preparation.mean, preparation.deviation)
    mean, deviation = (torch.tensor(values)[:, None, None] for values in colors)
    with torch.inference_mode():
        found = _answers(net((pixels - mean) / deviation))
    expected = {head: found[head] for head in sorted(found, key=lambda head: head != AVERAGE)}
    size = int(facts["image_size"])
    resized = "already of this size"
    if preparation is not None:
        resized = f"the shorter side resized to {preparation.shorter} pixels ({preparation.interpolation}, antialiased)"
        resized += f", then the middle {size} x {size} cropped"
    metadata = _metadata(folder, "classifier", facts) | {
        "arm": str(facts["arm"]),
        "class_names": "\n".join(names),
        "heads": " ".join(expected),
        "input": f"images: float32 (batch,3,{size},{size}), RGB in [0,1], channels first; {resized}; not normalised: "
        "the graph does that",
        "output": "for each head logits (batch,classes), whose softmax are probabilities"
        + (f"; {AVERAGE} is the mean of the heads, the prediction to use" if AVERAGE in expected else ""),
    }
    module = _Classifier(net, heads=list(expected), colors=colors)
    return Graph(module=module.eval(), inputs={"images": pixels}, expected=expected, metadata=metadata)


def generator_graph(folder: Path, *, track: str, variant: str, count: int) -> Graph:
    """The generator in the folder that train_cgn wrote, with `count` counterfactual causes.

    Raises ArtifactError for a missing, broken or foreign file.
    """
    if track == "mnist":
        model: mnist.Model | imagenet.Model = mnist.load_generator(folder, variant=variant)
    else:
        model = imagenet.load_generator(folder, variant=variant)
    facts, prior, size = model.facts, model.prior, model.image_size
    stream, classes = torch_stream(0, "export"), int(facts["classes"])
    inputs: Tensors = {}
    for name in LABELS:
        cause = prior.cause(torch.randint(classes, (count,), generator=stream), stream)
        inputs |= {f"{name}_noise": cause.noise, f"{name}_label": cause.label}
        inputs |= {} if cause.offsets is None or name == "shape" else {f"{name}_offsets": cause.offsets}
    module = _Generator(model.generator, inputs=list(inputs), saliency=getattr(model, "saliency", None)).eval()
    with torch.inference_mode():
        expected = dict(zip(PARTS, module(*inputs.values()), strict=True))
    noise = "standard normal" if prior.truncation is None else "normal, cut to [-2,2]"
    offsets = "" if prior.tile_size is None else f"; *_offsets: int64 (batch,2), 0 to {prior.tile_size} pixels"
    metadata = _metadata(folder, "generator", facts) | {
        "input": f"*_noise: float32 (batch,{prior.noise_size}), {noise}; *_label: int64 (batch), 0 to {classes - 1}"
        f"{offsets}",
        "output": f"image, foreground, background: float32 (batch,3,{size},{size}), RGB in [-1,1]; mask: float32 "
        f"(batch,1,{size},{size}) in (0,1); image = mask * foreground + (1 - mask) * background",
    }
    if isinstance(model, imagenet.Model):  # weights over their spectral norms, once and not in each call
        for mechanism in (model.generator.shape, model.generator.texture, model.generator.background):
            mechanism.net = fold(imagenet.biggan_of(mechanism), truncation=1.0)
        module.saliency = u2net.fold(model.saliency)
        assert isinstance(model.generator.shape, Shape)
        model.generator.shape.segment = u2net.segmenter(module.saliency)
    return Graph(module=module, inputs=inputs, expected=expected, metadata=metadata)


def _answers(answer: Any) -> Tensors:
    return with_mean_heads(answer if isinstance(answer, Mapping) else {HEAD: answer})


def _metadata(folder: Path, kind: str, facts: Mapping[str, Any]) -> dict[str, str]:
    return {
        "kind": kind,
        "track": str(facts["track"]),
        "variant": str(facts["variant"]),
        "classes": str(facts["classes"]),
        "weights_sha256": sha256(folder / MODEL),
    }


def _digits(data: Path, *, variant: str, size: int, count: int) -> torch.Tensor:
    refuse_foreign(read_manifest(data).facts, source=data, track="mnist", variant=variant)
    pixels = load_split(data, split="test_random").pixels[:count]
    if pixels.shape[1:3] != (size, size):
        raise ArtifactError(f"{data} has images of {pixels.shape[2]}x{pixels.shape[1]}, the classifier takes {size}")
    return pixels.permute(0, 3, 1, 2).float() / 255


def _photographs(
    data: Path, preparation: Preparation, *, variant: str, names: Sequence[str], count: int
) -> torch.Tensor:
    """Evenly taken from the validation images, sized as the test protocol has it, in [0,1]."""
    collection = read_prepared_sets(data)
    refuse_foreign(collection.facts, source=data, track="imagenet", variant=variant)
    if list(collection.class_names) != list(names):
        raise ArtifactError(f"{data} has other classes than the classifier: give the data that it was trained on")
    listing = class_folders(collection.folder("val"), classes=collection.class_names)
    plain = replace(preparation, mean=(0.0, 0.0, 0.0), deviation=(1.0, 1.0, 1.0)).transform("clean")
    chosen = np.linspace(0, len(listing.names) - 1, min(count, len(listing.names))).astype(int)
    images: list[Image.Image] = [decode(listing.root / listing.names[place]) for place in chosen]
    return torch.stack([plain(image) for image in images])

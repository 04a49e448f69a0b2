"""What the pretrained nets can do, measured on scenes that none of them was trained on.

Decided here: the features are judged by a linear readout of their maps' means, fitted on counterfactual scenes; the
same readout then tells what the BigGAN's images show, part by part.
"""

from dataclasses import dataclass

import numpy as np
import torch
from torch import nn

from cgn.core.seeding import derive, numpy_stream, torch_stream
from cgn.mechanisms import Prior
from cgn.miniature.pretraining.features import PARTS
from cgn.miniature.scenes import CLASSES, backgrounds, scene
from cgn.nets.biggan import BigGan

PER_CLASS = 100
RIDGE = 1e-4
"""Of each channel's own strength."""
IMAGES_PER_BATCH = 300


@dataclass(frozen=True, kw_only=True)
class Readout:
    """Linear maps from the means of the features' maps to the classes of each part."""

    features: nn.Module
    weights: torch.Tensor
    """(1 + C, 3 * 9)"""

    def told(self, images: torch.Tensor) -> torch.Tensor:
        """(B,3,S,S) in [-1,1] -> (B,3) classes of shape, texture and background."""
        scores = pooled(self.features, images) @ self.weights
        told: torch.Tensor = scores.reshape(len(scores), len(PARTS), len(CLASSES)).argmax(2)
        return told


def readout(features: nn.Module, *, seed: int, count: int, image_size: int) -> Readout:
    """Fit by ridge regression on `count` counterfactual scenes."""
    images, labels = counterfactuals(count, seed=derive(seed, "fit"), image_size=image_size)
    given = pooled(features, images)
    wanted = torch.nn.functional.one_hot(labels, len(CLASSES)).float().flatten(1)
    products = (given.T @ given).double()
    strength = products.diagonal()
    penalty = RIDGE * torch.diag(strength.clamp_min(float(strength.mean()) * RIDGE))  # some channels are dead
    weights = torch.linalg.solve(products + penalty, (given.T @ wanted).double()).float()
    return Readout(features=features, weights=weights)


def counterfactuals(count: int, *, seed: int, image_size: int) -> tuple[torch.Tensor, torch.Tensor]:
    """(B,3,S,S) in [-1,1] and (B,3) labels of shape, texture and background, drawn apart."""
    labels = numpy_stream(seed, "labels").integers(0, len(CLASSES), (count, len(PARTS)))
    drawn = scene(*labels.T, seed=derive(seed, "scenes"), index=np.arange(count), image_size=image_size)
    return drawn.image, torch.from_numpy(labels)


@torch.no_grad()
def pooled(features: nn.Module, images: torch.Tensor) -> torch.Tensor:
    """(B,3,S,S) -> (B,1+C): a one, and the mean of every map."""
    parts = [
        torch.cat([torch.ones(len(part), 1), *(maps.mean((2, 3)) for maps in features(part))], 1)
        for part in torch.split(images, IMAGES_PER_BATCH)
    ]
    return torch.cat(parts)


@torch.no_grad()
def judge_segmenter(net: nn.Module, *, seed: int, image_size: int) -> dict[str, float]:
    """Overlap with the true masks of factual scenes, and how much it says of backgrounds without an object."""
    net.eval()
    labels = np.arange(PER_CLASS * len(CLASSES)) % len(CLASSES)
    world = derive(seed, "judge", "segmenter")
    drawn = scene(labels, labels, labels, seed=world, index=np.arange(len(labels)), image_size=image_size)
    said = torch.cat([net(part) for part in torch.split(drawn.image, IMAGES_PER_BATCH)])
    empty = backgrounds(labels, seed=derive(world, "empty"), index=np.arange(len(labels)), image_size=image_size)
    nothing = torch.cat([net(part) for part in torch.split(empty, IMAGES_PER_BATCH)])
    overlaps = iou(said, drawn.mask)
    figures = {"iou": float(overlaps.mean()), "saliency_on_backgrounds": float(nothing.mean())}
    figures["saliency_on_objects"] = float((said * drawn.mask).sum() / drawn.mask.sum())
    figures["saliency_beside_objects"] = float((said * (1 - drawn.mask)).sum() / (1 - drawn.mask).sum())
    for place, name in enumerate(CLASSES):
        chosen = torch.from_numpy(labels == place)
        figures[f"iou/{name}"] = float(overlaps[chosen].mean())
        figures[f"saliency_on_backgrounds/{name}"] = float(nothing[chosen].mean())
    return figures


def iou(said: torch.Tensor, true: torch.Tensor) -> torch.Tensor:
    """(B,1,S,S) twice, in [0,1] -> (B,): intersection over union, both cut at a half."""
    said, true = (said > 0.5).flatten(1), (true > 0.5).flatten(1)
    union = (said | true).sum(1).clamp_min(1)
    return (said & true).sum(1) / union


def judge_features(fitted: Readout, *, seed: int, image_size: int) -> dict[str, float]:
    """The readout's accuracy on counterfactual scenes that it was not fitted on."""
    images, labels = counterfactuals(PER_CLASS * len(CLASSES), seed=derive(seed, "test"), image_size=image_size)
    right = (fitted.told(images) == labels).float().mean(0)
    return {f"accuracy/{part}": float(value) for part, value in zip(PARTS, right, strict=True)}


@torch.no_grad()
def judge_biggan(net: BigGan, fitted: Readout, *, seed: int, truncation: float) -> dict[str, float]:
    """How often each part of its images is told as their label, and how much images of a class vary."""
    net.eval()
    labels = torch.arange(PER_CLASS * len(CLASSES)) % len(CLASSES)
    stream = torch_stream(seed, "judge", "biggan")
    noise = Prior(noise_size=net.config.noise_size, truncation=truncation).noise(len(labels), stream)
    images = torch.cat(
        [
            net(*part, truncation=truncation)
            for part in zip(*(torch.split(given, IMAGES_PER_BATCH) for given in (noise, labels)), strict=True)
        ]
    )
    return _told(images, labels, fitted)


def judge_scenes(fitted: Readout, *, seed: int, image_size: int) -> dict[str, float]:
    """The same of real factual scenes: what the best BigGAN could reach."""
    labels = np.arange(PER_CLASS * len(CLASSES)) % len(CLASSES)
    world = derive(seed, "judge", "scenes")
    drawn = scene(labels, labels, labels, seed=world, index=np.arange(len(labels)), image_size=image_size)
    return _told(drawn.image, torch.from_numpy(labels), fitted)


def _told(images: torch.Tensor, labels: torch.Tensor, fitted: Readout) -> dict[str, float]:
    right = (fitted.told(images) == labels[:, None]).float().mean(0)
    spread = torch.stack([images[labels == label].std(0).mean() for label in range(len(CLASSES))]).mean()
    return {**{f"told/{part}": float(value) for part, value in zip(PARTS, right, strict=True)}, "spread": float(spread)}

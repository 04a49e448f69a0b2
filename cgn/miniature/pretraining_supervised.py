"""The miniature's segmenter and features from scratch: one net, true labels of the miniature world.

The segmenter learns salient objects in general (`blobs`: none of the nine silhouettes), as the published U2-Net did.
The features learn to tell shape, texture and background of counterfactual scenes, each by a head of its own, so that
none can be guessed from another; the heads are thrown away. Legend: B batch, S image size.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from cgn.core.devices import open_fabric
from cgn.core.images import to_bytes
from cgn.core.metrics import MetricSink
from cgn.core.seeding import derive, numpy_stream
from cgn.miniature.blobs import salient
from cgn.miniature.pretraining_configs import Features, Segmenter, Supervised
from cgn.miniature.scenes import CLASSES, scene
from cgn.nets.features import VggFeatures
from cgn.nets.u2net import U2Net
from cgn.training import EMA, Rows, Training, adam, at_rest, batch_indices, linear_decay

IMAGES_PER_BATCH = 576
SHEET_COLUMNS = 12
Net = TypeVar("Net", bound=nn.Module)
PARTS = ("shape", "texture", "background")


@dataclass(frozen=True, kw_only=True)
class Examples:
    """`pixels`: (N,S,S,3) uint8. `answers`: (N,S,S) uint8 masks, or (N,3) int64 labels of the PARTS."""

    pixels: torch.Tensor
    answers: torch.Tensor

    def images(self, chosen: torch.Tensor) -> torch.Tensor:
        """(B,) indices -> (B,3,S,S) in [-1,1], channels last."""
        return self.pixels[chosen].permute(0, 3, 1, 2).to(torch.float32).div_(127.5).sub_(1)


class Classifier(nn.Module):
    """Features under three linear heads that read the mean of every map."""

    def __init__(self, features: VggFeatures, *, channels: int) -> None:
        super().__init__()
        self.features = features
        self.heads = nn.ModuleList(nn.Linear(channels, len(CLASSES)) for _ in PARTS)

    def forward(self, image: torch.Tensor) -> list[torch.Tensor]:
        """(B,3,S,S) in [-1,1] -> (B,9) logits of shape, texture and background."""
        read = torch.cat([features.mean((2, 3)) for features in self.features(image)], 1)
        return [head(read) for head in self.heads]


def train_segmenter(recipe: Segmenter, folder: Path, *, seed: int, sink: MetricSink) -> U2Net:
    """Train from the checkpoint in `folder`, or from the start; the averaged net."""
    seed = derive(seed, "pretraining", "segmenter")
    examples = _salient(recipe.images, seed=seed, image_size=recipe.image_size)
    torch.manual_seed(derive(seed, "initialization"))
    net = U2Net(recipe.widths)

    def losses(chosen: torch.Tensor) -> Mapping[str, torch.Tensor]:
        mask = net(examples.images(chosen)).float()[:, 0]
        target = examples.answers[chosen].to(torch.float32) / 255
        return {"cross_entropy": functional.binary_cross_entropy(mask, target)}

    return _trained(recipe, net, losses, folder=folder, sheet=partial(_masked, examples), seed=seed, sink=sink)


def train_features(recipe: Features, folder: Path, *, seed: int, sink: MetricSink) -> VggFeatures:
    """Train from the checkpoint in `folder`, or from the start; the averaged features, without the heads."""
    seed = derive(seed, "pretraining", "features")
    examples = _counterfactual(recipe.images, seed=seed, image_size=recipe.image_size)
    torch.manual_seed(derive(seed, "initialization"))
    features = VggFeatures(recipe.blocks)
    for layer in features.features:
        if isinstance(layer, nn.Conv2d):
            nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
    net = Classifier(features, channels=sum(block[-1] for block in recipe.blocks))

    def losses(chosen: torch.Tensor) -> Mapping[str, torch.Tensor]:
        answers = examples.answers[chosen]
        logits = net(examples.images(chosen))
        return {
            part: functional.cross_entropy(told.float(), answers[:, place])
            for place, (part, told) in enumerate(zip(PARTS, logits, strict=True))
        }

    return _trained(recipe, net, losses, folder=folder, sheet=partial(_shown, examples), seed=seed, sink=sink).features


def _trained(
    recipe: Supervised,
    net: Net,
    losses: Callable[[torch.Tensor], Mapping[str, torch.Tensor]],
    *,
    folder: Path,
    sheet: Callable[[nn.Module], Rows],
    seed: int,
    sink: MetricSink,
) -> Net:
    """The average of a net that goes down `losses`, of (B,) indices of examples."""
    fabric = open_fabric(accelerator="cpu", precision=recipe.precision)
    net.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    ema = EMA(net, decay=recipe.ema_decay)
    training = Training(
        folder,
        fabric=fabric,
        sink=sink,
        seed=seed,
        updates=recipe.updates,
        modules={"net": net, "ema": ema.module},
        optimizers={"net": adam(net, rate=recipe.rate, betas=(recipe.beta1, recipe.beta2))},
        log_every=recipe.log_updates,
        checkpoint_every=recipe.checkpoint_updates,
        sheet_every=recipe.sheet_updates,
    )
    for update in training:
        chosen = batch_indices(update, count=recipe.images, batch_size=recipe.batch_size, seed=seed)
        with fabric.autocast():
            weighted = losses(chosen)
        training.backward(weighted)
        factor = linear_decay(update, updates=recipe.updates, fraction=recipe.decay_fraction)
        training.step("net", rate_factor=factor)
        ema.follow(update)
        if training.sheet_due:
            with at_rest(ema.module, fabric=fabric) as average:
                rows = sheet(average)
            training.sheet(rows)
    return ema.module


def _salient(count: int, *, seed: int, image_size: int) -> Examples:
    pixels = np.empty((count, image_size, image_size, 3), dtype=np.uint8)
    masks = np.empty((count, image_size, image_size), dtype=np.uint8)
    for start in range(0, count, IMAGES_PER_BATCH):
        index = np.arange(start, min(start + IMAGES_PER_BATCH, count))
        made = salient(index, seed=derive(seed, "scenes"), image_size=image_size)
        pixels[index], masks[index] = to_bytes(made.image), to_bytes(2 * made.mask - 1)[..., 0]
    return Examples(pixels=torch.from_numpy(pixels), answers=torch.from_numpy(masks))


def _counterfactual(count: int, *, seed: int, image_size: int) -> Examples:
    labels = numpy_stream(seed, "labels").integers(0, len(CLASSES), (count, len(PARTS)))
    pixels = np.empty((count, image_size, image_size, 3), dtype=np.uint8)
    for start in range(0, count, IMAGES_PER_BATCH):
        index = np.arange(start, min(start + IMAGES_PER_BATCH, count))
        shape, texture, behind = labels[index].T
        made = scene(shape, texture, behind, seed=derive(seed, "scenes"), index=index, image_size=image_size)
        pixels[index] = to_bytes(made.image)
    return Examples(pixels=torch.from_numpy(pixels), answers=torch.from_numpy(labels))


def _masked(examples: Examples, net: nn.Module) -> Rows:
    chosen = torch.arange(SHEET_COLUMNS)
    images = examples.images(chosen)
    true = examples.answers[chosen][:, None].float() / 127.5 - 1
    return [("image", images), ("true mask", true), ("saliency", net(images) * 2 - 1)]


def _shown(examples: Examples, net: nn.Module) -> Rows:
    """The images whose labels are told best first: what the classifier looks at has no picture of its own."""
    chosen = torch.arange(8 * SHEET_COLUMNS)
    images, answers = examples.images(chosen), examples.answers[chosen]
    told = zip(net(images), answers.T, strict=True)
    costs = sum(functional.cross_entropy(logits, true, reduction="none") for logits, true in told)
    order = torch.as_tensor(costs).argsort()
    return [("easiest", images[order[:SHEET_COLUMNS]]), ("hardest", images[order[-SHEET_COLUMNS:]])]

"""The miniature's perceptual features from scratch: a classifier of counterfactual scenes, its heads thrown away.

It learns to tell shape, texture and background, each with a linear head of its own. In a counterfactual scene the three
labels are independent, so that none can be guessed from another.

Legend: B batch, N scenes, S image size.
"""

from pathlib import Path

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from cgn.core.devices import open_fabric
from cgn.core.images import to_bytes
from cgn.core.metrics import MetricSink
from cgn.core.seeding import derive, numpy_stream
from cgn.miniature.pretraining.config import FeaturesTraining
from cgn.miniature.world.scenes import CLASSES, as_images, index_batches, scene
from cgn.nets.features import Blocks, VggFeatures
from cgn.optimization import EMA, adam, evaluating, linear_decay
from cgn.training import Rows, Training, batch_indices

SHEET_COLUMNS = 12
PARTS = ("shape", "texture", "background")


def train_features(config: FeaturesTraining, folder: Path, *, seed: int, sink: MetricSink) -> VggFeatures:
    """Train from the checkpoint in `folder`, or from the start; returns the EMA of the features, without the heads."""
    fabric = open_fabric(accelerator="cpu", precision=config.precision)
    seed = derive(seed, "pretraining", "features")
    pixels, labels = counterfactual_scenes(config.images, seed=seed, image_size=config.image_size)
    torch.manual_seed(derive(seed, "initialization"))
    net = FeatureClassifier(config.blocks)
    net.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    ema = EMA(net, decay=config.ema_decay)
    training = Training(
        folder,
        fabric=fabric,
        sink=sink,
        seed=seed,
        updates=config.updates,
        modules={"net": net, "ema": ema.module},
        optimizers={"net": adam(net, rate=config.rate, betas=(config.beta1, config.beta2))},
        log_every=config.log_updates,
        checkpoint_every=config.checkpoint_updates,
        sheet_every=config.sheet_updates,
    )
    for update in training:
        chosen = batch_indices(update, count=config.images, batch_size=config.batch_size, seed=seed)
        with fabric.autocast():
            logits = net(as_images(pixels[chosen]))
            losses = {
                part: functional.cross_entropy(logits[place].float(), labels[chosen, place])
                for place, part in enumerate(PARTS)
            }
        training.backward(losses)
        rate_factor = linear_decay(update, updates=config.updates, fraction=config.decay_fraction)
        training.step("net", rate_factor=rate_factor)
        ema.follow(update)
        if training.sheet_due:
            with evaluating(ema.module, fabric=fabric) as average:
                rows = examples(average, pixels=pixels, labels=labels)
            training.sheet(rows)
    return ema.module.features


class FeatureClassifier(nn.Module):
    """Features with three linear heads on the spatial mean of every map."""

    def __init__(self, blocks: Blocks) -> None:
        super().__init__()
        self.features = VggFeatures(blocks)
        for layer in self.features.features:
            if isinstance(layer, nn.Conv2d):
                nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
        self.heads = nn.ModuleList(nn.Linear(sum(block[-1] for block in blocks), len(CLASSES)) for _ in PARTS)

    def forward(self, image: torch.Tensor) -> list[torch.Tensor]:
        """(B,3,S,S) in [-1,1] -> (B,9) logits of shape, texture and background."""
        means = torch.cat([features.mean((2, 3)) for features in self.features(image)], 1)
        return [head(means) for head in self.heads]


def counterfactual_scenes(count: int, *, seed: int, image_size: int) -> tuple[torch.Tensor, torch.Tensor]:
    """(N,S,S,3) uint8, and (N,3) independent labels of PARTS."""
    labels = numpy_stream(seed, "labels").integers(0, len(CLASSES), (count, len(PARTS)))
    pixels = np.empty((count, image_size, image_size, 3), dtype=np.uint8)
    for index in index_batches(count):
        drawn = scene(*labels[index].T, seed=derive(seed, "scenes"), index=index, image_size=image_size)
        pixels[index] = to_bytes(drawn.image)
    return torch.from_numpy(pixels), torch.from_numpy(labels)


def examples(net: nn.Module, *, pixels: torch.Tensor, labels: torch.Tensor) -> Rows:
    """A sheet of the images with the lowest and the highest losses among the first ones."""
    first = slice(8 * SHEET_COLUMNS)
    images = as_images(pixels[first])
    losses = torch.stack(
        [
            functional.cross_entropy(logits, label, reduction="none")
            for logits, label in zip(net(images), labels[first].T, strict=True)
        ]
    )
    order = losses.sum(0).argsort()
    return [("easiest", images[order[:SHEET_COLUMNS]]), ("hardest", images[order[-SHEET_COLUMNS:]])]

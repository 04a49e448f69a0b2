"""Factual scenes of the miniature world, drawn once and kept as bytes: what the BigGAN and the features learn from."""

from dataclasses import dataclass

import numpy as np
import torch

from cgn.core.images import to_bytes
from cgn.core.seeding import derive
from cgn.miniature.causes import causes
from cgn.miniature.scenes import CLASSES, scene

IMAGES_PER_BATCH = 576


@dataclass(frozen=True, kw_only=True)
class Scenes:
    """`pixels`: (N,S,S,3) uint8. `labels`: (N,) of all three parts, classes in turn. `causes`: (N,32)."""

    pixels: torch.Tensor
    labels: torch.Tensor
    causes: torch.Tensor

    def batch(self, chosen: torch.Tensor) -> torch.Tensor:
        """(B,) indices -> (B,3,S,S) in [-1,1], channels last."""
        return self.pixels[chosen].permute(0, 3, 1, 2).to(torch.float32).div_(127.5).sub_(1)


def drawn(count: int, *, seed: int, image_size: int) -> Scenes:
    """`count` scenes of a world of this training's own: none is in the sets that the track trains or is judged on."""
    world = derive(seed, "pretraining", "scenes")
    pixels = np.empty((count, image_size, image_size, 3), dtype=np.uint8)
    labels = np.arange(count) % len(CLASSES)
    for start in range(0, count, IMAGES_PER_BATCH):
        index = np.arange(start, min(start + IMAGES_PER_BATCH, count))
        kinds = labels[index]
        pixels[index] = to_bytes(scene(kinds, kinds, kinds, seed=world, index=index, image_size=image_size).image)
    told = causes(np.arange(count), seed=world)
    return Scenes(pixels=torch.from_numpy(pixels), labels=torch.from_numpy(labels), causes=told)

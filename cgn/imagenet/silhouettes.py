"""How far the masks of a CGN of the miniature world are silhouettes of the class that they were asked for."""

from collections.abc import Mapping
from functools import lru_cache

import torch
from torch import nn

from cgn.core.seeding import torch_stream
from cgn.evaluation.silhouettes import silhouette_iou
from cgn.mechanisms import Generator, Prior, factual
from cgn.miniature.scenes import CLASSES, silhouette_bank

MASKS_PER_CLASS = 20
SILHOUETTES_PER_CLASS = 60
BANK_SEED = 0
"""The bank is the same for every seed of training, so that their figures compare."""


@lru_cache(maxsize=1)
def _bank(image_size: int) -> torch.Tensor:
    return silhouette_bank(seed=BANK_SEED, per_class=SILHOUETTES_PER_CLASS, image_size=image_size)


def mask_iou(generator: nn.Module, *, image_size: int, prior: Prior, seed: int) -> Mapping[str, float]:
    """`iou/own`, `iou/others` and `iou/nearest` of masks against true silhouettes, and `mask/mean`."""
    assert isinstance(generator, Generator)
    device = next(generator.parameters()).device
    bank = _bank(image_size).to(device)
    label = torch.arange(len(CLASSES)).repeat_interleave(MASKS_PER_CLASS)
    cause = factual(label, prior=prior, stream=torch_stream(seed, "silhouettes")).to(device).shape
    mask = generator.shape(cause)
    found = silhouette_iou(mask, cause.label, bank=bank)
    told = {"iou/own": found.own, "iou/others": found.others, "iou/nearest": found.nearest}
    return told | {"mask/mean": mask.mean().item()}

"""Splits of rendered images: written as shards, and looked at as a sheet of examples.

Decided here: a shard draws its randomness from its own number, so it depends on nothing that was made before it. All
shards are made anew each time: that takes seconds, and whole shards of an older version of the code never survive.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tqdm import tqdm

from cgn.core.errors import ArtifactError
from cgn.core.images import from_bytes
from cgn.data.shards import Sample, Shard, samples, write_manifest, write_shard

FAINT = 24
"""Grey levels between the darkest and the brightest pixel of an image that shows next to nothing."""


@dataclass(frozen=True, kw_only=True)
class Split:
    """So many images; `render(number, indices)` makes those of shard `number`, a pure function of both."""

    name: str
    images: int
    render: Callable[[int, range], Iterable[Sample]]


def write_splits(data: Path, splits: Sequence[Split], *, images_per_shard: int, facts: Mapping[str, Any]) -> None:
    """Write the shards of every split and the manifest into `data`."""
    shards: list[Shard] = []
    for split in splits:
        starts = range(0, split.images, images_per_shard)
        for number, first in enumerate(tqdm(starts, desc=split.name, unit="shard", disable=None)):
            indices = range(first, min(first + images_per_shard, split.images))
            rendered = split.render(number, indices)
            shards.append(write_shard(data, rendered, split=split.name, number=number, first_index=first))
    write_manifest(data, shards, facts=facts)


def examples(folder: Path, *, split: str, classes: int) -> torch.Tensor:
    """(classes,3,H,W) in [-1,1]: the split's first image of each shape; white where a shape is absent.

    Where chance drew the same colour for object and background there is nothing to see; such images are passed over.
    """
    found: dict[int, torch.Tensor] = {}
    for sample in samples(folder, split=split):
        if np.ptp(sample.image, axis=(0, 1)).max() < FAINT:
            continue
        found.setdefault(int(sample.facts["shape"]), from_bytes(sample.image[None])[0])
        if len(found) == classes:
            break
    if not found:
        raise ArtifactError(f"no image of split {split!r} shows anything: check the parameters of prepare")
    white = torch.ones_like(next(iter(found.values())))
    return torch.stack([found.get(label, white) for label in range(classes)])

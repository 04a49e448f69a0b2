"""mnist generate: the cell that fills in what generate needs.

Decided here: labels of a counterfactual's mechanisms are drawn independently and uniformly; `images_per_mask` of them
share a mask, as published. Batches are of one fixed size, because the size decides the last bit of a float.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch

from cgn.config.mnist.generate import Generate
from cgn.core.checkpoints import load_model, rebuilt
from cgn.core.devices import usable_cores
from cgn.core.images import to_bytes
from cgn.core.seeding import derive, torch_stream
from cgn.data.shards import LABELS, Sample
from cgn.mechanisms import Causes, Generator, Prior, counterfactual, factual
from cgn.mnist.constants import CLASSES
from cgn.mnist.generator import generator
from cgn.stages.generate import Exhibit, Parts, Task

MASKS_PER_BATCH = 100


def parts(params: Generate, *, seed: int, variant: str) -> Parts:
    """Parameters of a variant -> what the stage needs."""
    return Parts(
        splits={"factual": params.factual_images, "counterfactual": params.counterfactual_images},
        images_per_shard=params.images_per_shard,
        open=partial(_open, variant=variant, seed=seed, images_per_mask=params.images_per_mask),
        examples=2 * params.images_per_mask,
        workers=usable_cores(),
        encoders=0,
    )


def _open(model: Path, worker: int, *, variant: str, seed: int, images_per_mask: int) -> "_Maker":
    del worker  # all compute on the CPU
    path = model / "model.safetensors"
    tensors, facts = load_model(path, track="mnist", variant=variant)
    remedy = f"remove {model} and run train_cgn again"
    module = rebuilt(lambda: generator(**facts["net"]), tensors, source=str(path), remedy=remedy)
    net = facts["net"]
    return _Maker(
        module=module.eval(),
        facts={"track": "mnist", "variant": variant, "classes": CLASSES},
        seed=seed,
        images_per_mask=images_per_mask,
        prior=Prior(noise_size=net["noise_size"], tile_size=net["image_size"]),
    )


@dataclass(frozen=True, kw_only=True)
class _Maker:
    module: Generator
    facts: Mapping[str, Any]
    seed: int
    images_per_mask: int
    prior: Prior

    @torch.inference_mode()
    def __call__(self, task: Task) -> Iterator[Sample]:
        seed = derive(self.seed, "generate", task.split, task.number)
        stream = torch_stream(seed)
        made = 0
        while made < task.images:
            causes = self._causes(task.split, stream)
            labels = torch.stack([getattr(causes, role).label for role in LABELS], 1).tolist()
            for image, row in zip(to_bytes(self.module(causes).image), labels, strict=True):
                if made == task.images:
                    return
                facts = dict(zip(LABELS, row, strict=True))
                yield Sample(
                    image=image, facts=facts | {"seed": seed, "place": made, "mask": made // self._per_mask(task)}
                )
                made += 1

    def exhibits(self) -> Iterator[Exhibit]:
        """None besides the examples that the stage takes from the shards."""
        return iter(())

    def _causes(self, split: str, stream: torch.Generator) -> Causes:
        if split == "factual":
            return factual(_labels(MASKS_PER_BATCH, stream), prior=self.prior, stream=stream)
        images = MASKS_PER_BATCH * self.images_per_mask
        return counterfactual(
            shape=_labels(MASKS_PER_BATCH, stream),
            texture=_labels(images, stream),
            background=_labels(images, stream),
            images_per_mask=self.images_per_mask,
            prior=self.prior,
            stream=stream,
        )

    def _per_mask(self, task: Task) -> int:
        return 1 if task.split == "factual" else self.images_per_mask


def _labels(count: int, stream: torch.Generator) -> torch.Tensor:
    return torch.randint(CLASSES, (count,), generator=stream)

"""Generate factual and counterfactual MNIST images with a trained generator (Sauer & Geiger, ICLR 2021).

The labels of a counterfactual's mechanisms are drawn independently and uniformly; `images_per_mask` images share a
mask, as published. Batches have one fixed size, because the size decides the last bit of a float; images beyond the
end of a shard are thrown away.
"""

from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import torch

from cgn.config.mnist import CLASSES, Generate
from cgn.core.devices import limit_threads
from cgn.core.fan_out import choose_workers
from cgn.core.images import to_bytes
from cgn.core.metrics import MetricSink
from cgn.core.parameters import Cluster, Input, Output, Speed
from cgn.core.seeding import derive, torch_stream
from cgn.data.shards import LABELS, Sample
from cgn.mechanisms import Causes, counterfactual, factual
from cgn.mnist.generator import load_generator
from cgn.rendering import PlannedShard, plan_shards, render_shards, write_examples

MASKS_PER_BATCH = 100


def generate(
    config: Generate,
    *,
    seed: int,
    variant: str,
    model: Input,
    images: Output,
    workers: Speed = 0,
    ray: Cluster = "",
    sink: MetricSink,
) -> None:
    """Draw with the generator in `model`; write shards of both splits, manifest.json and examples.png into `images`.

    `workers`: processes, one a core by default; `ray`: a cluster instead (`cgn.core.fan_out`). Raises ArtifactError for
    a model that is foreign or broken.
    """
    limit_threads()
    renderer = Renderer(config, model=model, seed=seed, variant=variant)  # refuses a model before any worker starts
    splits = {"factual": config.factual_images, "counterfactual": config.counterfactual_images}
    render_shards(
        images,
        renderer,
        plan_shards(splits, images_per_shard=config.images_per_shard),
        workers=choose_workers("cpu", workers=workers, ray=ray),
        facts={"track": "mnist", "variant": variant, "classes": CLASSES},
        store=config.store,
        sink=sink,
    )
    sink.picture(write_examples(images, [*splits], columns=2 * config.images_per_mask))
    sink.summary({f"images/{split}": count for split, count in splits.items()})


class Renderer:
    """Renders shards with the generator in the folder `model`; pickled, it is its arguments."""

    def __init__(self, config: Generate, *, model: Path, seed: int, variant: str) -> None:
        loaded = load_generator(model, variant=variant)
        self.generator, self.prior = loaded.generator, loaded.prior
        self.device = torch.device("cpu")
        self.config, self.seed = config, seed
        self.arguments: dict[str, Any] = {"config": config, "model": model, "seed": seed, "variant": variant}

    def __reduce__(self) -> tuple[Any, ...]:
        return partial(Renderer, **self.arguments), ()

    def to(self, device: torch.device) -> None:
        """Draw on this device."""
        self.generator.to(device)
        self.device = device

    @torch.inference_mode()
    def render(self, shard: PlannedShard) -> Iterator[Sample]:
        """The samples of a shard, a pure function of (model, seed, split, number)."""
        seed = derive(self.seed, "generate", shard.split, shard.number)
        stream = torch_stream(seed)
        images_per_mask = 1 if shard.split == "factual" else self.config.images_per_mask
        done = 0
        while done < shard.images:
            causes = self.causes(shard.split, stream)
            labels = torch.stack([getattr(causes, mechanism).label for mechanism in LABELS], 1).tolist()
            drawn = to_bytes(self.generator(causes.to(self.device)).image)
            for image, row in zip(drawn[: shard.images - done], labels, strict=False):
                facts = dict(zip(LABELS, row, strict=True))
                yield Sample(image=image, facts={**facts, "seed": seed, "place": done, "mask": done // images_per_mask})
                done += 1

    def causes(self, split: str, stream: torch.Generator) -> Causes:
        """Those of a batch."""
        if split == "factual":
            return factual(_labels(MASKS_PER_BATCH, stream), prior=self.prior, stream=stream)
        images = MASKS_PER_BATCH * self.config.images_per_mask
        return counterfactual(
            shape=_labels(MASKS_PER_BATCH, stream),
            texture=_labels(images, stream),
            background=_labels(images, stream),
            images_per_mask=self.config.images_per_mask,
            prior=self.prior,
            stream=stream,
        )


def _labels(count: int, stream: torch.Generator) -> torch.Tensor:
    return torch.randint(CLASSES, (count,), generator=stream)

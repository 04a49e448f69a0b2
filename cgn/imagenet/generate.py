"""Generate factual and counterfactual ImageNet images with a trained CGN (Sauer & Geiger, ICLR 2021).

The labels of a counterfactual's mechanisms are drawn independently and uniformly, from all classes or from those asked
for, and each mechanism has noise of its own. Batches have one fixed size, because the size decides the last bit of a
float; images beyond the end of a shard are thrown away. In an interpolation between two classes the noise stays and the
embeddings of the two labels are mixed, in one mechanism or in all.
Shapes: B batch, F frames, K classes, S image size.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch

from cgn.config.imagenet import Generate, Interpolation
from cgn.core.devices import fits, keep_freed_memory, limit_threads
from cgn.core.errors import ConfigError
from cgn.core.fan_out import choose_workers
from cgn.core.images import Bytes, to_bytes
from cgn.core.metrics import MetricSink
from cgn.core.parameters import Cluster, OptionalInput, Output, Speed
from cgn.core.seeding import derive, torch_stream
from cgn.data.shards import LABELS, Sample
from cgn.imagenet.generator import Model, biggan_of, load_generator, load_published
from cgn.mechanisms import Cause, Causes, Picture, Prior, Shape, WholeImage, counterfactual, factual
from cgn.nets import biggan_folded, u2net
from cgn.nets.biggan import BigGanConfig
from cgn.rendering import (
    PlannedShard,
    plan_shards,
    render_shards,
    write_examples,
    write_film,
    write_sheet,
)

COLUMNS = 9
"""Of a sheet."""
DTYPES = {"32-true": torch.float32, "bf16-mixed": torch.bfloat16}


def generate(
    config: Generate,
    *,
    seed: int,
    variant: str,
    model: OptionalInput = None,
    assets: OptionalInput = None,
    images: Output,
    workers: Speed = 0,
    ray: Cluster = "",
    sink: MetricSink,
) -> None:
    """Draw with the generator in `model`, or the authors' in `assets`; write into `images` the shards of both splits,
    manifest.json, examples.png, parts.png and interpolations/.

    `workers`: processes, one a GPU or core by default; `ray`: a cluster instead (`cgn.core.fan_out`). Raises
    ArtifactError for a model that is foreign or broken, and ConfigError for an absent GPU and for classes and
    truncations that the model does not have.
    """
    limit_threads()
    chosen = choose_workers(config.accelerator, workers=workers, ray=ray)
    source = {"trained": model, "authors": assets}[config.weights]
    if source is None:
        option, verb = {"trained": ("model", "train_cgn"), "authors": ("assets", "fetch")}[config.weights]
        raise ConfigError(f"generate needs --{option} here: give the folder that {verb} wrote")
    renderer = Renderer(config, source=source, seed=seed, variant=variant)  # refuses a model before any worker starts
    counts = {"factual": config.factual_images, "counterfactual": config.counterfactual_images}
    splits = {split: count for split, count in counts.items() if count}
    facts: dict[str, Any] = {"track": "imagenet", "variant": variant, "weights": config.weights}
    facts |= {"classes": renderer.classes, "truncation": config.truncation}
    planned = plan_shards(splits, images_per_shard=config.images_per_shard)
    render_shards(images, renderer, planned, workers=chosen, facts=facts, store=config.store, sink=sink)
    sink.picture(write_examples(images, [*splits], columns=COLUMNS))
    sink.picture(write_sheet(renderer.example_rows(), images / "parts.png"))
    for interpolation in config.interpolations:
        path = images / "interpolations" / named(interpolation)
        layers = renderer.interpolate(interpolation)
        shown = torch.linspace(0, interpolation.frames - 1, min(interpolation.frames, COLUMNS)).round().long()
        sink.picture(write_sheet(rows(layers, shown), path.with_suffix(".png")))
        sink.picture(write_film(torch.cat([batch.picture.image.float().cpu() for batch in layers]), path))
    sink.summary({f"images/{split}": count for split, count in splits.items()})


@dataclass(frozen=True, kw_only=True)
class Layers:
    """B images and what they are composed of; `premask` is the image that was segmented, (B,3,S,S) in [-1,1]."""

    premask: torch.Tensor
    picture: Picture

    @property
    def parts(self) -> Mapping[str, torch.Tensor]:
        """In [-1,1], the mask too: (B,1,S,S), the others (B,3,S,S)."""
        picture = self.picture
        layers = {"foreground": picture.foreground, "background": picture.background}
        return {"mask": picture.mask * 2 - 1, "premask": self.premask, **layers}


class FoldedGenerator:
    """A trained generator for drawing only, its nets folded for one truncation; it uses up `model`.

    At `bf16-mixed` the maps inside the nets are bfloat16, weights too; what a condition is made into, masks and
    composites stay single. Raises ConfigError for a truncation off the grid.
    """

    def __init__(self, model: Model, *, truncation: float, precision: str) -> None:
        dtype = DTYPES[precision]
        self.generator = model.generator
        self.device = torch.device("cpu")
        self.saliency = u2net.fold(model.saliency).to(dtype)
        segment = u2net.segmenter(self.saliency)
        for mechanism in (self.generator.shape, self.generator.texture, self.generator.background):
            assert isinstance(mechanism, Shape | WholeImage)
            mechanism.net = biggan_folded.fold(biggan_of(mechanism), truncation=truncation, dtype=dtype)
            if isinstance(mechanism, Shape):
                mechanism.segment = lambda image: segment(image.to(dtype))

    def to(self, device: torch.device) -> None:
        """Draw on this device; on a GPU by deterministic kernels only, so that shards have the same bytes each time."""
        if device.type == "cuda":
            torch.backends.cudnn.deterministic = True
        else:
            keep_freed_memory()
        self.saliency.to(device)
        self.generator.to(device)
        self.device = device

    @torch.inference_mode()
    def __call__(self, causes: Causes) -> Layers:
        """Causes of B images; labels are (B,) or, between classes, (B,K) shares of each."""
        causes, shape = causes.to(self.device), self.generator.shape
        assert isinstance(shape, Shape)
        premask = shape.net(causes.shape.noise, causes.shape.label)
        picture = Picture(
            mask=shape.mask(premask),
            foreground=self.generator.texture(causes.texture),
            background=self.generator.background(causes.background),
        )
        return Layers(premask=premask, picture=picture)


class Renderer:
    """Renders shards with the generator in the folder `source`; pickled, it is its arguments."""

    def __init__(self, config: Generate, *, source: Path, seed: int, variant: str) -> None:
        if config.weights == "authors":
            model = load_published(source / "cgn.pth", variant=variant)
        else:
            model = load_generator(source, variant=variant)
        table = model.table
        check_model(config, table, key=f"imagenet.{variant}.generate")
        self.generator = FoldedGenerator(model, truncation=config.truncation, precision=config.precision)
        self.prior = Prior(noise_size=table.noise_size, truncation=config.truncation)
        self.classes = table.classes
        self.drawn_classes = torch.tensor(range(table.classes) if config.classes is None else config.classes)
        self.config, self.seed = config, seed
        self.arguments: dict[str, Any] = {"config": config, "source": source, "seed": seed, "variant": variant}

    def __reduce__(self) -> tuple[Any, ...]:
        return partial(Renderer, **self.arguments), ()

    def to(self, device: torch.device) -> None:
        """Draw on this device."""
        self.generator.to(device)

    def render(self, shard: PlannedShard) -> Iterator[Sample]:
        """The samples of a shard, a pure function of (model, seed, split, number)."""
        seed, size = derive(self.seed, "generate", shard.split, shard.number), self.config.batch_size
        stream = torch_stream(seed)
        for first in range(0, shard.images, size):
            causes = self.causes(shard.split, stream)
            labels = torch.stack([getattr(causes, mechanism).label for mechanism in LABELS], 1).tolist()
            with fits(size):
                layers = self.generator(causes)
                images = to_bytes(layers.picture.image)
                kept = {name: part_bytes(part) for name, part in layers.parts.items() if name in self.config.parts}
            for place in range(min(size, shard.images - first)):
                facts = dict(zip(LABELS, labels[place], strict=True)) | {"seed": seed, "place": first + place}
                yield Sample(
                    image=images[place],
                    facts=facts | {"truncation": self.config.truncation},
                    parts={name: part[place] for name, part in kept.items()},
                )

    def example_rows(self) -> list[tuple[str, torch.Tensor]]:
        """The first counterfactuals and their parts."""
        stream = torch_stream(derive(self.seed, "generate", "counterfactual", 0))
        return rows([self.draw(self.causes("counterfactual", stream))], slice(COLUMNS))

    def interpolate(self, interpolation: Interpolation) -> list[Layers]:
        """The frames on the way from one class to another, in batches."""
        causes = interpolated(interpolation, classes=self.classes, prior=self.prior, seed=self.seed)
        size = self.config.batch_size
        return [self.draw(causes.of(slice(at, at + size))) for at in range(0, interpolation.frames, size)]

    def draw(self, causes: Causes) -> Layers:
        """Draw a batch. Raises ConfigError where the GPU's memory does not hold it."""
        with fits(self.config.batch_size):
            return self.generator(causes)

    def causes(self, split: str, stream: torch.Generator) -> Causes:
        """Those of a batch."""
        if split == "factual":
            return factual(self._labels(stream), prior=self.prior, stream=stream)
        shape, texture, background = (self._labels(stream) for _ in LABELS)
        return counterfactual(shape=shape, texture=texture, background=background, prior=self.prior, stream=stream)

    def _labels(self, stream: torch.Generator) -> torch.Tensor:
        return self.drawn_classes[torch.randint(len(self.drawn_classes), (self.config.batch_size,), generator=stream)]


def check_model(config: Generate, table: BigGanConfig, *, key: str) -> None:
    """Raise ConfigError naming the key of a truncation or class that the model does not have."""
    try:
        table.row(config.truncation)
    except ConfigError as error:
        raise ConfigError(f"{key}.{error}") from None
    asked = [("classes", label) for label in config.classes or ()]
    for place, interpolation in enumerate(config.interpolations):
        asked += [(f"interpolations[{place}].{end}", getattr(interpolation, end)) for end in ("first", "last")]
    for name, label in asked:
        if label >= table.classes:
            raise ConfigError(f"{key}.{name}: there is no class {label}; the model's are 0 to {table.classes - 1}")


def interpolated(interpolation: Interpolation, *, classes: int, prior: Prior, seed: int) -> Causes:
    """The causes of an interpolation's frames: equal noise; labels are (F,) or, where they change, (F,K) shares."""
    stream = torch_stream(seed, "interpolation", named(interpolation))
    noise = prior.noise(1, stream).expand(interpolation.frames, -1)
    done = torch.linspace(0, 1, interpolation.frames)[:, None]
    ends = torch.eye(classes)[[interpolation.first, interpolation.last]]
    moving = Cause(noise=noise, label=(1 - done) * ends[0] + done * ends[1])
    resting = Cause(noise=noise, label=torch.full((interpolation.frames,), interpolation.first))
    moved = LABELS if interpolation.mechanism == "all" else (interpolation.mechanism,)
    return Causes(**{mechanism: moving if mechanism in moved else resting for mechanism in LABELS})


def named(interpolation: Interpolation) -> str:
    """The name of an interpolation's files."""
    return f"{interpolation.mechanism}-{interpolation.first}-{interpolation.last}"


def rows(batches: list[Layers], shown: torch.Tensor | slice) -> list[tuple[str, torch.Tensor]]:
    """Of the images that are shown, a row for the composites and one for each part."""
    found = {"image": [layers.picture.image for layers in batches]}
    for name in batches[0].parts:
        found[name] = [layers.parts[name] for layers in batches]
    return [(name, torch.cat(images).float().cpu()[shown]) for name, images in found.items()]


def part_bytes(part: torch.Tensor) -> Bytes:
    """(B,3,S,S) in [-1,1] -> (B,S,S,3) uint8; (B,1,S,S) -> (B,S,S)."""
    pixels = to_bytes(part)
    return pixels[..., 0] if pixels.shape[-1] == 1 else pixels

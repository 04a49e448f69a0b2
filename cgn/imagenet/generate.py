"""imagenet generate: the cell that fills in what generate needs.

Decided here: labels of a counterfactual's mechanisms are drawn independently and uniformly, from all classes or from
those asked for, and each mechanism has noise of its own. Batches are of one fixed size, because the size decides the
last bit of a float; what a shard does not need of its last one is thrown away. On the way from one class to another
the noise rests and the embeddings of the two labels are mixed, in one mechanism or in all.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch

from cgn.config.imagenet.generate import Generate, Interpolation
from cgn.core.devices import fits, resolve_device, usable_cores
from cgn.core.errors import ConfigError
from cgn.core.images import to_bytes
from cgn.core.seeding import derive, torch_stream
from cgn.data.shards import LABELS, Sample
from cgn.data.sources import CGN_IMAGENET
from cgn.imagenet.drawing import Drawer, Drawn, bytes_of, folded
from cgn.imagenet.generator import open_model, open_published
from cgn.mechanisms import Cause, Causes, Prior, counterfactual, factual
from cgn.nets.biggan import Table
from cgn.stages.generate import Exhibit, Parts, Task

EXAMPLES = 9
"""Columns of a sheet."""
ENCODERS = 8
"""Threads that encode for one GPU, where there are as many cores for it."""


def parts(params: Generate, *, seed: int, variant: str) -> Parts:
    """Parameters of a variant -> what the stage needs. Raises ConfigError for a GPU that is asked for and absent."""
    kind, cores = resolve_device(params.accelerator), usable_cores()
    gpus = torch.cuda.device_count() if kind == "cuda" else 0
    images = {"factual": params.factual_images, "counterfactual": params.counterfactual_images}
    return Parts(
        splits={split: count for split, count in images.items() if count},
        images_per_shard=params.images_per_shard,
        open=partial(_open, params=params, seed=seed, variant=variant, gpus=gpus),
        examples=EXAMPLES,
        workers=gpus or cores,
        encoders=min(ENCODERS, max(1, cores // gpus)) if gpus else 0,
        reads="assets" if params.weights == "authors" else "model",
    )


def _open(folder: Path, worker: int, *, params: Generate, seed: int, variant: str, gpus: int) -> "_Maker":
    if params.weights == "authors":
        opened = open_published(folder / CGN_IMAGENET.name, variant=variant)
    else:
        opened = open_model(folder, variant=variant)
    table = opened.table
    _check(params, table, key=f"imagenet.{variant}.generate")
    device = torch.device("cuda", worker % gpus) if gpus else torch.device("cpu")
    facts: dict[str, Any] = {"track": "imagenet", "variant": variant, "weights": params.weights}
    facts |= {"classes": table.classes, "truncation": params.truncation}
    chosen = range(table.classes) if params.classes is None else params.classes
    return _Maker(
        params=params,
        facts=facts,
        seed=seed,
        draw=folded(opened, truncation=params.truncation, precision=params.precision, device=device),
        prior=Prior(noise_size=table.noise_size, truncation=params.truncation),
        chosen=torch.tensor(chosen),
        classes=table.classes,
    )


def _check(params: Generate, table: Table, *, key: str) -> None:
    """What only the model can tell: its classes, and the truncations that its statistics are for."""
    try:
        table.row(params.truncation)
    except ConfigError as error:
        raise ConfigError(f"{key}.{error}") from None
    asked = [("classes", label) for label in params.classes or ()]
    for place, way in enumerate(params.interpolations):
        asked += [(f"interpolations[{place}].{end}", getattr(way, end)) for end in ("first", "last")]
    for name, label in asked:
        if label >= table.classes:
            raise ConfigError(f"{key}.{name}: there is no class {label}; the model's are 0 to {table.classes - 1}")


@dataclass(frozen=True, kw_only=True)
class _Maker:
    params: Generate
    facts: Mapping[str, Any]
    seed: int
    draw: Drawer
    prior: Prior
    chosen: torch.Tensor
    """The classes that labels are drawn from."""
    classes: int

    def __call__(self, task: Task) -> Iterator[Sample]:
        seed, size = derive(self.seed, "generate", task.split, task.number), self.params.batch_size
        stream = torch_stream(seed)
        for first in range(0, task.images, size):
            causes = self._causes(task.split, stream)
            labels = torch.stack([getattr(causes, role).label for role in LABELS], 1).tolist()
            with fits(size):
                drawn = self.draw(causes)
                images = to_bytes(drawn.picture.image)
                kept = {name: bytes_of(part) for name, part in drawn.parts.items() if name in self.params.parts}
            for place in range(min(size, task.images - first)):
                facts = dict(zip(LABELS, labels[place], strict=True)) | {"seed": seed, "place": first + place}
                yield Sample(
                    image=images[place],
                    facts=facts | {"truncation": self.params.truncation},
                    parts={name: part[place] for name, part in kept.items()},
                )

    def exhibits(self) -> Iterator[Exhibit]:
        """The parts of the first counterfactuals, and the interpolations."""
        stream = torch_stream(derive(self.seed, "generate", "counterfactual", 0))
        yield Exhibit(name="parts", rows=_rows([self._drawn(self._causes("counterfactual", stream))], slice(EXAMPLES)))
        for way in self.params.interpolations:
            yield self._film(way)

    def _film(self, way: Interpolation) -> Exhibit:
        causes = on_the_way(way, classes=self.classes, prior=self.prior, seed=self.seed)
        size = self.params.batch_size
        drawn = [self._drawn(causes.of(slice(at, at + size))) for at in range(0, way.frames, size)]
        shown = torch.linspace(0, way.frames - 1, min(way.frames, EXAMPLES)).round().long()
        frames = torch.cat([some.picture.image.float().cpu() for some in drawn])
        return Exhibit(name=f"interpolations/{_name(way)}", rows=_rows(drawn, shown), film=frames)

    def _drawn(self, causes: Causes) -> Drawn:
        with fits(self.params.batch_size):
            return self.draw(causes)

    def _causes(self, split: str, stream: torch.Generator) -> Causes:
        if split == "factual":
            return factual(self._labels(stream), prior=self.prior, stream=stream)
        shape, texture, background = (self._labels(stream) for _ in LABELS)
        return counterfactual(shape=shape, texture=texture, background=background, prior=self.prior, stream=stream)

    def _labels(self, stream: torch.Generator) -> torch.Tensor:
        return self.chosen[torch.randint(len(self.chosen), (self.params.batch_size,), generator=stream)]


def on_the_way(way: Interpolation, *, classes: int, prior: Prior, seed: int) -> Causes:
    """The causes of an interpolation's frames: equal noise; labels are (F,) or, where they change, (F,K) shares."""
    stream = torch_stream(seed, "interpolation", _name(way))
    noise = prior.noise(1, stream).expand(way.frames, -1)
    done = torch.linspace(0, 1, way.frames)[:, None]
    ends = torch.eye(classes)[[way.first, way.last]]
    moving = Cause(noise=noise, label=(1 - done) * ends[0] + done * ends[1])
    resting = Cause(noise=noise, label=torch.full((way.frames,), way.first))
    return Causes(**{role: moving if way.mechanism in (role, "all") else resting for role in LABELS})


def _name(way: Interpolation) -> str:
    return f"{way.mechanism}-{way.first}-{way.last}"


def _rows(drawn: list[Drawn], shown: torch.Tensor | slice) -> list[tuple[str, torch.Tensor]]:
    """A row for the images and one for each part."""
    rows = {"image": [some.picture.image for some in drawn]}
    for name in drawn[0].parts:
        rows[name] = [some.parts[name] for some in drawn]
    return [(name, torch.cat(images).float().cpu()[shown]) for name, images in rows.items()]

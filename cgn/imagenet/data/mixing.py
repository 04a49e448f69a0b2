"""Random crops of real images and counterfactuals, mixed into the batches of a training.

Legend: B images, R real images and C counterfactuals in a batch, S side of a crop.
A batch is a pure function of (seed, update): both datasets are endless streams, shuffled anew for each
pass, and update n takes the next R and C of them. So all batches are full, an epoch is a pass through the real images
however many counterfactuals there are, nothing but n is needed to continue, any worker can make any batch, and each of
several processes takes its rows of the same batch: none ever waits for a batch that another does not have. A real image
that cannot be read is reported, and the next readable one of its dataset replaces it.

Crops are drawn as torchvision's RandomResizedCrop and RandomHorizontalFlip draw them, but from rows of numbers in
[0,1), so an image's crop is a function of its row. A crop covers `smallest` to all of the area, at a ratio of width to
height of 3/4 to 4/3, even in its logarithm; ten tries to fit it in, then the largest central one of an allowed ratio.
Cropped and resized by Pillow (bilinear, antialiased).
"""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Self

import numpy as np
import torch
from PIL import Image

from cgn.core.errors import ArtifactError
from cgn.core.loading import read_ahead
from cgn.core.seeding import torch_stream
from cgn.imagenet.data.datasets import ImageDataset

TRIES = 10
NUMBERS = 2 * TRIES + 3
"""In a row: area and ratio of each try, then top, left and whether the crop is mirrored."""
NARROWEST, WIDEST = 3 / 4, 4 / 3


def draw_rows(count: int, *, stream: torch.Generator) -> torch.Tensor:
    """(count, NUMBERS) float64 in [0,1)."""
    return torch.rand((count, NUMBERS), generator=stream, dtype=torch.float64)


def boxes(numbers: torch.Tensor, *, sizes: torch.Tensor, smallest: float) -> torch.Tensor:
    """Rows (B,NUMBERS) and widths and heights (B,2) in pixels -> (B,4) int64: left, top, right, bottom."""
    tries = numbers[:, : 2 * TRIES].view(-1, TRIES, 2)
    width, height = sizes.double().unbind(1)
    area = (width * height)[:, None] * (smallest + (1 - smallest) * tries[..., 0])
    ratio = (math.log(NARROWEST) + (math.log(WIDEST) - math.log(NARROWEST)) * tries[..., 1]).exp()
    wide, high = (area * ratio).sqrt().round(), (area / ratio).sqrt().round()
    fits = (wide >= 1) & (wide <= width[:, None]) & (high >= 1) & (high <= height[:, None])
    first = fits.int().argmax(1, keepdim=True)
    some = fits.any(1)
    central_wide = torch.minimum(width, (height * WIDEST).round())
    central_high = torch.minimum(height, (width / NARROWEST).round())
    wide = torch.where(some, wide.gather(1, first)[:, 0], central_wide)
    high = torch.where(some, high.gather(1, first)[:, 0], central_high)
    top = torch.where(some, (numbers[:, -3] * (height - high + 1)).floor(), ((height - high) / 2).floor())
    left = torch.where(some, (numbers[:, -2] * (width - wide + 1)).floor(), ((width - wide) / 2).floor())
    return torch.stack([left, top, left + wide, top + high], 1).long()


def crops(images: list[Image.Image], numbers: torch.Tensor, *, size: int, smallest: float) -> torch.Tensor:
    """B images of mode RGB and their rows (B,NUMBERS) -> (B,3,size,size) uint8."""
    sizes = torch.tensor([image.size for image in images]).view(-1, 2)
    out = np.empty((len(images), size, size, 3), dtype=np.uint8)
    chosen = boxes(numbers, sizes=sizes, smallest=smallest).tolist()
    for place, (image, box, mirror) in enumerate(zip(images, chosen, numbers[:, -1].tolist(), strict=True)):
        cut = np.asarray(image.crop(box).resize((size, size), Image.Resampling.BILINEAR))
        out[place] = cut[:, ::-1] if mirror < 0.5 else cut
    return torch.from_numpy(out).permute(0, 3, 1, 2)


UNREADABLE = 100
"""Images in a row that cannot be read: more than that is an error."""


@dataclass(frozen=True, kw_only=True)
class MixedBatch:
    """`pixels`: (R+C,3,S,S) uint8, the real ones first. `label`: (R,). `labels`: (C,) of each mechanism, or none."""

    pixels: torch.Tensor
    label: torch.Tensor
    labels: Mapping[str, torch.Tensor]
    unreadable: tuple[str, ...] = ()
    """A sentence for each real image that could not be read."""

    def pin_memory(self) -> Self:
        """In page-locked memory, from which a GPU copies while it computes."""
        labels = {name: values.pin_memory() for name, values in self.labels.items()}
        return replace(self, pixels=self.pixels.pin_memory(), label=self.label.pin_memory(), labels=labels)


@dataclass(frozen=True, kw_only=True)
class Stream:
    """An endless stream of a dataset's images, `per_update` at a time."""

    name: str
    dataset: ImageDataset
    per_update: int

    def indices(self, update: int, *, seed: int) -> torch.Tensor:
        """(per_update,) indices into the dataset."""
        wanted = torch.arange(update * self.per_update, (update + 1) * self.per_update)
        count = len(self.dataset)
        passes = torch.div(wanted, count, rounding_mode="floor")
        parts = [
            _shuffled(count, seed, self.name, number)[wanted[passes == number] % count]
            for number in range(int(passes[0]), int(passes[-1]) + 1)
        ]
        return torch.cat(parts)


@dataclass(frozen=True, kw_only=True)
class Mixture:
    """Item n is the batch of update n, or the rows of it for process `rank`; an error is returned as a value.

    (A DataLoader would wrap what a worker raises in the worker's traceback.)
    """

    real: Stream
    counterfactual: Stream | None
    seed: int
    image_size: int
    smallest_crop: float
    updates: int
    rank: int = 0
    ranks: int = 1

    def __len__(self) -> int:
        return self.updates

    def __getitem__(self, update: int) -> MixedBatch | ArtifactError:
        try:
            return self._batch(update)
        except ArtifactError as error:
            return error

    def _batch(self, update: int) -> MixedBatch:
        pixels, label, unreadable = self._crops(self.real, update)
        if self.counterfactual is None:
            return MixedBatch(pixels=pixels, label=label["shape"], labels={}, unreadable=unreadable)
        more, labels, _ = self._crops(self.counterfactual, update)
        return MixedBatch(pixels=torch.cat([pixels, more]), label=label["shape"], labels=labels, unreadable=unreadable)

    def _crops(self, stream: Stream, update: int) -> tuple[torch.Tensor, dict[str, torch.Tensor], tuple[str, ...]]:
        mine = slice(self.rank, None, self.ranks)
        numbers = draw_rows(stream.per_update, stream=torch_stream(self.seed, stream.name, "crops", update))[mine]
        opened = [_readable(stream.dataset, place) for place in stream.indices(update, seed=self.seed)[mine].tolist()]
        images = [image for _, image, _ in opened]
        found = torch.tensor([place for place, _, _ in opened])
        labels = {name: values[found] for name, values in stream.dataset.labels.items()}
        unreadable = tuple(sentence for _, _, sentences in opened for sentence in sentences)
        return crops(images, numbers, size=self.image_size, smallest=self.smallest_crop), labels, unreadable


def mixed_batches(mixture: Mixture, *, start: int, workers: int, device: str) -> Iterator[MixedBatch]:
    """The batches from update `start` on, in their order, loaded by up to `workers` processes for `device`.

    Raises ArtifactError for a broken shard, and where too many images in a row cannot be read.
    """
    for batch in read_ahead(mixture, order=range(start, mixture.updates), workers=workers, device=device):
        if isinstance(batch, ArtifactError):
            raise batch
        yield batch


def _readable(dataset: ImageDataset, first: int) -> tuple[int, Image.Image, list[str]]:
    """Index and image of the first readable image from `first` on, and a sentence for each unreadable one before it."""
    sentences: list[str] = []
    for step in range(min(UNREADABLE, len(dataset))):
        image = dataset.image(index := (first + step) % len(dataset))
        if not isinstance(image, str):
            return index, image, sentences
        sentences.append(image)
    raise ArtifactError(f"{len(sentences)} images in a row cannot be read, the first: {sentences[0]}")


@lru_cache(maxsize=4)
def _shuffled(count: int, seed: int, name: str, number: int) -> torch.Tensor:
    return torch.randperm(count, generator=torch_stream(seed, name, "pass", number))

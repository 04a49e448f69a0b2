"""Real pictures and counterfactuals, mixed into the batches of a training.

Legend: R real pictures and C counterfactuals in a batch, S side of a crop.
Decided here: a batch is a pure function of (seed, update): both pools are endless streams, shuffled anew each time they
were passed through, and update n takes the next R and C of them. So batches are all full, an epoch is a pass through
the real pictures however many counterfactuals there are, nothing but n is needed to continue, any worker can make any
batch, and each rank of several takes its rows of the same one: none ever waits for a batch that another does not have.
A real picture that cannot be read is told of, and the next of its pool that can be read stands in for it.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Self

import torch
from PIL import Image

from cgn.core.errors import ArtifactError
from cgn.core.loading import read_ahead
from cgn.core.seeding import torch_stream
from cgn.data.crops import crops, draw
from cgn.data.pools import Pool

UNREADABLE = 100
"""So many pictures in a row that cannot be read are no accident."""


@dataclass(frozen=True, kw_only=True)
class Batch:
    """`pixels`: (R+C,3,S,S) uint8, the real ones first. `label`: (R,). `labels`: (C,) of each mechanism, or none."""

    pixels: torch.Tensor
    label: torch.Tensor
    labels: Mapping[str, torch.Tensor]
    unreadable: tuple[str, ...] = ()
    """A sentence for each real picture that could not be read."""

    def pin_memory(self) -> Self:
        """In page-locked memory, from where a GPU copies while it computes."""
        labels = {name: values.pin_memory() for name, values in self.labels.items()}
        return replace(self, pixels=self.pixels.pin_memory(), label=self.label.pin_memory(), labels=labels)


@dataclass(frozen=True, kw_only=True)
class Stream:
    """An endless stream of a pool's pictures, `per_update` at a time."""

    name: str
    pool: Pool
    per_update: int

    def places(self, update: int, *, seed: int) -> torch.Tensor:
        """(per_update,) places in the pool."""
        wanted = torch.arange(update * self.per_update, (update + 1) * self.per_update)
        count = len(self.pool)
        passes = torch.div(wanted, count, rounding_mode="floor")
        parts = [
            _shuffled(count, seed, self.name, number)[wanted[passes == number] % count]
            for number in range(int(passes[0]), int(passes[-1]) + 1)
        ]
        return torch.cat(parts)


@dataclass(frozen=True, kw_only=True)
class Mixture:
    """Item n is the batch of update n, or the part of it that is rank `rank`'s; an error comes back as a value.

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

    def __getitem__(self, update: int) -> Batch | ArtifactError:
        try:
            return self._batch(update)
        except ArtifactError as error:
            return error

    def _batch(self, update: int) -> Batch:
        pixels, label, unreadable = self._crops(self.real, update)
        if self.counterfactual is None:
            return Batch(pixels=pixels, label=label["shape"], labels={}, unreadable=unreadable)
        more, labels, _ = self._crops(self.counterfactual, update)
        return Batch(pixels=torch.cat([pixels, more]), label=label["shape"], labels=labels, unreadable=unreadable)

    def _crops(self, stream: Stream, update: int) -> tuple[torch.Tensor, dict[str, torch.Tensor], tuple[str, ...]]:
        mine = slice(self.rank, None, self.ranks)
        numbers = draw(stream.per_update, stream=torch_stream(self.seed, stream.name, "crops", update))[mine]
        opened = [_readable(stream.pool, place) for place in stream.places(update, seed=self.seed)[mine].tolist()]
        pictures = [picture for _, picture, _ in opened]
        found = torch.tensor([place for place, _, _ in opened])
        labels = {name: values[found] for name, values in stream.pool.labels.items()}
        unreadable = tuple(sentence for _, _, sentences in opened for sentence in sentences)
        return crops(pictures, numbers, size=self.image_size, smallest=self.smallest_crop), labels, unreadable


def batches(mixture: Mixture, *, start: int, workers: int, device: str) -> Iterator[Batch]:
    """The batches of update `start` and all after it, in their order, made by up to `workers` processes for `device`.

    Raises ArtifactError for a shard that is broken, and where too many pictures in a row cannot be read.
    """
    for made in read_ahead(mixture, order=range(start, mixture.updates), workers=workers, device=device):
        if isinstance(made, ArtifactError):
            raise made
        yield made


def _readable(pool: Pool, place: int) -> tuple[int, Image.Image, list[str]]:
    """The first picture from `place` on that can be read, where it is, and a sentence for each that cannot."""
    sentences: list[str] = []
    for step in range(min(UNREADABLE, len(pool))):
        picture = pool.picture(found := (place + step) % len(pool))
        if not isinstance(picture, str):
            return found, picture, sentences
        sentences.append(picture)
    raise ArtifactError(f"{len(sentences)} pictures in a row cannot be read, the first: {sentences[0]}")


@lru_cache(maxsize=4)
def _shuffled(count: int, seed: int, name: str, number: int) -> torch.Tensor:
    return torch.randperm(count, generator=torch_stream(seed, name, "pass", number))

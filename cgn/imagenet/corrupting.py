"""Mini-ImageNet-C: clean pictures corrupted on the fly, shown to every classifier, and forgotten.

Decided here: pictures are decoded once, in blocks that fit in memory, and each block is corrupted in every way before
the next is read. A corrupted picture is made once and shown to all. Its number is its place among all clean pictures,
so a subset's are the same pictures as they are in the whole. The clean pictures, cut the same, are a condition too.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache

import pandas as pd
import torch

from cgn.core.devices import fits
from cgn.core.errors import ArtifactError
from cgn.corruptions import SEVERITIES, corrupt
from cgn.data.datasets import TransformedFolder
from cgn.data.image_folders import ImageFolder
from cgn.data.preprocessing import Preparation, Stored, View
from cgn.evaluation.corruption_error import condition
from cgn.evaluation.predict import Predicted, batches, decide, known
from cgn.evaluation.predictions import CLEAN
from cgn.imagenet.judges import Judge

IMAGES_PER_BLOCK = 1024
Ice = Callable[[int, int], Sequence[torch.Tensor]]
"""(height, width) -> the photographs of frost for images of that size."""


@dataclass(frozen=True, kw_only=True)
class Block:
    """Decoded pictures (B,3,H,W) uint8, their places in the listing, and a sentence for each that cannot be read."""

    pixels: torch.Tensor
    places: tuple[int, ...]
    unreadable: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class Corrupting:
    """The pictures of `listing` at `places`, to be corrupted for `judges`."""

    listing: ImageFolder
    places: tuple[int, ...]
    judges: Mapping[str, Judge]
    members: Sequence[Sequence[int]]
    crop: int | None
    view: View
    seed: int
    ice: Ice
    batch_size: int
    workers: int
    device: torch.device

    @property
    def blocks(self) -> list[tuple[int, ...]]:
        """The places of each block."""
        starts = range(0, len(self.places), IMAGES_PER_BLOCK)
        return [self.places[start : start + IMAGES_PER_BLOCK] for start in starts]

    def reader(self) -> Callable[[int], Block]:
        """Number of a block -> the block; the last one is kept, so that asking again costs nothing."""
        return lru_cache(maxsize=1)(self._read)

    def examined(self, block: Block, name: str, *, advance: Callable[[int], object]) -> Predicted:
        """The decisions on one block under one corruption at all severities, or on the clean pictures."""
        tables = [
            table
            for severity in ((0,) if name == CLEAN else SEVERITIES)
            for table in self._severity(block, name, severity, advance=advance)
        ]
        rows = pd.concat(tables, ignore_index=True) if tables else pd.DataFrame()
        return Predicted(rows=rows, unreadable=block.unreadable)

    def _severity(
        self, block: Block, name: str, severity: int, *, advance: Callable[[int], object]
    ) -> Iterator[pd.DataFrame]:
        shown_as = CLEAN if name == CLEAN else condition(name, severity)
        pictures = TransformedFolder(folder=self.listing, transform=Stored(self.crop))
        for start in range(0, len(block.places), self.batch_size):
            places = block.places[start : start + self.batch_size]
            with fits(self.batch_size):
                pixels = block.pixels[start : start + self.batch_size].to(self.device)
                if name != CLEAN:
                    ice = self.ice(*pixels.shape[2:]) if name == "frost" else ()
                    pixels = corrupt(pixels, name=name, severity=severity, numbers=places, seed=self.seed, ice=ice)
                shown = known(pictures, places, suite=SUITE, condition=shown_as)
                for preparation, judges in by_preparation(self.judges).items():
                    yield from decide(
                        judges, preparation.batch(pixels, view=self.view), shown=shown, members=self.members
                    )
            advance(len(places))

    def _read(self, number: int) -> Block:
        wanted = self.blocks[number]
        chosen = _Chosen(TransformedFolder(folder=self.listing, transform=Stored(self.crop)), wanted)
        pixels: list[torch.Tensor] = []
        places: list[int] = []
        unreadable: list[str] = []
        for first, batch in batches(chosen, batch_size=self.batch_size, workers=self.workers):
            for place, picture in enumerate(batch, start=first):
                if isinstance(picture, str):
                    unreadable.append(f"{SUITE}/{picture}")
                    continue
                if pixels and picture.shape != pixels[0].shape:
                    raise ArtifactError(
                        f"{self.listing.root}/{self.listing.names[wanted[place]]} is of another size than the pictures "
                        "before it; without a common size they cannot be corrupted alike"
                    )
                pixels.append(picture)
                places.append(wanted[place])
        if not pixels:
            raise ArtifactError(f"nothing to corrupt in {self.listing.root}: {unreadable[0]}")
        return Block(pixels=torch.stack(pixels), places=tuple(places), unreadable=tuple(unreadable))


def by_preparation(judges: Mapping[str, Judge]) -> dict[Preparation, dict[str, Judge]]:
    """Those that are shown the same, together."""
    groups: dict[Preparation, dict[str, Judge]] = {}
    for name, judge in judges.items():
        groups.setdefault(judge.preparation, {})[name] = judge
    return groups


class _Chosen:
    """Some of the pictures; a class, so that workers can be sent it."""

    def __init__(self, pictures: TransformedFolder, places: Sequence[int]) -> None:
        self.pictures, self.places = pictures, places

    @property
    def names(self) -> Sequence[str]:
        return [self.pictures.names[place] for place in self.places]

    @property
    def labels(self) -> Mapping[str, Sequence[int]]:
        return {cue: [values[place] for place in self.places] for cue, values in self.pictures.labels.items()}

    def __len__(self) -> int:
        return len(self.places)

    def __getitem__(self, place: int) -> torch.Tensor | str:
        return self.pictures[self.places[place]]

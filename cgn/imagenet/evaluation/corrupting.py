"""Mini-ImageNet-C: clean pictures are corrupted, shown to every classifier, and forgotten.

Pictures are decoded once, in blocks that fit in memory, and each block is corrupted in every way before the next is
read. A corrupted picture is computed once and shown to all classifiers, while a second core, where there is one,
corrupts the next batch. Its number is its place among all clean pictures, so a subset's are the same pictures as they
are in the whole. The clean pictures, cut the same, are a condition too.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import torch

from cgn.core.devices import fits
from cgn.core.errors import ArtifactError
from cgn.core.parallel import ahead
from cgn.corruptions import SEVERITIES, corrupt
from cgn.corruptions.weather import FROST_PHOTOGRAPHS, read_ice
from cgn.evaluation.corruption_error import condition
from cgn.evaluation.predict import Predicted, batches, decide, known
from cgn.evaluation.predictions import CLEAN, IMAGENET_C
from cgn.imagenet.classifiers import Classifier, by_preparation
from cgn.imagenet.data.datasets import TransformedFolder
from cgn.imagenet.data.image_folders import ImageFolder
from cgn.imagenet.data.prepared_sets import PreparedSets
from cgn.imagenet.data.preprocessing import Stored
from cgn.imagenet.evaluation.suites import SuiteKind

IMAGES_PER_BLOCK = 1024


@dataclass(frozen=True, kw_only=True)
class ImageBlock:
    """Decoded pictures (B,3,H,W) uint8, their places in the listing, and a sentence for each that cannot be read."""

    pixels: torch.Tensor
    places: tuple[int, ...]
    unreadable: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class CorruptedBatch:
    """Corrupted pictures, as `known` describes them, and prepared (B,3,H,W) for each group of classifiers."""

    shown: Mapping[str, Any]
    prepared: Sequence[tuple[Mapping[str, Classifier], torch.Tensor]]


def blocks(places: Sequence[int]) -> list[tuple[int, ...]]:
    """The places of each block."""
    starts = range(0, len(places), IMAGES_PER_BLOCK)
    return [tuple(places[start : start + IMAGES_PER_BLOCK]) for start in starts]


class Corrupter:
    """Shows classifiers the pictures of a listing, corrupted; it keeps the block that it read last."""

    def __init__(
        self,
        listing: ImageFolder,
        *,
        classifiers: Mapping[str, Classifier],
        kind: SuiteKind,
        photographs: Sequence[Path],
        seed: int,
        batch_size: int,
        workers: int,
    ) -> None:
        """`photographs`: those of frost, where it is among the corruptions; `seed`: of the corruptions' randomness."""
        self.classifiers, self.kind, self.photographs, self.seed = classifiers, kind, photographs, seed
        self.batch_size, self.workers, self.device = batch_size, workers, torch.device("cpu")
        self.pictures = TransformedFolder(folder=listing, transform=Stored(kind.crop))
        self.block: tuple[tuple[int, ...], ImageBlock] | None = None
        self.ice: dict[tuple[int, int], Sequence[torch.Tensor]] = {}

    def predict(self, places: tuple[int, ...], name: str, *, advance: Callable[[int], object]) -> Predicted:
        """The predictions on one block under one corruption at all severities, or on the clean pictures."""
        if self.block is None or self.block[0] != places:
            self.block = (places, self._read(places))
        block = self.block[1]
        tables: list[pd.DataFrame] = []
        ready = self._batches(block, name)
        if self.device.type == "cpu":
            ready = ahead(ready)
        with fits(self.batch_size):
            for batch in ready:
                for group, prepared in batch.prepared:
                    tables += decide(group, prepared, shown=batch.shown, members=self.kind.members)
                advance(len(batch.shown["images"]))
        return Predicted(rows=pd.concat(tables, ignore_index=True), unreadable=block.unreadable)

    def _batches(self, block: ImageBlock, name: str) -> Iterator[CorruptedBatch]:
        """A block's batches under one corruption, severity after severity, or the clean ones."""
        for severity in (0,) if name == CLEAN else SEVERITIES:
            shown_as = CLEAN if name == CLEAN else condition(name, severity)
            for start in range(0, len(block.places), self.batch_size):
                places = block.places[start : start + self.batch_size]
                pixels = block.pixels[start : start + self.batch_size].to(self.device)
                if name != CLEAN:
                    ice = self._ice(pixels) if name == "frost" else ()
                    pixels = corrupt(pixels, name=name, severity=severity, numbers=places, seed=self.seed, ice=ice)
                yield CorruptedBatch(
                    shown=known(self.pictures, places, suite=IMAGENET_C, condition=shown_as),
                    prepared=[
                        (group, preparation.batch(pixels, view=self.kind.view))
                        for preparation, group in by_preparation(self.classifiers).items()
                    ],
                )

    def _ice(self, pixels: torch.Tensor) -> Sequence[torch.Tensor]:
        """The photographs of frost for images (B,3,H,W) of this size, read once."""
        height, width = pixels.shape[2:]
        if (height, width) not in self.ice:
            self.ice[height, width] = read_ice(self.photographs, height=height, width=width)
        return self.ice[height, width]

    def _read(self, places: tuple[int, ...]) -> ImageBlock:
        """Raises ArtifactError for pictures of different sizes, or when none can be read."""
        pixels: list[torch.Tensor] = []
        kept: list[int] = []
        unreadable: list[str] = []
        chosen = _Chosen(self.pictures, places)
        for first, batch in batches(chosen, batch_size=self.batch_size, workers=self.workers):
            for place, picture in enumerate(batch, start=first):
                if isinstance(picture, str):
                    unreadable.append(f"{IMAGENET_C}/{picture}")
                    continue
                if pixels and picture.shape != pixels[0].shape:
                    listing = self.pictures.folder
                    raise ArtifactError(
                        f"{listing.root}/{listing.names[places[place]]} is of another size than the pictures "
                        "before it; without a common size they cannot be corrupted alike"
                    )
                pixels.append(picture)
                kept.append(places[place])
        if not pixels:
            raise ArtifactError(f"nothing to corrupt in {self.pictures.folder.root}: {unreadable[0]}")
        return ImageBlock(pixels=torch.stack(pixels), places=tuple(kept), unreadable=tuple(unreadable))


def frost_photographs(collection: PreparedSets, assets: Path | None, *, variant: str) -> tuple[Path, ...]:
    """The photographs of frost, from the collection or from a given folder. Raises ArtifactError without them."""
    folders = [collection.unchanged("frost")] if collection.has("frost") else []
    folders += [assets / "frost", assets] if assets else []
    for folder in folders:
        found = sorted(path for path in folder.glob("frost?.*") if path.is_file())
        if len(found) >= FROST_PHOTOGRAPHS:
            return tuple(found)
    raise ArtifactError(
        f"{collection.root.name} has no photographs of frost (frost1.png ... frost5.jpg in frost/): fetch the "
        "benchmark frost and run prepare again, give a folder that holds them by --assets, or list other "
        f"corruptions in imagenet.{variant}.evaluate.corruptions"
    )


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

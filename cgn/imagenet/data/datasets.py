"""Datasets of labelled images, opened one by one in any order: from class folders or from shards.

Shards are read by the position of each member in its tar, not as a stream, so a shuffle is a true one,
the order does not depend on the number of shards or workers, and all labels are known, and checked, before the first
step. A user's image that cannot be decoded is returned as a sentence that says why, in its place: whoever reads can
count and name it, and all other indices stay. A broken shard, which this project wrote, is an error. A PNG has
checksums of its own, so the tars are not hashed again. Datasets can be sent to worker processes.
"""

import io
import tarfile
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Protocol

import torch
from PIL import Image

from cgn.core.errors import ArtifactError
from cgn.core.files import json_value, readable
from cgn.data.decoding import DECODE_ERRORS, check_pixels, decode
from cgn.data.members import remedy
from cgn.data.shards import Manifest, Shard, read_manifest
from cgn.imagenet.data.image_folders import ImageFolder
from cgn.imagenet.data.preprocessing import Transform

DOWNLOADS = 8
"""Shards that are downloaded at a time, where they are in an object store."""
KEPT_BYTES = 1 << 30
"""Size of the decoded images that a `CachedDataset` keeps, at 4 bytes per pixel."""


class ImageDataset(Protocol):
    """N images. `labels`: (N,) int64 by mechanism, "shape" always."""

    @property
    def labels(self) -> Mapping[str, torch.Tensor]:
        """(N,) int64 each."""

    def __len__(self) -> int: ...

    def image(self, index: int) -> Image.Image | str:
        """Mode RGB, of any size; or a sentence, for a user's file that cannot be read."""


class FolderDataset:
    """The images of class folders."""

    def __init__(self, folder: ImageFolder) -> None:
        self.folder = folder
        self.labels = {cue: torch.tensor(values) for cue, values in folder.labels.items()}

    def __len__(self) -> int:
        return len(self.folder)

    def image(self, index: int) -> Image.Image | str:
        """Decode a file."""
        return _decoded(self.folder, index)


@dataclass(frozen=True, kw_only=True)
class ShardDataset:
    """The images of a split of shards."""

    manifest: Manifest
    shards: tuple[Shard, ...]
    rows: torch.Tensor
    """(N,3) int64: index of the shard in `shards`, first byte of the PNG, its bytes."""
    labels: Mapping[str, torch.Tensor]

    def __len__(self) -> int:
        return len(self.rows)

    def image(self, index: int) -> Image.Image:
        """Read and decode a member. Raises ArtifactError naming the shard where it is broken."""
        number, offset, size = self.rows[index].tolist()
        path = self.manifest.path(self.shards[number])
        try:
            with path.open("rb") as file:
                file.seek(offset)
                data = file.read(size)
            with Image.open(io.BytesIO(data), formats=["PNG"]) as image:
                check_pixels(image)
                return image.convert("RGB")
        except DECODE_ERRORS as error:
            raise ArtifactError(f"{path}, byte {offset:,}, is not an image ({error}): {remedy(path.parent)}") from None


class CachedDataset:
    """A dataset that keeps the images it has opened, up to KEPT_BYTES: for a process that reads a small set often."""

    def __init__(self, dataset: ImageDataset) -> None:
        self.dataset, self.labels = dataset, dataset.labels
        self.cache: dict[int, Image.Image | str] = {}
        self.free = KEPT_BYTES

    def __len__(self) -> int:
        return len(self.dataset)

    def image(self, index: int) -> Image.Image | str:
        """As the wrapped dataset."""
        if (found := self.cache.get(index)) is not None:
            return found
        opened = self.dataset.image(index)
        size = 0 if isinstance(opened, str) else 4 * opened.width * opened.height
        if size <= self.free:
            self.cache[index] = opened
            self.free -= size
        return opened


def open_shards(folder: Path, *, split: str, classes: int, mechanisms: tuple[str, ...]) -> ShardDataset:
    """Locate a split's images and read its labels of these mechanisms, each in 0 to classes - 1.

    Raises ArtifactError naming the shard, and the sample, that is missing, broken, or lacks a label or has a wrong one.
    """
    manifest = read_manifest(folder)
    if not manifest.splits.get(split):
        raise ArtifactError(
            f"{folder} has no images in a split {split!r}; it has: {', '.join(manifest.splits) or 'none'}"
        )
    shards = tuple(shard for shard in manifest.shards if shard.split == split)
    rows: list[tuple[int, int, int]] = []
    labels: dict[str, list[int]] = {name: [] for name in mechanisms}
    with ThreadPoolExecutor(DOWNLOADS) as pool:
        paths = list(pool.map(manifest.path, shards))
    for number, (shard, path) in enumerate(zip(shards, paths, strict=True)):
        label = partial(_label, path=path, classes=classes)
        found = _samples(path, shard)
        for key, (image, facts) in found.items():
            rows.append((number, image.offset_data, image.size))
            for name, values in labels.items():
                values.append(label(facts, name, key=key))
    return ShardDataset(
        manifest=manifest,
        shards=shards,
        rows=torch.tensor(rows).view(-1, 3),
        labels={name: torch.tensor(values) for name, values in labels.items()},
    )


def _samples(path: Path, shard: Shard) -> dict[str, tuple[tarfile.TarInfo, object]]:
    """Key -> the position of the image, and the facts, of each sample in a shard."""
    images: dict[str, tarfile.TarInfo] = {}
    facts: dict[str, object] = {}
    try:
        with path.open("rb") as stream, tarfile.open(fileobj=stream, mode="r:") as tar:
            for member in tar:
                key, _, kind = member.name.partition(".")
                if kind == "png":
                    images[key] = member
                elif kind == "json":
                    stream.seek(member.offset_data)
                    facts[key] = json_value(stream.read(member.size))
    except (tarfile.TarError, ValueError) as error:
        raise ArtifactError(f"{path} is broken ({error}): {remedy(path.parent)}") from None
    if lone := sorted(images.keys() ^ facts.keys()):
        raise ArtifactError(f"{path}, sample {lone[0]} lacks its .png or its .json: {remedy(path.parent)}")
    if len(images) != shard.images:
        holds = f"{path} holds {len(images)} samples, its manifest says {shard.images}"
        raise ArtifactError(f"{holds}: {remedy(path.parent)}")
    return {key: (member, facts[key]) for key, member in images.items()}


def _label(facts: object, name: str, *, key: str, path: Path, classes: int) -> int:
    where = f"{path}, sample {key}"
    value = facts.get(name) if isinstance(facts, dict) else None
    if type(value) is not int:
        raise ArtifactError(f"{where} has no whole number as label {name!r}: {remedy(path.parent)}")
    if not 0 <= value < classes:
        raise ArtifactError(
            f"{where} has the {name} label {value}, allowed: 0 to {classes - 1}, the classes of the real images"
        )
    return value


@dataclass(frozen=True, kw_only=True)
class TransformedFolder:
    """A folder's N images as tensors (3,H,W) float32 from `transform`; a sentence where a file cannot be read."""

    folder: ImageFolder
    transform: Transform

    @property
    def names(self) -> tuple[str, ...]:
        """(N,) paths relative to the folder."""
        return self.folder.names

    @property
    def labels(self) -> Mapping[str, tuple[int, ...]]:
        """Cue -> (N,) labels; "shape" always, "texture" where the benchmark has it."""
        return self.folder.labels

    def __len__(self) -> int:
        return len(self.folder)

    def __getitem__(self, index: int) -> torch.Tensor | str:
        image = _decoded(self.folder, index)
        return image if isinstance(image, str) else self.transform(image)


def _decoded(folder: ImageFolder, index: int) -> Image.Image | str:
    try:
        return decode(folder.path(index))
    except ArtifactError as error:
        return str(error).removeprefix(f"{readable(str(folder.root))}/")

"""Pools: pictures with labels that can be opened at will, one by one, from class folders or from shards.

Decided here: shards are read by the place of each member in its tar, not as a stream, so a shuffle is a true one, no
order hangs on how many shards or workers there are, and all labels are known, and checked, before the first step. A
user's picture that cannot be decoded is answered with the sentence that says why; a shard of ours that is broken is an
error. A PNG carries checksums of its own, so the tars are not hashed again. Pools can be sent to worker processes.
"""

import io
import tarfile
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Protocol

import torch
from PIL import Image

from cgn.core.errors import ArtifactError
from cgn.core.files import json_value, readable
from cgn.data.benchmarks import Listing
from cgn.data.decoding import BROKEN, check_pixels, decode
from cgn.data.shards import Shard, read_manifest

KEPT_BYTES = 1 << 30
"""How much of decoded pictures `Kept` holds, 4 bytes a pixel."""


class Pool(Protocol):
    """N pictures. `labels`: (N,) int64 by mechanism, "shape" always."""

    @property
    def labels(self) -> Mapping[str, torch.Tensor]:
        """(N,) int64 each."""

    def __len__(self) -> int: ...

    def picture(self, place: int) -> Image.Image | str:
        """Mode RGB, of any size; or a sentence, for a file of the user that cannot be read."""


class Folders:
    """The pictures of a listing of class folders."""

    def __init__(self, listing: Listing) -> None:
        self.listing = listing
        self.labels = {cue: torch.tensor(values) for cue, values in listing.labels.items()}

    def __len__(self) -> int:
        return len(self.listing)

    def picture(self, place: int) -> Image.Image | str:
        """Decode a file."""
        try:
            return decode(self.listing.path(place))
        except ArtifactError as error:
            return str(error).removeprefix(f"{readable(str(self.listing.root))}/")


@dataclass(frozen=True, kw_only=True)
class Tars:
    """The pictures of a split of shards."""

    folder: Path
    shards: tuple[Shard, ...]
    rows: torch.Tensor
    """(N,3) int64: number of the shard in `shards`, first byte of the PNG, its bytes."""
    labels: Mapping[str, torch.Tensor]

    def __len__(self) -> int:
        return len(self.rows)

    def picture(self, place: int) -> Image.Image:
        """Read and decode a member. Raises ArtifactError naming the shard where it is broken."""
        number, offset, size = self.rows[place].tolist()
        path = self.folder / self.shards[number].name
        try:
            with path.open("rb") as file:
                file.seek(offset)
                data = file.read(size)
            with Image.open(io.BytesIO(data), formats=["PNG"]) as picture:
                check_pixels(picture)
                return picture.convert("RGB")
        except BROKEN as error:
            raise ArtifactError(f"{path}, byte {offset:,}, is no picture ({error}): {_remedy(self.folder)}") from None


class Kept:
    """A pool that keeps the pictures it has opened, up to KEPT_BYTES: for a process that reads a small set often."""

    def __init__(self, pool: Pool) -> None:
        self.pool, self.labels = pool, pool.labels
        self.held: dict[int, Image.Image | str] = {}
        self.free = KEPT_BYTES

    def __len__(self) -> int:
        return len(self.pool)

    def picture(self, place: int) -> Image.Image | str:
        """As the pool's own."""
        if (found := self.held.get(place)) is not None:
            return found
        opened = self.pool.picture(place)
        size = 0 if isinstance(opened, str) else 4 * opened.width * opened.height
        if size <= self.free:
            self.held[place] = opened
            self.free -= size
        return opened


def open_tars(folder: Path, *, split: str, classes: int, mechanisms: tuple[str, ...]) -> Tars:
    """Find a split's pictures and read its labels of these mechanisms, each in 0 to classes - 1.

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
    for number, shard in enumerate(shards):
        label = partial(_label, folder=folder, shard=shard, classes=classes)
        found = _samples(folder, shard)
        for key, (picture, facts) in found.items():
            rows.append((number, picture.offset_data, picture.size))
            for name, values in labels.items():
                values.append(label(facts, name, key=key))
    return Tars(
        folder=folder,
        shards=shards,
        rows=torch.tensor(rows).view(-1, 3),
        labels={name: torch.tensor(values) for name, values in labels.items()},
    )


def _samples(folder: Path, shard: Shard) -> dict[str, tuple[tarfile.TarInfo, object]]:
    """Of each sample in a shard where its picture lies, and its facts."""
    path = folder / shard.name
    if not path.is_file():
        raise ArtifactError(f"{path} is missing: {_remedy(folder)}")
    if (size := path.stat().st_size) != shard.bytes:
        raise ArtifactError(f"{path} has {size:,} bytes, its manifest says {shard.bytes:,}: {_remedy(folder)}")
    pictures: dict[str, tarfile.TarInfo] = {}
    facts: dict[str, object] = {}
    try:
        with path.open("rb") as stream, tarfile.open(fileobj=stream, mode="r:") as tar:
            for member in tar:
                key, _, kind = member.name.partition(".")
                if kind == "png":
                    pictures[key] = member
                elif kind == "json":
                    stream.seek(member.offset_data)
                    facts[key] = json_value(stream.read(member.size))
    except (tarfile.TarError, ValueError) as error:
        raise ArtifactError(f"{path} is broken ({error}): {_remedy(folder)}") from None
    if lone := sorted(pictures.keys() ^ facts.keys()):
        raise ArtifactError(f"{path}, sample {lone[0]} lacks its .png or its .json: {_remedy(folder)}")
    if len(pictures) != shard.images:
        raise ArtifactError(
            f"{path} holds {len(pictures)} samples, its manifest says {shard.images}: {_remedy(folder)}"
        )
    return {key: (member, facts[key]) for key, member in pictures.items()}


def _label(facts: object, name: str, *, key: str, folder: Path, shard: Shard, classes: int) -> int:
    where = f"{folder / shard.name}, sample {key}"
    value = facts.get(name) if isinstance(facts, dict) else None
    if type(value) is not int:
        raise ArtifactError(f"{where} has no whole number as label {name!r}: {_remedy(folder)}")
    if not 0 <= value < classes:
        raise ArtifactError(
            f"{where} has the {name} label {value}, allowed: 0 to {classes - 1}, the classes of the real pictures"
        )
    return value


def _remedy(folder: Path) -> str:
    return f"remove {folder} and run the stage that makes it again"

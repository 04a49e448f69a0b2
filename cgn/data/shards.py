"""Shards: the format in which stages pass images to each other, tar files in WebDataset's layout and a manifest.

A folder holds `<split>-<number:06d>.tar` and `manifest.json` (what the images are, and the size and
SHA-256 of every shard). The tars may be in an object store instead (`cgn.data.store`), which the manifest then names.
`cgn.data.members` defines a sample in a tar; indices run through a split. Equal samples give equal bytes: times and
owners are constants, and WebDataset writes the tars. A shard draws its randomness from its own number, so it depends on
nothing that was written before it.
"""

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from cgn.core.errors import ArtifactError
from cgn.core.files import MANIFEST, read_json, replacing, sha256, write_json
from cgn.core.images import Bytes
from cgn.data.members import Sample, decode_sample, encode_samples, read_members, remedy
from cgn.data.store import downloaded, holds, upload

__all__ = [
    "LABELS", "Images", "Manifest", "Sample", "Shard", "check_size", "is_whole", "load_split",
    "read_manifest", "read_shard", "samples", "verify", "write_manifest", "write_shard",
]  # fmt: skip

if TYPE_CHECKING:
    import torch

DIGEST = re.compile("[0-9a-f]{64}")
LABELS = ("shape", "texture", "background")
BYTES_PER_SAMPLE = 2048
"""At least: an image and its facts, each a header and a block."""


@dataclass(frozen=True, kw_only=True)
class Shard:
    """One tar file, as the manifest lists it."""

    name: str
    split: str
    number: int
    images: int
    bytes: int
    sha256: str


@dataclass(frozen=True, kw_only=True)
class Manifest:
    """The content of a folder of shards; `shards` sorted by split and number. `store`: the URL where they are."""

    folder: Path
    shards: tuple[Shard, ...]
    facts: Mapping[str, Any]
    store: str | None = None

    def path(self, shard: Shard) -> Path:
        """A shard's file, downloaded if it is in a store. Raises ArtifactError for one that is missing or cut short."""
        if self.store is not None:
            return downloaded(shard, store=self.store)
        check_size(self.folder, shard)
        return self.folder / shard.name

    @property
    def splits(self) -> Mapping[str, int]:
        """Images by split."""
        names = dict.fromkeys(shard.split for shard in self.shards)
        return {name: sum(shard.images for shard in self.shards if shard.split == name) for name in names}


@dataclass(frozen=True, kw_only=True)
class Images:
    """`pixels`: (N,H,W,3) uint8. `labels`: (N,) int64 in 0..9 under shape, texture and background."""

    pixels: "torch.Tensor"
    labels: "dict[str, torch.Tensor]"


def write_shard(
    folder: Path,
    samples: Iterable[Sample],
    *,
    split: str,
    number: int,
    first_index: int,
    encoders: int = 0,
    store: str | None = None,
) -> Shard:
    """Write one shard, whole or not at all; `first_index` is its first sample's place in the split.

    `encoders`: threads that encode while the next samples are drawn; 0 encodes in this one. The bytes are the same.
    `store`: the URL of an object store, to which the file is moved.
    """
    import webdataset as wds  # it loads torch, which readers of shards do not need

    path = folder / f"{split}-{number:06d}.tar"
    images = 0
    with replacing(path) as temporary:
        with temporary.open("wb") as file, wds.TarWriter(file, mtime=0, user="cgn", group="cgn", encoder=False) as tar:
            for sample in encode_samples(samples, encoders=encoders):
                tar.write({"__key__": f"{first_index + images:08d}", **sample})
                images += 1
        size, digest = temporary.stat().st_size, sha256(temporary)
        shard = Shard(name=path.name, split=split, number=number, images=images, bytes=size, sha256=digest)
        if store is not None:
            upload(temporary, shard, store=store)
    if store is not None:
        path.unlink(missing_ok=True)  # a task that runs twice, on two machines, may have removed it
    return shard


def write_manifest(
    folder: Path, shards: Sequence[Shard], *, facts: Mapping[str, Any], store: str | None = None
) -> None:
    """Write `manifest.json`; it comes last, so a folder with a manifest has all its shards, or its store has them."""
    ordered = sorted(shards, key=lambda shard: (shard.split, shard.number))
    place = {} if store is None else {"store": store}
    write_json(folder / MANIFEST, {"facts": dict(facts), "shards": [asdict(shard) for shard in ordered], **place})


def read_manifest(folder: Path) -> Manifest:
    """Read `manifest.json`. Raises ArtifactError when it is missing or has another format."""
    path = folder / MANIFEST
    content = read_json(path)
    try:
        shards = tuple(read_shard(shard) for shard in content["shards"])
        facts = content["facts"]
        if not (isinstance(facts, dict) and type(facts.get("image_size", 0)) is int):
            raise TypeError("a value of the wrong type")
        if not isinstance(where := content.get("store"), str | None):
            raise TypeError("a value of the wrong type")
        _refuse_absurd(shards)
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise ArtifactError(f"{path} is not a manifest of shards ({error}): {remedy(folder)}") from None
    return Manifest(folder=folder, shards=shards, facts=facts, store=where)


def read_shard(entry: Any) -> Shard:
    """A shard from its entry in a manifest or a note. Raises TypeError for anything else."""
    shard = Shard(**entry)
    kinds = zip(asdict(shard).values(), (str, str, int, int, int, str), strict=True)
    if not all(type(value) is kind for value, kind in kinds) or shard.name != Path(shard.name).name:
        raise TypeError("a value of the wrong type")
    if not DIGEST.fullmatch(shard.sha256):  # it becomes a part of paths
        raise TypeError(f"{shard.sha256!r} is no SHA-256")
    return shard


def _refuse_absurd(shards: Sequence[Shard]) -> None:
    """Raise ValueError for shards that are listed twice, and for negative numbers."""
    listed = [value for shard in shards for value in (shard.name, (shard.split, shard.number))]
    if twice := [value for value, times in Counter(listed).items() if times > 1]:
        raise ValueError(f"the shard {twice[0]!r} is listed twice")
    if negative := [shard.name for shard in shards if min(shard.number, shard.images, shard.bytes) < 0]:
        raise ValueError(f"a negative number of {negative[0]}")


def is_whole(folder: Path, shard: Shard, *, store: str | None = None) -> bool:
    """Whether the shard is present with the bytes that were written; in a store, with the size."""
    if store is not None:
        return holds(shard, store=store)
    path = folder / shard.name
    return path.is_file() and path.stat().st_size == shard.bytes and sha256(path) == shard.sha256


def verify(folder: Path, *, splits: Sequence[str] | None = None) -> Manifest:
    """Check sizes and SHA-256 of all shards, or of those of `splits`. Raises ArtifactError naming the first bad one."""
    manifest = read_manifest(folder)
    for split in splits or ():
        _of_split(manifest, split)
    for shard in manifest.shards:
        if splits is not None and shard.split not in splits:
            continue
        if sha256(path := manifest.path(shard)) != shard.sha256:
            raise ArtifactError(f"{path} has other bytes than its manifest says: {remedy(path.parent)}")
    return manifest


def samples(folder: Path, *, split: str, parts: Sequence[str] = ()) -> Iterator[Sample]:
    """Stream a split in order, with these of its samples' parts.

    Raises ArtifactError naming the shard (and sample) that is missing or broken, or lacks a part.
    """
    manifest = read_manifest(folder)
    for shard in _of_split(manifest, split):
        for _, sample in _read(manifest, shard, parts=parts):
            yield sample


def load_split(folder: Path, *, split: str, limit: int | None = None) -> Images:
    """Verify a split and read it into memory, or its first `limit` images."""
    import torch

    manifest = verify(folder, splits=[split])
    shards = _of_split(manifest, split)
    for shard in shards:
        if shard.images > shard.bytes // BYTES_PER_SAMPLE:
            raise ArtifactError(
                f"{folder / shard.name} holds fewer samples than the {shard.images:,} of its manifest: {remedy(folder)}"
            )
    count = min(manifest.splits[split], manifest.splits[split] if limit is None else limit)
    pixels: Bytes | None = None
    labels = {name: np.zeros(count, dtype=np.int64) for name in LABELS}
    read = ((shard, key, sample) for shard in shards for key, sample in _read(manifest, shard))
    for place, (shard, key, sample) in zip(range(count), read, strict=False):
        where = f"{folder / shard.name}, sample {key}"
        pixels = _room(count, sample.image.shape, where=where) if pixels is None else pixels
        if sample.image.shape != pixels.shape[1:]:
            raise ArtifactError(
                f"{where} is {sample.image.shape}, the first image {pixels.shape[1:]}: {remedy(folder)}"
            )
        pixels[place] = sample.image
        for name in LABELS:
            if type(value := sample.facts.get(name)) is not int or value.bit_length() >= 32:
                raise ArtifactError(f"{where} has no whole number as label {name!r}: {remedy(folder)}")
            labels[name][place] = value
    if pixels is None:
        raise ArtifactError(f"{folder} has no images in split {split!r}: {remedy(folder)}")
    return Images(pixels=torch.from_numpy(pixels), labels={n: torch.from_numpy(v) for n, v in labels.items()})


def _room(count: int, shape: tuple[int, ...], *, where: str) -> Bytes:
    try:
        return np.empty((count, *shape), dtype=np.uint8)
    except MemoryError:
        raise ArtifactError(
            f"{where} is {shape}: {count:,} such images do not fit into the memory; make smaller or fewer images"
        ) from None


def _of_split(manifest: Manifest, split: str) -> list[Shard]:
    if split not in manifest.splits:
        raise ArtifactError(f"{manifest.folder} has no split {split!r}; it has: {', '.join(manifest.splits) or 'none'}")
    return [shard for shard in manifest.shards if shard.split == split]


def _read(manifest: Manifest, shard: Shard, *, parts: Sequence[str] = ()) -> Iterator[tuple[str, Sample]]:
    """The samples of one shard with their keys."""
    path = manifest.path(shard)
    read = 0
    with path.open("rb") as stream:
        for key, members in groupby(read_members(stream, path=path), key=lambda member: member[0].partition(".")[0]):
            found = {name.partition(".")[2]: data for name, data in members}
            yield key, decode_sample(found, path=path, key=key, parts=parts)
            read += 1
    if read != shard.images:
        raise ArtifactError(f"{path} holds {read} samples, its manifest says {shard.images}: {remedy(path.parent)}")


def check_size(folder: Path, shard: Shard) -> None:
    """Raise ArtifactError where a shard is missing or has another size than its manifest says."""
    path = folder / shard.name
    if not path.is_file():
        raise ArtifactError(f"{path} is missing: {remedy(folder)}")
    if (size := path.stat().st_size) != shard.bytes:
        raise ArtifactError(f"{path} has {size:,} bytes, its manifest says {shard.bytes:,}: {remedy(folder)}")

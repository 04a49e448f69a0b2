"""Shards: the one format in which stages hand images on, tar files in WebDataset's layout and a manifest.

Decided here: a folder holds `<split>-<number:06d>.tar` and `manifest.json` (what the images are, and the size and
SHA-256 of every shard). A sample is `<index:08d>.png` and `<index:08d>.json`; indices run through a split. Equal
samples give equal bytes: times and owners are constants. Reading takes those two kinds of member and refuses every
other, so nothing in a tar is ever unpickled or run. WebDataset writes the tars and groups what is read into samples;
walking through the members is done here, because its own iterator leaves the files open and takes five times as long,
more than decoding an image of 32 pixels does.
"""

import io
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import torch
import webdataset as wds
from PIL import Image, UnidentifiedImageError
from webdataset.tariterators import group_by_keys

from cgn.core.errors import ArtifactError
from cgn.core.files import MANIFEST, read_json, replacing, sha256, write_json
from cgn.core.images import Bytes, png

LABELS = ("shape", "texture", "background")
MEMBERS = frozenset({"png", "json"})
BLOCK = 512
"""Bytes; tar's unit."""


@dataclass(frozen=True, kw_only=True)
class Sample:
    """`image`: (H,W,3) uint8. `facts`: the labels of shape, texture and background, and what else is known of it."""

    image: Bytes
    facts: Mapping[str, int | float | str]


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
    """What a folder of shards holds; `shards` sorted by split and number."""

    shards: tuple[Shard, ...]
    facts: Mapping[str, Any]

    @property
    def splits(self) -> Mapping[str, int]:
        """Images by split."""
        names = dict.fromkeys(shard.split for shard in self.shards)
        return {name: sum(shard.images for shard in self.shards if shard.split == name) for name in names}


@dataclass(frozen=True, kw_only=True)
class Images:
    """`pixels`: (N,H,W,3) uint8. `labels`: (N,) int64 in 0..9 under shape, texture and background."""

    pixels: torch.Tensor
    labels: dict[str, torch.Tensor]


def write_shard(folder: Path, samples: Iterable[Sample], *, split: str, number: int, first_index: int) -> Shard:
    """Write one shard, whole or not at all; `first_index` is its first sample's place in the split."""
    path = folder / f"{split}-{number:06d}.tar"
    images = 0
    with replacing(path) as temporary:
        with temporary.open("wb") as file, wds.TarWriter(file, mtime=0, user="cgn", group="cgn", encoder=False) as tar:
            for sample in samples:
                facts = json.dumps(dict(sample.facts), sort_keys=True, allow_nan=False).encode()
                tar.write({"__key__": f"{first_index + images:08d}", "png": png(sample.image), "json": facts})
                images += 1
        size, digest = temporary.stat().st_size, sha256(temporary)
    return Shard(name=path.name, split=split, number=number, images=images, bytes=size, sha256=digest)


def write_manifest(folder: Path, shards: Sequence[Shard], *, facts: Mapping[str, Any]) -> None:
    """Write `manifest.json`; it comes last, so a folder with a manifest has all its shards."""
    ordered = sorted(shards, key=lambda shard: (shard.split, shard.number))
    write_json(folder / MANIFEST, {"facts": dict(facts), "shards": [asdict(shard) for shard in ordered]})


def read_manifest(folder: Path) -> Manifest:
    """Read `manifest.json`. Raises ArtifactError when it is missing or not one of ours."""
    path = folder / MANIFEST
    told = read_json(path)
    try:
        shards = tuple(Shard(**shard) for shard in told["shards"])
        facts = told["facts"]
        typed = all(
            isinstance(value, kind)
            for shard in shards
            for value, kind in zip(asdict(shard).values(), (str, str, int, int, int, str), strict=True)
        )
        plain = all(shard.name == Path(shard.name).name for shard in shards)
        if not (typed and plain and isinstance(facts, dict)):
            raise TypeError("a value of the wrong type")
    except (KeyError, TypeError, AttributeError) as error:
        raise ArtifactError(f"{path} is no manifest of shards ({error}): {_remedy(folder)}") from None
    return Manifest(shards=shards, facts=facts)


def is_whole(folder: Path, shard: Shard) -> bool:
    """Whether the shard is there with the bytes that were written."""
    path = folder / shard.name
    return path.is_file() and path.stat().st_size == shard.bytes and sha256(path) == shard.sha256


def verify(folder: Path, *, splits: Sequence[str] | None = None) -> Manifest:
    """Check sizes and SHA-256 of all shards, or of those of `splits`. Raises ArtifactError naming the first bad one."""
    manifest = read_manifest(folder)
    for split in splits or ():
        _of_split(manifest, split, folder=folder)
    for shard in manifest.shards:
        if splits is not None and shard.split not in splits:
            continue
        _check_size(folder, shard)
        if not is_whole(folder, shard):
            raise ArtifactError(f"{folder / shard.name} has other bytes than its manifest says: {_remedy(folder)}")
    return manifest


def samples(folder: Path, *, split: str) -> Iterator[Sample]:
    """Stream a split in order. Raises ArtifactError naming the shard (and sample) that is missing or broken."""
    for shard in _of_split(read_manifest(folder), split, folder=folder):
        for _, sample in _read(folder, shard):
            yield sample


def load(folder: Path, *, split: str, limit: int | None = None) -> Images:
    """Verify a split and read it into memory, or its first `limit` images."""
    manifest = verify(folder, splits=[split])
    shards = _of_split(manifest, split, folder=folder)
    count = min(manifest.splits[split], manifest.splits[split] if limit is None else limit)
    pixels: Bytes | None = None
    labels = {name: np.zeros(count, dtype=np.int64) for name in LABELS}
    read = ((shard, key, sample) for shard in shards for key, sample in _read(folder, shard))
    for place, (shard, key, sample) in zip(range(count), read, strict=False):
        where = f"{folder / shard.name}, sample {key}"
        pixels = np.empty((count, *sample.image.shape), dtype=np.uint8) if pixels is None else pixels
        if sample.image.shape != pixels.shape[1:]:
            raise ArtifactError(
                f"{where} is {sample.image.shape}, the first image {pixels.shape[1:]}: {_remedy(folder)}"
            )
        pixels[place] = sample.image
        for name in LABELS:
            if type(value := sample.facts.get(name)) is not int:
                raise ArtifactError(f"{where} has no whole number as label {name!r}: {_remedy(folder)}")
            labels[name][place] = value
    if pixels is None:
        raise ArtifactError(f"{folder} has no images in split {split!r}: {_remedy(folder)}")
    return Images(pixels=torch.from_numpy(pixels), labels={n: torch.from_numpy(v) for n, v in labels.items()})


def _of_split(manifest: Manifest, split: str, *, folder: Path) -> list[Shard]:
    if split not in manifest.splits:
        raise ArtifactError(f"{folder} has no split {split!r}; it has: {', '.join(manifest.splits) or 'none'}")
    return [shard for shard in manifest.shards if shard.split == split]


def _read(folder: Path, shard: Shard) -> Iterator[tuple[str, Sample]]:
    """The samples of one shard with their keys."""
    _check_size(folder, shard)
    path = folder / shard.name
    read = 0
    with path.open("rb") as stream:
        members = partial(_members, stream, path=path)
        for sample in wds.DataPipeline(members, group_by_keys):
            yield sample["__key__"], _decoded(sample, path=path)
            read += 1
    if read != shard.images:
        raise ArtifactError(f"{path} holds {read} samples, its manifest says {shard.images}: {_remedy(folder)}")


def _members(stream: BinaryIO, *, path: Path) -> Iterator[dict[str, Any]]:
    """The plain files of a ustar archive, as WebDataset's `group_by_keys` takes them."""
    while (header := stream.read(BLOCK))[:1] != b"\0":
        try:
            size, told = int(header[124:136].rstrip(b"\0 "), 8), int(header[148:156].rstrip(b"\0 "), 8)
            name = header[:100].rstrip(b"\0").decode("ascii")
        except ValueError:
            size, told, name = -1, -1, ""
        # The header's checksum counts its own eight bytes as blanks.
        if sum(header) - sum(header[148:156]) + 8 * ord(" ") != told or len(data := stream.read(size)) != size:
            raise ArtifactError(f"{path} is broken or cut short near byte {stream.tell():,}: {_remedy(path.parent)}")
        if header[156:157] not in (b"0", b"\0") or name.partition(".")[2] not in MEMBERS:
            raise ArtifactError(f"{path} has the foreign member {name!r}: shards hold only .png and .json files")
        stream.seek(-size % BLOCK, io.SEEK_CUR)
        yield {"fname": name, "data": data, "__url__": path.name}


def _decoded(members: Mapping[str, Any], *, path: Path) -> Sample:
    """The one decoder: PNG by Pillow, JSON by the standard library, nothing else."""
    where = f"{path}, sample {members['__key__']}"
    if absent := MEMBERS - members.keys():
        raise ArtifactError(f"{where} has no .{min(absent)}: {_remedy(path.parent)}")
    try:
        with Image.open(io.BytesIO(members["png"]), formats=["PNG"]) as picture:
            image = np.array(picture)
        facts = json.loads(members["json"])
    except (UnidentifiedImageError, OSError, SyntaxError, ValueError) as error:
        raise ArtifactError(f"{where} is broken ({error}): {_remedy(path.parent)}") from None
    if not isinstance(facts, dict) or image.ndim != 3:
        raise ArtifactError(f"{where} is no RGB image with a JSON object: {_remedy(path.parent)}")
    return Sample(image=image, facts=facts)


def _check_size(folder: Path, shard: Shard) -> None:
    path = folder / shard.name
    if not path.is_file():
        raise ArtifactError(f"{path} is missing: {_remedy(folder)}")
    if (size := path.stat().st_size) != shard.bytes:
        raise ArtifactError(f"{path} has {size:,} bytes, its manifest says {shard.bytes:,}: {_remedy(folder)}")


def _remedy(folder: Path) -> str:
    return f"remove {folder} and run the stage that makes it again"

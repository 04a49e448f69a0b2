"""A sample as the members of a tar: its image and parts as PNG, its facts as JSON.

A sample is `<key>.png` and `<key>.json`, and where a track keeps them its parts (`<key>.mask.png`, ...).
Reading takes those kinds of member, each name once, and refuses every other, so nothing in a tar is ever unpickled or
run; parts are decoded only on request. The members are read here, because WebDataset's own iterator leaves the files
open and takes five times as long, more than decoding an image of 32 pixels.
"""

import io
import json
import os
import re
import warnings
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

import numpy as np
from PIL import Image

from cgn.core.errors import ArtifactError
from cgn.core.files import json_value
from cgn.core.images import Bytes, png
from cgn.data.cache import cache_folder
from cgn.data.decoding import DECODE_ERRORS, check_pixels

PARTS = ("mask", "premask", "foreground", "background")
"""What a sample may hold besides its image, as PNG; a mask (H,W), the others (H,W,3)."""
MEMBERS = frozenset({"png", "json"})
KNOWN = MEMBERS | {f"{part}.png" for part in PARTS}
NAME = re.compile(rf"\d+\.({'|'.join(re.escape(ending) for ending in sorted(KNOWN))})", re.ASCII)
AHEAD = 128
"""Samples that may wait for the encoders: more than a batch, so that the next batch is drawn meanwhile."""
BLOCK = 512
"""Bytes; tar's unit."""


@dataclass(frozen=True, kw_only=True)
class Sample:
    """`image`: (H,W,3) uint8. `facts`: the labels of shape, texture and background, and other values about it.

    `parts`: some of `PARTS`, by name.
    """

    image: Bytes
    facts: Mapping[str, int | float | str]
    parts: Mapping[str, Bytes] = field(default_factory=dict)


def encode_samples(samples: Iterable[Sample], *, encoders: int) -> Iterator[dict[str, bytes]]:
    """The members of each sample, in order."""
    if not encoders:
        yield from map(_members_of, samples)
        return
    with ThreadPoolExecutor(encoders) as pool:
        waiting: deque[Future[dict[str, bytes]]] = deque()
        for sample in samples:
            waiting.append(pool.submit(_members_of, sample))
            while len(waiting) > AHEAD or (waiting and waiting[0].done()):
                yield waiting.popleft().result()
        for future in waiting:
            yield future.result()


def _members_of(sample: Sample) -> dict[str, bytes]:
    facts = json.dumps(dict(sample.facts), sort_keys=True, allow_nan=False).encode()
    parts = {f"{name}.png": png(part) for name, part in sample.parts.items()}
    assert parts.keys() <= KNOWN
    return {"png": png(sample.image), "json": facts, **parts}


def read_members(stream: BinaryIO, *, path: Path) -> Iterator[tuple[str, bytes]]:
    """Name and content of the plain files of a ustar archive, in order."""
    whole, seen = os.fstat(stream.fileno()).st_size, set[str]()
    while (header := stream.read(BLOCK))[:1] != b"\0":
        try:
            size, checksum = int(header[124:136].rstrip(b"\0 "), 8), int(header[148:156].rstrip(b"\0 "), 8)
            name = header[:100].rstrip(b"\0").decode("ascii")
        except ValueError:
            size, checksum, name = -1, -1, ""
        # The header's checksum counts its own eight bytes as blanks.
        wrong = sum(header) - sum(header[148:156]) + 8 * ord(" ") != checksum
        if wrong or not 0 <= size <= whole - stream.tell() or len(data := stream.read(size)) != size:
            raise ArtifactError(f"{path} is broken or cut short near byte {stream.tell():,}: {remedy(path.parent)}")
        if header[156:157] not in (b"0", b"\0") or not NAME.fullmatch(name):
            raise ArtifactError(
                f"{path} has the foreign member {name!r}: shards hold only .png and .json files named by numbers"
            )
        if name in seen:
            raise ArtifactError(f"{path} has the member {name!r} twice: {remedy(path.parent)}")
        seen.add(name)
        stream.seek(-size % BLOCK, io.SEEK_CUR)
        yield name, data


def decode_sample(found: Mapping[str, bytes], *, path: Path, key: str, parts: Sequence[str]) -> Sample:
    """The one decoder: PNG by Pillow, JSON by the standard library, nothing else."""
    where = f"{path}, sample {key}"
    names = [f"{part}.png" for part in parts]
    if absent := {*MEMBERS, *names} - found.keys():
        raise ArtifactError(f"{where} has no .{min(absent)}: {remedy(path.parent)}")
    try:
        image, *drawn = (_pixels(found[name]) for name in ("png", *names))
        facts = json_value(found["json"])
    except DECODE_ERRORS as error:
        raise ArtifactError(f"{where} is broken ({error}): {remedy(path.parent)}") from None
    if not isinstance(facts, dict) or image.ndim != 3:
        raise ArtifactError(f"{where} is not an RGB image with a JSON object: {remedy(path.parent)}")
    return Sample(image=image, facts=facts, parts=dict(zip(parts, drawn, strict=True)))


def _pixels(data: bytes) -> Bytes:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # refused below
        with Image.open(io.BytesIO(data), formats=["PNG"]) as image:
            check_pixels(image)
            return np.array(image)


def remedy(folder: Path) -> str:
    """The advice for a broken folder of shards, or the folder of downloaded ones."""
    again = "what is needed is downloaded again" if folder == cache_folder() else "run the stage that makes it again"
    return f"remove {folder} and {again}"

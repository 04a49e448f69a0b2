"""Shards from a generator: which are missing, the processes that render them, and the sheets and films of the images.

A shard is a pure function of (model, seed, split, number). On a CPU one thread computes it, so it has the same bytes
whichever process renders it and however many there are. A run that continues renders only the shards that are missing
or damaged: each finished shard leaves a note until the manifest lists them all.

    <split>-<number>.tar      the shards
    notes/<shard>.json        what the manifest will say of a finished shard
    manifest.json             last: a folder with a manifest has all its shards

With a `store`, an URL, each shard is moved there as soon as it is written (`cgn.data.store`).
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from fractions import Fraction
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import torch
from PIL import Image

from cgn.core.devices import usable_cores
from cgn.core.errors import ArtifactError
from cgn.core.fan_out import Workers, fan_out
from cgn.core.files import MANIFEST, read_json, replacing, write_json
from cgn.core.images import Bytes, from_bytes, save_image, sheet, to_bytes
from cgn.core.metrics import MetricSink
from cgn.core.progress import progress, say
from cgn.data.shards import (
    Sample,
    Shard,
    is_whole,
    read_manifest,
    read_shard,
    samples,
    write_manifest,
    write_shard,
)
from cgn.data.store import refuse_unusable

NOTES = "notes"
ENCODERS = 8
"""The most threads that encode images for one GPU."""
FRAMES_PER_SECOND = 12
FILM_PIXELS = 256
"""Smaller frames are enlarged to this by repeating pixels, because players blur them."""
CODEC_BLOCK = 16
"""Pixels; a BigGAN's images are multiples."""
QUALITY = "18"
"""x264's constant rate factor: no loss that the eye sees."""


@dataclass(frozen=True, kw_only=True)
class PlannedShard:
    """A shard to render; `first_index` is its first image's place in the split."""

    split: str
    number: int
    images: int
    first_index: int


class ShardRenderer(Protocol):
    """Renders shards with one model. Pickled, it is its arguments: each worker process opens the model itself."""

    def to(self, device: torch.device) -> None:
        """Move the model to a device."""

    def render(self, shard: PlannedShard) -> Iterator[Sample]:
        """The samples of a shard."""


def plan_shards(splits: Mapping[str, int], *, images_per_shard: int) -> list[PlannedShard]:
    """Cut splits, given by their number of images, into shards."""
    return [
        PlannedShard(split=split, number=number, images=min(images_per_shard, images - first), first_index=first)
        for split, images in splits.items()
        for number, first in enumerate(range(0, images, images_per_shard))
    ]


def render_shards(
    folder: Path,
    renderer: ShardRenderer,
    planned: Sequence[PlannedShard],
    *,
    workers: Workers,
    facts: Mapping[str, Any],
    store: str | None = None,
    sink: MetricSink,
) -> None:
    """Render the shards that `folder`, or the store, lacks, by as many workers as are useful; write the manifest.

    `renderer` itself is moved to the first device; where this process is enough, it renders the shards.
    """
    if store is not None:
        refuse_unusable(store)
    shards = _finished(folder, planned, store=store)
    missing = [shard for shard in planned if shard not in shards]
    done = sum(shard.images for shard in shards.values())
    if done:
        say(f"continues after {done:,} images that are there already")
    renderer.to(workers.devices[0])
    opening = partial(_open, renderer=renderer, folder=folder, store=store)
    with progress(total=sum(shard.images for shard in planned), initial=done, unit="images") as bar:
        for shard, written in fan_out(opening, missing, workers=workers, name=_name):
            if workers.ray and store is None and not (folder / written.name).is_file():
                raise ArtifactError(
                    f"a Ray worker wrote {written.name}, but it is not in {folder.resolve()} here: this folder must be "
                    "on a file system that all machines share"
                )
            write_json(folder / NOTES / f"{written.name}.json", asdict(written))
            shards[shard] = written
            done += written.images
            bar.update(written.images)
            sink.log({"images": done}, step=done)
    write_manifest(folder, list(shards.values()), facts=facts, store=store)
    for note in (folder / NOTES).glob("*"):
        note.unlink()
    (folder / NOTES).rmdir()


def encoder_threads(device: torch.device) -> int:
    """Threads of this process that encode images while its GPU draws the next ones; 0: it encodes them itself."""
    return min(ENCODERS, usable_cores()) if device.type == "cuda" else 0


def _finished(folder: Path, planned: Sequence[PlannedShard], *, store: str | None) -> dict[PlannedShard, Shard]:
    """The shards of an earlier run that are there and undamaged."""
    (folder / NOTES).mkdir(exist_ok=True)
    if store is not None:
        for left in folder.glob("*.tar"):  # by a process that was killed between upload and removal
            left.unlink()
    known = {shard.name: shard for shard in read_manifest(folder).shards} if (folder / MANIFEST).is_file() else {}
    for note in sorted((folder / NOTES).glob("*.json")):
        try:
            shard = read_shard(read_json(note))
        except (ArtifactError, TypeError):
            continue
        known[shard.name] = shard
    whole = {(shard.split, shard.number): shard for shard in known.values() if is_whole(folder, shard, store=store)}
    return {shard: whole[shard.split, shard.number] for shard in planned if (shard.split, shard.number) in whole}


def _open(
    device: torch.device, *, renderer: ShardRenderer, folder: Path, store: str | None
) -> Callable[[PlannedShard], Shard]:
    renderer.to(device)
    return partial(_write, renderer=renderer, folder=folder, encoders=encoder_threads(device), store=store)


def _name(shard: PlannedShard) -> str:
    return f"shard {shard.split}-{shard.number:06d}"


def _write(shard: PlannedShard, *, renderer: ShardRenderer, folder: Path, encoders: int, store: str | None) -> Shard:
    written = write_shard(
        folder,
        renderer.render(shard),
        split=shard.split,
        number=shard.number,
        first_index=shard.first_index,
        encoders=encoders,
        store=store,
    )
    assert written.images == shard.images
    return written


def write_examples(folder: Path, splits: Sequence[str], *, columns: int) -> Path:
    """Write examples.png, a row for each split with its first images; its path."""
    rows = []
    for split in splits:
        first = [sample.image for sample, _ in zip(samples(folder, split=split), range(columns), strict=False)]
        rows.append((split, from_bytes(torch.stack([torch.from_numpy(image) for image in first]))))
    return write_sheet(rows, folder / "examples.png")


def write_sheet(rows: Sequence[tuple[str, torch.Tensor]], path: Path) -> Path:
    """Write labelled rows of images, (F,1 or 3,H,W) in [-1,1], as one PNG; its path."""
    save_image(sheet(rows), path)
    return path


def write_film(frames: torch.Tensor, path: Path) -> Path:
    """(F,3,H,W) in [-1,1] -> `path`.gif, which every page shows, and `path`.mp4, smaller, with all colours.

    Returns the GIF's path. Equal frames give equal bytes: one encoder thread, no times or versions written in.
    """
    pixels = to_bytes(frames)
    times = -(-FILM_PIXELS // pixels.shape[1])
    pixels = pixels.repeat(times, 1).repeat(times, 2)
    gif = path.with_name(path.name + ".gif")
    with replacing(gif) as temporary:
        _write_gif(pixels, temporary)
    with replacing(path.with_name(path.name + ".mp4")) as temporary:
        _write_mp4(pixels, temporary)
    return gif


def _write_gif(pixels: Bytes, path: Path) -> None:
    first, *rest = (Image.fromarray(frame) for frame in pixels)
    milliseconds = round(1000 / FRAMES_PER_SECOND)
    first.save(path, format="GIF", save_all=True, append_images=rest, duration=milliseconds, loop=0)


def _write_mp4(pixels: Bytes, path: Path) -> None:
    import av  # only where a film is written

    assert not any(size % CODEC_BLOCK for size in pixels.shape[1:3]), "what pads a block is not always the same"
    with av.open(str(path), "w", format="mp4", container_options={"fflags": "+bitexact"}) as container:
        stream = container.add_stream("libx264", rate=FRAMES_PER_SECOND, options={"crf": QUALITY, "threads": "1"})
        stream.height, stream.width = pixels.shape[1:3]
        stream.pix_fmt = "yuv420p"
        for number, frame in enumerate(pixels):
            picture = av.VideoFrame.from_ndarray(frame, format="rgb24")
            picture.pts, picture.time_base = number, Fraction(1, FRAMES_PER_SECOND)
            container.mux(stream.encode(picture))
        container.mux(stream.encode())

"""generate: the counterfactual generative network -> shards of factual and counterfactual images.

Decided here: a shard is a pure function of (model, seed, split, number). One thread makes it, so it has the same bytes
whichever worker makes it and however many there are; a run that continues makes only the shards that are missing or
not whole (each finished one leaves a note until the manifest holds them all). Workers are numbered, so that a track may
give each a GPU of its own.
"""

import multiprocessing
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import asdict, dataclass
from multiprocessing.queues import SimpleQueue
from pathlib import Path
from typing import Any, Literal, Protocol

import torch

from cgn.core.arguments import OptionalInput, Output, Pace
from cgn.core.devices import limit_threads
from cgn.core.errors import ArtifactError, ConfigError
from cgn.core.files import MANIFEST, read_json, write_json
from cgn.core.images import from_bytes, save_image, sheet
from cgn.core.metrics import MetricSink
from cgn.core.progress import progress, say
from cgn.data.films import write_film
from cgn.data.shards import Sample, Shard, is_whole, read_manifest, read_shard, samples, write_manifest, write_shard

NOTES = "notes"


@dataclass(frozen=True, kw_only=True)
class Task:
    """One shard to make."""

    split: str
    number: int
    images: int
    first_index: int


@dataclass(frozen=True, kw_only=True)
class Exhibit:
    """A sheet `<name>.png` of labelled rows, (F,1 or 3,H,W) in [-1,1]; `film`, where it moves, (F,3,H,W) as well."""

    name: str
    rows: Sequence[tuple[str, torch.Tensor]]
    film: torch.Tensor | None = None


class Maker(Protocol):
    """An opened model. It computes with one thread on a CPU."""

    @property
    def facts(self) -> Mapping[str, Any]:
        """What the manifest says of the images."""

    def __call__(self, task: Task) -> Iterator[Sample]:
        """The samples of a shard."""

    def exhibits(self) -> Iterator[Exhibit]:
        """What is drawn besides the shards."""


@dataclass(frozen=True, kw_only=True)
class Parts:
    """What generate needs from a track. Everything here travels to worker processes."""

    splits: Mapping[str, int]
    """Images by split."""
    images_per_shard: int
    open: Callable[[Path, int], Maker]
    """The folder that holds the model and the worker's number -> a maker.

    Raises ArtifactError for a foreign or broken model.
    """
    examples: int
    workers: int
    """How many there are where nobody says."""
    encoders: int
    """Threads of each worker that encode images while the next ones are drawn; 0: none, it does so itself."""
    reads: Literal["model", "assets"] = "model"
    """Which input holds the model: what train_cgn made, or what fetch got. The other one may be left out."""


def generate(
    parts: Parts,
    *,
    model: OptionalInput = None,
    assets: OptionalInput = None,
    images: Output,
    sink: MetricSink,
    workers: Pace = 0,
) -> None:
    """Write the shards of all splits, manifest.json, examples.png and the track's exhibits.

    `workers` processes; 0: as many as fit (one a core, or one a GPU).
    """
    limit_threads()
    source = _source(parts, model=model, assets=assets)
    maker = parts.open(source, 0)  # a foreign model is refused here, before any worker starts
    tasks = _tasks(parts)
    shards = _whole(images, tasks)
    missing = [task for task in tasks if task not in shards]
    count = min(workers or parts.workers, len(missing))
    made = sum(shard.images for shard in shards.values())
    if made:
        say(f"continues after {made:,} images that are there already")
    with progress(total=sum(parts.splits.values()), initial=made, unit="images") as bar:
        for task, shard in _make(parts, missing, maker=maker, model=source, images=images, workers=count):
            write_json(images / NOTES / f"{shard.name}.json", asdict(shard))
            shards[task] = shard
            made += shard.images
            bar.update(shard.images)
            sink.log({"images": made}, step=made)
    write_manifest(images, list(shards.values()), facts=dict(maker.facts))
    for note in (images / NOTES).glob("*"):
        note.unlink()
    (images / NOTES).rmdir()
    save_image(_examples(images, parts), images / "examples.png")
    sink.picture(images / "examples.png")
    for exhibit in maker.exhibits():
        for path in _shown(exhibit, images):
            sink.picture(path)
    sink.summary({f"images/{split}": count for split, count in parts.splits.items()})


def _source(parts: Parts, *, model: Path | None, assets: Path | None) -> Path:
    source = {"model": model, "assets": assets}[parts.reads]
    if source is None:
        verb = {"model": "train_cgn", "assets": "fetch"}[parts.reads]
        raise ConfigError(f"generate needs --{parts.reads} here: give the folder that {verb} made")
    return source


def _tasks(parts: Parts) -> list[Task]:
    size = parts.images_per_shard
    return [
        Task(split=split, number=number, images=min(size, images - first), first_index=first)
        for split, images in parts.splits.items()
        for number, first in enumerate(range(0, images, size))
    ]


def _whole(images: Path, tasks: list[Task]) -> dict[Task, Shard]:
    """The shards of an earlier run that are there and whole."""
    (images / NOTES).mkdir(exist_ok=True)
    known = {shard.name: shard for shard in read_manifest(images).shards} if (images / MANIFEST).is_file() else {}
    for note in sorted((images / NOTES).glob("*.json")):
        try:
            shard = read_shard(read_json(note))
        except (ArtifactError, TypeError):
            continue
        known[shard.name] = shard
    by_place = {(shard.split, shard.number): shard for shard in known.values() if is_whole(images, shard)}
    return {task: by_place[task.split, task.number] for task in tasks if (task.split, task.number) in by_place}


def _make(
    parts: Parts, tasks: list[Task], *, maker: Maker, model: Path, images: Path, workers: int
) -> Iterator[tuple[Task, Shard]]:
    if workers <= 1:
        for task in tasks:
            yield task, _one(task, maker=maker, images=images, encoders=parts.encoders)
        return
    spawn = multiprocessing.get_context("spawn")  # a fork would inherit torch's threads
    numbers = spawn.SimpleQueue()
    for number in range(workers):
        numbers.put(number)
    given = (parts, model, images, numbers)
    with ProcessPoolExecutor(workers, mp_context=spawn, initializer=_start, initargs=given) as pool:
        futures = {pool.submit(_next, task): task for task in tasks}
        try:
            for future in as_completed(futures):
                yield futures[future], future.result()
        finally:
            pool.shutdown(wait=False, cancel_futures=True)


_worker: dict[str, Any] = {}
"""What a worker process was started with."""


def _start(parts: Parts, model: Path, images: Path, numbers: "SimpleQueue[int]") -> None:
    limit_threads()
    _worker.update(maker=parts.open(model, numbers.get()), images=images, encoders=parts.encoders)


def _next(task: Task) -> Shard:
    return _one(task, **_worker)


def _one(task: Task, *, maker: Maker, images: Path, encoders: int) -> Shard:
    shard = write_shard(
        images,
        maker(task),
        split=task.split,
        number=task.number,
        first_index=task.first_index,
        encoders=encoders,
    )
    assert shard.images == task.images
    return shard


def _examples(images: Path, parts: Parts) -> Any:
    rows = []
    for split, count in parts.splits.items():
        if count:
            shown = [
                sample.image for sample, _ in zip(samples(images, split=split), range(parts.examples), strict=False)
            ]
            rows.append((split, from_bytes(torch.stack([torch.from_numpy(image) for image in shown]))))
    return sheet(rows)


def _shown(exhibit: Exhibit, images: Path) -> list[Path]:
    """Write an exhibit; what of it can be shown in a page."""
    path = images / f"{exhibit.name}.png"
    save_image(sheet(exhibit.rows), path)
    if exhibit.film is None:
        return [path]
    return [path, write_film(exhibit.film, path.with_suffix(""))]

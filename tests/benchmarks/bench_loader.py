"""Whether the classifier's loader keeps its network busy: python -m tests.benchmarks.bench_loader

    --updates 20 --workers 0 2 --accelerator auto

Images a second of the loader alone and of the training alone, on batches that are in memory; their ratio says how much
of an update is left to wait for. First the miniature: its drawn world, its backbone and batch from params.yaml, from
files (the first epoch) and from memory (all others). Then, where CGN_TEST_DATA has them, 500 photographs of ImageNet
as JPEG cut to 224 pixels, for a ResNet-50. Times are of the wall clock: run it on a machine that does nothing else.
"""

import argparse
import os
import tempfile
import time
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np

from cgn.config.imagenet import TrainClassifier
from cgn.config.load import load
from cgn.core.devices import limit_threads, open_fabric
from cgn.core.images import to_bytes
from cgn.core.metrics import Silent
from cgn.data.shards import Sample, write_manifest, write_shard
from cgn.imagenet.data.datasets import CachedDataset, FolderDataset, ImageDataset, open_shards
from cgn.imagenet.data.image_folders import class_folders
from cgn.imagenet.data.mixing import MixedBatch, Mixture, Stream, mixed_batches
from cgn.imagenet.train_classifier import fit
from cgn.miniature.sets import CLASS_FOLDERS, write_split
from cgn.miniature.world.scenes import scene
from cgn.nets.classifiers import MECHANISMS, Ensemble, network
from tests.support.configs import replace

PER_CLASS, COUNTERFACTUALS = 100, 900
WARM = 2
"""Updates before the clock is started."""


def main(argv: Sequence[str] | None = None) -> None:
    """Print the table."""
    options = _options(argv)
    limit_threads()
    params = load(Path("params.yaml")).tracks["imagenet"]
    with tempfile.TemporaryDirectory() as folder:
        real, counterfactuals = _miniature(Path(folder))
        _table("miniature", params["miniature"].train_classifier, real, counterfactuals, options)  # type: ignore[arg-type]
    sample = Path(os.environ.get("CGN_TEST_DATA", Path(__file__).parents[3] / "shared" / "data")) / "imagenet_sample"
    if not sample.is_dir():
        print(f"no photographs at {sample}: set CGN_TEST_DATA")
        return
    names = sorted(path.name for path in sample.iterdir() if path.is_dir())
    photographs = FolderDataset(class_folders(sample, classes=names))
    _table("photographs", replace(params["mini"].train_classifier, batch_size=8), photographs, None, options)  # type: ignore[arg-type]


def _table(
    name: str,
    params: TrainClassifier,
    real: ImageDataset,
    counterfactuals: ImageDataset | None,
    options: argparse.Namespace,
) -> None:
    ready = list(_batches(params, real, counterfactuals, updates=options.updates + WARM, workers=0))
    training = _training(params, ready, classes=int(real.labels["shape"].max()) + 1, options=options)
    per_update = len(ready[0].pixels)
    print(f"{name}: {params.backbone} at {params.image_size} pixels, {per_update} images an update, in images/s")
    print(f"  {'training alone':32}{training:10,.0f}")
    for workers in options.workers:
        found = _rate(
            _batches(params, real, counterfactuals, updates=options.updates + WARM, workers=workers), per_update
        )
        print(f"  {f'loader, {workers} workers, from files':32}{found:10,.0f}{found / training:8.1f} x", flush=True)
    kept = CachedDataset(real), None if counterfactuals is None else CachedDataset(counterfactuals)
    for place in range(len(real)):
        kept[0].image(place)
    for place in range(0 if counterfactuals is None else len(counterfactuals)):
        kept[1].image(place)  # type: ignore[union-attr]
    found = _rate(_batches(params, *kept, updates=options.updates + WARM, workers=0), per_update)
    print(f"  {'loader, from memory':32}{found:10,.0f}{found / training:8.1f} x", flush=True)


def _batches(
    params: TrainClassifier, real: ImageDataset, counterfactuals: ImageDataset | None, *, updates: int, workers: int
) -> Iterator[MixedBatch]:
    stream = None
    if counterfactuals is not None:
        stream = Stream(name="counterfactual", dataset=counterfactuals, per_update=params.counterfactuals_per_update)
    mixture = Mixture(
        real=Stream(name="real", dataset=real, per_update=params.batch_size),
        counterfactual=stream,
        seed=0,
        image_size=params.image_size,
        smallest_crop=params.smallest_crop,
        updates=updates,
    )
    return mixed_batches(mixture, start=0, workers=workers, device="cpu")


def _training(params: TrainClassifier, ready: list[MixedBatch], *, classes: int, options: argparse.Namespace) -> float:
    heads = MECHANISMS if ready[0].labels else ("label",)
    module = Ensemble(
        network(params.backbone, classes=classes), classes=classes, heads=heads, batch_norm=params.batch_norm
    ).train()
    with tempfile.TemporaryDirectory() as folder:
        given: dict[str, Any] = {
            "pictures": params.batch_size * len(ready),
            "seed": 0,
            "folder": Path(folder),
            "sink": Silent(),
        }
        device = open_fabric(accelerator=options.accelerator)
        once = replace(params, epochs=1, workers=0, log_updates=len(ready), checkpoint_updates=len(ready))
        clocked = _Clocked(ready)
        fit(once, module, cast(Mixture, clocked), **given, fabric=device)
    return (len(ready) - WARM) * len(ready[0].pixels) / (time.perf_counter() - clocked.started)


class _Clocked:
    """Batches in memory, in the form of a mixture; the clock starts after the first ones."""

    def __init__(self, ready: list[MixedBatch]) -> None:
        self.ready, self.updates, self.started = ready, len(ready), 0.0

    def __len__(self) -> int:
        return self.updates

    def __getitem__(self, update: int) -> MixedBatch:
        if update == WARM:
            self.started = time.perf_counter()
        return self.ready[update]


def _rate(source: Iterable[MixedBatch], per_update: int) -> float:
    """Images a second, after the first updates."""
    started, count = 0.0, 0
    for count, _ in enumerate(source, start=1):
        if count == WARM:
            started = time.perf_counter()
    return (count - WARM) * per_update / (time.perf_counter() - started)


def _miniature(folder: Path) -> tuple[ImageDataset, ImageDataset]:
    """Real pictures of 64 pixels and counterfactuals of 32, drawn by the world itself."""
    write_split(folder, "train", seed=0, image_size=64, per_class=PER_CLASS)
    labels = np.random.default_rng(0).integers(0, len(CLASS_FOLDERS), (3, COUNTERFACTUALS))
    drawn = to_bytes(scene(*labels, seed=1, index=np.arange(COUNTERFACTUALS), image_size=32).image)
    facts = [dict(zip(MECHANISMS, map(int, row), strict=True)) for row in labels.T]
    samples = [Sample(image=image, facts=values) for image, values in zip(drawn, facts, strict=True)]
    shard = write_shard(folder, samples, split="counterfactual", number=0, first_index=0)
    write_manifest(folder, [shard], facts={})
    counterfactuals = open_shards(folder, split="counterfactual", classes=len(CLASS_FOLDERS), mechanisms=MECHANISMS)
    return FolderDataset(class_folders(folder / "train", classes=CLASS_FOLDERS)), counterfactuals


def _options(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--updates", type=int, default=20)
    parser.add_argument("--workers", type=int, nargs="+", default=[0, 2])
    parser.add_argument("--accelerator", default="auto")
    return parser.parse_args(argv)


if __name__ == "__main__":
    main()

"""imagenet train_classifier: the cell that fills in what train_classifier needs.

Decided here: the arms differ in their heads and in whether counterfactuals are mixed in, nothing else. Real pictures
are what prepare calls `train`: class folders, or a folder of shards. With `workers: 0` the training's own process
decodes and keeps what it has decoded, which suits a small set; workers decode anew each time.
"""

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from cgn.classifiers.backbones import load_network, network
from cgn.classifiers.ensemble import MECHANISMS, Ensemble, Start
from cgn.config.imagenet.train_classifier import TrainClassifier
from cgn.config.record import picked
from cgn.core.checkpoints import refuse_foreign
from cgn.core.files import MANIFEST
from cgn.core.metrics import MetricSink
from cgn.core.seeding import derive
from cgn.data.benchmarks import class_folders
from cgn.data.collection import Collection, read_collection
from cgn.data.mixing import Mixture, Stream, batches
from cgn.data.pools import Folders, Kept, Pool, open_tars
from cgn.data.shards import read_manifest
from cgn.data.transforms import normalized
from cgn.stages.train_classifier import Course, Parts, Trained
from cgn.stages.train_classifier import Folders as Inputs
from cgn.tracks.imagenet.classifiers import HEADS, TRACK
from cgn.training.classifying import Classifying
from cgn.training.invariant import Batch, Schedule, invariant

if TYPE_CHECKING:
    from lightning_fabric import Fabric

CLASSES = 1000
"""Of the pretrained backbones."""


def parts(params: TrainClassifier, *, seed: int, variant: str) -> Parts:
    """Parameters of a variant -> what the stage needs."""
    pretrained = () if params.pretrained == "none" else ("assets",)
    return Parts(
        track=TRACK,
        variant=variant,
        arms={"baseline": ("data", *pretrained), "ensemble": ("data", "images", *pretrained)},
        make=partial(_make, params, seed=derive(seed, "train_classifier"), variant=variant),
        accelerator=params.accelerator,
        devices=params.devices,
        precision=params.precision,
    )


def _make(params: TrainClassifier, *, seed: int, variant: str, arm: str, folders: Inputs, fabric: "Fabric") -> Course:
    collection = read_collection(folders["data"])
    refuse_foreign(collection.facts, source=folders["data"], track=TRACK, variant=variant)
    real, strays = _real(collection)
    seed = derive(seed, arm)
    module = _initial(params, arm=arm, classes=collection.classes, assets=folders.get("assets"), seed=seed)
    images = None if arm == "baseline" else _counterfactuals(folders["images"], variant=variant, collection=collection)
    schedule = picked(Schedule, params)
    mixture = Mixture(
        real=_stream("real", real, per_update=params.batch_size, params=params),
        counterfactual=None
        if images is None
        else _stream("counterfactual", images, per_update=params.counterfactuals_per_update, params=params),
        seed=seed,
        image_size=params.image_size,
        smallest_crop=params.smallest_crop,
        updates=schedule.updates(len(real)),
        rank=fabric.global_rank,
        ranks=fabric.world_size,
    )
    training = invariant(
        module,
        pictures=len(real),
        batches=lambda start: batches(mixture, start=start, workers=params.workers, device=fabric.device.type),
        prepare=normalized,
        schedule=schedule,
        seed=seed,
        fabric=fabric,
    )
    counts = {"real": len(real), "counterfactual": 0 if images is None else len(images)}
    facts = {
        "classes": collection.classes,
        "class_names": list(collection.class_names),
        "backbone": params.backbone,
        "heads": list(HEADS[arm]),
        "batch_norm": params.batch_norm,
        "image_size": params.image_size,
    }
    return Course(module=module, facts=facts, train=partial(_train, training, counts=counts, strays=strays))


def _train(
    training: Classifying[Batch], folder: Path, sink: MetricSink, *, counts: dict[str, int], strays: tuple[str, ...]
) -> Trained:
    outcome = training.run(folder, sink=sink)
    return Trained(
        measured=outcome.measured,
        told={
            "images": counts,
            "updates": outcome.updates,
            "unreadable": list(outcome.unreadable),
            "left_out": list(strays),
        },
        images_per_second=outcome.images_per_second,
        seconds=outcome.seconds,
    )


def _real(collection: Collection) -> tuple[Pool, tuple[str, ...]]:
    """The training pictures, as prepare found them, and sentences on what lies among them and is left out."""
    folder = collection.unchanged("train")
    if (folder / MANIFEST).is_file():
        return open_tars(folder, split="train", classes=collection.classes, mechanisms=("shape",)), ()
    listing = class_folders(folder, classes=collection.class_names)
    return Folders(listing), tuple(map(str, listing.strays))


def _counterfactuals(folder: Path, *, variant: str, collection: Collection) -> Pool:
    refuse_foreign(read_manifest(folder).facts, source=folder, track=TRACK, variant=variant)
    return open_tars(folder, split="counterfactual", classes=collection.classes, mechanisms=MECHANISMS)


def _stream(name: str, pool: Pool, *, per_update: int, params: TrainClassifier) -> Stream:
    return Stream(name=name, pool=pool if params.workers else Kept(pool), per_update=per_update)


def _initial(params: TrainClassifier, *, arm: str, classes: int, assets: Path | None, seed: int) -> Ensemble:
    """The arm's module with its first weights; what is drawn comes from the arm's own stream, no other is moved."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(derive(seed, "weights"))
        if params.pretrained == "none":
            net = network(params.backbone, classes=classes)
        else:
            assert assets is not None
            net = load_network(params.backbone, assets / f"{params.pretrained}.pth", classes=CLASSES)
        start: Start = "copied" if params.pretrained != "none" and classes == CLASSES else "drawn"
        return Ensemble(net, classes=classes, heads=HEADS[arm], start=start, batch_norm=params.batch_norm).train()

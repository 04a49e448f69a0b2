"""Train the ensemble of invariant classifiers or its baseline (Sauer & Geiger, ICLR 2021, section 4.2).

The ensemble has one head each for shape, texture and background on one backbone. Real images train the mean of the
heads' logits; counterfactuals train each head on the label of its mechanism. One forward pass takes both, so that one
SGD step has the gradients of both and a trained BatchNorm the statistics of their mixture. The baseline is the same
training with one head and without counterfactuals. Real images are the set `train` of prepare. An epoch is one pass
through them, in full batches. All random numbers of an arm are seeded by its name.

Shapes: R real pictures and C counterfactuals in a batch, S image size, K classes.
"""

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from cgn.config.imagenet import TrainClassifier
from cgn.core.checkpoints import save_model
from cgn.core.devices import open_fabric
from cgn.core.errors import ConfigError
from cgn.core.facts import refuse_foreign
from cgn.core.files import MANIFEST, write_json
from cgn.core.launch import launch
from cgn.core.metrics import MetricSink
from cgn.core.parallel import ahead
from cgn.core.parameters import Cluster, Input, OptionalInput, Output
from cgn.core.seeding import derive
from cgn.data.shards import read_manifest
from cgn.imagenet.classifiers import HEADS, TRACK
from cgn.imagenet.data.datasets import CachedDataset, FolderDataset, ImageDataset, open_shards
from cgn.imagenet.data.image_folders import class_folders
from cgn.imagenet.data.mixing import MixedBatch, Mixture, Stream, mixed_batches
from cgn.imagenet.data.prepared_sets import PreparedSets, read_prepared_sets
from cgn.imagenet.data.preprocessing import normalized
from cgn.losses import head_cross_entropies, mean_logits_cross_entropy
from cgn.nets.classifiers import MECHANISMS, Ensemble, Start, load_network, network
from cgn.training import MODEL, STATE, TRAINING, Training, batch_accuracy, finished

if TYPE_CHECKING:
    from lightning_fabric import Fabric

Scalars = dict[str, torch.Tensor]
CLASSES = 1000
"""Classes of the pretrained backbones."""


def train_classifier(
    config: TrainClassifier,
    *,
    seed: int,
    variant: str,
    data: Input,
    images: OptionalInput = None,
    assets: OptionalInput = None,
    classifier: Output,
    arm: str,
    ray: Cluster = "",
    sink: MetricSink,
) -> None:
    """Train `arm`, one process for each device; write model.safetensors and training.json into `classifier`."""
    check(config, variant=variant, images=images, assets=assets, arm=arm)
    if finished(classifier, sink=sink, track=TRACK, variant=variant, arm=arm):
        return
    work = partial(
        train,
        config,
        seed=derive(derive(seed, "train_classifier"), arm),
        variant=variant,
        data=data,
        images=images,
        assets=assets,
        classifier=classifier,
        arm=arm,
    )
    launch(
        work,
        accelerator=config.accelerator,
        devices=config.devices,
        batch_size=config.batch_size,
        folder=classifier,
        ray=ray,
        sink=sink,
    )
    (classifier / STATE).unlink(missing_ok=True)


def check(
    config: TrainClassifier, *, variant: str, images: Path | None, assets: Path | None, arm: str, **_: object
) -> None:
    """Raise ConfigError for wrong arguments, before anything is written."""
    if arm not in HEADS:
        raise ConfigError(f"--arm is {arm!r}, allowed: {', '.join(HEADS)}")
    needed = {"images": arm == "ensemble", "assets": config.pretrained != "none"}
    if missing := [name for name, folder in (("images", images), ("assets", assets)) if needed[name] and not folder]:
        raise ConfigError(f"arm {arm!r} of {TRACK}/{variant} needs --{missing[0]}: give that folder")


def train(
    config: TrainClassifier,
    sink: MetricSink,
    *,
    seed: int,
    variant: str,
    data: Path,
    images: Path | None,
    assets: Path | None,
    classifier: Path,
    arm: str,
) -> None:
    """The training in one process. All processes hold the same weights; the first one writes."""
    fabric = open_fabric(accelerator=config.accelerator, precision=config.precision, devices=config.devices)
    for name, number in (("batch_size", config.batch_size), ("counterfactuals", config.counterfactuals_per_update)):
        if number % fabric.world_size:
            raise ConfigError(
                f"train_classifier takes {number} images of a batch as {name}, but {fabric.world_size} processes share "
                "it evenly: set batch_size and batch_size * counterfactuals_per_real to multiples, or start fewer"
            )
    collection = read_prepared_sets(data)
    refuse_foreign(collection.facts, source=data, track=TRACK, variant=variant)
    real, strays = real_pictures(collection)
    module = initial_ensemble(config, arm=arm, classes=collection.classes, assets=assets, seed=seed)
    counterfactual_images = mixed_in = None
    if arm == "ensemble":
        assert images is not None
        counterfactual_images = counterfactuals(images, variant=variant, collection=collection)
        mixed_in = _image_stream(
            "counterfactual", counterfactual_images, per_update=config.counterfactuals_per_update, config=config
        )
    mixture = Mixture(
        real=_image_stream("real", real, per_update=config.batch_size, config=config),
        counterfactual=mixed_in,
        seed=seed,
        image_size=config.image_size,
        smallest_crop=config.smallest_crop,
        updates=epoch_ends(config, pictures=len(real))[-1],
        rank=fabric.global_rank,
        ranks=fabric.world_size,
    )
    training = fit(config, module, mixture, pictures=len(real), seed=seed, folder=classifier, fabric=fabric, sink=sink)
    if not fabric.is_global_zero:
        return

    measured = training.means.epoch()
    sink.summary({**measured, **training.pace})
    counts = {"real": len(real), "counterfactual": len(counterfactual_images or ())}
    notes: dict[str, object] = {"unreadable": list(training.means.unreadable), "left_out": list(strays)}
    notes |= {"device": fabric.device.type}
    write_json(classifier / TRAINING, {**measured, "images": counts, "updates": training.update, **notes})
    facts = classifier_facts(config, variant=variant, arm=arm, collection=collection)
    save_model(classifier / MODEL, module.state_dict(), facts=facts)  # last: a model file means a finished arm


def classifier_facts(config: TrainClassifier, *, variant: str, arm: str, collection: PreparedSets) -> dict[str, object]:
    """What a model file says of itself; `cgn.imagenet.classifiers` rebuilds the network from it."""
    return {
        "track": TRACK,
        "variant": variant,
        "arm": arm,
        "classes": collection.classes,
        "class_names": list(collection.class_names),
        "backbone": config.backbone,
        "heads": list(HEADS[arm]),
        "batch_norm": config.batch_norm,
        "image_size": config.image_size,
    }


def fit(
    config: TrainClassifier,
    module: Ensemble,
    mixture: Mixture,
    *,
    pictures: int,
    seed: int,
    folder: Path,
    fabric: "Fabric",
    sink: MetricSink,
) -> Training:
    """Train the module on all batches of the mixture, from the checkpoint in `folder` if it has one.

    `pictures`: the number of real ones in an epoch.
    """
    module.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # a quarter cheaper on one core
    if fabric.world_size > 1 and fabric.device.type == "cuda":  # statistics of the whole batch, as one process has
        torch.nn.SyncBatchNorm.convert_sync_batchnorm(module)  # type: ignore[no-untyped-call]
    ensemble = fabric.setup_module(module)
    optimizer = torch.optim.SGD(
        module.parameters(),
        lr=config.learning_rate,
        momentum=config.momentum,
        weight_decay=config.weight_decay,
        foreach=True,
    )
    training = Training(
        folder,
        fabric=fabric,
        sink=sink,
        seed=seed,
        updates=mixture.updates,
        epoch_ends=epoch_ends(config, pictures=pictures),
        modules={"classifier": module},
        optimizers={"classifier": optimizer},
        log_every=config.log_updates,
        checkpoint_every=config.checkpoint_updates,
    )
    ready = mixed_batches(mixture, start=training.update, workers=config.workers, device=fabric.device.type)
    if config.workers == 0:  # workers read ahead themselves
        ready = ahead(ready)
    ensemble.train()
    for _, batch in zip(training, ready, strict=False):  # the training ends first
        for group in optimizer.param_groups:
            group["lr"] = config.learning_rate * config.decay_factor ** (training.epoch // config.decay_epochs)
        training.seed_global(fabric.global_rank)  # of dropout
        losses, hits = batch_losses(ensemble, batch, device=fabric.device)
        optimizer.zero_grad()
        fabric.backward(torch.stack(list(losses.values())).sum())
        optimizer.step()
        shown = {f"loss/{name}": loss for name, loss in losses.items()}
        shown |= {f"accuracy/{name}": hit for name, hit in hits.items()}
        training.means.add(shown, images=len(batch.pixels), unreadable=batch.unreadable)
    assert training.update == training.updates, "the batches ended before the training"
    return training


def batch_losses(ensemble: torch.nn.Module, batch: MixedBatch, *, device: torch.device) -> tuple[Scalars, Scalars]:
    """Losses and accuracies: of the heads' mean logits on real pictures, and of each head on counterfactuals."""
    pixels, label = (tensor.to(device, non_blocking=True) for tensor in (batch.pixels, batch.label))
    labels = {head: values.to(device, non_blocking=True) for head, values in batch.labels.items()}
    logits = ensemble(normalized(pixels).contiguous(memory_format=torch.channels_last))  # head -> (R+C,K)
    real = {head: values[: len(label)] for head, values in logits.items()}
    mixed = {head: values[len(label) :] for head, values in logits.items()} if labels else {}
    losses = {"real": mean_logits_cross_entropy(real, label), **head_cross_entropies(mixed, labels)}
    mean = torch.stack(list(real.values())).mean(0)
    return losses, {
        "real": batch_accuracy(mean, label),
        **{head: batch_accuracy(mixed[head], labels[head]) for head in mixed},
    }


def epoch_ends(config: TrainClassifier, *, pictures: int) -> list[int]:
    """The number of updates after which each pass through the real pictures ends, rounded up."""
    return [-(-epoch * pictures // config.batch_size) for epoch in range(1, config.epochs + 1)]


def real_pictures(collection: PreparedSets) -> tuple[ImageDataset, tuple[str, ...]]:
    """The training pictures, unchanged since prepare, and a message for each file in their folder that is left out."""
    folder = collection.unchanged("train")
    if (folder / MANIFEST).is_file():
        return open_shards(folder, split="train", classes=collection.classes, mechanisms=("shape",)), ()
    listing = class_folders(folder, classes=collection.class_names)
    return FolderDataset(listing), tuple(map(str, listing.strays))


def counterfactuals(folder: Path, *, variant: str, collection: PreparedSets) -> ImageDataset:
    """The counterfactuals of generate for this variant; their labels are checked against the collection's classes."""
    refuse_foreign(read_manifest(folder).facts, source=folder, track=TRACK, variant=variant)
    return open_shards(folder, split="counterfactual", classes=collection.classes, mechanisms=MECHANISMS)


def _image_stream(name: str, dataset: ImageDataset, *, per_update: int, config: TrainClassifier) -> Stream:
    """With `workers` 0 this process caches decoded images, which suits a small set; workers decode them each time."""
    return Stream(name=name, dataset=dataset if config.workers else CachedDataset(dataset), per_update=per_update)


def initial_ensemble(config: TrainClassifier, *, arm: str, classes: int, assets: Path | None, seed: int) -> Ensemble:
    """The arm's module with its initial weights, drawn from the arm's own stream; the global stream does not change."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(derive(seed, "weights"))
        if config.pretrained == "none":
            net = network(config.backbone, classes=classes)
        else:
            assert assets is not None
            net = load_network(config.backbone, assets / f"{config.pretrained}.pth", classes=CLASSES)
        start: Start = "copied" if config.pretrained != "none" and classes == CLASSES else "drawn"
        return Ensemble(net, classes=classes, heads=HEADS[arm], start=start, batch_norm=config.batch_norm).train()

"""Train one MNIST classifier: the label of the shape, from original images, generated ones or both.

An arm is a list of sources, joined in that order and shuffled anew each epoch (the last batch may be smaller). All of
its randomness comes from streams that bear its name, so arms are independent draws of one experiment, whichever of
them run. An arm that reads no generated images can be trained without their folder, and then does not depend on it.
Shapes: N images, B batch, S image size, K classes.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Literal

import torch
from torch.nn import functional

from cgn.config.mnist import CLASSES, TrainClassifier
from cgn.core.checkpoints import save_model
from cgn.core.devices import fits, open_fabric
from cgn.core.errors import ArtifactError, ConfigError
from cgn.core.facts import refuse_foreign
from cgn.core.files import write_json
from cgn.core.metrics import MetricSink
from cgn.core.parallel import concurrently
from cgn.core.parameters import Input, OptionalInput, Output
from cgn.core.seeding import derive
from cgn.data.shards import load_split, read_manifest
from cgn.nets.classifiers import Cnn
from cgn.training import MODEL, STATE, TRAINING, Training, batch_accuracy, finished, permutation

Role = Literal["data", "images"]
SOURCES: dict[str, tuple[tuple[Role, str], ...]] = {
    "original": (("data", "train"),),
    "gan": (("images", "factual"),),
    "counterfactual": (("images", "counterfactual"),),
    "original_counterfactual": (("data", "train"), ("images", "counterfactual")),
}
"""Arm -> its training images: the option that names a folder, and a split in it."""


def train_classifier(
    config: TrainClassifier,
    *,
    seed: int,
    variant: str,
    data: Input,
    images: OptionalInput = None,
    classifier: Output,
    arm: str,
    sink: MetricSink,
) -> None:
    """Train `arm` from the checkpoint in `classifier` (or the start); write model.safetensors and training.json."""
    check(config, variant=variant, images=images, arm=arm)
    folders: dict[Role, Path] = {"data": data} if images is None else {"data": data, "images": images}
    if finished(classifier, sink=sink, track="mnist", variant=variant, arm=arm):
        return

    fabric = open_fabric(accelerator=config.accelerator, precision=config.precision)
    refuse_mixture(folders, variant=variant)
    examples = load_examples(arm, folders)
    image_size = int(examples.pixels.shape[1])
    module = initial_classifier(derive(seed, "train_classifier", arm, "weights"))
    module.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # a quarter cheaper on one core
    module.to(fabric.device)
    optimizer = torch.optim.Adadelta(module.parameters(), lr=config.learning_rate, foreach=True)
    per_epoch = -(-len(examples.labels) // config.batch_size)
    order_seed = derive(seed, "train_classifier", arm, "order")
    training = Training(
        classifier,
        fabric=fabric,
        sink=sink,
        seed=order_seed,
        updates=config.epochs * per_epoch,
        epoch_ends=range(per_epoch, config.epochs * per_epoch + 1, per_epoch),
        modules={"classifier": module},
        optimizers={"classifier": optimizer},
        log_every=config.log_updates,
        checkpoint_every=config.checkpoint_updates,
    )
    examples = examples.near(fabric.device)
    with fits(config.batch_size):
        module.train()
        for update in training:
            for group in optimizer.param_groups:
                group["lr"] = config.learning_rate * config.decay_per_epoch**training.epoch
            batch = examples.batch(update, batch_size=config.batch_size, seed=order_seed).to(fabric.device)
            with fabric.autocast():
                loss, log_probabilities = backward(module, batch)
            optimizer.step()
            shown = {"loss": loss, "running_accuracy": batch_accuracy(log_probabilities, batch.labels)}
            training.means.add(shown, images=len(batch.labels))

    measured = training.means.epoch()
    sink.summary({**measured, **training.pace})
    about = {"images": len(examples.labels), "updates": training.update, "device": fabric.device.type}
    write_json(classifier / TRAINING, {**measured, **about})
    # Last: a model file means a finished arm.
    facts = {"track": "mnist", "variant": variant, "arm": arm, "classes": CLASSES, "image_size": image_size}
    save_model(classifier / MODEL, module.state_dict(), facts=facts)
    (classifier / STATE).unlink(missing_ok=True)


def check(_config: TrainClassifier, *, variant: str, images: Path | None, arm: str, **_: object) -> None:
    """Raises ConfigError for what can be refused before anything is written."""
    if arm not in SOURCES:
        raise ConfigError(f"--arm is {arm!r}, allowed: {', '.join(SOURCES)}")
    if images is None and any(role == "images" for role, _split in SOURCES[arm]):
        raise ConfigError(f"arm {arm!r} of mnist/{variant} needs --images: give that folder")


@dataclass(frozen=True, kw_only=True)
class Examples:
    """`pixels`: (N,S,S,3) uint8. `labels`: (N,) int64. A batch of them is the same thing."""

    pixels: torch.Tensor
    labels: torch.Tensor

    def to(self, device: torch.device) -> "Examples":
        """The same on another device."""
        return Examples(pixels=self.pixels.to(device), labels=self.labels.to(device))

    def near(self, device: torch.device) -> "Examples":
        """On a GPU where they take at most half of its free memory; else batches are gathered on the CPU."""
        if device.type != "cuda" or self.pixels.nbytes > torch.cuda.mem_get_info(device)[0] // 2:
            return self
        return self.to(device)

    def batch(self, update: int, *, batch_size: int, seed: int) -> "Examples":
        """An epoch is a permutation, a pure function of (seed, epoch), its incomplete last batch included."""
        epoch, place = divmod(update, -(-len(self.labels) // batch_size))
        order = permutation(len(self.labels), seed=seed, epoch=epoch)
        chosen = order[place * batch_size : (place + 1) * batch_size].to(self.labels.device)
        return Examples(pixels=self.pixels.index_select(0, chosen), labels=self.labels.index_select(0, chosen))

    def images(self) -> torch.Tensor:
        """(N,3,S,S) in [-1,1], channels last."""
        return self.pixels.permute(0, 3, 1, 2).to(torch.float32).div_(127.5).sub_(1)


def backward(module: Cnn, batch: Examples) -> tuple[torch.Tensor, torch.Tensor]:
    """The loss, a scalar, and log-probabilities (B,K) of a batch; the parameters' `grad` is set.

    On a CPU each half of the batch is computed on a core of its own, whether or not there are two; the halves'
    gradients are added in their order, so the bytes are the same.
    """
    device = batch.labels.device
    halves = 2 if device.type == "cpu" else 1
    parts = zip(module.normalize(batch.images()).chunk(halves), batch.labels.chunk(halves), strict=True)
    share = partial(_share, module, count=len(batch.labels))
    computed = concurrently(*(partial(share, images, labels) for images, labels in parts), device=device)
    losses, log_probabilities, gradients = zip(*computed, strict=True)
    for parameter, *summands in zip(module.parameters(), *gradients, strict=True):
        parameter.grad = summands[0] if len(summands) == 1 else torch.add(*summands)
    return torch.stack(losses).sum(), torch.cat(log_probabilities)


def _share(
    module: Cnn, images: torch.Tensor, labels: torch.Tensor, *, count: int
) -> tuple[torch.Tensor, torch.Tensor, tuple[torch.Tensor, ...]]:
    """Some normalized images of a batch of `count` -> their share of the loss, log-probabilities, gradients."""
    log_probabilities = module.classify(images).float()
    loss = functional.nll_loss(log_probabilities, labels, reduction="sum") / count
    with torch.autocast(labels.device.type, enabled=False):
        gradients = torch.autograd.grad(loss, tuple(module.parameters()))
    return loss.detach(), log_probabilities.detach(), gradients


def initial_classifier(seed: int) -> Cnn:
    """A classifier with initial weights from a stream of its own; the global stream is left as it was."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return Cnn(classes=CLASSES)


def refuse_mixture(folders: Mapping[Role, Path], *, variant: str) -> None:
    """All folders must be of this variant and hold images of one size, also where the arm reads only one of them."""
    facts = {role: read_manifest(folder).facts for role, folder in folders.items()}
    for role, folder in folders.items():
        refuse_foreign(facts[role], source=folder, track="mnist", variant=variant)
    sizes = {role: given["image_size"] for role, given in facts.items() if "image_size" in given}
    if len(set(sizes.values())) > 1:
        shown = " and ".join(f"--{role} {folders[role]} has images of {size} pixels" for role, size in sizes.items())
        raise ArtifactError(f"{shown}: make the images again from a network that was trained on this data")


def load_examples(arm: str, folders: Mapping[Role, Path]) -> Examples:
    """The arm's images and shape labels, source after source, in memory."""
    sources = [(folders[role], split) for role, split in SOURCES[arm]]
    loaded = [load_split(folder, split=split) for folder, split in sources]
    first = f"{sources[0][0]}, split {sources[0][1]}"
    for (folder, split), images in zip(sources, loaded, strict=True):
        where = f"{folder}, split {split}"
        if images.pixels.shape[1:] != loaded[0].pixels.shape[1:]:
            sizes = (tuple(part.pixels.shape[1:3]) for part in (images, loaded[0]))
            raise ArtifactError(f"{where} and {first} hold images of different sizes, {' and '.join(map(str, sizes))}")
        low, high = int(images.labels["shape"].min()), int(images.labels["shape"].max())
        if low < 0 or high >= CLASSES:
            raise ArtifactError(f"{where} has shape labels {low} to {high}, allowed: 0 to {CLASSES - 1}")
    if len(loaded) == 1:
        return Examples(pixels=loaded[0].pixels, labels=loaded[0].labels["shape"])
    return Examples(
        pixels=torch.cat([images.pixels for images in loaded]),
        labels=torch.cat([images.labels["shape"] for images in loaded]),
    )

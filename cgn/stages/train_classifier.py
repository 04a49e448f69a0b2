"""train_classifier: original images, generated ones or both -> one classifier, an arm of the comparison.

Decided here: what an arm is made of, its track says; all of an arm's randomness (initial weights, order of the images)
comes from streams that bear its name, so arms are independent draws of one experiment, whichever of them run, in
whatever order. An arm that reads no generated images can be trained without their folder, and then does not depend on
it. model.safetensors is written last and marks a finished arm; the training state is dropped then.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol

import torch

from cgn.core.checkpoints import load_model, save_model
from cgn.core.devices import at_hand, fabric
from cgn.core.errors import ConfigError
from cgn.core.files import read_object, write_json
from cgn.core.metrics import MetricSink
from cgn.core.ranks import together
from cgn.core.roles import Input, OptionalInput, Output

if TYPE_CHECKING:
    from lightning_fabric import Fabric

MODEL = "model.safetensors"
TRAINING = "training.json"
STATE = "state.pt"
Role = Literal["data", "images", "assets"]
Folders = Mapping[Role, Path]


@dataclass(frozen=True, kw_only=True)
class Trained:
    """What a training measured of itself (`measured`, numbers), what else is told of it, and how fast it was."""

    measured: Mapping[str, float]
    told: Mapping[str, Any]
    images_per_second: float
    seconds: float


@dataclass(frozen=True, kw_only=True)
class Course:
    """An arm, ready to be trained: `facts` are what else than track, variant and arm its file says of the module."""

    module: torch.nn.Module
    facts: Mapping[str, Any]
    train: Callable[[Path, MetricSink], Trained]
    """From the checkpoint STATE in the folder, or from the start, to the end."""


class Make(Protocol):
    """Builds an arm on a device. Raises ArtifactError for folders that do not fit the track, variant or each other."""

    def __call__(self, *, arm: str, folders: Folders, fabric: "Fabric") -> Course: ...


@dataclass(frozen=True, kw_only=True)
class Parts:
    """What train_classifier needs from a track. With several devices it travels to their processes."""

    track: str
    variant: str
    arms: Mapping[str, Sequence[Role]]
    """Arm -> the inputs that it cannot do without."""
    make: Make
    accelerator: str
    devices: int
    precision: str


def train_classifier(
    parts: Parts,
    *,
    data: Input,
    images: OptionalInput = None,
    assets: OptionalInput = None,
    classifier: Output,
    arm: str,
    sink: MetricSink,
) -> None:
    """Train `arm` from the checkpoint in `classifier` (or the start) to the end; write the model and training.json."""
    folders = check(parts, data=data, images=images, assets=assets, arm=arm)
    if (classifier / MODEL).is_file():
        # Finished by an earlier run of the same definition: only check it.
        load_model(classifier / MODEL, track=parts.track, variant=parts.variant, arm=arm)
        told = read_object(classifier / TRAINING)
        sink.summary({name: value for name, value in told.items() if isinstance(value, float)})
    else:
        at_hand(parts.accelerator, devices=parts.devices)  # refused here, before any process starts
        work = partial(_train, parts, folders=folders, classifier=classifier, arm=arm)
        together(work, processes=parts.devices, sink=sink)
    (classifier / STATE).unlink(missing_ok=True)


def check(parts: Parts, *, data: Path, images: Path | None, assets: Path | None, arm: str) -> Folders:
    """The folders that are given. Raises ConfigError for what can be refused before anything is written."""
    if arm not in parts.arms:
        raise ConfigError(f"--arm is {arm!r}, allowed: {', '.join(parts.arms)}")
    given: dict[Role, Path | None] = {"data": data, "images": images, "assets": assets}
    folders = {role: folder for role, folder in given.items() if folder is not None}
    if lacking := [role for role in parts.arms[arm] if role not in folders]:
        raise ConfigError(f"arm {arm!r} of {parts.track}/{parts.variant} needs --{lacking[0]}: give that folder")
    return folders


def _train(parts: Parts, sink: MetricSink, *, folders: Folders, classifier: Path, arm: str) -> None:
    """In one process or in each of several: they hold the same weights, and the first one writes."""
    device = fabric(
        accelerator=parts.accelerator,
        devices=parts.devices,
        precision=parts.precision,
    )
    course = parts.make(arm=arm, folders=folders, fabric=device)
    trained = course.train(classifier, sink)
    if not device.is_global_zero:
        return
    took = {"images_per_second": trained.images_per_second, "seconds": trained.seconds}
    sink.summary({**trained.measured, **took})
    told = {**trained.measured, **trained.told, "device": device.device.type}
    write_json(classifier / TRAINING, told)
    facts = {"track": parts.track, "variant": parts.variant, "arm": arm, **course.facts}
    save_model(classifier / MODEL, course.module.state_dict(), facts=facts)
